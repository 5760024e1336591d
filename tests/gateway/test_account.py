"""Budgets: a reservation is never given back, sums cover every job, and a race is decided again."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from assay import canonical
from assay.errors import AbortedError, ExhaustedError
from assay.v1 import policy_input_pb2, policy_pb2, tuning_job_pb2
from audit.ledger.records import MAX_BODY
from audit.ledger.writer import UnitOfWork
from gateway.admission import account
from gateway.admission.intake import decision_predicate
from gateway.history import INTAKE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.store import jobs, rows
from gateway.store.tables import BudgetRow, FactRow, JobRow, ModelRow, TransitionRow
from policies import fixing
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.testing import read_cases
from tests.gateway.conftest import House
from tests.gateway.judged import awaiting, judged, outcome

DP = policy_input_pb2.DifferentialPrivacy(epsilon=3.0, delta=1e-6)


async def received(house: House, name: str, dataset: str = "rows") -> JobRow:
    """A job that waits, asking for differential privacy."""
    rita = await house.caller("rita")
    request = house.request(job=name, dataset=dataset, differential_privacy=DP)
    await house.app.jobs.create_tuning_job(rita, request)
    job = await house.app.store.fetch(lambda c: jobs.get(c, f"units/credit/tuningJobs/{name}"))
    assert job is not None
    return job


async def told(house: House, job: JobRow) -> policy_input_pb2.IntakeInput:
    """What policy would be told of a job's account."""
    question = policy_input_pb2.IntakeInput(
        request=policy_input_pb2.RequestFacts(quote_usd_micros=700, differential_privacy=DP)
    )
    now = dt.datetime.now(dt.UTC)
    question.account.CopyFrom(await house.app.store.fetch(lambda c: account.read(c, job, now)))
    return question


def clean() -> policy_input_pb2.IntakeInput:
    """A question that policy allows."""
    case = next(c for c in read_cases(load(BASELINE)) if c.name == "a clean chat request is allowed")
    question = policy_input_pb2.IntakeInput()
    question.CopyFrom(case.intake)
    return question


async def others_reserved(house: House, job: JobRow) -> account.Reserved:
    """What others had reserved when policy was asked."""
    now = dt.datetime.now(dt.UTC)
    return await house.app.store.fetch(lambda c: account.reserved(c, job, now))


async def reserve(
    house: House,
    job: JobRow,
    question: policy_input_pb2.IntakeInput,
    index: int = 5,
    by_others: account.Reserved | None = None,
) -> None:
    """Reserves after a decision on what others have reserved, by default by now."""
    by_others = by_others or await others_reserved(house, job)
    await house.app.store.commit(lambda uow: account.reserve(uow, index, job, question, by_others))


async def test_what_is_reserved_adds_up_and_is_shown(house: House) -> None:
    await house.upload("rita")
    first, second = await received(house, "first"), await received(house, "second")
    assert (await told(house, first)).account.dataset_epsilon_micros == 0
    await reserve(house, first, await told(house, first), 17)
    seen = (await told(house, second)).account
    assert seen.dataset_epsilon_micros == 3_000_000 and seen.unit_usd_micros == 700
    (entry,) = seen.dataset_entries
    assert (entry.job, entry.epsilon_micros, entry.record_index) == (first.name, 3_000_000, 17)
    assert seen.unit_jobs_today == 1 and seen.unit_jobs_under_way == 1
    # A job's own reservation does not stand against it, and it reserves once.
    assert (await told(house, first)).account.dataset_epsilon_micros == 0
    await reserve(house, first, await told(house, first))
    assert (await told(house, second)).account.dataset_epsilon_micros == 3_000_000


async def test_an_entry_says_what_its_epsilon_is_of(house: House) -> None:
    await house.upload("rita")
    names = ("first", "second", "third", "fourth")
    first, second, third, fourth = [await received(house, name) for name in names]
    plain = await told(house, first)
    plain.request.ClearField("differential_privacy")
    await reserve(house, first, plain)
    assert not (await told(house, second)).account.dataset_privacy_units
    of_users = await told(house, second)
    of_users.request.differential_privacy.unit = "user"
    before = await others_reserved(house, third)
    await reserve(house, second, of_users)
    facts = (await told(house, third)).account
    assert list(facts.dataset_privacy_units) == ["user"] and facts.dataset_entries[0].privacy_unit == "user"
    stale = dataclasses.replace(before, epsilon_micros=3_000_000, usd_micros=1400)
    with pytest.raises(AbortedError):
        await reserve(house, third, await told(house, third), by_others=stale)
    await reserve(house, third, await told(house, third))
    assert list((await told(house, fourth)).account.dataset_privacy_units) == ["row", "user"]


