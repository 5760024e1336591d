"""Starts the ranks of a data-parallel run, relays what the first one says, and ends them all.

The process that the sandbox started computes nothing then: it can see a rank die while the others wait for it inside a
library. A rank is a new interpreter and not a fork, since neither CUDA nor OpenMP outlives one. It gets its job over a
pipe and answers over another in the lines that the sandbox's entry speaks to the supervisor: ``progress``, then one
``end``. It dies with this process, and in the sandbox with the namespace.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from assay.errors import AssayError, FieldViolation, UnavailableError
from assay.worker.running import outcome_of
from assay.worker.task import RANK_LOST, TaskContext, TaskPaused
from trainer.recipes.loop import TuneJob

Work = Callable[[TuneJob, TaskContext], dict[str, Any]]
"""What every rank does; a function of a module, since a rank gets its name. The first rank's answer is the claim."""

_CAUSE_SECONDS = 5.0
"""After a first fault, how long others may still tell theirs: who merely waited for a rank knows no cause."""
_PART_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Rank:
    number: int
    process: SpawnProcess
    reader: Connection


def carry_out(work: Work, job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """Does the work in as many processes as the job has ranks; in this one where there is one.

    Raises:
        TaskPaused: the first rank wrote a checkpoint, as it was asked to.
        AssayError: the fault that a rank told, with its code and reason; ``RANK_LOST`` where one ended without a word.
    """
    if job.ranks.count == 1:
        return work(job, context)
    ranks: list[_Rank] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(job.ranks.count):
                ranks.append(_start(number, work, job, context, Path(folder) / "meeting"))
            end = _follow(ranks, context.send)
            for rank in ranks if end["outcome"] == "done" else ():
                rank.process.join(_PART_SECONDS)
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.join()
    return _claim(end)


def _start(number: int, work: Work, job: TuneJob, context: TaskContext, meeting: Path) -> _Rank:
    """Starts one rank; the context goes without the channel to the supervisor, which this process keeps."""
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    own = replace(job, ranks=replace(job.ranks, number=number))
    arguments = (work, own, replace(context, send=_unheard), meeting, writer)
    process = spawn.Process(target=_rank, args=arguments, name=f"rank-{number}", daemon=True)
    process.start()
    # The rank alone holds the other end, so that its death is seen here.
    writer.close()
    return _Rank(number, process, reader)


def _rank(work: Work, job: TuneJob, context: TaskContext, meeting: Path, writer: Connection) -> None:
    """What a new process does: joins the others, works, tells how it ended."""
    parent = multiprocessing.parent_process()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is None or os.getppid() != parent.pid:
        os._exit(1)
    speaks = replace(context, send=writer.send_bytes) if job.ranks.first else context

    def together() -> dict[str, Any]:
        job.ranks.join(meeting)
        claim = work(job, speaks)
        job.ranks.leave()
        return claim

    writer.send_bytes(json.dumps({"type": "end", **outcome_of(together)}).encode())


def _unheard(line: bytes) -> None:
    """Ranks after the first do the same as it, so what they would say is known."""


def _follow(ranks: Sequence[_Rank], send: Callable[[bytes], None]) -> Mapping[str, Any]:
    """Relays the first rank's lines until it is done or paused, or some rank has failed and the cause is told."""
    speaking = {rank.reader: rank for rank in ranks}
    ends: dict[int, Mapping[str, Any]] = {}
    deadline: float | None = None
    while speaking:
        ready = wait(list(speaking), None if deadline is None else max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for reader in [r for r in speaking if r in ready]:
            rank = speaking[reader]
            line = _line(reader)
            message = json.loads(line) if line else _died(rank, len(ranks))
            if message["type"] == "progress":
                send(line)
                continue
            del speaking[reader]
            ends[rank.number] = message
        if 0 in ends and ends[0]["outcome"] != "failed":
            return ends[0]
        if deadline is None and any(end["outcome"] == "failed" for end in ends.values()):
            deadline = time.monotonic() + _CAUSE_SECONDS
    return min((end for end in ends.values() if end["outcome"] == "failed"), key=_distance)


def _line(reader: Connection) -> bytes:
    """What a rank said next; nothing where it is gone."""
    with suppress(EOFError, ConnectionError):
        return reader.recv_bytes()
    return b""


def _died(rank: _Rank, count: int) -> dict[str, Any]:
    """The end of a rank that told none."""
    rank.process.join(_PART_SECONDS)
    code = rank.process.exitcode
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
    remedy = "look at the worker and its log, then let the job go on"
    words = f"process {rank.number + 1} of {count} of the training {how}"
    return {"type": "end", "outcome": "failed", "died": True, "reason": RANK_LOST, "message": words, "remedy": remedy}


def _distance(end: Mapping[str, Any]) -> int:
    """How far an end is from the cause: a fault that was told, a rank that died, one that waited for it in vain."""
    return 0 if end["reason"] != RANK_LOST else 1 if end.get("died") else 2


def _claim(end: Mapping[str, Any]) -> dict[str, Any]:
    """The claim of a run that is done; what the first rank or the cause of its end says, of any other."""
    if end["outcome"] == "done":
        claim: dict[str, Any] = end["claim"]
        return claim
    if end["outcome"] == "paused":
        raise TaskPaused("paused at a checkpoint")
    violations = [FieldViolation(*pair) for pair in end.get("violations", ())]
    error = AssayError(end["reason"], end["message"], remedy=end.get("remedy", ""), violations=violations)
    error.code = end.get("code", UnavailableError.code)
    raise error
