"""Acts at the command line: which call each makes, with what in it, and what is signed; no gateway runs."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from google.protobuf import json_format

from assay import dsse
from assay.digests import sha256_bytes
from assay.identity import Layout
from assay.v1 import audit_pb2, erasure_pb2, permit_pb2, policy_input_pb2, policy_pb2, tuning_job_pb2
from audit.ledger import tree
from audit.ledger.mldsa import MLDSAVerifier
from audit.ledger.note import Checkpoint, sign_note
from audit.verify.trust import TrustFile
from gateway.cli import approval, audit, erase, job, permit, policy
from gateway.statements import commitment_of
from tests.audit.ledger.ledger_world import cosigned, witness_lines
from tests.audit.verify.forge import LOG_KEY, ORIGIN, plain_trust
from tests.gateway.test_cli_faults import play, run

JOB, PERMIT = "units/support/tuningJobs/x", "units/support/permits/p"
FOUND = tuning_job_pb2.TuningJob(name=JOB, etag="e" * 32)
WHY = ("--reason", "as agreed")


@dataclass
class Spy:
    """Every service of a gateway: notes what it is asked, and answers what a test laid down."""

    layout: Layout
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def __getattr__(self, method: str) -> Any:
        if not method[0].isupper():
            raise AttributeError(method)

        def call(request: Any) -> Any:
            self.asked.append((method, request))
            return self.answers[method]

        return call

    @property
    def acts(self) -> list[tuple[str, Any]]:
        """What it was asked beside looking at the job."""
        return [(method, request) for method, request in self.asked if method != "GetTuningJob"]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, pristine: Path) -> Spy:
    made = Spy(Layout(pristine))
    moved = ("Cancel", "Pause", "Resume", "Appeal", "Get")
    made.answers = {f"{verb}TuningJob": tuning_job_pb2.GetTuningJobResponse(tuning_job=FOUND) for verb in moved}
    made.answers |= dict.fromkeys(
        ("WaiveRules", "DismissAppeal", "RaiseBudget", "RevokeApproval"), made.answers["GetTuningJob"]
    )
    made.answers["RevokePermit"] = permit_pb2.RevokePermitResponse(permit=permit_pb2.Permit(name=PERMIT))
    made.answers["ListRecords"] = audit_pb2.ListRecordsResponse()
    services = dict.fromkeys(("jobs", "approvals", "permits", "audit", "policies"), made)
    for module in (approval, audit, job, permit, policy):
        play(monkeypatch, module, folder=made.layout.person("cora"), **services)
    return made


@pytest.mark.parametrize(
    ("words", "method", "members"),
    [
        (("job", "cancel", JOB, *WHY), "CancelTuningJob", {"name": JOB, "reason": "as agreed"}),
        (("job", "pause", JOB, *WHY), "PauseTuningJob", {"name": JOB, "reason": "as agreed"}),
        (("job", "resume", JOB, *WHY), "ResumeTuningJob", {"name": JOB, "reason": "as agreed"}),
        (
            ("job", "resume", JOB, *WHY, "--etag", "e"),
            "ResumeTuningJob",
            {"name": JOB, "reason": "as agreed", "etag": "e"},
        ),
        (("job", "appeal", JOB, *WHY), "AppealTuningJob", {"name": JOB, "reason": "as agreed"}),
        (("permit", "revoke", PERMIT, "--reason", "incident"), "RevokePermit", {"name": PERMIT, "reason": "incident"}),
        (
            ("audit", "records", "units/support", "--job", JOB, "--page-size", 7, "--page-token", "t"),
            "ListRecords",
            {"parent": "units/support", "tuning_job": JOB, "page_size": 7, "page_token": "t"},
        ),
    ],
    ids=lambda value: " ".join(map(str, value[:2])) if isinstance(value, tuple) else "",
)
def test_what_a_command_asks(spy: Spy, words: tuple[object, ...], method: str, members: dict[str, Any]) -> None:
    said = run(*words, code=0)
    ((called, request),) = spy.asked
    assert called == method and type(request).__name__ == f"{method}Request"
    assert json_format.MessageToDict(request, preserving_proto_field_name=True) == members
    assert method == "ListRecords" or str(members["name"]) in said


INSTEAD = ("--compensating-control", "a person reads along", "--expires", "2026-12-31")


@pytest.mark.parametrize(
    ("words", "method", "statement", "said"),
    [
        (
            ("waive", JOB, "--rule", "B", "--rule", "A", *WHY, *INSTEAD), "WaiveRules", "waiver",
            {"rules": ["A", "B"], "expires": "2026-12-31"},
        ),
        (("dismiss", JOB, *WHY), "DismissAppeal", "appeal-dismissal", {}),
        (("raise", JOB, "--max-usd", "2.5", *WHY), "RaiseBudget", "budget-raise", {"max_usd_micros": 2_500_000}),
        (("revoke", JOB, "--reason", "signer-left"), "RevokeApproval", "revocation", {"reason": "signer-left"}),
    ],
    ids=["waive", "dismiss", "raise", "revoke"],
)  # fmt: skip
def test_what_a_command_signs(
    spy: Spy, words: tuple[str, ...], method: str, statement: str, said: dict[str, Any]
) -> None:
    """The job's newest etag, the words by their commitments, and nothing but what was typed."""
    run("approval", *words, code=0)
    ((called, request),) = spy.acts
    assert (called, request.name, request.etag) == (method, JOB, FOUND.etag)
    root = TrustFile.load(spy.layout.trust).people_root
    signed = dsse.verify_person(dsse.envelope_from_proto(request.envelope), root, dt.datetime.now(dt.UTC))
    assert [signer.subject.rpartition("/")[2] for signer in signed.signers] == ["cora"]
    assert signed.predicate_name == statement
    typed = {"reason": "as agreed", "compensating_control": "a person reads along"}
    opened = {name: getattr(request, name) for name in typed if name in request.DESCRIPTOR.fields_by_name}
    assert {name: words.text for name, words in opened.items()} == {name: typed[name] for name in opened}
    committed = {f"{name}_commitment": commitment_of(words) for name, words in opened.items()}
    assert signed.predicate == {"job": JOB, "etag": FOUND.etag, **said, **committed}


