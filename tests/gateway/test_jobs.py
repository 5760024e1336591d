"""Jobs as clients reach them, on a real ledger; no pipeline runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import protovalidate
import pytest

from assay.errors import AbortedError, AlreadyExistsError, InvalidInputError, NotFoundError, PreconditionError
from assay.v1 import dataset_pb2, policy_input_pb2, policy_pb2
from assay.v1 import tuning_job_pb2 as pb
from audit.ledger.writer import UnitOfWork
from gateway import history
from gateway.base_models import DIGEST
from gateway.jobs import machine, service, views
from gateway.jobs.transitions import ActorKind, Event
from gateway.store import jobs
from gateway.store.jobs import Lease
from tests.gateway.conftest import BASE, House


@pytest.fixture
def postgres_url(either_database: str) -> str:
    return either_database


NAME = "units/credit/tuningJobs/first"


async def created(house: House, **fields: object) -> pb.TuningJob:
    await house.upload("rita")
    answer = await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request(**fields))
    return answer.tuning_job


async def test_create_records_and_answers_at_once(house: House) -> None:
    job = await created(house)
    assert job.state == pb.TuningJob.STATE_RECEIVED
    assert job.creator == house.subject("rita")
    assert [t.event for t in job.transitions] == ["receive"]
    assert house.types(NAME) == ["job.received"]
    body = json.loads(house.app.ledger.record(job.transitions[0].record_index).body)
    predicate = body["statement"]["predicate"]
    assert predicate["actor"] == house.subject("rita")
    assert predicate["trace_id"] == job.trace_id == "0af7651916cd43dd8448eb211c80319c"
    step = {"event": "receive", "from": "NONE", "to": "RECEIVED", "version": 1, "reason": ""}
    assert predicate["transition"] == step


async def test_past_questions_are_read_from_the_rows(house: House) -> None:
    await created(house)
    asked = policy_input_pb2.IntakeInput(format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL)
    fired = policy_pb2.RuleOutcome(rule_id="BASE-MIN-ROWS", outcome=policy_pb2.OUTCOME_FAIL)
    answer = views.to_json(policy_pb2.Decision(as_of="2026-11-01", outcomes=[fired]))

    def answered(uow: UnitOfWork) -> None:
        jobs.establish(uow.connection, NAME, {history.INTAKE_QUESTION: views.to_json(asked)})
        jobs.note(uow.connection, NAME, {"decision": answer})

    await house.app.store.commit(answered)
    (past,) = history.decided(house.layout.root)
    assert (past.name, past.question, past.passed, past.as_of) == (NAME, asked, False, "2026-11-01")
    assert past.fired == {"BASE-MIN-ROWS"}


async def test_a_job_is_shown_without_the_sizes_and_labels_of_small_groups(house: House) -> None:
    await created(house)
    rows, few = policy_input_pb2.GroupLabels(attribute="sex", value="m", rows=90, favourable=50, rate=0.5), "sex=x"
    facts = policy_input_pb2.DataFacts(
        label_counts={"yes": 51, "no": 40}, favourable_label="yes", group_counts={"sex=m": 90, few: 1},
        smallest_group_rows=1, untested_groups={"sex=m": 7}, test_group_counts={few: 1}, train_rows=60,
        group_labels=[rows, policy_input_pb2.GroupLabels(attribute="sex", value="x", rows=1)],
    )  # fmt: skip
    await house.app.store.commit(lambda uow: jobs.note(uow.connection, NAME, {"data": views.to_json(facts)}))
    asked = pb.GetTuningJobRequest(name=NAME)
    told = (await house.app.jobs.get_tuning_job(await house.caller("rita"), asked)).tuning_job.data
    assert dict(told.group_counts) == {"sex=m": 0, few: 0} and dict(told.untested_groups) == {"sex=m": 0}
    assert not told.HasField("smallest_group_rows") and not told.test_group_counts and told.train_rows == 60
    assert [(g.value, g.rows, g.favourable) for g in told.group_labels] == [("m", 0, 0), ("x", 0, 0)]
    kept = await house.app.store.fetch(lambda c: jobs.get(c, NAME))
    assert kept is not None and views.from_json(kept.data, policy_input_pb2.DataFacts) == facts, "policy reads them all"


async def test_attack_43_the_same_request_twice_is_one_job(house: House) -> None:
    await house.upload("rita")
    rita, request = await house.caller("rita"), house.request()
    answers = await asyncio.gather(*(house.app.jobs.create_tuning_job(rita, request) for _ in range(8)))
    assert len({a.tuning_job.SerializeToString(deterministic=True) for a in answers}) == 1
    assert house.types(NAME) == ["job.received"]
    other = house.request(purpose="other", request_id=request.request_id)
    with pytest.raises(AlreadyExistsError) as caught:
        await house.app.jobs.create_tuning_job(rita, other)
    assert caught.value.reason == "REQUEST_ID"
    with pytest.raises(AlreadyExistsError) as caught:
        await house.app.jobs.create_tuning_job(rita, house.request())
    assert caught.value.reason == "JOB_EXISTS"
    # Another subject's id is another id.
    with pytest.raises(AlreadyExistsError) as caught:
        await house.app.jobs.create_tuning_job(await house.caller("carl"), request)
    assert caught.value.reason == "JOB_EXISTS"


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"dataset": "units/credit/datasets/none"}, NotFoundError, "NOT_FOUND"),
        ({"dataset": "units/claims/datasets/rows"}, InvalidInputError, "OTHER_UNIT"),
        ({"base_model": "gpt-99"}, InvalidInputError, "BASE_MODEL_UNKNOWN"),
        ({"parent": "units/nowhere", "dataset": "units/nowhere/datasets/rows"}, NotFoundError, "NOT_FOUND"),
        ({"parent": "units/system", "dataset": "units/system/datasets/rows"}, NotFoundError, "NOT_FOUND"),
    ],
)
async def test_what_cannot_be_asked_for_leaves_nothing(
    house: House, fields: dict[str, str], kind: type[Exception], reason: str
) -> None:
    await house.upload("rita")
    await house.upload("rita", "claims")
    size = house.app.ledger.size
    for dry in (True, False):
        with pytest.raises(kind) as caught:
            request = house.request(**fields, validate_only=dry)
            await house.app.jobs.create_tuning_job(await house.caller("rita"), request)
        assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert house.app.ledger.size == size


async def test_validate_only_answers_with_policy_and_stores_nothing(house: House) -> None:
    await house.upload("rita")
    size = house.app.ledger.size
    request = house.request(validate_only=True, purpose="mass-surveillance")
    answer = await house.app.jobs.create_tuning_job(await house.caller("rita"), request)
    assert answer.tuning_job.decision.outcomes and not answer.tuning_job.decision.allowed
    assert house.app.ledger.size == size
    with pytest.raises(NotFoundError):
        await house.app.jobs.get_tuning_job(await house.caller("rita"), pb.GetTuningJobRequest(name=NAME))


@pytest.mark.parametrize(
    ("asked", "valid"),
    [
        ({"epsilon": 3, "delta": 1e-6}, True),
        ({"noise_multiplier": 1.1, "delta": 1e-6}, True),
        ({"epsilon": 3, "noise_multiplier": 1.1, "delta": 1e-6}, False),
        ({"noise_multiplier": 1.1}, False),
        ({"delta": 1e-6}, False),
        ({}, False),
    ],
)
def test_a_private_job_states_one_target(asked: dict[str, float], valid: bool) -> None:
    request = pb.CreateTuningJobRequest(differential_privacy=policy_input_pb2.DifferentialPrivacy(**asked))
    said = {v.proto.rule_id: v.proto.message for v in protovalidate.collect_violations(request)}
    assert ("differential_privacy.target" not in said) == valid
    assert valid or "either epsilon or noise_multiplier" in said["differential_privacy.target"]


async def test_another_unit_looks_like_nothing_there(house: House) -> None:
    await house.upload("rita", "claims")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request("claims"))
    carl, service = await house.caller("carl"), house.app.jobs
    name = "units/claims/tuningJobs/first"
    calls = [
        service.get_tuning_job(carl, pb.GetTuningJobRequest(name=name)),
        service.cancel_tuning_job(carl, pb.CancelTuningJobRequest(name=name, reason="x")),
        service.pause_tuning_job(carl, pb.PauseTuningJobRequest(name=name, reason="x")),
        service.resume_tuning_job(carl, pb.ResumeTuningJobRequest(name=name, reason="x")),
        service.appeal_tuning_job(carl, pb.AppealTuningJobRequest(name=name, reason="x")),
        service.list_tuning_jobs(carl, pb.ListTuningJobsRequest(parent="units/claims")),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            await call
    with pytest.raises(NotFoundError):
        _ = [m async for m in service.watch_tuning_job(carl, pb.WatchTuningJobRequest(name=name))]
    assert house.types(name) == ["job.received"]


async def test_cancel_and_the_events_that_no_state_allows(house: House) -> None:
    await created(house)
    rita, service = await house.caller("rita"), house.app.jobs
    for call in (
        service.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=NAME, reason="x")),
        service.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="x")),
        service.appeal_tuning_job(rita, pb.AppealTuningJobRequest(name=NAME, reason="x")),
    ):
        with pytest.raises(PreconditionError) as caught:
            await call
        assert caught.value.reason == "JOB_STATE"
    answer = await service.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="not needed"))
    assert answer.tuning_job.state == pb.TuningJob.STATE_CANCELLED
    assert answer.tuning_job.reason == "not needed"
    assert house.types(NAME) == ["job.received", "job.cancelled"]
    with pytest.raises(PreconditionError):
        await service.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="again"))


async def test_of_many_changes_at_once_one_wins_and_leaves_one_record(house: House) -> None:
    job = await created(house)
    actor = house.app.settings.subject
    change = machine.Change(Event.PREPARE, actor, ActorKind.GATEWAY, version=job.transitions[-1].version)
    calls = [house.app.store.commit(lambda u: machine.transition(u, NAME, change)) for _ in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(r, AbortedError) for r in results) == 7
    assert house.types(NAME) == ["job.received", "job.preparing"]


async def test_a_unit_of_work_that_fails_late_leaves_neither_state_nor_record(house: House) -> None:
    job = await created(house)

    def work(uow: object) -> None:
        machine.transition(uow, NAME, machine.Change(Event.PREPARE, "x", ActorKind.GATEWAY))  # type: ignore[arg-type]
        raise InvalidInputError("LATE", "something later went wrong")

    with pytest.raises(InvalidInputError):
        await house.app.store.commit(work)
    answer = await house.app.jobs.get_tuning_job(await house.caller("rita"), pb.GetTuningJobRequest(name=NAME))
    assert answer.tuning_job == job
    assert house.types(NAME) == ["job.received"]


async def test_pages_of_jobs(house: House) -> None:
    await house.upload("rita")
    rita = await house.caller("rita")
    for i in range(3):
        await house.app.jobs.create_tuning_job(rita, house.request(job=f"j{i}"))
    first = await house.app.jobs.list_tuning_jobs(rita, pb.ListTuningJobsRequest(parent="units/credit", page_size=2))
    last = await house.app.jobs.list_tuning_jobs(
        rita, pb.ListTuningJobsRequest(parent="units/credit", page_size=2, page_token=first.next_page_token)
    )
    names = [j.name.rsplit("/", 1)[1] for j in [*first.tuning_jobs, *last.tuning_jobs]]
    assert names == ["j2", "j1", "j0"] and not last.next_page_token


async def test_watch_shows_progress_and_ends_when_the_job_rests(house: House) -> None:
    await created(house)
    rita, seen = await house.caller("rita"), []

    async def follow() -> None:
        async for event in house.app.jobs.watch_tuning_job(rita, pb.WatchTuningJobRequest(name=NAME)):
            seen.append(event)

    watcher = asyncio.create_task(follow())
    while not seen:
        await asyncio.sleep(0.01)
    house.app.board.report(NAME, pb.Progress(stage="prepare", step=1, steps=4))
    while len(seen) < 2:
        await asyncio.sleep(0.01)
    await house.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="x"))
    while len(seen) < 3:
        await asyncio.sleep(0.01)
    assert not seen[2].resting  # the workers have not been told yet
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"needs_work": False}))
    house.app.board.moved(NAME)
    await asyncio.wait_for(watcher, 10)
    assert [s.tuning_job.progress.step for s in seen] == [0, 1, 0, 0]
    assert [s.resting for s in seen] == [False, False, False, True]


async def test_a_quiet_watch_builds_nothing_and_sees_what_moves(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred watchers of quiet jobs are a third of a core otherwise."""
    await created(house)
    rita, built, looks, seen = await house.caller("rita"), [], [], []
    summary, moving = views.summary, jobs.moving
    monkeypatch.setattr(service, "_LOOK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(views, "summary", lambda *given: built.append(1) or summary(*given))
    monkeypatch.setattr(jobs, "moving", lambda *given: looks.append(1) or moving(*given))

    async def follow() -> None:
        async for event in house.app.jobs.watch_tuning_job(rita, pb.WatchTuningJobRequest(name=NAME)):
            seen.append(event.tuning_job.cost_usd_micros)

    watcher = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        while len(looks) < 10:
            await asyncio.sleep(0.01)
        assert built == [1] and seen == [0]
        # Of what moves without the job's version, nobody rings.
        await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"cost_usd_micros": 7}))
        while len(seen) < 2:
            await asyncio.sleep(0.01)
    assert seen == [0, 7]
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)


