"""Access: every RPC, every role, own unit, other unit, all units."""

from __future__ import annotations

import shutil
from pathlib import Path

import cedarpy
import pytest

from assay.errors import InvalidInputError
from assay.v1 import (
    approval_pb2,
    audit_pb2,
    dataset_pb2,
    erasure_pb2,
    identity_pb2,
    lineage_pb2,
    model_pb2,
    permit_pb2,
    policy_pb2,
    tuning_job_pb2,
)
from policies.authorization import ACCESS, CedarAuthorizer, Principal
from policies.engine import PolicyEngine
from tests.policies.packs import replace

FILES = (
    approval_pb2, audit_pb2, dataset_pb2, erasure_pb2, identity_pb2, lineage_pb2, model_pb2, permit_pb2, policy_pb2,
    tuning_job_pb2,
)  # fmt: skip
ROLES = [name for name in identity_pb2.Role.keys() if name != "ROLE_UNSPECIFIED"]
R, C, V, D, A, O = ("requester", "compliance_officer", "validator", "deployer", "auditor", "operator")  # noqa: E741

# Roles that may do it in the unit where they hold; `any` means any role anywhere, `everybody` needs none.
TABLE: dict[str, set[str]] = {
    "UploadDataset": {R},
    "ImportDataset": {R},
    "GetDataset": {R, C, V, A},
    "ListDatasets": {R, C, V, A},
    "CreateTuningJob": {R},
    "GetTuningJob": {R, C, V, D, A},
    "ReplayTuningJob": {C, V, A},
    "ListTuningJobs": {R, C, V, D, A},
    "WatchTuningJob": {R, C, V, D, A},
    "CancelTuningJob": {R, C},
    "PauseTuningJob": {R, C},
    "ResumeTuningJob": {R, C},
    "AppealTuningJob": {R},
    "GetModel": {R, C, V, D, A},
    "ListModels": {R, C, V, D, A},
    "DownloadCard": {R, C, V, D, A},
    "DownloadAdapter": {V, D},
    "ListPendingApprovals": {C, V, A},
    "DecideApproval": {C, V},
    "WaiveRules": {C, V},
    "DismissAppeal": {C},
    "RaiseBudget": {C},
    "RevokeApproval": {C},
    "GetLineage": {C, A},
    "EraseResource": {C},
    "IssuePermit": {D},
    "CheckPermit": {C, D, A},
    "RevokePermit": {C, D},
    "ListRecords": {R, C, V, D, A},
    "ExportBundle": {R, C, V, D, A},
    "GetInclusionProof": {"any"},
    "GetConsistencyProof": {"any"},
    "GetCheckpoint": {"any"},
    "ListPolicies": {"any"},
    "EvaluatePolicy": {"any"},
    "ExplainPolicy": {"any"},
    "ListPrecedents": {R, C, V, D, A},
    "WhoAmI": {"everybody"},
    "ListRoleGrants": {"anywhere", A, O},
    "GrantRole": {"installation", O},
    "RevokeRole": {"installation", O},
}


@pytest.fixture(scope="module")
def authorizer() -> CedarAuthorizer:
    return CedarAuthorizer.load()


def expected(action: str, role: str, held: str, asked: str) -> bool:
    roles = TABLE[action]
    if roles & {"any", "everybody"}:
        return True
    if role not in roles:
        return False
    if "anywhere" in roles:
        return True
    if "installation" in roles:
        return held == "-"
    if action in ("ListPendingApprovals", "ListPrecedents") and asked == "-":
        return True
    if action in ("ListRecords", "ExportBundle") and asked == "-":
        return role == "auditor" and held == "-"
    return held in (asked, "-")


def test_the_table_covers_every_rpc_of_the_public_services() -> None:
    methods = {m.name for f in FILES for s in f.DESCRIPTOR.services_by_name.values() for m in s.methods}
    assert methods == set(TABLE)


