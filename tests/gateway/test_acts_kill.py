"""The gateway killed with SIGKILL in and right after every commit by which people or the clock move a job.

Together with ``test_pipeline_kill.py`` this is every line of the transition table; a test holds the two to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assay.errors import AssayError
from assay.identity import Layout
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.jobs.transitions import TABLE, Event
from gateway.settings import default_toml
from gateway.store import jobs
from policies.engine import PolicyEngine
from tests.gateway import test_pipeline_kill
from tests.gateway.acts import ACTS, Act, one_has_signed, quarantined
from tests.gateway.conftest import House, now, schema_violations
from tests.gateway.judged import NAME, state
from tests.gateway.test_evidence import export
from tests.gateway.test_pipeline_kill import at_home, gateway
from tests.gateway.workers import Workers


@pytest.fixture
def postgres_url(either_database_slowly: str) -> str:
    return either_database_slowly


def there(house: House) -> str:
    """The job's state, empty while there is no job."""
    known = house.app.store.read(lambda c: jobs.get(c, NAME))
    return known.state if known else ""


async def proven(house: House, path: Path) -> None:
    """The whole log verifies offline, every record is of a published schema, and every version has one record."""
    report = verify_bundle(
        await export(house, "anna", "units/-", [], path), TrustFile.parse(house.layout.trust.read_text()), now()
    )
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    assert schema_violations(house.app) == []
    steps = house.app.store.read(lambda c: jobs.transitions(c, NAME))
    assert [s.version for s in steps] == list(range(1, len(steps) + 1))
    assert len({s.record_index for s in steps}) == len(steps)


OFTEN = {"approve", "revoke", "pause in training"}
"""Run each time; the others are of the same build and among the slow ones."""


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in sorted(ACTS)])
async def test_an_act_is_done_once_or_not_at_all(
    pristine: Path, postgres_url: str, engine: PolicyEngine, tmp_path: Path, name: str
) -> None:
    act, layout = ACTS[name], Layout(tmp_path / "dir")
    shutil.copytree(pristine, layout.root)
    layout.settings.write_text(default_toml(postgres_url=postgres_url))
    async with at_home(layout, engine) as house:
        await act.prepare(house)
        assert there(house) == act.source
        size = house.app.ledger.size
    assert await gateway(layout, f"{act.records[-1]}:before", name) == -9
    async with at_home(layout, engine) as house:
        assert (there(house), house.app.ledger.size) == (act.source, size), "nothing of it is there"
    assert await gateway(layout, f"{act.records[-1]}:after", name) == -9
    async with at_home(layout, engine) as house:
        assert there(house) == act.target
        added = [r.type for r in house.app.ledger.records(None, NAME, size - 1, 100)]
        assert tuple(added) == act.records, "all of it is there, once"
        await repeated(house, act)
        await proven(house, tmp_path / "bundle.zip")


async def repeated(house: House, act: Act) -> None:
    """Who was not told and does it again is told how it stands, and changes nothing."""
    size = house.app.ledger.size
    if act.again == "not listed":
        with pytest.raises(ValueError, match="not enough values"):
            await act.act(house)
    elif act.again:
        with pytest.raises(AssayError) as caught:
            await act.act(house)
        assert caught.value.reason == act.again
    else:
        await act.act(house)
    assert (house.app.ledger.size, there(house)) == (size, act.target)


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.slow)])
async def test_a_card_whose_issue_was_killed_is_issued_once(
    workers: Workers, engine: PolicyEngine, tmp_path: Path, when: str
) -> None:
    """The workers are asked to let go of what they hold before a card is made."""
    async with at_home(workers.layout, engine) as house:
        await one_has_signed(house)
    assert await gateway(workers.layout, f"card.issued:{when}", "approve") == -9
    async with at_home(workers.layout, engine) as house:
        assert state(house) == "APPROVED"
        assert house.types(NAME)[-1] == ("job.approved" if when == "before" else "card.issued")
        await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"next_us": 0}))
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME)[-2:] == ["job.approved", "card.issued"]
        await proven(house, tmp_path / "bundle.zip")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_card_of_a_waived_job_is_rendered_once(
    workers: Workers, engine: PolicyEngine, tmp_path: Path, when: str
) -> None:
    async with at_home(workers.layout, engine) as house:
        await quarantined(house)
        await ACTS["waive"].act(house)
    assert await gateway(workers.layout, f"card.rendered:{when}") == -9
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME)[-3:] == ["rules.waived", "job.waived", "card.rendered"]
        await proven(house, tmp_path / "bundle.zip")


def test_every_line_of_the_table_has_its_kill() -> None:
    """A line that is new in the transition table needs an act here or a way through the pipeline there."""
    by_people = {(act.source or "NONE", act.target, act.records[-1]) for act in ACTS.values()}
    tried = by_people | {move for move in test_pipeline_kill.MOVES}
    for line in TABLE:
        moves = {(source.value, line.target.value, line.record_type) for source in line.sources}
        if line.event in (Event.CANCEL, Event.FAIL):
            # One line from many states, and one statement whichever it was: one of them stands for all.
            assert moves & tried, f"{line.event} is killed nowhere"
            continue
        assert moves <= tried, f"{line.event} is killed nowhere from {moves - tried}"
