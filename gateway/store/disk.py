"""The gateway's own disk: what fills it is told so with a remedy, and before its last bytes are gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import UnavailableError, no_room
from assay.worker.disk import RESERVE_BYTES


@contextmanager
def named() -> Iterator[None]:
    """Turns the system's error of a full disk into one with a remedy.

    Raises:
        UnavailableError: ``DISK_FULL``.
    """
    try:
        yield
    except OSError as error:
        if not no_room(error):
            raise
        raise _full("is full") from error


def demand_room(folder: Path, size: int) -> None:
    """Demands that so many bytes more leave the folder's disk its reserve: the ledger must be able to go on.

    Raises:
        UnavailableError: ``DISK_FULL``.
    """
    if shutil.disk_usage(folder).free - size < RESERVE_BYTES:
        raise _full(f"has no more than its reserve of {RESERVE_BYTES} bytes left")


def _full(how: str) -> UnavailableError:
    return UnavailableError("DISK_FULL", f"the gateway's disk {how}", remedy="free space on the gateway's disk")
