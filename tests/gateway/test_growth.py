"""What grows with history is found by an index and in order, and start-up and erasures ask no more of it than once."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from assay.v1 import approval_pb2, dataset_pb2, identity_pb2, model_pb2, policy_pb2, tuning_job_pb2
from gateway import history, pages, references, subjects
from gateway.admission import account
from gateway.store import jobs, rows
from gateway.store.rows import Position
from gateway.store.tables import JobRow
from tests.gateway.conftest import House
from tests.gateway.judged import NAME, awaiting
from tests.gateway.test_erasures import erase
from tests.gateway.test_lineage import SUBJECT, ask, index
from tests.gateway.test_precedents import pages_of, searched
from tests.gateway.test_precedents import refused as denied

UNIT = "units/credit"
PAST = Position(5, "x")
_WHOLE = re.compile(r"SCAN (?!CONSTANT|anon|\()\S+(?! USING)\b(?! USING)")


@contextmanager
def statements() -> Iterator[list[tuple[str, list[str]]]]:
    """Every statement that reads, with SQLite's plan for it."""
    seen: list[tuple[str, list[str]]] = []

    def note(connection: Connection, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        if text.startswith("SELECT"):
            raw: Any = connection.connection.driver_connection
            seen.append((text, [step[3] for step in raw.execute(f"EXPLAIN QUERY PLAN {text}", parameters)]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def token(listing: str, last: Position = PAST) -> str:
    return pages.token(listing, last)


async def list_jobs(house: House) -> None:
    request = tuning_job_pb2.ListTuningJobsRequest(parent=UNIT, page_token=token(f"jobs {UNIT}"))
    await house.app.jobs.list_tuning_jobs(await house.caller("rita"), request)


async def list_datasets(house: House) -> None:
    request = dataset_pb2.ListDatasetsRequest(parent=UNIT, page_token=token(f"datasets {UNIT}"))
    await house.app.datasets.list_datasets(await house.caller("rita"), request)


async def list_models(house: House) -> None:
    request = model_pb2.ListModelsRequest(parent=UNIT, page_token=token(f"models {UNIT}"))
    await house.app.models.list_models(await house.caller("rita"), request)


async def list_pending(house: House) -> None:
    request = approval_pb2.ListPendingApprovalsRequest(parent="units/-")
    await house.app.approvals.list_pending_approvals(await house.caller("vik"), request)


async def list_grants(house: House) -> None:
    await house.app.identities.list_role_grants(await house.caller("oscar"), identity_pb2.ListRoleGrantsRequest())


def precedents(parent: str, rule: str = "", after: str = "") -> Callable[[House], Awaitable[None]]:
    async def search(house: House) -> None:
        request = policy_pb2.ListPrecedentsRequest(parent=parent, rule_id=rule, page_token=after)
        await searched(house).list_precedents(await house.caller("cora"), request)

    return search


async def past_questions(house: House) -> None:
    assert list(history.decided(house.layout.root))


async def retention(house: House) -> None:
    await house.app.pipeline.retention.end()


async def owed(house: House) -> None:
    await house.app.pipeline.retention.erasures.carry_out()


async def states(house: House) -> None:
    await house.app.pipeline.stats()


def read(what: Callable[[Connection], object]) -> Callable[[House], Awaitable[None]]:
    async def fetch(house: House) -> None:
        await house.app.store.fetch(what)

    return fetch


def places(c: Connection) -> None:
    request = tuning_job_pb2.CreateTuningJobRequest(parent=UNIT, audit_profile="quick")
    account.demand_place(c, _Most(), request, dt.datetime.now(dt.UTC))  # type: ignore[arg-type]


class _Most:
    def most(self, limit: str, profile: str) -> int:
        return 1_000_000


ASKED = {
    "a unit's jobs": (list_jobs, "SEARCH tuning_job USING INDEX tuning_job_unit (unit=? AND (created_us,name)<(?,?))"),
    "a unit's datasets": (
        list_datasets,
        "SEARCH dataset USING INDEX dataset_unit (unit=? AND (created_us,name)<(?,?))",
    ),
    "a unit's models": (list_models, "SEARCH model USING INDEX model_unit (unit=? AND (created_us,name)<(?,?))"),
    "what waits for people": (
        list_pending,
        "SEARCH tuning_job USING INDEX tuning_job_waiting (state=? AND needs_work=?)",
    ),
    "grants": (list_grants, "SCAN role_grant USING INDEX role_grant_granted"),
    "precedents": (precedents("units/-"), "SCAN tuning_job USING COVERING INDEX tuning_job_created"),
    "precedents, the next page": (
        precedents("units/-", after=token("precedents units/-  ", Position(5, "x#0"))),
        "SEARCH tuning_job USING COVERING INDEX tuning_job_created ((created_us,name)<(?,?))",
    ),
    "precedents of a rule": (precedents("units/-", "NONE"), "SCAN tuning_job USING COVERING INDEX tuning_job_created"),
    "precedents of a unit": (
        precedents(UNIT),
        "SEARCH tuning_job USING COVERING INDEX tuning_job_unit (unit=?)",
    ),
    "past questions": (past_questions, "SCAN tuning_job USING COVERING INDEX tuning_job_created"),
    "jobs by state": (states, "SCAN tuning_job USING COVERING INDEX tuning_job_state"),
    "approvals that lapsed": (
        read(lambda c: jobs.lapsed(c, 5)),
        "SEARCH tuning_job USING INDEX tuning_job_state (state=? AND approved_until_us>? AND approved_until_us<?)",
    ),
    "whose turn it is": (
        read(lambda c: jobs.turns(c, 2)),
        "SEARCH tuning_job USING COVERING INDEX tuning_job_waiting (state=? AND needs_work=?)",
    ),
    "places of a unit": (read(places), "SEARCH tuning_job USING COVERING INDEX tuning_job_unit (unit=?)"),
    "retentions that ended": (
        retention,
        "SEARCH dataset USING INDEX dataset_retention (retention_end_us>? AND retention_end_us<?)",
    ),
    "erasures that are owed": (owed, "SEARCH erasure USING INDEX erasure_owed (executed_index=?)"),
    "what names a file": (
        read(lambda c: references.needed(c, "credit")),
        "SEARCH job_fact USING INDEX sqlite_autoindex_job_fact_1 (job=?)",
    ),
    "indexes of subjects": (
        read(lambda c: subjects.digests(c, "credit", [])),
        "SEARCH job_fact USING INDEX sqlite_autoindex_job_fact_1 (job=? AND key=?)",
    ),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_nothing_that_grows_is_read_whole_or_sorted(house: House, asked: str) -> None:
    await awaiting(house)
    call, wanted = ASKED[asked]
    with statements() as seen:
        await call(house)
    plans = [plan for _, plan in seen if any(step.startswith(wanted) for step in plan)]
    assert plans and not any("TEMP B-TREE" in step for plan in plans for step in plan)
    assert [step for _, plan in seen for step in plan if _WHOLE.match(step)] == []


@pytest.mark.parametrize("step", ["SCAN tuning_job", "SCAN dataset", "SCAN (subquery-1)", "SCAN model USING INDEX x"])
def test_a_whole_table_is_told_from_an_index(step: str) -> None:
    assert bool(_WHOLE.match(step)) == (step in ("SCAN tuning_job", "SCAN dataset"))


async def test_start_up_asks_once_a_unit_what_its_files_are_named_by(house: House) -> None:
    counts, tables = [], ("FROM tuning_job", "FROM model", "FROM job_fact")
    for number in range(4):
        await house.upload("rita", dataset=f"d{number}", data=b"%d\n" % number)
        await erase(house, f"{UNIT}/datasets/d{number}")
        with statements() as seen:
            assert house.app.erasures.resume() == 0
        counts.append(sum(any(table in text for table in tables) for text, _ in seen))
    assert len(set(counts)) == 1


async def test_an_erasure_reads_no_long_text_of_the_units_jobs(house: House) -> None:
    await denied(house, "credit", "first", "BASE-BUDGET", "dear")
    await house.upload("rita", dataset="other", data=b"other\n")
    with statements() as seen:
        await erase(house, f"{UNIT}/datasets/other")
    long = [text for text, _ in seen if re.search(r"tuning_job\.(data|audit|verdict)\b", text)]
    assert [text for text in long if "tuning_job.name = ?" not in text] == []


async def test_a_subjects_indexes_are_read_before_the_ledgers_writer_is_waited_for(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await awaiting(house)
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"state": "REJECTED", "needs_work": False}))
    await index(house, NAME, SUBJECT, "another", folder=tmp_path)
    subject, by = (await ask(house, subject=SUBJECT)).name, set[str]()
    real = subjects.index_at

    def told(*arguments: Any) -> Any:
        by.add(threading.current_thread().name.rpartition("-")[0])
        return real(*arguments)

    monkeypatch.setattr(subjects, "index_at", told)
    erased = await erase(house, subject)
    assert erased.affected_datasets == [f"{UNIT}/datasets/rows"]
    assert by and "ledger-writer" not in by


class TestOnEither:
    """Pages lead on from one to the next in the same order on both databases."""

    @pytest.fixture
    def postgres_url(self, either_database: str) -> str:
        return either_database

    async def test_pages_follow_one_another_where_times_are_equal(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ["a-b", "ab", "a-c", "b", "b-a"]
        for name in names:
            await denied(house, "credit", name, "BASE-BUDGET", "dear")
        late = rows.micros(dt.datetime.now(dt.UTC))

        def together(uow: Any) -> None:
            uow.connection.execute(rows.table(JobRow).update().values(created_us=late))

        await house.app.store.commit(together)
        whole = (await house.app.store.fetch(lambda c: [brief.name for brief in jobs.briefs(c, "credit")]))[::-1]
        assert sorted(whole) == sorted(f"{UNIT}/tuningJobs/{name}" for name in names)
        seen, after, rita = [], "", await house.caller("rita")
        while not seen or after:
            request = tuning_job_pb2.ListTuningJobsRequest(parent=UNIT, page_size=2, page_token=after)
            page = await house.app.jobs.list_tuning_jobs(rita, request)
            seen += [job.name for job in page.tuning_jobs]
            after = page.next_page_token
        assert seen == whole
        for scanned, at_once in ((1, 50), (2, 1), (2000, 2)):
            monkeypatch.setattr("gateway.precedents._SCANNED", scanned)
            monkeypatch.setattr(rows, "_AT_ONCE", at_once)
            found = await pages_of(house, page_size=2, rule_id="BASE-BUDGET")
            assert [f"{UNIT}/tuningJobs/{job}" for page in found for job, _ in page] == whole
