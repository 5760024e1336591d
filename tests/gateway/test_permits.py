"""Permits: signed for what was approved, checked online and by the stand-alone checker."""

from __future__ import annotations

import datetime as dt
import functools
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format

from assay import model_signature
from assay.digests import folder_manifest
from assay.errors import AlreadyExistsError, AssayError, NotFoundError, PreconditionError
from assay.v1 import approval_pb2, permit_pb2, policy_input_pb2, tuning_job_pb2
from audit.verify.permit import check_permit
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.jobs import machine
from gateway.statements import revocation_statement
from gateway.store import jobs, rows
from tests.assay.test_model_signature import own_tool
from tests.gateway.conftest import BASE, House, now
from tests.gateway.judged import ADAPTER, MODEL, NAME, approved, awaiting, decide, judged, leave, outcome, state
from tests.gateway.test_approvals import grant, quarantined, waive
from tests.gateway.test_evidence import export


@pytest.fixture
def postgres_url(either_database: str) -> str:
    return either_database


SHA = str(BASE["sha256"])


def asked(**fields: Any) -> permit_pb2.IssuePermitRequest:
    values = {
        "model": MODEL,
        "purpose": "support-replies",
        "environment": "production-eu",
        "request_id": str(uuid.uuid4()),
    }
    return permit_pb2.IssuePermitRequest(**{**values, **fields})


async def issued(house: House, **fields: Any) -> permit_pb2.Permit:
    answer = await house.app.permits.issue_permit(await house.caller("dana"), asked(**fields))
    return answer.permit


async def online(house: House, permit: permit_pb2.Permit, **fields: str) -> permit_pb2.CheckPermitResponse:
    values = {
        "adapter_sha256": ADAPTER,
        "base_sha256": SHA,
        "purpose": permit.purpose,
        "environment": permit.environment,
    }
    request = permit_pb2.CheckPermitRequest(name=permit.name, **{**values, **fields})
    return await house.app.permits.check_permit(await house.caller("dana"), request)


def offline(house: House, permit: permit_pb2.Permit, at: dt.datetime | None = None, **fields: str) -> tuple[bool, str]:
    values = {"adapter": ADAPTER, "base": SHA, "purpose": "support-replies", "environment": "production-eu", **fields}
    trust = TrustFile.parse(house.layout.trust.read_text())
    shown = json_format.MessageToDict(permit, preserving_proto_field_name=True)
    verdict = check_permit(shown, now=at or now(), trust=trust, **values)
    return verdict.allowed, verdict.reason


async def test_a_permit_holds_online_and_offline(house: House) -> None:
    await approved(house)
    permit = await issued(house)
    assert (await online(house, permit)).allowed
    assert offline(house, permit) == (True, "")
    types = [house.app.ledger.record(p.index).type for p in permit.proofs]
    own = ["job.received", "card.rendered", "approval.decided", "approval.decided", "permit.issued"]
    assert [t for t in types if t != "grant.issued"] == own
    lasts = permit.not_after.ToDatetime() - permit.not_before.ToDatetime()
    assert lasts == dt.timedelta(hours=24)


@pytest.mark.parametrize(
    ("declared", "place", "why"),
    [
        (["EU", "US"], "EU", ""),
        (["EU", "US"], "US-NY", ""),
        (["US-NY"], "US", "declared for US-NY, not for 'US'"),
        (["US"], "DE", "declared for US, not for 'DE'"),
        ([], "US", "declared for no place"),
    ],
)
async def test_a_permit_holds_where_its_use_was_declared_and_nowhere_else(
    house: House, monkeypatch: pytest.MonkeyPatch, declared: list[str], place: str, why: str
) -> None:
    use = policy_input_pb2.UseDeclaration(jurisdictions=declared)
    monkeypatch.setattr(House, "request", functools.partialmethod(House.request, use=use))
    await approved(house)
    permit = await issued(house)
    answer = await online(house, permit, place=place)
    for allowed, reason in ((answer.allowed, answer.reason), offline(house, permit, place=place)):
        assert allowed == (not why) and why in reason
    assert offline(house, permit) == (True, ""), "who does not ask for a place is answered as before"