async def test_the_same_bytes_under_another_name_have_no_other_budget(house: House) -> None:
    for dataset, data in (("rows", b"x\n" * 100), ("again", b"x\n" * 100), ("others", b"y\n" * 100)):
        await house.upload("rita", dataset=dataset, data=data)
    first = await received(house, "first")
    again, others = await received(house, "second", "again"), await received(house, "third", "others")
    before = await others_reserved(house, again)
    await reserve(house, first, await told(house, first))
    seen = (await told(house, again)).account
    assert seen.dataset_epsilon_micros == 3_000_000 and list(seen.dataset_privacy_units) == ["row"]
    assert [entry.job for entry in seen.dataset_entries] == [first.name]
    assert (await told(house, others)).account.dataset_epsilon_micros == 0
    with pytest.raises(AbortedError):
        await reserve(house, again, await told(house, again), by_others=before)


async def test_earlier_tries_on_the_same_bytes_are_counted_under_whatever_name(house: House) -> None:
    """Each was one more try at the same limits: of enough tries one passes by luck."""
    fail = policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_FAIL, outcomes=[outcome("OUT", passed=False)])
    held = await judged(house, fail)
    for dataset, data in (("again", b"x\n" * 100), ("others", b"y\n" * 100)):
        await house.upload("rita", dataset=dataset, data=data)
    await house.upload("rita", "claims")
    rita = await house.caller("rita")
    for name, dataset in (("second", "again"), ("third", "rows"), ("fourth", "others")):
        await house.app.jobs.create_tuning_job(rita, house.request(job=name, dataset=dataset))
    await house.app.jobs.create_tuning_job(rita, house.request("claims", job="fifth"))

    async def row(name: str) -> JobRow:
        found = await house.app.store.fetch(lambda c: jobs.get(c, name))
        assert found is not None
        return found

    async def tries(name: str) -> tuple[int, int]:
        account_of = (await told(house, await row(name))).account
        return account_of.dataset_jobs_judged, account_of.dataset_jobs_held_back

    second, third, fourth = (f"units/credit/tuningJobs/{name}" for name in ("second", "third", "fourth"))
    assert await tries(second) == (0, 0), "nothing was reserved: it was never let train"
    await reserve(house, await row(held), await told(house, await row(held)))
    assert await tries(held) == (0, 0) and await tries(second) == await tries(third) == (1, 1)
    assert await tries(fourth) == (0, 0) and await tries("units/claims/tuningJobs/fifth") == (0, 0)
    await reserve(house, await row(second), await told(house, await row(second)))
    assert await tries(third) == (1, 1), "the second was not judged yet"
    passed = {"job": second, "version": 90, "event": Event.PASS, "from_state": "AUDITING", "actor": "g", "time_us": 1}
    there = TransitionRow(**passed, to_state="AWAITING_APPROVAL", record_index=90)
    await house.app.store.commit(lambda u: rows.insert(u.connection, there))
    assert await tries(third) == (2, 1) and await tries(second) == (1, 1) and await tries(held) == (1, 0)
    waived = TransitionRow(**{**passed, "job": held, "event": Event.WAIVE}, to_state="QUEUED", record_index=91)
    await house.app.store.commit(lambda u: rows.insert(u.connection, waived))
    assert await tries(third) == (2, 1)


async def test_the_card_is_told_of_earlier_tries_and_of_none_where_there_was_none(house: House) -> None:
    name = await awaiting(house)
    cards = house.app.pipeline.cards

    async def gathered(asked: policy_input_pb2.IntakeInput) -> dict[str, Any]:
        def store(uow: UnitOfWork) -> None:
            key = {"job": name, "key": INTAKE_QUESTION}
            rows.update(uow.connection, FactRow, key, {"value": views.to_json(asked)})
            rows.update(uow.connection, ModelRow, {"job": name}, {"card_version": 0})

        await house.app.store.commit(store)
        found = await house.app.store.fetch(lambda c: cards._gather(c, name))
        assert found is not None
        return found[2]

    assert "tries" not in await gathered(policy_input_pb2.IntakeInput())
    told_of = policy_input_pb2.AccountFacts(dataset_jobs_judged=3, dataset_jobs_held_back=2)
    asked = policy_input_pb2.IntakeInput(account=told_of)
    assert (await gathered(asked))["tries"] == {"judged": 3, "held_back": 2}


