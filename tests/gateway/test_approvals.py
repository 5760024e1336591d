"""Approvals: only the right people, for exactly what is pending, once; all else changes nothing."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import io
import json
from typing import Any

import pytest

from assay import canonical, dsse
from assay.errors import AssayError, NotFoundError, PermissionDeniedError, PreconditionError
from assay.v1 import approval_pb2, identity_pb2, model_pb2, policy_input_pb2, policy_pb2, tuning_job_pb2
from gateway.identity_registry import grants_of
from gateway.jobs.transitions import Event
from gateway.statements import (
    approval_statement,
    dismissal_statement,
    grant_revocation_statement,
    grant_statement,
    opening,
    revocation_statement,
    waiver_statement,
)
from tests.gateway.conftest import House, now
from tests.gateway.judged import ADAPTER, MODEL, NAME, approved, awaiting, decide, judged, outcome, pending, state

SAID, INSTEAD = opening("seen"), opening("monitored weekly")


def decision(envelope: identity_pb2.Envelope, etag: str, name: str = NAME) -> approval_pb2.DecideApprovalRequest:
    return approval_pb2.DecideApprovalRequest(name=name, etag=etag, envelope=envelope, reason=SAID)


async def refused(house: House, reason: str, name: str, role: str, **changes: object) -> None:
    size = house.app.ledger.size
    with pytest.raises(AssayError) as caught:
        await decide(house, name, role, **changes)  # type: ignore[arg-type]
    assert caught.value.reason == reason, caught.value.diagnostics()
    assert house.app.ledger.size == size
    assert state(house) == "AWAITING_APPROVAL"


async def test_pending_shows_everything_that_is_signed(house: House) -> None:
    await awaiting(house)
    found = await pending(house)
    assert found.tuning_job == NAME and found.creator == house.subject("rita")
    assert found.adapter_sha256 == ADAPTER and found.purpose == "support-replies"
    assert list(found.missing_roles) == [identity_pb2.ROLE_COMPLIANCE_OFFICER, identity_pb2.ROLE_VALIDATOR]
    record = house.app.ledger.record(found.card_record_index)
    assert record.type == "card.rendered" and found.card_sha256.encode() in record.body
    assert found.card_record_index < found.evidence_size <= house.app.ledger.size
    assert found.evidence_root == house.app.ledger.root(found.evidence_size).hex()
    assert house.app.ledger.checkpoint_at(found.evidence_size) is not None


async def test_pending_shows_for_which_use_and_which_law_was_asked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = policy_input_pb2.UseDeclaration(jurisdictions=["US"], own_brand=False)
    monkeypatch.setattr(House, "request", functools.partialmethod(House.request, use=use))
    await awaiting(house)
    found = await pending(house)
    assert found.use == use and found.use.HasField("own_brand")
    assert list(found.use_reading.packs_not_chosen) == ["gdpr"]
    request = tuning_job_pb2.GetTuningJobRequest(name=NAME)
    assert (await house.app.jobs.get_tuning_job(await house.caller("vik"), request)).tuning_job.use == use


async def test_a_model_of_another_unit_looks_like_nothing_there(house: House) -> None:
    await approved(house)
    mia, models = await house.caller("mia"), house.app.models
    streams = [
        models.download_card(mia, model_pb2.DownloadCardRequest(name=MODEL)),
        models.download_adapter(mia, model_pb2.DownloadAdapterRequest(name=MODEL)),
    ]
    for call in (
        models.get_model(mia, model_pb2.GetModelRequest(name=MODEL)),
        models.list_models(mia, model_pb2.ListModelsRequest(parent="units/credit")),
        *(anext(stream) for stream in streams),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert [m.name for m in (await models.list_models(
        await house.caller("rita"), model_pb2.ListModelsRequest(parent="units/credit")
    )).models] == [MODEL]  # fmt: skip


async def test_two_people_approve_and_the_card_is_issued(house: House) -> None:
    await awaiting(house)
    first = await decide(house, "cora", "compliance_officer")
    assert first.tuning_job.state == tuning_job_pb2.TuningJob.STATE_AWAITING_APPROVAL
    assert list((await pending(house)).missing_roles) == [identity_pb2.ROLE_VALIDATOR]
    second = await decide(house, "vik", "ROLE_VALIDATOR")
    assert second.tuning_job.state == tuning_job_pb2.TuningJob.STATE_APPROVED
    assert house.types(NAME)[-5:] == [
        "card.rendered", "approval.decided", "approval.decided", "job.approved", "card.issued",
    ]  # fmt: skip
    rita = await house.caller("rita")
    model = (await house.app.models.get_model(rita, model_pb2.GetModelRequest(name=MODEL))).model
    pdf = await card(house, model_pb2.CARD_FORMAT_PDF)
    assert pdf.startswith(b"%PDF") and hashlib.sha256(pdf).hexdigest() == model.card_issued_sha256
    twin = await card(house, model_pb2.CARD_FORMAT_JSON)
    assert hashlib.sha256(twin).hexdigest() == model.card_rendered_sha256
    assert canonical.decode(twin)["job"] == NAME
    assert house.app.ledger.record(model.card_issued_index).type == "card.issued"


async def card(house: House, kind: model_pb2.CardFormat) -> bytes:
    data, digest = io.BytesIO(), ""
    request = model_pb2.DownloadCardRequest(name=MODEL, format=kind)
    async for piece in house.app.models.download_card(await house.caller("rita"), request):
        data.write(piece.chunk)
        digest = piece.sha256
    assert hashlib.sha256(data.getvalue()).hexdigest() == digest
    return data.getvalue()


async def test_issuing_twice_leaves_one_record(house: House) -> None:
    await approved(house)
    size = house.app.ledger.size
    await house.app.pipeline.cards.issue(NAME)
    await house.app.pipeline.cards.render(NAME)
    assert house.app.ledger.size == size


async def test_a_refusal_ends_it(house: House) -> None:
    await awaiting(house)
    await decide(house, "cora", "compliance_officer")
    answer = await decide(house, "vik", "validator", granted=False)
    assert answer.tuning_job.state == tuning_job_pb2.TuningJob.STATE_REJECTED
    assert answer.tuning_job.reason == "seen"
    assert house.types(NAME)[-3:] == ["approval.decided", "approval.decided", "job.rejected"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("card_sha256", "00" * 32),
        ("card_index", 0),
        ("evidence_root", "00" * 32),
        ("evidence_size", 1),
        ("adapter_sha256", "00" * 32),
        ("base_sha256", "00" * 32),
        ("purpose", "other"),
        ("job", "units/credit/tuningJobs/other"),
    ],
)
async def test_every_member_that_is_signed_must_be_the_pending_one(house: House, member: str, value: object) -> None:
    await awaiting(house)
    reason = "STATEMENT" if member in ("card_sha256", "adapter_sha256") else "SIGNED_OTHER"
    await refused(house, reason, "cora", "compliance_officer", **{member: value})


async def test_a_stale_etag_is_aborted(house: House) -> None:
    await awaiting(house)
    await refused(house, "ETAG", "cora", "compliance_officer", etag="0" * 32)
    found = await pending(house)
    statement = approval_statement(found, granted=True, role="validator", reason=SAID, signed_at=now())
    request = decision(house.sign("vik", statement), "1" * 32)
    with pytest.raises(AssayError) as caught:
        await house.app.approvals.decide_approval(await house.caller("vik"), request)
    assert caught.value.code == "ABORTED"


async def test_attack_18_an_approval_handed_in_again_or_for_another_job(house: House) -> None:
    """The envelope is genuine; what it says is not what is pending, or was counted already."""
    await awaiting(house)
    found = await pending(house)
    statement = approval_statement(found, granted=True, role="compliance_officer", reason=SAID, signed_at=now())
    envelope, cora = house.sign("cora", statement), await house.caller("cora")

    async def again(reason: str, name: str = NAME) -> None:
        request = decision(envelope, found.etag, name)
        with pytest.raises(AssayError) as caught:
            await house.app.approvals.decide_approval(cora, request)
        assert caught.value.reason == reason

    request = decision(envelope, found.etag)
    await house.app.approvals.decide_approval(cora, request)
    await again("SIGNED_BEFORE")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request(job="second"))
    await again("SIGNED_OTHER", "units/credit/tuningJobs/second")
    await decide(house, "vik", "validator")
    await again("ETAG")
    assert house.types(NAME).count("approval.decided") == 2
    assert "approval.decided" not in house.types("units/credit/tuningJobs/second")


async def test_roles(house: House) -> None:
    await awaiting(house)
    await refused(house, "ROLE_MISSING", "vik", "compliance_officer")
    await refused(house, "ROLE_MISSING", "dana", "validator")
    await refused(house, "ROLE_NOT_MISSING", "dana", "deployer")
    await refused(house, "ROLE_MISSING", "dana", "deployer", granted=False)
    await decide(house, "cora", "compliance_officer")
    await refused(house, "SIGNED_BEFORE", "cora", "compliance_officer")
    await grant(house, "olga", "compliance_officer")
    await refused(house, "ROLE_NOT_MISSING", "olga", "compliance_officer")


async def test_another_units_officer_sees_nothing(house: House) -> None:
    await awaiting(house)
    found = await pending(house)
    mia = await house.caller("mia")
    statement = approval_statement(found, granted=True, role="compliance_officer", reason=SAID, signed_at=now())
    request = decision(house.sign("mia", statement), found.etag)
    with pytest.raises(NotFoundError):
        await house.app.approvals.decide_approval(mia, request)
    everywhere = approval_pb2.ListPendingApprovalsRequest(parent="units/-")
    assert not (await house.app.approvals.list_pending_approvals(mia, everywhere)).pending_approvals
    with pytest.raises(NotFoundError):
        request = approval_pb2.ListPendingApprovalsRequest(parent="units/credit")
        await house.app.approvals.list_pending_approvals(mia, request)


@pytest.mark.parametrize("name", ["olga", "carl"])
async def test_a_role_that_reviews_in_one_unit_shows_no_other(house: House, name: str) -> None:
    """Neither an operator of every unit nor a requester of this one sees what waits here, by being validator there."""
    await awaiting(house)
    await grant(house, name, "validator", "claims")
    everywhere = approval_pb2.ListPendingApprovalsRequest(parent="units/-")
    listed = await house.app.approvals.list_pending_approvals(await house.caller(name), everywhere)
    assert not listed.pending_approvals
    await grant(house, name, "validator", "credit", "g-2")
    assert (await pending(house, name)).tuning_job == NAME


async def grant(house: House, subject: str, role: str, unit: str = "-", grant_id: str = "g-1") -> None:
    envelope = house.sign("oscar", grant_statement(house.subject(subject), role, unit, grant_id))
    await house.app.identities.grant_role(await house.caller("oscar"), identity_pb2.GrantRoleRequest(envelope=envelope))


async def test_the_maker_never_checks_whatever_roles_it_holds(house: House) -> None:
    await awaiting(house)
    await grant(house, "rita", "validator")
    await refused(house, "MAKER_CHECKER", "rita", "validator")
    await refused(house, "MAKER_CHECKER", "rita", "validator", granted=False)


async def test_one_person_with_both_roles_signs_once(house: House) -> None:
    await awaiting(house)
    await grant(house, "cora", "validator")
    await decide(house, "cora", "compliance_officer")
    await refused(house, "SIGNED_BEFORE", "cora", "validator")


async def test_a_role_revoked_after_the_call_began_does_not_count(house: House) -> None:
    await awaiting(house)
    vik = await house.caller("vik")
    (held,) = house.app.store.read(lambda c: grants_of(c, house.subject("vik")))
    envelope = house.sign("oscar", grant_revocation_statement(held.grant_id, "left"))
    request = identity_pb2.RevokeRoleRequest(name=f"roleGrants/{held.grant_id}", envelope=envelope)
    await house.app.identities.revoke_role(await house.caller("oscar"), request)
    found = await pending(house, "cora")
    statement = approval_statement(found, granted=True, role="validator", reason=SAID, signed_at=now())
    request = decision(house.sign("vik", statement), found.etag)
    with pytest.raises(PermissionDeniedError) as caught:
        await house.app.approvals.decide_approval(vik, request)
    assert caught.value.reason == "ROLE_MISSING"


async def test_somebody_elses_signature_is_not_mine(house: House) -> None:
    await awaiting(house)
    await refused(house, "SIGNER", "cora", "compliance_officer", signer="vik")


async def test_a_changed_payload_or_signature_does_not_hold(house: House) -> None:
    await awaiting(house)
    found = await pending(house)
    cora = await house.caller("cora")
    good = house.sign(
        "cora", approval_statement(found, granted=True, role="compliance_officer", reason=SAID, signed_at=now())
    )
    damaged = []
    for where in ("payload", "sig", "certificate", "none", "twice"):
        envelope = identity_pb2.Envelope()
        envelope.CopyFrom(good)
        if where == "payload":
            envelope.payload = good.payload.replace(b"support", b"suppost")
        elif where == "none":
            del envelope.signatures[:]
        elif where == "twice":
            envelope.signatures.add().CopyFrom(good.signatures[0])
            envelope.signatures[1].sig = good.signatures[0].sig[:-1] + bytes([good.signatures[0].sig[-1] ^ 1])
        else:
            value = bytearray(getattr(envelope.signatures[0], where))
            value[-1] ^= 1
            setattr(envelope.signatures[0], where, bytes(value))
        damaged.append(envelope)
    for envelope in damaged:
        with pytest.raises(AssayError):
            request = decision(envelope, found.etag)
            await house.app.approvals.decide_approval(cora, request)
    assert state(house) == "AWAITING_APPROVAL" and house.types(NAME)[-1] == "card.rendered"


async def test_a_signature_under_a_foreign_root_does_not_hold(house: House) -> None:
    from assay.identity import Authority

    await awaiting(house)
    found = await pending(house)
    from cryptography.hazmat.primitives.asymmetric import ec

    key, authority = ec.generate_private_key(ec.SECP256R1()), Authority.create("somebody else")
    certificate = authority.issue(house.subject("cora"), key.public_key(), server=False)
    statement = approval_statement(found, granted=True, role="compliance_officer", reason=SAID, signed_at=now())
    envelope = dsse.envelope_to_proto(dsse.sign_person(canonical.encode(statement), key, certificate))
    with pytest.raises(AssayError) as caught:
        request = decision(envelope, found.etag)
        await house.app.approvals.decide_approval(await house.caller("cora"), request)
    assert caught.value.reason == "CERTIFICATE_BAD"


@pytest.mark.parametrize("age", [-3600, 3600])
async def test_a_signature_too_old_or_from_the_future_does_not_count(house: House, age: int) -> None:
    await awaiting(house)
    at = (now() + dt.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await refused(house, "SIGNATURE_AGE", "cora", "compliance_officer", signed_at=at)


@pytest.mark.parametrize(
    "changes",
    [{"extra": "x"}, {"decision": "maybe"}, {"card_index": "4"}, {"card_index": True}, {"role": "emperor"}],
)
async def test_what_is_not_understood_is_not_signed(house: House, changes: dict[str, object]) -> None:
    await awaiting(house)
    reason = "ROLE" if "role" in changes else "STATEMENT"
    if "role" in changes:
        found = await pending(house)
        statement = approval_statement(found, granted=True, role="validator", reason=SAID, signed_at=now())
        statement["predicate"]["role"] = "emperor"
        request = decision(house.sign("vik", statement), found.etag)
        with pytest.raises(AssayError) as caught:
            await house.app.approvals.decide_approval(await house.caller("vik"), request)
        assert caught.value.reason == reason
        return
    await refused(house, reason, "cora", "compliance_officer", **changes)


async def test_revocation_voids_the_approval(house: House) -> None:
    await approved(house)
    rita = await house.caller("rita")
    job = (await house.app.jobs.get_tuning_job(rita, tuning_job_pb2.GetTuningJobRequest(name=NAME))).tuning_job
    for name, reason in (("vik", "ROLE_MISSING"), ("rita", "ROLE_MISSING")):
        envelope = house.sign(name, revocation_statement(NAME, job.etag, "drift"))
        request = approval_pb2.RevokeApprovalRequest(name=NAME, etag=job.etag, envelope=envelope)
        with pytest.raises(AssayError) as caught:
            await house.app.approvals.revoke_approval(await house.caller(name), request)
        assert caught.value.reason == reason
    envelope = house.sign("cora", revocation_statement(NAME, job.etag, "drift"))
    request = approval_pb2.RevokeApprovalRequest(name=NAME, etag=job.etag, envelope=envelope)
    answer = await house.app.approvals.revoke_approval(await house.caller("cora"), request)
    assert answer.tuning_job.state == tuning_job_pb2.TuningJob.STATE_REVOKED
    assert house.types(NAME)[-2:] == ["approval.revoked", "job.revoked"]
    with pytest.raises(AssayError):
        await house.app.approvals.revoke_approval(await house.caller("cora"), request)


def quarantined(*outcomes: policy_pb2.RuleOutcome) -> policy_pb2.Verdict:
    return policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_FAIL, outcomes=outcomes)


async def waive(house: House, name: str, rules: list[str], *, days: int = 30) -> approval_pb2.WaiveRulesResponse:
    rita = await house.caller("rita")
    job = (await house.app.jobs.get_tuning_job(rita, tuning_job_pb2.GetTuningJobRequest(name=NAME))).tuning_job
    expires = now().date() + dt.timedelta(days=days)
    statement = waiver_statement(NAME, job.etag, rules, SAID, INSTEAD, expires)
    request = approval_pb2.WaiveRulesRequest(
        name=NAME, etag=job.etag, envelope=house.sign(name, statement), reason=SAID, compensating_control=INSTEAD
    )
    return await house.app.approvals.waive_rules(await house.caller(name), request)


async def test_a_waiver_of_every_rule_leads_back_and_renders_a_new_card(house: House) -> None:
    verdict = quarantined(
        outcome("A", passed=False, waivable_by="ROLE_VALIDATOR"),
        outcome("B", passed=True),
        outcome("C", passed=False, waivable_by="ROLE_VALIDATOR"),
    )
    await judged(house, verdict)
    before = await card(house, model_pb2.CARD_FORMAT_JSON)
    answer = await waive(house, "vik", ["A", "C"])
    assert answer.tuning_job.state == tuning_job_pb2.TuningJob.STATE_AWAITING_APPROVAL
    assert house.types(NAME)[-2:] == ["rules.waived", "job.waived"]
    # Until its new card is there, nobody can sign it.
    everywhere = approval_pb2.ListPendingApprovalsRequest(parent="units/-")
    listed = await house.app.approvals.list_pending_approvals(await house.caller("vik"), everywhere)
    assert not listed.pending_approvals
    await house.app.pipeline.cards.render(NAME)
    assert await card(house, model_pb2.CARD_FORMAT_JSON) != before
    assert (await pending(house)).tuning_job == NAME


@pytest.mark.parametrize(
    ("name", "rules", "days", "reason"),
    [
        ("vik", ["A"], 30, "RULES_LEFT"),
        ("vik", ["A", "C", "Z"], 30, "STATEMENT"),
        ("vik", ["A", "B", "C"], 30, "STATEMENT"),
        ("vik", ["A", "C"], -1, "WAIVER_EXPIRED"),
        ("cora", ["A", "C"], 30, "ROLE_MISSING"),
        ("rita", ["A", "C"], 30, "MAKER_CHECKER"),
    ],
)
async def test_waivers_that_do_not_hold(house: House, name: str, rules: list[str], days: int, reason: str) -> None:
    verdict = quarantined(
        outcome("A", passed=False, waivable_by="validator"),
        outcome("B", passed=True),
        outcome("C", passed=False, waivable_by="validator"),
    )
    await judged(house, verdict)
    size = house.app.ledger.size
    with pytest.raises(AssayError) as caught:
        await waive(house, name, rules, days=days)
    assert caught.value.reason == reason
    assert state(house) == "QUARANTINED" and house.app.ledger.size == size


@pytest.mark.parametrize(("days", "holds"), [(7, True), (8, False)])
async def test_a_waiver_lasts_as_long_as_its_rule_lets_it(house: House, days: int, holds: bool) -> None:
    short = outcome("A", passed=False, waivable_by="validator")
    short.waiver_days = 7
    await judged(house, quarantined(short, outcome("B", passed=False, waivable_by="validator")))
    if holds:
        await waive(house, "vik", ["A", "B"], days=days)
        assert state(house) == "AWAITING_APPROVAL"
        return
    with pytest.raises(AssayError) as caught:
        await waive(house, "vik", ["A", "B"], days=days)
    assert caught.value.reason == "WAIVER_TOO_LONG" and "A may be waived for 7 days" in caught.value.message
    assert str(now().date() + dt.timedelta(days=7)) in caught.value.remedy and state(house) == "QUARANTINED"


async def test_a_rule_that_nobody_may_waive_stays(house: House) -> None:
    await judged(house, quarantined(outcome("A", passed=False)))
    with pytest.raises(AssayError) as caught:
        await waive(house, "vik", ["A"])
    assert caught.value.reason == "NOT_WAIVABLE"


async def dismiss(house: House, who: str, **changed: Any) -> tuning_job_pb2.TuningJob:
    """Signs and hands in a no to the appeal that the job waits with."""
    job = (
        await house.app.jobs.get_tuning_job(await house.caller("rita"), tuning_job_pb2.GetTuningJobRequest(name=NAME))
    ).tuning_job
    said = opening("the rows were not mended")
    values = {"name": NAME, "etag": job.etag, "reason": said, **changed}
    values["envelope"] = house.sign(who, dismissal_statement(values["name"], values["etag"], said))
    request = approval_pb2.DismissAppealRequest(**values)
    return (await house.app.approvals.dismiss_appeal(await house.caller(who), request)).tuning_job


async def appeal(house: House, who: str = "rita") -> tuning_job_pb2.TuningJob:
    request = tuning_job_pb2.AppealTuningJobRequest(name=NAME, reason="the sample was odd")
    return (await house.app.jobs.appeal_tuning_job(await house.caller(who), request)).tuning_job


async def test_a_dismissed_appeal_stays_refused_and_cannot_be_filed_again(house: House) -> None:
    await judged(house, quarantined(outcome("A", passed=False)))
    assert (await appeal(house)).HasField("appeal_due_time")
    job = await dismiss(house, "cora")
    assert job.state == tuning_job_pb2.TuningJob.STATE_QUARANTINED and not job.HasField("appeal_due_time")
    assert job.transitions[-1].reason == "the rows were not mended"
    assert house.types(NAME)[-2:] == ["appeal.dismissed", "appeal.answered"]
    for again in (appeal(house), dismiss(house, "cora")):
        with pytest.raises(PreconditionError) as caught:
            await again
        assert caught.value.reason in ("APPEAL_ENDED", "NO_APPEAL")


@pytest.mark.parametrize(
    ("who", "changed", "reason"),
    [
        ("vik", {}, "ROLE_MISSING"),
        ("rita", {}, "MAKER_CHECKER"),
        ("cora", {"etag": "another"}, "ETAG"),
        ("cora", {"reason": opening("other words")}, "COMMITMENT_MISMATCH"),
    ],
)
async def test_dismissals_that_do_not_hold(house: House, who: str, changed: dict[str, Any], reason: str) -> None:
    await judged(house, quarantined(outcome("A", passed=False)))
    await appeal(house)
    size = house.app.ledger.size
    with pytest.raises(AssayError) as caught:
        await dismiss(house, who, **changed)
    assert caught.value.reason == reason and house.app.ledger.size == size


async def test_who_filed_an_appeal_does_not_dismiss_it(house: House) -> None:
    """Any member of the unit who may appeal can be an officer too."""
    await judged(house, quarantined(outcome("A", passed=False)))
    await appeal(house, "cora")
    with pytest.raises(PermissionDeniedError) as caught:
        await dismiss(house, "cora")
    assert caught.value.reason == "MAKER_CHECKER"


@pytest.mark.parametrize("until", [Event.DENY, None])
async def test_who_filed_an_appeal_does_not_grant_it(house: House, until: Event | None) -> None:
    """A waiver is the yes to an appeal. Without one that waits, the same person may waive."""
    await judged(house, quarantined(outcome("A", passed=False, waivable_by="validator")), until=until)
    await appeal(house, "vik")
    size, before = house.app.ledger.size, state(house)
    with pytest.raises(PermissionDeniedError) as caught:
        await waive(house, "vik", ["A"])
    assert caught.value.reason == "MAKER_CHECKER"
    assert state(house) == before and house.app.ledger.size == size
    await dismiss(house, "cora")
    await house.app.pipeline.cards.render(NAME)
    await waive(house, "vik", ["A"])
    assert state(house) == ("QUEUED" if until else "AWAITING_APPROVAL")


async def test_who_filed_an_appeal_does_not_decide_on_the_model(house: House) -> None:
    """Against a person's refusal the answer is another decision."""
    await awaiting(house)
    await grant(house, "olga", "validator")
    await decide(house, "olga", "validator", granted=False)
    await appeal(house, "vik")
    await house.app.pipeline.cards.render(NAME)
    for granted in (True, False):
        await refused(house, "MAKER_CHECKER", "vik", "validator", granted=granted)
    await grant(house, "carl", "validator", grant_id="g-2")
    await decide(house, "carl", "validator")
    await decide(house, "cora", "compliance_officer")
    assert state(house) == "APPROVED"


