"""Evidence: what services write is what the stand-alone verifier accepts, and units see their own chains only."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay import policy_text
from assay.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from assay.v1 import audit_pb2 as pb
from assay.v1 import policy_pb2
from audit.ledger import bundle, evidence, tree
from audit.ledger.records import REFUSALS_UNIT
from audit.verify.report import Report
from audit.verify.trust import TrustFile
from audit.verify.verifier import POLICIES, verify_bundle
from gateway.admission.cards import CardOffice
from gateway.cli.audit import export_bundle
from gateway.store import rows
from gateway.store.tables import ModelRow
from policies.pack import PACKS, load
from policies.rule import Pack
from tests.gateway.conftest import House, now
from tests.gateway.judged import MODEL, NAME, approved, awaiting, judged, outcome


async def export(house: House, name: str, parent: str, jobs: list[str], path: Path) -> Path:
    data, digest = b"", ""
    request = pb.ExportBundleRequest(parent=parent, tuning_jobs=jobs)
    async for piece in house.app.evidence.export_bundle(await house.caller(name), request):
        data += piece.chunk
        digest = piece.sha256
    assert hashlib.sha256(data).hexdigest() == digest
    path.write_bytes(data)
    return path


async def test_every_record_and_its_proof(house: House) -> None:
    await awaiting(house)
    anna = await house.caller("anna")
    seen: list[pb.Record] = []
    token = ""
    while True:
        page = await house.app.evidence.list_records(
            anna, pb.ListRecordsRequest(parent="units/-", page_size=7, page_token=token)
        )
        seen += page.records
        token = page.next_page_token
        if not token:
            break
    assert [r.index for r in seen] == list(range(house.app.ledger.size))
    for record in seen:
        request = pb.GetInclusionProofRequest(index=record.index)
        answer = await house.app.evidence.get_inclusion_proof(anna, request)
        size = answer.proof.tree_size
        root = house.app.ledger.root(size)
        tree.verify_inclusion(record.index, size, tree.leaf_hash(record.body), list(answer.proof.hashes), root)
        assert answer.proof.body == record.body and answer.checkpoint
    consistent = await house.app.evidence.get_consistency_proof(anna, pb.GetConsistencyProofRequest(from_size=3))
    assert consistent.to_size == house.app.ledger.size and consistent.hashes
    note = (await house.app.evidence.get_checkpoint(anna, pb.GetCheckpointRequest())).note
    assert note == house.app.ledger.checkpoint()


async def test_a_proof_shows_a_record_to_those_alone_who_may_list_it(house: House) -> None:
    """A role in every unit is no leave to read: operators list nothing, and the whole log is for auditors."""
    await awaiting(house)
    read: dict[str, set[str]] = {}
    for name in ("oscar", "rita", "cora", "vik", "dana", "anna"):
        caller = await house.caller(name)
        for index in range(house.app.ledger.size):
            request = pb.GetInclusionProofRequest(index=index)
            proof = (await house.app.evidence.get_inclusion_proof(caller, request)).proof
            assert proof.tree_size
            units = read.setdefault(name, set())
            units |= {house.app.ledger.record(index).unit} if proof.body else set()
    everybody = {name: {"credit"} for name in read}
    assert read == {**everybody, "oscar": set(), "anna": {"credit", "system"}}


async def test_units_read_their_own_chains(house: House) -> None:
    await awaiting(house)
    carl, mia = await house.caller("carl"), await house.caller("mia")
    service = house.app.evidence
    listed = await service.list_records(carl, pb.ListRecordsRequest(parent="units/credit"))
    assert {r.unit for r in listed.records} == {"credit"}
    for caller, parent in ((mia, "units/credit"), (carl, "units/-"), (carl, "units/system")):
        with pytest.raises(NotFoundError):
            await service.list_records(caller, pb.ListRecordsRequest(parent=parent))
        with pytest.raises(NotFoundError):
            _ = [p async for p in service.export_bundle(caller, pb.ExportBundleRequest(parent=parent))]
    index = listed.records[0].index
    mine = await service.get_inclusion_proof(carl, pb.GetInclusionProofRequest(index=index))
    theirs = await service.get_inclusion_proof(mia, pb.GetInclusionProofRequest(index=index))
    assert mine.proof.body and not theirs.proof.body and mine.proof.hashes == theirs.proof.hashes
    assert not (await service.get_inclusion_proof(carl, pb.GetInclusionProofRequest(index=0))).proof.body
    with pytest.raises(InvalidInputError):
        other = "units/claims/tuningJobs/first"
        await service.list_records(carl, pb.ListRecordsRequest(parent="units/credit", tuning_job=other))
    with pytest.raises(InvalidInputError):
        await service.get_inclusion_proof(carl, pb.GetInclusionProofRequest(index=10_000))


@pytest.mark.parametrize(
    ("parent", "jobs"), [("units/-", []), ("units/credit", []), ("units/credit", [NAME]), ("units/-", [NAME])]
)
async def test_bundles_hold_what_the_verifier_demands(
    house: House, tmp_path: Path, parent: str, jobs: list[str]
) -> None:
    await approved(house)
    await house.upload("rita", "claims")
    path = await export(house, "anna", parent, jobs, tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    assert sum(c.outcome == "passed" for c in report.checks) >= 8


async def _refused(house: House) -> None:
    for name in ("rita", "mia"):
        error = PermissionDeniedError("NOT_PERMITTED", "no")
        await house.app.refusals.record(house.subject(name), "/assay.v1.X/Y", error)


async def test_refused_calls_are_read_by_auditors_of_every_unit_alone(house: House) -> None:
    """`units/system-refusals` lists them without the rest of the log."""
    await _refused(house)
    service, asked = house.app.evidence, pb.ListRecordsRequest(parent=f"units/{REFUSALS_UNIT}")
    listed = (await service.list_records(await house.caller("anna"), asked)).records
    assert [(r.type, r.unit_sequence) for r in listed] == [("request.refused", 1), ("request.refused", 2)]
    for name in ("oscar", "rita", "cora", "vik", "dana", "carl", "mia"):
        caller = await house.caller(name)
        with pytest.raises(NotFoundError):
            await service.list_records(caller, asked)
        with pytest.raises(NotFoundError):
            _ = [p async for p in service.export_bundle(caller, pb.ExportBundleRequest(parent=asked.parent))]
        proof = await service.get_inclusion_proof(caller, pb.GetInclusionProofRequest(index=listed[0].index))
        assert proof.proof.hashes and not proof.proof.body


@pytest.mark.parametrize(
    ("parent", "jobs", "shown"),
    [
        ("units/-", [], 2),
        (f"units/{REFUSALS_UNIT}", [], 2),
        ("units/credit", [], 0),
        ("units/credit", [NAME], 0),
        ("units/-", [NAME], 0),
    ],
)
async def test_bundles_of_units_and_jobs_are_none_the_larger_for_refused_calls(
    house: House, tmp_path: Path, parent: str, jobs: list[str], shown: int
) -> None:
    await approved(house)
    await _refused(house)
    path = await export(house, "anna", parent, jobs, tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    bodies = [body for name, body in evidence.read_zip(path.read_bytes()).items() if name.startswith("records/")]
    assert sum(b"request.refused" in body for body in bodies) == shown


async def test_an_export_says_that_it_left_refused_calls_out(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _refused(house)
    monkeypatch.setattr(bundle, "MAX_RECORDS", house.app.ledger.size - 1)
    request = pb.ExportBundleRequest(parent="units/-")
    absent: dict[str, str] = {}
    async for piece in house.app.evidence.export_bundle(await house.caller("anna"), request):
        absent |= piece.absent_attachments
    assert absent["refusals"] == "TOO_MANY"
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert (report.verdict, report.scope, report.records) == ("valid", "selection", house.app.ledger.size - 2)


async def _not_yet(cards: CardOffice, job: str) -> None:
    """Leaves the card for later."""


@pytest.mark.parametrize(("step", "attached"), [("render", set()), ("issue", {"card.json", "card.pdf"})])
async def test_a_card_recorded_during_an_export_is_not_attached(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, attached: set[str]
) -> None:
    """No record under the bundle's checkpoint names the card; one that is issued meanwhile is still a draft there."""
    make = getattr(CardOffice, step)
    with monkeypatch.context() as held:
        held.setattr(CardOffice, step, _not_yet)
        await (awaiting(house) if step == "render" else approved(house))
    publication, loop = house.app.store.publication, asyncio.get_running_loop()
    latest = publication.latest

    def then_a_card() -> tuple[int, bytes]:
        newest = latest()
        asyncio.run_coroutine_threadsafe(make(house.app.pipeline.cards, NAME), loop).result()
        return newest

    monkeypatch.setattr(publication, "latest", then_a_card)
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    with zipfile.ZipFile(path) as bundle:
        names = {name for name in bundle.namelist() if name.startswith("attachments/")}
    assert names == {f"attachments/credit.first.{name}" for name in attached}