async def test_the_permit_shows_that_its_signers_held_their_roles(house: House) -> None:
    """Their grants, signed by the operator of the trust file, come with it, and the offline check verifies them."""
    await approved(house)
    permit = await issued(house)
    records = [house.app.ledger.record(p.index) for p in permit.proofs]
    grants = [json.loads(r.body)["statement"]["predicate"] for r in records if r.type == "grant.issued"]
    assert {(g["subject"].rpartition("/")[2], g["role"]) for g in grants} == {
        ("cora", "ROLE_COMPLIANCE_OFFICER"),
        ("vik", "ROLE_VALIDATOR"),
    }
    trust = TrustFile.parse(house.layout.trust.read_text())
    shown = json_format.MessageToDict(permit, preserving_proto_field_name=True)
    verdict = check_permit(shown, ADAPTER, SHA, "support-replies", "production-eu", now(), trust)
    assert verdict.allowed
    assert not any("held their roles" in line or "asked for the job" in line for line in verdict.not_checked)


async def test_who_lost_the_role_since_carries_no_new_permit(house: House) -> None:
    await approved(house)
    before = await issued(house)
    await leave(house, "cora", "ROLE_COMPLIANCE_OFFICER")
    with pytest.raises(PreconditionError) as caught:
        await issued(house)
    assert caught.value.reason == "SIGNER_ROLE" and "cora" in caught.value.message
    assert "signer-left" in caught.value.remedy
    assert offline(house, before) == (True, "")  # it shows what held when it was issued, and ends by itself


async def revoke(house: House, who: str, reason: str) -> tuning_job_pb2.TuningJob:
    row = house.app.store.read(lambda c: jobs.get(c, NAME))
    assert row is not None
    etag = machine.etag(NAME, row.version)
    envelope = house.sign(who, revocation_statement(NAME, etag, reason))
    request = approval_pb2.RevokeApprovalRequest(name=NAME, etag=etag, envelope=envelope)
    return (await house.app.approvals.revoke_approval(await house.caller(who), request)).tuning_job