async def test_a_restart_finds_everything(opened: Callable[[], House]) -> None:
    house = opened()
    job = await created(house)
    size = house.app.ledger.size
    await house.app.close()
    again = opened()
    try:
        rita = await again.caller("rita")
        answer = await again.app.jobs.get_tuning_job(rita, pb.GetTuningJobRequest(name=NAME))
        assert answer.tuning_job == job
        assert again.app.ledger.size == size  # neither grants nor policy were recorded again
    finally:
        await again.app.close()


async def test_a_second_gateway_is_refused(opened: Callable[[], House]) -> None:
    house = opened()
    with pytest.raises(PreconditionError) as caught:
        opened()
    assert caught.value.reason == "LEDGER_IN_USE"
    await house.app.close()


async def test_leases(house: House) -> None:
    await created(house)

    async def claim(owner: str, now: int) -> bool:
        lease = Lease(owner, now + 100)
        return await house.app.store.commit(lambda u: jobs.claim(u.connection, NAME, lease, now))

    def free(now: int) -> list[str]:
        return list(house.app.store.read(lambda c: jobs.claimable(c, now, 10, 1, 9)))

    assert free(1000) == [NAME]
    assert await claim("a", 1000)
    assert not await claim("b", 1050)
    assert await claim("a", 1050)
    assert free(1100) == [] and free(1151) == [NAME]
    assert await claim("b", 1151)
    await house.app.store.commit(lambda u: jobs.renew(u.connection, [NAME], Lease("a", 9000)))
    assert free(1300) == [NAME]  # a renewal by one who lost the lease changes nothing
    await house.app.store.commit(lambda u: jobs.release(u.connection, NAME, "a", {"attempts": 7}))
    row = house.app.store.read(lambda c: jobs.get(c, NAME))
    assert row is not None and row.lease_owner == "b" and row.attempts == 0
    await house.app.store.commit(lambda u: jobs.release(u.connection, NAME, "b", {"next_us": 5000}))
    assert free(4999) == [] and free(5000) == [NAME]
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"needs_work": False}))
    assert free(9999) == [] and not await claim("c", 9999)


