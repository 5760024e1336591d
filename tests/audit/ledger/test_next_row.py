"""What the guard says of the next row, told by another tool: it takes the truth and refuses a lie in any column."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from audit.ledger.batch import Batch
from audit.ledger.store import chain_ends
from tests.audit.ledger.ledger_world import ORIGIN, START, World
from tests.audit.ledger.test_jobs import another_tool, append, draft, insert, job

pytestmark = pytest.mark.usefixtures("ledger_database")

IDX, LEAF, BODY, UNIT, TSEQ, TYPE, JOB = range(7)


@pytest.fixture
def told(world: World) -> World:
    append(world, job(1), job(1))
    return world


def row(world: World, unit: str) -> list[Any]:
    """The next row, true in every column: the third record of credit, or the first of another unit."""
    with world.engine.connect() as connection:
        batch = Batch(ORIGIN, world.ledger.size, chain_ends(connection), None)
    name = job(1).replace("credit", unit)
    batch.append(dataclasses.replace(draft(name), unit=unit), START, "0" * 32)
    return [*batch.rows[0], 1 if unit == "credit" else world.ledger.size]


@pytest.mark.parametrize("unit", ["credit", "claims", "c", "a-unit-with-a-long-name"])
def test_the_truth_is_taken(told: World, unit: str) -> None:
    """Else the refusals below would say nothing."""
    with another_tool(told) as connection:
        assert insert(connection, row(told, unit)) == ""


LIES: dict[str, tuple[str, int, Any]] = {
    "the same index": ("credit", IDX, lambda v: v - 1),
    "an index left out": ("credit", IDX, lambda v: v + 1),
    "a number taken": ("credit", TSEQ, lambda v: v - 1),
    "a number left out": ("credit", TSEQ, lambda v: v + 1),
    "a number of nothing": ("claims", TSEQ, lambda v: 0),
    "a short leaf": ("credit", LEAF, lambda v: v[1:]),
    "a long leaf": ("credit", LEAF, lambda v: v + b"\0"),
    "the end of the unit's name": ("claims", UNIT, lambda v: v[1:]),
    "the beginning of the unit's name": ("claims", UNIT, lambda v: v[:-1]),
    "a longer name": ("claims", UNIT, lambda v: "x" + v),
    "a longer name at the other end": ("claims", UNIT, lambda v: v + "x"),
    "another name of that length": ("claims", UNIT, lambda v: "claimz"),
    "a name in capitals": ("claims", UNIT, lambda v: v.upper()),
    "a name with more letters than bytes can tell": ("claims", UNIT, lambda v: "cläims"),
    "a name with what follows it": ("claims", UNIT, lambda v: v + '","tprev":'),
    "no name": ("claims", UNIT, lambda v: ""),
    "the end of the type": ("credit", TYPE, lambda v: v[1:]),
    "the beginning of the type": ("credit", TYPE, lambda v: v[:-1]),
    "another type": ("credit", TYPE, lambda v: "permit.revoked!"),
    "a longer type": ("credit", TYPE, lambda v: v + '","v":1}'),
    "no type": ("credit", TYPE, lambda v: ""),
    "a body of nothing": ("credit", BODY, lambda v: b""),
    "the end of a body": ("credit", BODY, lambda v: v[-30:]),
    "a body cut short": ("credit", BODY, lambda v: v[:-1]),
    "a body with more at its end": ("credit", BODY, lambda v: v + b"\n"),
    "a body of another unit": ("credit", BODY, lambda v: v.replace(b'"tenant":"credit"', b'"tenant":"system"')),
    "a body of another number": ("credit", BODY, lambda v: v.replace(b'"tseq":3', b'"tseq":2')),
    "a body with the names elsewhere": ("credit", BODY, lambda v: v[:-1] + b',"w":{"tenant":"credit","tprev":null}}'),
}


@pytest.mark.parametrize(("unit", "column", "lie"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused(told: World, unit: str, column: int, lie: Any) -> None:
    values = row(told, unit)
    changed = lie(values[column])
    assert changed != values[column]
    values[column] = changed
    with another_tool(told) as connection:
        assert "log_record takes only the next leaf" in insert(connection, values)


@pytest.mark.parametrize("column", [UNIT, TYPE])
def test_a_name_that_goes_on_after_a_nul_is_refused(told: World, column: int) -> None:
    """SQLite's length() ends there; PostgreSQL has no such text."""
    values = row(told, "claims")
    values[column] += "\0"
    with another_tool(told) as connection:
        assert insert(connection, values) != ""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_twin_of_an_older_record_is_refused(told: World, number: int) -> None:
    older = told.ledger.record(number)
    values = row(told, "credit")
    values[LEAF], values[BODY] = older.leaf, older.body
    for columns in (values, [*values[:UNIT], older.unit, older.unit_sequence, older.type, *values[JOB:]]):
        with another_tool(told) as connection:
            assert "log_record takes only the next leaf" in insert(connection, columns)