ASK = ("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("approval", "waive", JOB, "--rule", "A", *WHY, *INSTEAD[:3], "31.12.2026"), "BAD_DATE"),
        (("approval", "revoke", JOB, "--reason", "boredom"), "REASON_CODE"),
        (("approval", "decide", "x", "--grant", *WHY), "BAD_NAME"),
        ((*ASK, "--use", "FILE"), "BAD_USE"),
        ((*ASK, "--artefact", "DPIA"), "BAD_ARTEFACT"),
        (("policy", "evaluate", "FILE"), "BAD_POLICY_INPUT"),
        (("policy", "evaluate", "FILE", "--stage", "release"), "BAD_POLICY_INPUT"),
        (("policy", "evaluate", "FILE", "--stage", "lunch"), "UNKNOWN_STAGE"),
    ],
    ids=str,
)
@pytest.mark.parametrize("data", [b'{"nothing": 1}', b"\xff"], ids=["member", "byte"])
def test_what_cannot_be_used_is_named_and_nothing_is_done(
    spy: Spy, tmp_path: Path, words: tuple[object, ...], reason: str, data: bytes
) -> None:
    (tmp_path / "odd.json").write_bytes(data)
    assert reason in run(*[tmp_path / "odd.json" if word == "FILE" else word for word in words])
    assert spy.acts == []