@pytest.mark.parametrize("action", sorted(TABLE))
@pytest.mark.parametrize("role", ROLES)
def test_every_action_by_every_role_in_every_place(authorizer: CedarAuthorizer, action: str, role: str) -> None:
    word = role.removeprefix("ROLE_").lower()
    for held in ("credit", "support", "-"):
        for asked in ("credit", "-"):
            for spelled in (role, word):
                principal = Principal("spiffe://assay.local/people/p", frozenset({(spelled, held)}))
                answer = authorizer.authorize(principal, action, asked)
                assert answer.allowed == expected(action, word, held, asked), (action, role, held, asked)
                assert answer.reasons or not answer.allowed


def test_every_role_that_may_waive_a_rule_may_sign_a_waiver() -> None:
    """Else nobody could sign: the rule asks for the role, and access for another."""
    asked = {rule.waivable_by.removeprefix("ROLE_").lower() for rule in PolicyEngine.load().pack.rules}
    assert asked - {""} <= TABLE["WaiveRules"]


@pytest.mark.parametrize("action", sorted(TABLE))
def test_without_a_grant_nothing_but_asking_who_one_is(authorizer: CedarAuthorizer, action: str) -> None:
    nobody = Principal("spiffe://assay.local/people/p", frozenset())
    assert authorizer.authorize(nobody, action, "credit").allowed == (action == "WhoAmI")


@pytest.mark.parametrize("action", ["Nothing", "", "SubmitTask", "getmodel", 'GetModel" ,', "GetModel\n"])
def test_an_unknown_action_is_refused(authorizer: CedarAuthorizer, action: str) -> None:
    everything = Principal("p", frozenset((role, "-") for role in ROLES))
    assert not authorizer.authorize(everything, action, "credit").allowed


def test_odd_names_neither_crash_nor_match(authorizer: CedarAuthorizer) -> None:
    odd = Principal('p"; permit(principal, action, resource);\n', frozenset({("ROLE_REQUESTER", 'credit" || true')}))
    assert not authorizer.authorize(odd, "GetDataset", "credit").allowed
    assert authorizer.authorize(odd, "WhoAmI", "-").allowed
    unknown = Principal("p", frozenset({("ROLE_ROOT", "-"), ("", "-")}))
    assert not authorizer.authorize(unknown, "GetDataset", "credit").allowed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('Action::"WhoAmI"', 'Action::"WhoIAm"'),
        ("principal.roles.isEmpty()", "principal.role.isEmpty()"),
        ("principal.roles.containsAny", "principal.roles.containsMost"),
        ("permit (principal, action == ", "permit (principal, action = "),
    ],
)
def test_a_faulty_policy_does_not_load(tmp_path: Path, old: str, new: str) -> None:
    folder = tmp_path / "access"
    shutil.copytree(ACCESS, folder)
    replace(folder / "access.cedar", old, new)
    with pytest.raises(InvalidInputError) as caught:
        CedarAuthorizer.load(folder)
    assert caught.value.reason == "ACCESS_POLICY"


def test_a_missing_policy_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        CedarAuthorizer.load(tmp_path)


def test_what_the_engine_cannot_decide_is_refused() -> None:
    """Cedar leaves a rule out that fails when it is evaluated; were it a forbid, that would be a hole."""
    text = (ACCESS / "access.cedar").read_text()
    failing = 'forbid (principal, action, resource) when { resource.name like "*" && 9223372036854775807 + 1 > 0 };'
    schema = cedarpy.Schema.from_str((ACCESS / "schema.cedarschema").read_text())
    rita = Principal("spiffe://assay.local/people/rita", frozenset({("requester", "credit")}))
    answers = [
        CedarAuthorizer(cedarpy.PolicySet.from_str(policies), schema).authorize(rita, "GetDataset", "credit")
        for policies in (text, f"{text}\n{failing}")
    ]
    assert [answer.allowed for answer in answers] == [True, False]
    assert answers[0].reasons == answers[1].reasons, "it was the forbid that decided, which did not fail"
