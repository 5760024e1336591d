"""Reading and writing rows of any kind, as Core statements on a given connection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Column, Connection, Select, Table, and_, select, tuple_

from gateway.store.tables import Row

R = TypeVar("R", bound=Row)

_AT_ONCE = 50


@dataclass(frozen=True)
class Position:
    """Where a page ends: the sort time and the name of its last row."""

    time_us: int
    name: str


def table(kind: type[Row]) -> Table:
    """The Core table of a kind of row."""
    found: Table = kind.__table__  # type: ignore[attr-defined]
    return found


def insert(connection: Connection, row: Row) -> None:
    """Inserts a row; a taken key is the database's IntegrityError."""
    connection.execute(table(type(row)).insert().values(**row.model_dump()))


def get(connection: Connection, kind: type[R], **key: Any) -> R | None:
    """The row with these column values, if there is one."""
    found = select_all(connection, kind, **key)
    return found[0] if found else None


def select_all(connection: Connection, kind: type[R], *, order_by: str = "", **key: Any) -> list[R]:
    """Every row with these column values."""
    columns = table(kind).c
    statement = select(table(kind)).where(and_(True, *(columns[k] == v for k, v in key.items())))
    if order_by:
        statement = statement.order_by(columns[order_by])
    return [kind(**row) for row in connection.execute(statement).mappings()]


def update(connection: Connection, kind: type[Row], key: dict[str, Any], values: dict[str, Any]) -> int:
    """Sets column values on the rows with this key; returns how many there were."""
    columns = table(kind).c
    statement = table(kind).update().where(and_(*(columns[k] == v for k, v in key.items()))).values(**values)
    return connection.execute(statement).rowcount


def page(
    connection: Connection,
    kind: type[R],
    *,
    time: str,
    name: str,
    size: int,
    after: Position | None,
    newest_first: bool,
    where: Sequence[Any] = (),
) -> list[R]:
    """Up to ``size + 1`` rows after ``after`` by time and name; the one too many tells that a next page exists."""
    columns = table(kind).c
    t: Column[int] = columns[time]
    n: Column[str] = columns[name]
    statement = select(table(kind)).where(and_(True, *where))
    if after is not None:
        # Compared as one: an index over both then begins where the page before ended.
        place, end = tuple_(t, n), tuple_(after.time_us, after.name)
        statement = statement.where(place < end if newest_first else place > end)
    order = (t.desc(), n.desc()) if newest_first else (t.asc(), n.asc())
    return [kind(**row) for row in connection.execute(statement.order_by(*order).limit(size + 1)).mappings()]


def by_name(
    connection: Connection, statement: Select[Any], name: Column[str], names: Sequence[str]
) -> Iterator[sqlalchemy.Row[Any]]:
    """What a statement finds of these names, a few names at a time, so that a sort by it is never of many texts.

    Args:
        connection: to read by.
        statement: with its order within a few names.
        name: its column that the names are of.
        names: in the order of the whole.
    """
    for begin in range(0, len(names), _AT_ONCE):
        yield from connection.execute(statement.where(name.in_(names[begin : begin + _AT_ONCE])))


def micros(moment: dt.datetime) -> int:
    """Whole microseconds since 1970 UTC."""
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def moment(time_us: int) -> dt.datetime:
    """The UTC moment of :func:`micros`."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)


def timestamp(time_us: int) -> Timestamp:
    """The protobuf timestamp of :func:`micros`."""
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp
