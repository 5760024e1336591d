"""How a read and a unit of work are run: reads on their own connection, every write in the ledger's writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine

from audit.ledger.ledger import Ledger
from audit.ledger.writer import UnitOfWork

T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """The database: one engine, one ledger beside the rows, and no write path but :meth:`commit`."""

    engine: Engine
    ledger: Ledger

    async def fetch(self, read: Callable[[Connection], T]) -> T:
        """Runs a read off the event loop, on a snapshot of its own."""
        return await asyncio.to_thread(self.read, read)

    def read(self, read: Callable[[Connection], T]) -> T:
        """Runs a read here and now."""
        with self.engine.connect() as connection:
            return read(connection)

    async def commit(self, work: Callable[[UnitOfWork], T]) -> T:
        """Runs a unit of work in the ledger's writer; its rows and records commit together, or neither does.

        The answer comes after the commit. A caller that goes away meanwhile does not undo the work.
        """
        return await asyncio.shield(asyncio.wrap_future(self.ledger.submit(work)))
