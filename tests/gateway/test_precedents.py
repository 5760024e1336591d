"""Past decisions are found by rule, words and unit, in the units that a caller may see; and appeals have a clock."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from assay.errors import InvalidInputError, NotFoundError, PermissionDeniedError, PreconditionError
from assay.v1 import policy_pb2, tuning_job_pb2
from gateway import pages, precedents
from gateway.jobs import appeals, views
from gateway.jobs.transitions import Event, State
from gateway.precedents import Precedents
from gateway.store import jobs, rows
from gateway.store.rows import Position
from gateway.store.tables import JobRow, TransitionRow
from policies.engine import PolicyEngine
from tests.gateway.conftest import House
from tests.gateway.judged import awaiting, decide, state

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
FAIL = policy_pb2.OUTCOME_FAIL


async def refused(house: House, unit: str, name: str, rule: str, message: str, also: str = "", **facts: str) -> None:
    """A job that intake denied by one rule, or by two."""
    await house.upload("carl" if unit == "credit" else "rita", unit=unit, dataset=name)
    maker = await house.caller("carl" if unit == "credit" else "rita")
    created = await house.app.jobs.create_tuning_job(maker, house.request(unit=unit, job=name, dataset=name))
    decision = policy_pb2.Decision(as_of="2026-11-01", outcomes=[
        policy_pb2.RuleOutcome(rule_id=rule, outcome=FAIL, message=message),
        policy_pb2.RuleOutcome(rule_id="BASE-PURPOSE", outcome=policy_pb2.OUTCOME_PASS),
        *(policy_pb2.RuleOutcome(rule_id=r, outcome=FAIL, message=message) for r in (also,) if r),
    ])  # fmt: skip

    def work(uow: object) -> None:
        connection = uow.connection  # type: ignore[attr-defined]
        jobs.note(connection, created.tuning_job.name, {"decision": views.to_json(decision), "state": "DENIED"})
        jobs.establish(connection, created.tuning_job.name, facts)

    await house.app.store.commit(work)


def searched(house: House) -> Precedents:
    return Precedents(house.app.settings, house.app.store, house.app.authorizer)


async def search(house: House, who: str, parent: str = "units/-", **asked: str) -> list[tuple[str, str]]:
    request = policy_pb2.ListPrecedentsRequest(parent=parent, **asked)
    answer = await searched(house).list_precedents(await house.caller(who), request)
    return [(p.tuning_job.rsplit("/", 1)[-1], p.rule_id) for p in answer.precedents]


async def test_precedents_are_found_by_rule_words_and_unit(house: House) -> None:
    waiver = json.dumps({"rules": ["BASE-PII-CEILING"], "expires": "2026-12-01"})
    await refused(house, "credit", "names", "BASE-PII-CEILING", "93 % of the rows hold identifiers",
                  **{"waiver.3": waiver})  # fmt: skip
    await refused(house, "credit", "dear", "BASE-BUDGET", "The quote is $9")
    assert await search(house, "cora") == [("dear", "BASE-BUDGET"), ("names", "BASE-PII-CEILING")]
    assert await search(house, "cora", rule_id="BASE-BUDGET") == [("dear", "BASE-BUDGET")]
    assert await search(house, "cora", text="IDENTIFIERS") == [("names", "BASE-PII-CEILING")]
    # A rule that held is no precedent of a refusal.
    assert await search(house, "cora", rule_id="BASE-PURPOSE") == []
    request = policy_pb2.ListPrecedentsRequest(parent="units/credit", rule_id="BASE-PII-CEILING")
    (found,) = (await searched(house).list_precedents(await house.caller("cora"), request)).precedents
    assert found.waived and found.state == "DENIED" and found.moment == "decision" and found.as_of == "2026-11-01"


async def pages_of(house: House, **asked: object) -> list[list[tuple[str, str]]]:
    """All pages of a search of cora's."""
    found, token, cora = [], "", await house.caller("cora")
    while not found or token:
        request = policy_pb2.ListPrecedentsRequest(parent="units/-", page_token=token, **asked)  # type: ignore[arg-type]
        answer = await searched(house).list_precedents(cora, request)
        found.append([(p.tuning_job.rsplit("/", 1)[-1], p.rule_id) for p in answer.precedents])
        token = answer.next_page_token
    return found