def test_a_declared_use_comes_with_its_documents_by_digest(spy: Spy, tmp_path: Path) -> None:
    (tmp_path / "use.json").write_text('{"jurisdictions": ["EU"]}')
    (tmp_path / "a.pdf").write_bytes(b"assessed")
    spy.answers["CreateTuningJob"] = spy.answers["GetTuningJob"]
    run(*ASK, "--use", tmp_path / "use.json", "--artefact", f"DPIA={tmp_path / 'a.pdf'}", code=0)
    ((_, request),) = spy.acts
    assert list(request.use.jurisdictions) == ["EU"]
    ((kind, sha256, title),) = [(a.kind, a.sha256, a.title) for a in request.use.artefacts]
    assert (kind, sha256, title) == ("DPIA", sha256_bytes(b"assessed"), "a.pdf")


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("stage", ["intake", "release"])
def test_policy_is_asked_what_it_would_say(spy: Spy, tmp_path: Path, stage: str, passed: bool) -> None:
    question = {"intake": policy_input_pb2.IntakeInput, "release": policy_input_pb2.ReleaseInput}[stage]()
    question.as_of = "2026-11-24"
    (tmp_path / "question.json").write_text(json_format.MessageToJson(question))
    verdict = policy_pb2.OUTCOME_PASS if passed else policy_pb2.OUTCOME_INCONCLUSIVE
    spy.answers["EvaluatePolicy"] = {
        "intake": policy_pb2.EvaluatePolicyResponse(decision=policy_pb2.Decision(allowed=passed)),
        "release": policy_pb2.EvaluatePolicyResponse(verdict=policy_pb2.Verdict(outcome=verdict)),
    }[stage]
    run("policy", "evaluate", tmp_path / "question.json", "--stage", stage, code=0 if passed else 6)
    ((_, request),) = spy.asked
    assert request.WhichOneof("input") == stage and getattr(request, stage) == question


# Proofs of a log of five records


BODIES = [b'{"record":%d}' % index for index in range(5)]
LEAVES = [tree.leaf_hash(body) for body in BODIES]


def read(nodes: Any) -> list[bytes]:
    return [tree.root_of(LEAVES[i << level : (i + 1) << level]) for level, i in nodes]


def note(size: int, root: bytes = b"") -> bytes:
    return sign_note(Checkpoint(ORIGIN, size, root or tree.root_of(LEAVES[:size])).text(), ORIGIN, LOG_KEY)


@pytest.fixture
def files(tmp_path: Path, pristine: Path) -> dict[str, Path]:
    """A trust file of the log, one of another, an older checkpoint, and one of another history."""
    named = {
        "TRUST": plain_trust().encode(),
        "STRANGER": Layout(pristine).trust.read_bytes(),
        "OLDER": note(3),
        "FORKED": note(3, b"x" * 32),
        "OTHER": note(2),
    }
    for name, data in named.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in named}


@pytest.fixture
def proofs(spy: Spy) -> Spy:
    included = audit_pb2.RecordProof(index=2, tree_size=5, hashes=tree.inclusion_proof(2, 5, read), body=BODIES[2])
    spy.answers["GetInclusionProof"] = audit_pb2.GetInclusionProofResponse(proof=included, checkpoint=note(5))
    spy.answers["GetConsistencyProof"] = audit_pb2.GetConsistencyProofResponse(
        from_size=3, to_size=5, hashes=tree.consistency_proof(3, 5, read), checkpoint=note(5)
    )
    return spy


SIGNATURE = "the checkpoint's signature: pass --trust"
OLDER = "the proof: pass --older with a checkpoint of 3 that you hold"
ALONE = "that others were shown the same log: the trust file says `quorum none`"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("inclusion", 2, "--trust", "TRUST"), [ALONE]),
        (("inclusion", 2), [SIGNATURE]),
        (("consistency", 3, "--older", "OLDER", "--trust", "TRUST"), [ALONE]),
        (("consistency", 3, "--older", "OLDER"), [SIGNATURE]),
        (("consistency", 3, "--trust", "TRUST"), [ALONE, OLDER]),
        (("consistency", 3), [SIGNATURE, OLDER]),
    ],
    ids=str,
)
def test_a_proof_is_checked_and_what_is_not_is_said(
    proofs: Spy, files: dict[str, Path], words: tuple[object, ...], left: list[str]
) -> None:
    words = ("audit", *(files.get(str(word), word) for word in words))
    found = json.loads(run(*words, "--output", "json", code=0))
    assert found["not_checked"] == left and found["checkpoint"].encode() == note(5) and found["hashes"]
    text = run(*words, code=0)
    assert ("if what is not checked holds" in text) == bool(left) and all(
        f"not checked: {line}" in text for line in left
    )
    assert note(5).decode() in text
    assert "body" not in found or found["body"].encode() == BODIES[2]