async def test_who_uploaded_the_rows_decides_on_no_job_on_them(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = house.upload

    async def by_vik(name: str, unit: str = "credit") -> str:
        return await upload("vik", unit)

    monkeypatch.setattr(house, "upload", by_vik)
    await awaiting(house)
    await refused(house, "MAKER_CHECKER", "vik", "validator")


async def test_who_uploaded_the_rows_waives_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = house.upload

    async def by_vik(name: str, unit: str = "credit") -> str:
        return await upload("vik", unit)

    monkeypatch.setattr(house, "upload", by_vik)
    await judged(house, quarantined(outcome("A", passed=False, waivable_by="validator")))
    with pytest.raises(PermissionDeniedError) as caught:
        await waive(house, "vik", ["A"])
    assert caught.value.reason == "MAKER_CHECKER"


async def test_without_an_appeal_there_is_nothing_to_dismiss(house: House) -> None:
    await judged(house, quarantined(outcome("A", passed=False)))
    with pytest.raises(PreconditionError) as caught:
        await dismiss(house, "cora")
    assert caught.value.reason == "NO_APPEAL"


async def test_an_appeal_is_recorded_and_leaves_the_state(house: House) -> None:
    await judged(house, quarantined(outcome("A", passed=False)))
    request = tuning_job_pb2.AppealTuningJobRequest(name=NAME, reason="the sample was odd")
    answer = await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)
    assert answer.tuning_job.state == tuning_job_pb2.TuningJob.STATE_QUARANTINED
    body = json.loads(house.app.ledger.record(answer.tuning_job.transitions[-1].record_index).body)
    assert body["type"] == "appeal.filed" and len(body["statement"]["predicate"]["grounds_commitment"]) == 64