async def test_queued_jobs_have_their_turn_first_come_first_served(house: House) -> None:
    await created(house)
    names = [NAME]
    for number in range(2, 5):
        request = house.request(job=f"job-{number}")
        names.append((await house.app.jobs.create_tuning_job(await house.caller("rita"), request)).tuning_job.name)

    async def now_in(state: str, name: str, since: int = 0) -> None:
        values = {"state": state, **({"updated_us": since} if since else {})}
        await house.app.store.commit(lambda u: jobs.note(u.connection, name, values))

    def offered(slots: int) -> set[str]:
        return set(house.app.store.read(lambda c: jobs.claimable(c, 1, 10, slots, 9)))

    first, second, third, other = names
    for since, name in ((30, first), (10, second), (20, third)):
        await now_in("QUEUED", name, since)
    assert [offered(slots) - {other} for slots in (1, 2, 3)] == [{second}, {second, third}, {first, second, third}]
    assert other in offered(1), "what is not queued waits for no turn"
    await now_in("TRAINING", second)
    assert (offered(1), offered(2)) == ({second, other}, {second, third, other})
    await now_in("TRAINING", third)
    assert offered(1) == {second, third, other}, "one that was resumed beside it takes no turn and waits for none"
    await house.app.store.commit(lambda u: jobs.note(u.connection, third, {"next_us": 1}))
    attended = house.app.store.read(lambda c: jobs.claimable(c, 1, 2, 1, 9))
    assert list(attended) == [second, third], "whoever else waits longer, a training is attended to"
    assert house.app.store.read(lambda c: jobs.due(c, first, 2)) is None
    assert house.app.store.read(lambda c: jobs.due(c, first, 3)) is not None