async def test_a_model_whose_signer_left_is_approved_anew(house: House, tmp_path: Path) -> None:
    await grant(house, "olga", "compliance_officer")
    await approved(house)
    void = await issued(house)
    with pytest.raises(PreconditionError) as caught:
        await revoke(house, "olga", "signer-left")
    assert caught.value.reason == "SIGNERS_HOLD"
    await leave(house, "cora", "ROLE_COMPLIANCE_OFFICER")
    with pytest.raises(PreconditionError):
        await revoke(house, "olga", "signer-key")
    await revoke(house, "olga", "signer-left")
    assert state(house) == "AWAITING_APPROVAL" and house.types(NAME)[-1] == "job.revoked"
    assert (await online(house, void)).reason == "revoked: approval-revoked"
    await house.app.pipeline.cards.render(NAME)
    assert (await online(house, void)).reason == "revoked: approval-revoked"
    await decide(house, "vik", "validator")
    with pytest.raises(PreconditionError) as caught:
        await issued(house)
    assert caught.value.reason == "NOT_APPROVED"
    await decide(house, "olga", "compliance_officer")
    assert state(house) == "APPROVED"
    permit = await issued(house)
    assert (await online(house, permit)).allowed and offline(house, permit) == (True, "")
    bundle = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(bundle, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", report.text()


async def test_who_left_before_the_quorum_is_replaced(house: House, tmp_path: Path) -> None:
    await grant(house, "olga", "compliance_officer")
    await awaiting(house)
    await decide(house, "cora", "compliance_officer")
    await leave(house, "cora", "ROLE_COMPLIANCE_OFFICER")
    await decide(house, "vik", "validator")
    assert state(house) == "AWAITING_APPROVAL"
    await decide(house, "olga", "compliance_officer")
    permit = await issued(house)
    assert [a.subject for a in permit.approvals] == [house.subject("vik"), house.subject("olga")]
    assert offline(house, permit) == (True, "")
    bundle = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(bundle, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", report.text()


@pytest.mark.parametrize(
    ("field", "other", "value", "word"),
    [
        ("adapter_sha256", "adapter", "00" * 32, "adapter"),
        ("base_sha256", "base", "00" * 32, "base"),
        ("purpose", "purpose", "other", "purpose"),
        ("environment", "environment", "laptop", "environment"),
    ],
)
async def test_anything_else_than_permitted_is_refused(
    house: House, field: str, other: str, value: str, word: str
) -> None:
    await approved(house)
    permit = await issued(house)
    answer = await online(house, permit, **{field: value})
    assert not answer.allowed and word in answer.reason
    allowed, reason = offline(house, permit, **{other: value})
    assert not allowed and word in reason


async def test_times(house: House) -> None:
    await approved(house)
    permit = await issued(house, valid_seconds=60)
    begin = permit.not_before.ToDatetime(dt.UTC)
    assert offline(house, permit, begin)[0]
    assert offline(house, permit, begin - dt.timedelta(seconds=1)) == (False, "not valid yet")
    assert offline(house, permit, begin + dt.timedelta(seconds=60)) == (False, "expired")
    await house.app.store.commit(
        lambda u: rows.update(u.connection, type_of_permit(), {"name": permit.name}, {"not_after_us": 1})
    )
    assert (await online(house, permit)).reason == "expired"


def type_of_permit() -> Any:
    from gateway.store.tables import PermitRow

    return PermitRow


async def test_the_same_request_again_is_the_same_permit(house: House) -> None:
    await approved(house)
    dana, request = await house.caller("dana"), asked()
    first = (await house.app.permits.issue_permit(dana, request)).permit
    size = house.app.ledger.size
    await house.upload("rita", dataset="later")
    assert (await house.app.permits.issue_permit(dana, request)).permit == first
    assert house.app.ledger.size == size + 1
    with pytest.raises(AlreadyExistsError):
        await house.app.permits.issue_permit(dana, asked(request_id=request.request_id, environment="laptop"))
    assert (await issued(house)).name != first.name


@pytest.mark.parametrize(
    ("fields", "reason"), [({"purpose": "other"}, "PURPOSE"), ({"valid_seconds": 86_401}, "TOO_LONG")]
)
async def test_what_is_not_permitted_is_not_signed(house: House, fields: dict[str, Any], reason: str) -> None:
    await approved(house)
    size = house.app.ledger.size
    with pytest.raises(PreconditionError) as caught:
        await issued(house, **fields)
    assert caught.value.reason == reason and house.app.ledger.size == size


async def test_nothing_is_permitted_before_the_quorum_or_after_a_refusal(house: House) -> None:
    await awaiting(house)
    for step in (None, True, False):
        if step is not None:
            name, role = ("cora", "compliance_officer") if step else ("vik", "validator")
            await decide(house, name, role, granted=step)
        with pytest.raises(PreconditionError) as caught:
            await issued(house)
        assert caught.value.reason == "NOT_APPROVED"


async def test_other_units_and_unknown_names(house: House) -> None:
    await approved(house)
    permit = await issued(house)
    mia = await house.caller("mia")
    with pytest.raises(NotFoundError):
        await house.app.permits.issue_permit(mia, asked())
    with pytest.raises(NotFoundError):
        await house.app.permits.revoke_permit(mia, permit_pb2.RevokePermitRequest(name=permit.name, reason="incident"))
    with pytest.raises(NotFoundError):
        await issued(house, model="units/credit/models/none")
    permit.name = "units/credit/permits/none"
    with pytest.raises(NotFoundError):
        await online(house, permit)


async def test_a_revoked_permit_is_refused(house: House) -> None:
    await approved(house)
    permit = await issued(house)
    dana = await house.caller("dana")
    request = permit_pb2.RevokePermitRequest(name=permit.name, reason="incident")
    revoked = (await house.app.permits.revoke_permit(dana, request)).permit
    assert (await online(house, permit)).reason == "revoked: incident"
    assert offline(house, revoked) == (False, "revoked")
    assert house.types(NAME)[-1] == "permit.revoked"
    with pytest.raises(PreconditionError):
        await house.app.permits.revoke_permit(dana, request)


async def test_a_revoked_approval_voids_every_permit(house: House) -> None:
    await approved(house)
    permits = [await issued(house), await issued(house)]
    await revoke(house, "cora", "drift")
    assert [(await online(house, p)).reason for p in permits] == ["revoked: approval-revoked"] * 2
    assert house.types(NAME)[-4:] == ["approval.revoked", "permit.revoked", "permit.revoked", "job.revoked"]


async def test_a_lapsed_approval_voids_permits(house: House) -> None:
    await approved(house)
    permit = await issued(house)
    with pytest.raises(PreconditionError):
        await house.app.pipeline._expire(NAME)
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"approved_until_us": 1}))
    await house.app.pipeline._expire(NAME)
    assert state(house) == "EXPIRED"
    assert not (await online(house, permit)).allowed
    rita = await house.caller("rita")
    job = (await house.app.jobs.get_tuning_job(rita, tuning_job_pb2.GetTuningJobRequest(name=NAME))).tuning_job
    assert job.state == tuning_job_pb2.TuningJob.STATE_EXPIRED and job.reason == "the approval has lapsed"


