"""What a start of the worker makes of the spool that an earlier life left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from assay.errors import UnavailableError
from assay.worker.meter import process_started
from assay.worker.spool import ENDED, LOG_FILE, RESULT_FILE, Spool, State, TaskRecord

_GONE_SECONDS = 30


def recover(spool: Spool, left: Callable[[TaskRecord], bool]) -> list[TaskRecord]:
    """Brings every task into a state from which the queue can go on.

    A task that ran is waiting again, with its work folder where its kind goes on from it; one whose pause or
    cancellation was asked for gets it; an ended one loses leftover plaintext. Attempts were counted when they started.
    A task whose attempt was left running elsewhere is running still, and was not interrupted.

    Args:
        spool: the tasks.
        left: :meth:`assay.worker.engine.Engine.left`.

    Raises:
        IntegrityError: ``SPOOL_DAMAGED``.
        UnavailableError: ``SANDBOX_ALIVE`` when a sandbox of the earlier life does not die.
    """
    end_strays(spool.root)
    return [_recover(spool, record, left) for record in spool.load()]


def _recover(spool: Spool, record: TaskRecord, left: Callable[[TaskRecord], bool]) -> TaskRecord:
    if record.sandbox is not None:
        _end_process(*record.sandbox)
    if record.state in ENDED and not record.cancel_requested:
        files = {State.DONE: (RESULT_FILE,), State.FAILED: (LOG_FILE,)}.get(record.state, ())
        spool.clear(record.task_id, keep=() if record.released else files)
        return record
    keep: tuple[str, ...] = ()
    if record.cancel_requested:
        changed = replace(record, state=State.CANCELLED, cancel_requested=False, sandbox=None)
    elif record.state is State.RUNNING and left(record):
        changed, keep = record, record.resting
    elif record.state is State.RUNNING:
        state = State.PAUSED if record.pause_requested else State.WAITING
        again = record.interruptions + 1
        changed = replace(record, state=state, pause_requested=False, sandbox=None, interruptions=again)
        keep = record.resting
    else:
        # The reason of a fault stands beside what the task printed before it.
        changed, keep = record, (*record.resting, *((LOG_FILE,) if record.reason else ()))
    if changed != record:
        spool.save(changed)
    spool.clear(record.task_id, keep=keep)
    return changed


def end_strays(root: Path) -> None:
    """Ends every sandbox over the folders below ``root``. Errors are those of :func:`recover`."""
    for pid in _strays(root):
        _end_process(pid, process_started(pid))


def _strays(root: Path) -> Iterator[int]:
    """Sandboxes over this spool that nobody noted: their worker was killed while bubblewrap was still setting up.

    Its inner process asks to die with its parent only once it was told to go on; killed before that, it waits for ever.
    """
    marker = f"{root}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                name, *arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if name.rpartition(b"/")[2] == b"bwrap" and any(a.startswith(marker) for a in arguments):
                    yield int(entry.name)


def _end_process(pid: int, started: str) -> None:
    """Waits for a sandbox of ours that is dying with its worker; two sandboxes must not share a work folder."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if started and process_started(pid) == started:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                if not select.select([descriptor], [], [], _GONE_SECONDS)[0]:
                    raise UnavailableError("SANDBOX_ALIVE", "a sandbox of the worker's earlier life does not end")
        finally:
            os.close(descriptor)