async def test_no_unit_takes_the_places_of_others_before_policy_has_decided(house: House) -> None:
    rita = await house.caller("rita")
    for unit, count in (("credit", 5), ("support", 2)):
        await house.upload("rita", unit)
        for number in range(count):
            await house.app.jobs.create_tuning_job(rita, house.request(unit, job=f"job-{number}"))

    def offered(limit: int = 10, each: int = 3) -> list[str]:
        found = house.app.store.read(lambda c: jobs.claimable(c, 1, limit, 1, each))
        return [name.removeprefix("units/").replace("/tuningJobs/job-", " ") for name in found]

    assert offered(4) == ["credit 0", "support 0", "credit 1", "support 1"], "the first of every unit, then the next"
    assert offered() == ["credit 0", "support 0", "credit 1", "support 1", "credit 2"]
    for number in range(2):
        name = f"units/credit/tuningJobs/job-{number}"
        await house.app.store.commit(lambda u, n=name: jobs.claim(u.connection, n, Lease("a", 100), 1))
    assert offered() == ["support 0", "support 1", "credit 2"], "who is attended to counts"
    # What was decided waits for none of these; a training that nobody held to its money least of all.
    for number, state in ((3, "AUDITING"), (4, "TRAINING")):
        name = f"units/credit/tuningJobs/job-{number}"
        await house.app.store.commit(lambda u, n=name, s=state: jobs.note(u.connection, n, {"state": s}))
    assert offered(each=2) == ["credit 4", "credit 3", "support 0", "support 1"]


