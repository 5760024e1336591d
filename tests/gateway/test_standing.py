"""A verdict stands while the policy in force would give it again, its waivers last, and the rules of a life hold."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid

import pytest

from assay.errors import PreconditionError
from assay.v1 import permit_pb2
from gateway import standing
from gateway.history import RELEASE_QUESTION
from gateway.jobs import views
from gateway.store import jobs, rows
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.testing import read_cases, release_question
from tests.gateway.conftest import House

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def bundle() -> PolicyEngine:
    return PolicyEngine(load(BASELINE))


async def judged(house: House, engine: PolicyEngine, **facts: str) -> str:
    """A job with a stored question and the verdict of an engine; its name."""
    await house.upload("rita")
    rita = await house.caller("rita")
    name = (await house.app.jobs.create_tuning_job(rita, house.request())).tuning_job.name
    case = next(c for c in read_cases(load(BASELINE)) if c.name == "a clean chat model passes")
    question = release_question(engine, case)
    verdict = views.to_json(engine.judge(question))

    def work(uow: object) -> None:
        connection = uow.connection  # type: ignore[attr-defined]
        jobs.establish(connection, name, {RELEASE_QUESTION: views.to_json(question), **facts})
        jobs.note(connection, name, {"verdict": verdict})

    await house.app.store.commit(work)
    return name


async def demand(house: House, engine: PolicyEngine, name: str, environment: str | None = None) -> None:
    def read(connection: object) -> None:
        job = jobs.get(connection, name)  # type: ignore[arg-type]
        assert job is not None
        standing.demand(connection, engine, job, NOW, environment)  # type: ignore[arg-type]

    await house.app.store.fetch(read)


async def refusal(house: House, engine: PolicyEngine, name: str, environment: str | None = None) -> PreconditionError:
    with pytest.raises(PreconditionError) as caught:
        await demand(house, engine, name, environment)
    return caught.value


def swapped(engine: PolicyEngine, limit: str, value: object) -> PolicyEngine:
    """The same rules under another limit, as a swapped bundle would have."""
    old = engine.pack.limits.by_name[limit]
    changed = dataclasses.replace(old, values=dict.fromkeys(old.values, value))
    limits = dataclasses.replace(engine.pack.limits, by_name={**engine.pack.limits.by_name, limit: changed})
    return PolicyEngine(dataclasses.replace(engine.pack, limits=limits, limits_sha256="0" * 64))


async def test_under_the_same_policy_it_stands(house: House, bundle: PolicyEngine) -> None:
    await demand(house, bundle, await judged(house, bundle), "production")


async def test_a_stricter_policy_since_refuses_and_a_looser_one_does_not(house: House, bundle: PolicyEngine) -> None:
    """Attack case 22: the policy is swapped after the decision."""
    name = await judged(house, bundle)
    await demand(house, swapped(bundle, "epsilon_lower_bound", 5.0), name)
    error = await refusal(house, swapped(bundle, "epsilon_lower_bound", 0.01), name)
    assert error.reason == "POLICY_CHANGED" and "REL-EPSILON" in error.message


async def test_a_policy_that_was_loosened_does_not_hide_that_another_judged(house: House, bundle: PolicyEngine) -> None:
    # Judged by a loose policy that was swapped in, and asked under the real one.
    loose = swapped(bundle, "epsilon_lower_bound", 1000.0)
    name = await judged(house, loose)

    def worsen(uow: object) -> None:
        connection = uow.connection  # type: ignore[attr-defined]
        swap = "replace(value, '\"value\": 0.1', '\"value\": 9.5')"
        connection.exec_driver_sql(f"UPDATE job_fact SET value = {swap} WHERE key = 'question.release'")

    await house.app.store.commit(worsen)
    assert (await refusal(house, bundle, name)).reason == "POLICY_CHANGED"


async def test_a_waiver_whose_day_cannot_be_read_has_ended(house: House, bundle: PolicyEngine) -> None:
    """An earlier release took any text."""
    name = await judged(house, bundle, **{"waiver.4": json.dumps({"rules": ["REL-EPSILON"], "expires": "2027-1-31"})})
    with pytest.raises(PreconditionError) as caught:
        await demand(house, bundle, name)
    assert caught.value.reason == "WAIVER_EXPIRED"
    job = house.app.store.read(lambda c: jobs.get(c, name))
    assert job is not None and house.app.store.read(lambda c: standing.ends(c, bundle, job, NOW, "production")) < NOW


async def test_a_waiver_lets_through_what_it_names_until_it_ends(house: House, bundle: PolicyEngine) -> None:
    waiver = {"rules": ["REL-EPSILON"], "expires": "2026-11-20"}
    name = await judged(house, bundle, **{"waiver.4": json.dumps(waiver)})
    strict = swapped(bundle, "epsilon_lower_bound", 0.01)
    await demand(house, strict, name)

    def later(connection: object) -> None:
        job = jobs.get(connection, name)  # type: ignore[arg-type]
        assert job is not None
        standing.demand(connection, strict, job, NOW + dt.timedelta(days=1))  # type: ignore[arg-type]

    with pytest.raises(PreconditionError) as caught:
        await house.app.store.fetch(later)
    assert caught.value.reason == "WAIVER_EXPIRED"


async def test_a_rule_that_comes_into_force_after_the_verdict_is_asked(house: House, bundle: PolicyEngine) -> None:
    """Neither bundle nor limits change then; a permit ends with the last day on which the model would pass."""
    first = NOW.date() + dt.timedelta(days=1)
    strict = swapped(bundle, "epsilon_lower_bound", 0.01).pack
    rules = [dataclasses.replace(r, effective_from=first) if r.id == "REL-EPSILON" else r for r in strict.rules]
    dated = PolicyEngine(dataclasses.replace(strict, rules=tuple(rules)), dt.date(2026, 11, 1))
    name = await judged(house, dated)
    midnight = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    lapses = midnight + dt.timedelta(days=300)
    await house.app.store.commit(lambda u: jobs.note(u.connection, name, {"approved_until_us": rows.micros(lapses)}))
    await demand(house, dated, name, "production")
    job = house.app.store.read(lambda c: jobs.get(c, name))
    assert job is not None

    def ends(now: dt.datetime) -> dt.datetime:
        return house.app.store.read(lambda c: standing.ends(c, dated, job, now, "production"))

    assert ends(NOW - dt.timedelta(days=1)) == lapses and ends(NOW) == midnight
    with pytest.raises(PreconditionError) as caught:
        house.app.store.read(lambda c: standing.demand(c, dated, job, midnight))
    assert caught.value.reason == "POLICY_CHANGED" and "REL-EPSILON" in caught.value.message


async def test_a_rule_of_the_models_life_is_asked_for_a_permit_only(house: House, bundle: PolicyEngine) -> None:
    name = await judged(house, bundle)
    whole = load()
    iso = PolicyEngine(whole, packs=frozenset({"baseline", "iso-42001"}))
    same = dataclasses.replace(whole, bundle_sha256=bundle.pack.bundle_sha256, limits_sha256=bundle.pack.limits_sha256)
    iso = PolicyEngine(same, packs=frozenset({"baseline", "iso-42001"}))
    await demand(house, iso, name)
    await demand(house, iso, name, "production")
    error = await refusal(house, iso, name, "")
    assert error.reason == "POLICY_LIVE" and "ISO-A.6.2.5" in error.message


async def test_the_permit_service_asks(house: House) -> None:
    request = permit_pb2.IssuePermitRequest(
        model="units/credit/models/none", purpose="x", environment="e", request_id=str(uuid.uuid4())
    )
    from assay.errors import NotFoundError

    with pytest.raises(NotFoundError):
        await house.app.permits.issue_permit(await house.caller("dana"), request)
    assert house.app.permits.policy is house.app.policy