async def test_a_permit_ends_with_its_approval(house: House) -> None:
    await approved(house)
    end = now().replace(microsecond=0) + dt.timedelta(minutes=5)
    await house.app.store.commit(
        lambda u: jobs.note(u.connection, NAME, {"approved_until_us": rows.micros(end + dt.timedelta(milliseconds=9))})
    )
    assert (await issued(house)).not_after.ToDatetime(dt.UTC) == end
    with pytest.raises(PreconditionError) as caught:
        await issued(house, valid_seconds=301)
    assert caught.value.reason == "TOO_LONG"
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"approved_until_us": 1}))
    with pytest.raises(PreconditionError) as caught:
        await issued(house)
    assert caught.value.reason == "NOT_APPROVED"


async def test_a_permit_ends_with_the_last_day_of_a_waiver(house: House) -> None:
    await judged(house, quarantined(outcome("A", passed=False, waivable_by="validator")))
    last = now().date()
    await waive(house, "vik", ["A"], days=0)
    await house.app.pipeline.cards.render(NAME)
    await decide(house, "cora", "compliance_officer")
    await decide(house, "vik", "validator")
    permit = await issued(house)
    assert permit.not_after.ToDatetime() == dt.datetime.combine(last + dt.timedelta(days=1), dt.time())
    assert offline(house, permit) == (True, "")


TAMPERING: dict[str, Callable[[permit_pb2.Permit], None]] = {
    "statement": lambda p: setattr(p, "statement", p.statement.replace(b"production-eu", b"production-us")),
    "signature": lambda p: setattr(p, "signature", bytes(64)),
    "shown environment": lambda p: setattr(p, "environment", "laptop"),
    "shown end": lambda p: p.not_after.FromSeconds(p.not_after.seconds + 3600),
    "no proofs": lambda p: p.ClearField("proofs"),
    "one grant less": lambda p: p.proofs.pop(0) and None,
    "one approval less": lambda p: p.proofs.pop(-2) and None,
    "no card": lambda p: p.proofs.pop(-4) and None,
    "a record": lambda p: setattr(p.proofs[-2], "body", p.proofs[-2].body.replace(b"support", b"suppost")),
    "no consistency": lambda p: p.ClearField("consistency"),
    "a consistency hash": lambda p: p.consistency.__setitem__(0, bytes(32)),
    "no request": lambda p: p.proofs.remove(next(r for r in p.proofs if b'"type":"job.received"' in r.body)),
    "a proof hash": lambda p: p.proofs[1].hashes.__setitem__(0, bytes(32)),
    "checkpoint": lambda p: setattr(
        p, "checkpoint", p.checkpoint[:-3] + (b"E" if p.checkpoint[-3:-2] == b"A" else b"A") + b"=\n"
    ),
}


@pytest.mark.parametrize("what", sorted(TAMPERING))
async def test_a_changed_permit_is_refused_offline(house: House, what: str) -> None:
    await approved(house)
    permit = await issued(house)
    TAMPERING[what](permit)
    environment = permit.environment if what == "shown environment" else "production-eu"
    with_reason = offline(house, permit, environment=environment)
    assert not with_reason[0] and with_reason[1]


async def test_adapter_files_only_leave_when_approved_and_signed(house: House, tmp_path: Path) -> None:
    from assay.v1 import model_pb2

    async def files() -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        request = model_pb2.DownloadAdapterRequest(name=MODEL)
        async for piece in house.app.models.download_adapter(await house.caller("dana"), request):
            found[piece.path] = found.get(piece.path, b"") + piece.chunk + piece.signature
        return found

    await awaiting(house)
    with pytest.raises(AssayError) as caught:
        await files()
    assert caught.value.reason == "NOT_APPROVED"
    await decide(house, "cora", "compliance_officer")
    await decide(house, "vik", "validator")
    found = await files()
    signature = found.pop("")
    assert found == {"adapter_model.safetensors": b"weights"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    certificate = x509.load_pem_x509_certificate(
        (house.app.settings.layout.service("gateway") / "pdf.crt").read_bytes()
    )
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert model_signature.verify(signature, folder_manifest(tmp_path / "adapter"), public) == MODEL
    (tmp_path / "adapter.sig").write_bytes(signature)
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pub").write_bytes(public.public_bytes(encoding, form))
    assert own_tool(tmp_path / "adapter", "--no-ignore-git-paths")