async def test_jobs_that_wait_for_a_slot_put_no_audit_of_their_unit_behind_others(house: House) -> None:
    rita = await house.caller("rita")
    for unit, count in (("credit", 4), ("support", 2)):
        await house.upload("rita", unit)
        for number in range(count):
            await house.app.jobs.create_tuning_job(rita, house.request(unit, job=f"job-{number}"))
    for number, state in enumerate(("QUEUED", "QUEUED", "QUEUED", "AUDITING")):
        name = f"units/credit/tuningJobs/job-{number}"
        await house.app.store.commit(lambda u, n=name, s=state: jobs.note(u.connection, n, {"state": s}))
    # No slot is free, so none of the three queued before it has a step to take.
    first = house.app.store.read(lambda c: jobs.claimable(c, 1, 1, 0, 9))
    assert list(first) == ["units/credit/tuningJobs/job-3"]


async def test_facts_are_established_once(house: House) -> None:
    await created(house)
    await house.app.store.commit(lambda u: jobs.establish(u.connection, NAME, {"k": "v"}))
    await house.app.store.commit(lambda u: jobs.establish(u.connection, NAME, {"k": "v", "l": "w"}))
    with pytest.raises(Exception) as caught:
        await house.app.store.commit(lambda u: jobs.establish(u.connection, NAME, {"m": "x", "k": "other"}))
    assert getattr(caught.value, "reason", "") == "FACT_CHANGED"
    known = {DIGEST: BASE["sha256"], "k": "v", "l": "w"}
    assert house.app.store.read(lambda c: jobs.facts(c, NAME)) == known


def test_the_etag_says_name_and_version_only() -> None:
    assert machine.etag("a", 1) != machine.etag("a", 2) != machine.etag("b", 2)
    assert machine.etag("a", 1) == machine.etag("a", 1) and len(machine.etag("a", 1)) == 32