async def test_a_card_that_cannot_be_read_is_named_and_the_rest_is_exported(house: House, tmp_path: Path) -> None:
    await approved(house)
    model = house.app.store.read(lambda c: rows.get(c, ModelRow, name=MODEL))
    assert model is not None
    house.app.blobs.delete("credit", model.issued_pdf_sha256)
    damaged = house.app.blobs._path("credit", model.card_sha256)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    request = pb.ExportBundleRequest(parent="units/-")
    pieces = [p async for p in house.app.evidence.export_bundle(await house.caller("anna"), request)]
    absent = {"credit.first.card.pdf": "BLOB_MISSING", "credit.first.card.json": "BLOB_DAMAGED"}
    session: Any = SimpleNamespace(audit=SimpleNamespace(ExportBundle=lambda _: pieces))
    assert export_bundle(session, "units/-", [], tmp_path / "bundle.zip")[1] == absent
    report = verify_bundle(tmp_path / "bundle.zip", TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


CHOICE = "{credit: [fair-lending], claims: [naic]}"


async def decided_by(house: House, pack: Pack) -> None:
    """A job whose decision and verdict name this policy."""
    digests = {"bundle_sha256": pack.bundle_sha256, "limits_sha256": pack.limits_sha256}
    verdict = policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_PASS, outcomes=[outcome("REL", passed=True)], **digests)
    await judged(house, verdict)


