"""How a read and a unit of work are run: reads on their own connection, every write in the ledger's writer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection, Engine

from audit.ledger.database_errors import while_serving
from audit.ledger.ledger import Ledger
from audit.ledger.publication import Publication
from audit.ledger.records import OWN_UNITS
from audit.ledger.writer import UnitOfWork
from gateway.caller import not_found
from gateway.store.searches import Searches

T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """The database: one engine, one ledger beside the rows, and no write path but :meth:`commit`.

    Attributes:
        engine: of the rows.
        ledger: beside them.
        publication: what of the ledger others may see.
        quorum_seconds: how long an answer waits for the witnesses.
        units: that the settings have now.
        searches: what computes so long that it must not take the threads of :meth:`fetch`.
        exports: the same of whole bundles, each of which computes far longer than a search.
    """

    engine: Engine
    ledger: Ledger
    publication: Publication
    quorum_seconds: float = 20.0
    units: tuple[str, ...] = ()
    searches: Searches = field(default_factory=Searches)
    exports: Searches = field(default_factory=Searches)

    async def fetch(self, read: Callable[[Connection], T]) -> T:
        """Runs a read off the event loop, on a snapshot of its own."""
        return await asyncio.to_thread(self.read, read)

    def read(self, read: Callable[[Connection], T]) -> T:
        """Runs a read here and now.

        Raises:
            AssayError: what :func:`audit.ledger.database_errors.while_serving` makes of the database's own error.
        """
        try:
            with self.engine.connect() as connection:
                return read(connection)
        except Exception as error:
            named = while_serving(error)
            if named is error:
                raise
            raise named from error

    async def commit(self, work: Callable[[UnitOfWork], T]) -> T:
        """Runs a unit of work in the ledger's writer; its rows and records commit together, or neither does.

        The answer comes after the commit. A caller that goes away meanwhile does not undo the work.
        """
        return await asyncio.shield(asyncio.wrap_future(self.ledger.submit(work)))

    async def require_unit(self, unit: str, what: str) -> None:
        """Refuses a unit that there never was; one that was taken out of the settings has records and stays readable.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        if unit in self.units:
            return
        if unit in OWN_UNITS or not await asyncio.to_thread(self.ledger.records, unit, None, -1, 1):
            raise not_found(what)

    async def published(self, index: int) -> tuple[int, bytes]:
        """Waits until the witnesses have seen a record; returns the first published checkpoint that covers it.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET`` when that takes longer than ``quorum_seconds``.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(self.publication.covered(index)), self.quorum_seconds)
        return await asyncio.to_thread(self.publication.covering, index)