async def test_a_search_goes_on_from_page_to_page_within_a_job_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        await refused(house, "credit", name, "BASE-BUDGET", "dear", also="BASE-PII-CEILING")
    whole = [(n, r) for n in ("third", "second", "first") for r in ("BASE-BUDGET", "BASE-PII-CEILING")]
    for size in (1, 2, 3, 4, 6, 7):
        found = await pages_of(house, page_size=size)
        assert [p for page in found for p in page] == whole
        assert all(len(page) == size for page in found[:-1]) and found[-1]
    # A page ends after so many jobs, though none of them matched.
    monkeypatch.setattr(precedents, "_SCANNED", 1)
    job = next(row for row in await house.app.store.fetch(lambda c: rows.select_all(c, JobRow)) if "first" in row.name)
    told = policy_pb2.Decision(outcomes=[policy_pb2.RuleOutcome(rule_id="X-RULE", outcome=FAIL, message="never seen")])
    await house.app.store.commit(lambda u: jobs.note(u.connection, job.name, {"decision": views.to_json(told)}))
    assert await pages_of(house, text="never SEEN") == [[], [], [("first", "X-RULE")]]


async def test_a_page_of_precedents_ends_before_it_is_too_large_for_a_client(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        await refused(house, "credit", name, "BASE-BUDGET", "dear", also="BASE-PII-CEILING")
    monkeypatch.setattr(pages, "MAX_BYTES", 300)
    found = await pages_of(house)
    assert [p for page in found for p in page] == [
        (n, r) for n in ("second", "first") for r in ("BASE-BUDGET", "BASE-PII-CEILING")
    ]
    assert 1 < len(found) <= 4 and all(found)


async def test_a_token_is_good_for_its_own_search(house: House) -> None:
    await refused(house, "credit", "names", "BASE-BUDGET", "dear", also="BASE-PII-CEILING")
    cora = await house.caller("cora")
    request = policy_pb2.ListPrecedentsRequest(parent="units/credit", page_size=1)
    token = (await searched(house).list_precedents(cora, request)).next_page_token
    listing = "precedents units/credit  "
    for other in (
        policy_pb2.ListPrecedentsRequest(parent="units/-", page_token=token),
        policy_pb2.ListPrecedentsRequest(parent="units/credit", text="dear", page_token=token),
        policy_pb2.ListPrecedentsRequest(parent="units/credit", page_token="x" + token),
        policy_pb2.ListPrecedentsRequest(parent="units/credit", page_token=pages.token(listing, Position(1, "job"))),
        policy_pb2.ListPrecedentsRequest(parent="units/credit", page_token=pages.token(listing, Position(1, "job#-1"))),
    ):
        with pytest.raises(InvalidInputError) as caught:
            await searched(house).list_precedents(cora, other)
        assert caught.value.reason == "PAGE_TOKEN"


async def test_another_units_decisions_are_not_told(house: House) -> None:
    await refused(house, "credit", "names", "BASE-PII-CEILING", "identifiers")
    assert await search(house, "mia") == []
    with pytest.raises(NotFoundError):
        await search(house, "mia", "units/credit")
    # Whoever grants the roles of every unit reads no unit's jobs, and so not why they were refused.
    assert await search(house, "oscar") == []


def job(state: State = State.DENIED, *rules: str) -> JobRow:
    outcomes = [policy_pb2.RuleOutcome(rule_id=rule, outcome=FAIL) for rule in rules or ("BASE-PURPOSE",)]
    return JobRow(
        name="units/credit/tuningJobs/first", unit="credit", creator="x", state=state.value, version=3, request="{}",
        decision=views.to_json(policy_pb2.Decision(outcomes=outcomes)), created_us=0, updated_us=0,
    )  # fmt: skip


def step(event: Event, days_ago: float) -> TransitionRow:
    when = rows.micros(NOW - dt.timedelta(days=days_ago))
    return TransitionRow(
        job="j", version=1, event=event.value, from_state="", to_state="", actor="a", time_us=when, record_index=1
    )


def test_an_appeal_is_filed_in_time(engine: PolicyEngine) -> None:
    appeals.demand(engine, job(), [step(Event.DENY, 29.9)], NOW)
    with pytest.raises(PreconditionError) as caught:
        appeals.demand(engine, job(), [step(Event.DENY, 30.1)], NOW)
    assert caught.value.reason == "APPEAL_LATE"


def test_one_appeal_waits_at_a_time_and_is_answered_in_time(engine: PolicyEngine) -> None:
    steps = [step(Event.DENY, 5), step(Event.APPEAL, 4)]
    assert appeals.due(engine, job(), steps) == NOW + dt.timedelta(days=10)
    with pytest.raises(PreconditionError) as caught:
        appeals.demand(engine, job(), steps, NOW)
    assert caught.value.reason == "APPEAL_WAITS"
    # A waiver answers it: the job is no longer where it was refused; and a later refusal is a new one.
    assert appeals.due(engine, job(State.QUEUED), steps) is None
    assert appeals.due(engine, job(State.QUARANTINED), [*steps, step(Event.QUARANTINE, 1)]) is None


def test_what_allows_no_appeal_says_so(engine: PolicyEngine) -> None:
    with pytest.raises(PreconditionError) as caught:
        appeals.demand(engine, job(State.DENIED, "BASE-SPLITS", "BASE-CANARIES"), [step(Event.DENY, 1)], NOW)
    assert caught.value.reason == "NOT_APPEALABLE"
    appeals.demand(engine, job(State.DENIED, "BASE-SPLITS", "BASE-PURPOSE"), [step(Event.DENY, 1)], NOW)
    appeals.demand(engine, job(State.DENIED, "INTAKE-FILE"), [step(Event.DENY, 1)], NOW)


async def test_an_appeal_against_a_person_is_decided_by_others(house: House) -> None:
    name = await awaiting(house, "claims")
    await decide(house, "cora", "compliance_officer", granted=False)
    assert state(house, name) == "REJECTED"
    request = tuning_job_pb2.AppealTuningJobRequest(name=name, reason="the card was misread")
    answer = await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)
    assert answer.tuning_job.state == tuning_job_pb2.TuningJob.STATE_AWAITING_APPROVAL
    assert answer.tuning_job.HasField("appeal_due_time")
    await house.app.pipeline.cards.render(name)
    for granted in (True, False):
        with pytest.raises(PermissionDeniedError) as caught:
            await decide(house, "cora", "compliance_officer", granted=granted)
        assert caught.value.reason == "REFUSER"
    await decide(house, "mia", "compliance_officer")
    done = await decide(house, "vik", "validator")
    assert done.tuning_job.state == tuning_job_pb2.TuningJob.STATE_APPROVED
    assert not done.tuning_job.HasField("appeal_due_time")


async def test_two_refusals_end_it(house: House) -> None:
    name = await awaiting(house, "claims")
    await decide(house, "cora", "compliance_officer", granted=False)
    request = tuning_job_pb2.AppealTuningJobRequest(name=name, reason="the card was misread")
    await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)
    await house.app.pipeline.cards.render(name)
    await decide(house, "mia", "compliance_officer", granted=False)
    with pytest.raises(PreconditionError) as caught:
        await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)
    assert caught.value.reason == "APPEAL_ENDED" and state(house, name) == "REJECTED"
