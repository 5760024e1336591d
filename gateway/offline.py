"""The ledger of a gateway that does not run, for commands that append to it by an operator's order.

What they append is signed and anchored as everything is. So the log is opened by the gateway's own rules: one that was
rolled back would otherwise sign a second checkpoint of a size that others hold, and rows that are behind the log would
let somebody sign who has lost the role.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from audit.ledger.ledger import Ledger
from gateway import database_file
from gateway.application import demand_rows, make_ledger
from gateway.settings import Settings
from gateway.witnesses import start_checked


@contextmanager
def stopped(settings: Settings) -> Iterator[tuple[Engine, Ledger]]:
    """Starts the ledger of a gateway that does not run, and closes it.

    Raises:
        PreconditionError: ``LEDGER_IN_USE`` while it runs, ``LEDGER_NOT_A_FILE`` before its first start,
            ``DATABASE_LOST``, or ``ROWS_BEHIND_LOG``.
        AssayError: what :func:`gateway.witnesses.start_checked` says; nothing is signed then.
    """
    database_file.demand(settings)
    demand_rows(settings)
    engine, ledger = make_ledger(settings)
    try:
        start_checked(settings, ledger)
        yield engine, ledger
    finally:
        ledger.close()
        engine.dispose()
