"""The database file where it is not there: before the first start, or lost, which the anchor tells apart.

An empty file in the place of a lost one would be one more thing to move away before a backup can be put back. So
nothing makes one then, the gateway's own start included.
"""

from __future__ import annotations

from assay.errors import PreconditionError
from audit.ledger.anchor import FileAnchor
from gateway.settings import Settings

LOST = "DATABASE_LOST"


def demand(settings: Settings) -> None:
    """Demands that there is something to read; of PostgreSQL the connection tells.

    Raises:
        PreconditionError: ``LEDGER_NOT_A_FILE`` before the first start, or what :func:`demand_not_lost` says.
        IntegrityError: ``ANCHOR_DAMAGED``.
    """
    demand_not_lost(settings)
    if not is_there(settings):
        raise PreconditionError(
            "LEDGER_NOT_A_FILE",
            f"there is no database {settings.database.name}: this gateway has never run",
            remedy="start the gateway once",
        )


def demand_not_lost(settings: Settings) -> None:
    """Demands that the file is there, or that none was ever made.

    Raises:
        PreconditionError: ``DATABASE_LOST``: it is gone, and the anchor remembers records.
        IntegrityError: ``ANCHOR_DAMAGED``.
    """
    if not is_there(settings) and FileAnchor(settings.layout.anchor).read() is not None:
        raise PreconditionError(
            LOST,
            f"{settings.database} is gone, and the anchor remembers records that were in it",
            remedy=f"assay ledger restore {settings.directory} --backup FOLDER; without a backup that it takes, "
            "docs/installation.md says what a loss costs",
        )


def is_there(settings: Settings) -> bool:
    """Whether there is a file; PostgreSQL tells at the connection whether it is there."""
    return bool(settings.postgres_url) or settings.database.is_file()