async def test_a_cancelled_job_gives_no_epsilon_back(house: House) -> None:
    await house.upload("rita")
    first, second = await received(house, "first"), await received(house, "second")
    await reserve(house, first, await told(house, first))
    rita = await house.caller("rita")
    await house.app.jobs.cancel_tuning_job(
        rita, tuning_job_pb2.CancelTuningJobRequest(name=first.name, reason="not needed")
    )
    assert (await told(house, second)).account.unit_usd_micros == 700, "its workers were not heard yet"
    await house.app.store.commit(lambda u: jobs.note(u.connection, first.name, {"needs_work": False}))
    seen = (await told(house, second)).account
    assert seen.dataset_epsilon_micros == 3_000_000
    # Money is given back: nothing was computed.
    assert seen.unit_usd_micros == 0 and seen.unit_jobs_under_way == 0 and seen.unit_jobs_today == 1


async def test_of_two_that_were_told_the_same_account_one_is_decided_again(house: House) -> None:
    await house.upload("rita")
    first, second = await received(house, "first"), await received(house, "second")
    one, two = await told(house, first), await told(house, second)
    before = await others_reserved(house, second)
    await reserve(house, first, one)
    with pytest.raises(AbortedError) as caught:
        await reserve(house, second, two, by_others=before)
    assert caught.value.reason == "STALE"
    found = await house.app.store.fetch(lambda c: rows.select_all(c, BudgetRow))
    assert [row.job for row in found] == [first.name]
    await reserve(house, second, await told(house, second))


async def test_a_neighbour_that_overspends_its_quote_holds_up_no_decision(house: House) -> None:
    """It notes a new cost every few seconds; policy is told of it, and what is reserved stays its quote."""
    await house.upload("rita")
    first, second, third = [await received(house, name) for name in ("first", "second", "third")]
    await reserve(house, first, await told(house, first))

    async def spend(usd_micros: int) -> None:
        values = {"cost_usd_micros": usd_micros}
        await house.app.store.commit(lambda u: jobs.note(u.connection, first.name, values))

    await spend(900)
    asked, before = await told(house, second), await others_reserved(house, second)
    assert asked.account.unit_usd_micros == 900
    other = await others_reserved(house, third)
    await spend(1_000)
    await reserve(house, second, asked, by_others=before)
    await spend(1_100)
    with pytest.raises(AbortedError):
        await reserve(house, third, asked, by_others=other)
    assert (await told(house, third)).account.unit_usd_micros == 1_800


async def test_another_dataset_and_another_month_have_their_own(house: House) -> None:
    await house.upload("rita")
    await house.upload("rita", dataset="others", data=b"y\n" * 100)
    first = await received(house, "first")
    await reserve(house, first, await told(house, first))
    rita = await house.caller("rita")
    await house.app.jobs.create_tuning_job(rita, house.request(job="third", dataset="others"))
    third = await house.app.store.fetch(lambda c: jobs.get(c, "units/credit/tuningJobs/third"))
    assert third is not None
    seen = (await told(house, third)).account
    assert seen.dataset_epsilon_micros == 0 and seen.unit_usd_micros == 700
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)
    seen = await house.app.store.fetch(lambda c: account.read(c, third, later))
    assert seen.unit_usd_micros == 0 and seen.unit_jobs_today == 0


async def test_the_rule_refuses_with_the_ledger_attached(house: House) -> None:
    await house.upload("rita")
    names = ("a", "b", "c")
    waiting = [await received(house, name) for name in names]
    for index, job in enumerate(waiting[:2]):
        await reserve(house, job, await told(house, job), 40 + index)
    question = clean()
    question.request.differential_privacy.CopyFrom(DP)
    question.account.CopyFrom((await told(house, waiting[2])).account)
    outcomes = {o.rule_id: o for o in PolicyEngine(load(BASELINE)).decide(question).outcomes}
    said = outcomes["BASE-EPSILON"].message
    assert all(f"units/credit/tuningJobs/{name} on" in said for name in "ab") and "record 41" in said
    assert "Ask for at most 2" in outcomes["BASE-EPSILON"].fix