@pytest.mark.parametrize("words", [("inclusion", 2), ("consistency", 3, "--older", "OLDER")], ids=str)
def test_a_proof_is_checked_by_all_that_the_trust_file_demands(
    proofs: Spy, files: dict[str, Path], words: tuple[object, ...]
) -> None:
    """The log's word alone, where a quorum must have cosigned, or a second key of the log signed."""
    words, trust = ("audit", *(files.get(str(word), word) for word in words)), files["TRUST"]
    answer = proofs.answers["GetInclusionProof" if words[1] == "inclusion" else "GetConsistencyProof"]
    plain = trust.read_text()
    trust.write_text(plain.replace("quorum none\n", f"{witness_lines('own')}quorum own\n"))
    assert "QUORUM_NOT_MET" in run(*words, "--trust", trust, code=10)
    answer.checkpoint = cosigned(note(5), "own", at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    assert "COSIGNATURE_FUTURE" in run(*words, "--trust", trust, code=10)
    answer.checkpoint = cosigned(note(5), "own")
    assert json.loads(run(*words, "--trust", trust, "--output", "json", code=0))["not_checked"] == []
    second = MLDSAVerifier.of(ORIGIN, mldsa.MLDSA44PrivateKey.generate().public_key())
    trust.write_text(f"{plain}log-ml-dsa {second.vkey()}\n")
    assert "POST_QUANTUM_MISSING" in run(*words, "--trust", trust, code=10)


def test_a_proof_without_its_record_or_checkpoint_is_not_said_to_hold(proofs: Spy, files: dict[str, Path]) -> None:
    answer = proofs.answers["GetInclusionProof"]
    answer.proof.ClearField("body")
    words = ("audit", "inclusion", 2, "--trust", files["TRUST"])
    assert "not checked: the proof: the record's bytes do not come with it" in run(*words, code=0)
    answer.ClearField("checkpoint")
    assert "not checked: the proof: no checkpoint of 5 was signed" in run(*words, code=0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("inclusion", 1), "INCLUSION_BAD"),
        (("inclusion", 2, "--trust", "STRANGER"), "NOTE_SIGNATURE_BAD"),
        (("consistency", 3, "--older", "FORKED"), "CONSISTENCY_BAD"),
        (("consistency", 3, "--older", "OTHER"), "CHECKPOINT_SIZE"),
        (("consistency", 3, "--older", "OLDER", "--trust", "STRANGER"), "NOTE_SIGNATURE_BAD"),
    ],
    ids=str,
)
def test_a_proof_that_does_not_hold(
    proofs: Spy, files: dict[str, Path], words: tuple[object, ...], reason: str
) -> None:
    assert reason in run("audit", *(files.get(str(word), word) for word in words), code=10)


def test_a_checkpoint_of_another_size(proofs: Spy) -> None:
    proofs.answers["GetInclusionProof"].checkpoint = note(4)
    assert "CHECKPOINT_SIZE" in run("audit", "inclusion", 2, code=10)


def test_a_record_with_another_body(proofs: Spy) -> None:
    proofs.answers["GetInclusionProof"].proof.body += b" "
    assert "INCLUSION_BAD" in run("audit", "inclusion", 2, code=10)


@pytest.mark.parametrize(
    ("name", "blobs", "datasets", "said"),
    [
        ("units/support/tuningJobs/x", 2, (), "its adapter is gone"),
        ("units/support/tuningJobs/x", 0, (), ""),
        ("units/support/datasets/x", 1, (), ""),
        ("units/support/dataSubjects/" + "0" * 64, 0, (), "no row of it has been found so far"),
        ("units/support/dataSubjects/" + "0" * 64, 0, ("d",), "still to be erased: d"),
    ],
)
def test_an_erasure_says_what_follows(
    spy: Spy, monkeypatch: pytest.MonkeyPatch, name: str, blobs: int, datasets: tuple[str, ...], said: str
) -> None:
    made = erasure_pb2.Erasure(name=name, blobs=blobs, affected_datasets=datasets)
    spy.answers["EraseResource"] = erasure_pb2.EraseResourceResponse(erasure=made)
    play(monkeypatch, erase, folder=spy.layout.person("cora"), erasures=spy)
    told = run("erase", name, "--reason-code", "data-subject-request", code=0)
    words = {"its adapter is gone", "no row of it has been found so far", "still to be erased: d"}
    assert {word for word in words if word in told} == ({said} if said else set())