def held(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as bundle:
        return {n: bundle.read(n) for n in bundle.namelist() if n.partition("/")[0] in ("rules", "limits")}


def verified(house: House, path: Path) -> Report:
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    return report


@pytest.mark.parametrize("parent", ["units/-", "units/credit"])
async def test_a_bundle_holds_the_rules_and_limits_that_its_verdicts_name(
    house: House, tmp_path: Path, parent: str
) -> None:
    pack = house.app.policy.pack
    await decided_by(house, pack)
    path = await export(house, "anna", parent, [], tmp_path / "bundle.zip")
    texts = held(path)
    assert set(texts) == {f"rules/{pack.bundle_sha256}.json", f"limits/{pack.limits_sha256}.json"}
    rules = json.loads(texts[f"rules/{pack.bundle_sha256}.json"])
    assert "GATE-CANARY-AUC" in {rule["id"] for rule in rules["files"]["baseline/rules.yaml"]["rules"]}
    (check,) = [c for c in verified(house, path).checks if c.name == POLICIES]
    assert check.detail == "2 recomputed"


@pytest.mark.parametrize(("parent", "shown"), [("units/-", True), ("units/credit", False)])
async def test_what_another_unit_chose_is_in_no_bundle_of_a_unit(
    house: House, tmp_path: Path, parent: str, shown: bool
) -> None:
    """The digest of the limits is of every unit's choice: a unit's bundle has the rules, and says what it lacks."""
    folder = house.layout.root / "policies"
    shutil.copytree(PACKS, folder, ignore=shutil.ignore_patterns("access"))
    sheet = folder / "bundle.yaml"
    sheet.write_text(sheet.read_text().replace("units: {}", f"units: {CHOICE}"))
    pack = load(folder)
    await decided_by(house, pack)
    path = await export(house, "anna", parent, [], tmp_path / "bundle.zip")
    assert (f"limits/{pack.limits_sha256}.json" in held(path)) is shown
    assert f"rules/{pack.bundle_sha256}.json" in held(path)
    assert (b"naic" in held(path).get(f"limits/{pack.limits_sha256}.json", b"")) is shown
    said = [line for line in verified(house, path).not_checked if "whose text is not in the bundle" in line]
    assert len(said) == (not shown)
    if not shown:
        request = pb.ExportBundleRequest(parent=parent)
        *_, last = [p async for p in house.app.evidence.export_bundle(await house.caller("anna"), request)]
        assert dict(last.absent_attachments) == {f"limits/{pack.limits_sha256}.json": "OTHER_UNITS"}


async def test_limits_that_are_kept_with_other_rules_are_not_said_to_be_missing(house: House) -> None:
    """Of a verdict by rules that nobody kept, under the limits of today: intake's answer has those."""
    limits = house.app.policy.pack.limits_sha256
    await judged(house, policy_pb2.Verdict(
        outcome=policy_pb2.OUTCOME_PASS, outcomes=[outcome("REL", passed=True)],
        bundle_sha256="0" * 64, limits_sha256=limits,
    ))  # fmt: skip
    request = pb.ExportBundleRequest(parent="units/-")
    *_, last = [p async for p in house.app.evidence.export_bundle(await house.caller("anna"), request)]
    assert dict(last.absent_attachments) == {f"rules/{'0' * 64}.json": "POLICY_NOT_KEPT"}


async def test_a_bundle_without_the_rules_says_so_and_stays_valid(house: House, tmp_path: Path) -> None:
    await judged(house, policy_pb2.Verdict(
        outcome=policy_pb2.OUTCOME_PASS, outcomes=[outcome("REL", passed=True)],
        bundle_sha256="0" * 64, limits_sha256="1" * 64,
    ))  # fmt: skip
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    assert f"rules/{'0' * 64}.json" not in held(path)
    assert any("whose text is not in the bundle: limits named" in line for line in verified(house, path).not_checked)


def changed(path: Path, change: Callable[[dict[str, bytes], str], None], sha256: str) -> None:
    """Rewrites a bundle, with a manifest that goes with what it holds then."""
    files = evidence.read_zip(path.read_bytes())
    change(files, f"rules/{sha256}.json")
    head = json.loads(files.pop(evidence.MANIFEST))
    named = (head["log"], head["size"], bytes.fromhex(head["root"]), head["scope"], head["unit"], head["quorum"])
    files[evidence.MANIFEST] = evidence.manifest(evidence.Header(*named), files)
    path.write_bytes(evidence.zip_bytes(files))


def softened(files: dict[str, bytes], path: str) -> None:
    files[path] = files[path].replace(b'"severity":"deny"', b'"severity":"warn"', 1)


def spelled_otherwise(files: dict[str, bytes], path: str) -> None:
    files[path] += b" "


def of_another_policy(files: dict[str, bytes], path: str) -> None:
    text = policy_text.encode({"rules.yaml": {}}, {})
    files[f"rules/{policy_text.sha256_of_text(text)}.json"] = text


@pytest.mark.parametrize(
    ("change", "said"),
    [(softened, "is not what its digest"), (spelled_otherwise, "is not what its digest"), (of_another_policy, "named")],
)
async def test_rules_that_the_records_do_not_name_are_refused(
    house: House, tmp_path: Path, change: Callable[[dict[str, bytes], str], None], said: str
) -> None:
    pack = house.app.policy.pack
    await decided_by(house, pack)
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    changed(path, lambda files, name: None, pack.bundle_sha256)
    verified(house, path)
    changed(path, change, pack.bundle_sha256)
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    (check,) = [c for c in report.checks if c.outcome == "failed"]
    assert report.verdict == "invalid" and check.name == POLICIES and said in check.detail