async def test_a_quota_refuses_with_the_jobs_that_it_counts(house: House) -> None:
    await house.upload("rita")
    first, second, third = [await received(house, name) for name in ("first", "second", "third")]
    rita = await house.caller("rita")
    await house.app.jobs.cancel_tuning_job(
        rita, tuning_job_pb2.CancelTuningJobRequest(name=second.name, reason="not needed")
    )
    question = clean()
    question.account.CopyFrom((await told(house, third)).account)
    facts = question.account
    records = {r.job: r.index for r in house.app.ledger.records("credit", None, -1, 50) if r.type == "job.received"}
    assert [(j.job, j.state, j.record_index) for j in facts.unit_jobs] == [
        (second.name, "CANCELLED", records[second.name]), (first.name, "RECEIVED", records[first.name])
    ]  # fmt: skip
    assert (facts.unit_jobs_today, facts.unit_jobs_under_way) == (2, 1)
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    later = await house.app.store.fetch(lambda c: account.read(c, third, tomorrow))
    assert [j.job for j in later.unit_jobs] == [first.name] and later.unit_jobs_today == 0
    facts.unit_jobs_today = 10_000
    said = {o.rule_id: o for o in PolicyEngine(load(BASELINE)).decide(question).outcomes}["BASE-UNIT-JOBS"]
    assert said.outcome == policy_pb2.OUTCOME_FAIL
    assert f"{first.name} of {facts.unit_jobs[1].day}, RECEIVED (record {records[first.name]})" in said.message


@pytest.mark.parametrize("limit", ["unit_jobs_a_day", "unit_jobs_under_way"])
async def test_a_unit_at_its_quota_is_told_so_before_anything_is_prepared(
    house: House, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(PolicyEngine, "most", lambda self, name, profile: 2 if name == limit else 1000)
    rita = await house.caller("rita")
    for unit in ("credit", "support"):
        await house.upload("rita", unit)
    first = house.request(job="first")
    await house.app.jobs.create_tuning_job(rita, first)
    await received(house, "second")
    size = house.app.ledger.size
    for asked in (house.request(job="third"), house.request(job="third", validate_only=True)):
        with pytest.raises(ExhaustedError) as caught:
            await house.app.jobs.create_tuning_job(rita, asked)
        assert caught.value.reason == "UNIT_JOBS" and f"limits.{limit} is 2" in caught.value.message
    assert house.app.ledger.size == size
    # A repeat was answered before, and another unit has a quota of its own.
    assert (await house.app.jobs.create_tuning_job(rita, first)).tuning_job.name.endswith("/first")
    await house.app.jobs.create_tuning_job(rita, house.request("support", job="third"))
    await house.app.jobs.cancel_tuning_job(
        rita, tuning_job_pb2.CancelTuningJobRequest(name="units/credit/tuningJobs/second", reason="not needed")
    )
    if limit == "unit_jobs_under_way":
        await received(house, "third")
    else:
        with pytest.raises(ExhaustedError):
            await received(house, "third")


def test_the_quota_is_the_bundles(engine: PolicyEngine) -> None:
    assert (engine.most("unit_jobs_a_day", "quick"), engine.most("unit_jobs_under_way", "strict")) == (1000, 200)
    assert engine.most("of_another_bundle", "quick") is None and engine.most("dp_epsilon", "quick") is None


def test_epsilon_is_rounded_up() -> None:
    request = policy_input_pb2.RequestFacts(differential_privacy={"epsilon": 0.1 + 0.2, "delta": 1e-6})
    assert account.epsilon_micros(request) == 300_001
    assert account.epsilon_micros(policy_input_pb2.RequestFacts()) == 0


def test_every_trial_of_a_search_spends_its_epsilon() -> None:
    """Also where an institution's own bundle lets a search ask for differential privacy, which ours does not."""
    search = policy_input_pb2.Search(lora_ranks=[2, 4, 8], learning_rates=[1e-4, 1e-3])
    request = policy_input_pb2.RequestFacts(differential_privacy=DP, search=search)
    assert account.epsilon_micros(request) == 18_000_000


@pytest.mark.parametrize("case", ["a clean decision request is allowed", "a datasheet that says nothing"])
def test_a_decision_of_every_pack_fits_into_one_record(case: str) -> None:
    bundle = load()
    engine = PolicyEngine(bundle, packs=frozenset(part.name for part in bundle.parts))
    question = next(c for c in read_cases(load(BASELINE)) if c.name == case).intake
    worst = policy_input_pb2.IntakeInput(format=question.format)
    for asked in (question, worst):
        answer = engine.decide(asked)
        answer.minimal_fix.CopyFrom(fixing.minimal_fix(engine, asked))
        recorded = decision_predicate(answer)
        assert len(canonical.encode(recorded)) < MAX_BODY - 20_000
        told = recorded["decision"]["outcomes"]
        assert [o["rule_id"] for o in told] == [o.rule_id for o in answer.outcomes]
        assert all(o.get("message") for o in told if o["outcome"] in ("OUTCOME_FAIL", "OUTCOME_ERROR"))
