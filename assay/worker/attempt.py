"""One run of a task in its sandbox: prove the cut-off, open the inputs, hand over the order, follow, measure, end."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from assay.errors import no_room
from assay.worker import sandbox
from assay.worker.decoys import Decoys
from assay.worker.disk import DiskWatch
from assay.worker.entry import EXIT_DONE, EXIT_PAUSED, MAX_LINE
from assay.worker.memory import MemoryWatch, first_to_go
from assay.worker.meter import Meter, tree
from assay.worker.spool import MeterTotals
from assay.worker.statement import isolation_of
from assay.worker.task import PAUSE_FLAG, RANK_LOST

_LOG = logging.getLogger("assay.worker")
_PROBE_SECONDS = 120.0
_SAMPLE_SECONDS = 0.25
_DISK_TICKS = 4
_METER_TICKS = 4
_SIGHT_SECONDS = 1.0
_SIGN_MS = 100
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,62}")
_METRIC = re.compile(r"[a-zA-Z0-9_.\[\]=,-]{1,64}")


@dataclass(frozen=True)
class Progress:
    """The last thing that a task told about itself."""

    step: int = 0
    steps: int = 0
    message: str = ""
    seconds_left: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: ``done``, ``paused`` or ``failed``."""

    kind: str
    meter: MeterTotals
    claim: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    isolation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Handover:
    """What the entry gets once the cut-off is proven."""

    task_id: str
    kind: str
    order: Mapping[str, Any]
    secret: bytes
    work_key: bytes
    module: str
    processes: int = 1
    environment: str = ""
    memory_bytes: int = 0

    def line(self) -> bytes:
        """The message as one JSON line."""
        run = {
            "task_id": self.task_id,
            "kind": self.kind,
            "order": dict(self.order),
            "secret": base64.b64encode(self.secret).decode(),
            "work_key": base64.b64encode(self.work_key).decode(),
            "module": self.module,
            "processes": self.processes,
            "environment": self.environment,
            "memory_bytes": self.memory_bytes,
        }
        return json.dumps({"run": run}).encode() + b"\n"


@dataclass(frozen=True)
class Hooks:
    """What the supervisor does during an attempt; all are called on its event loop."""

    started: Callable[[int], None]
    open_inputs: Callable[[], None]
    progress: Callable[[Progress], None]
    metered: Callable[[MeterTotals], None]
    meter: Callable[[int], Meter]


class _Sight:
    """Looked-at time alone: a worker that was itself suspended must not blame its task."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def seconds(self) -> float:
        """Looks once; what has passed since the last look, and no more than one may take."""
        now, before = time.monotonic(), self._looked
        self._looked = now
        return min(now - before, _SIGHT_SECONDS)


class _Silence:
    """How long a task has neither spoken nor computed.

    Computing is taken for a sign of life since a step, a model's loading or a large file may take longer than any
    message is worth waiting for; what computes for ever is ended by the limit on running time.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._cpu_ms, self._quiet, self._sight = 0, 0.0, _Sight()

    def broken(self) -> None:
        """The task spoke."""
        self._quiet = 0.0

    def too_long(self, cpu_ms: int) -> bool:
        """Looks once; ``cpu_ms`` is what the task's processes computed so far."""
        self._quiet += self._sight.seconds()
        if cpu_ms - self._cpu_ms >= _SIGN_MS:
            self._cpu_ms, self._quiet = cpu_ms, 0.0
        return 0 < self._limit < self._quiet


class _Deafness:
    """How long a task has gone on since a pause was asked for; what was taken back before its time counts for nothing.

    Whoever asked, for money's sake perhaps, must not depend on a task that is stuck or does not want to hear.
    """

    def __init__(self, flag: Path, limit_seconds: float) -> None:
        self._flag, self._limit = flag, limit_seconds
        self._seconds, self._sight = 0.0, _Sight()

    def too_long(self) -> bool:
        """Looks once."""
        passed = self._sight.seconds()
        self._seconds = self._seconds + passed if self._flag.exists() else 0.0
        return self._seconds > self._limit


class Attempt:
    """Runs once. :meth:`kill` may be called at any time from the same event loop."""

    def __init__(
        self,
        spec: sandbox.Spec,
        handover: Handover,
        hooks: Hooks,
        *,
        decoy_folder: Path,
        ports: Mapping[str, int],
        keys: Sequence[Path],
        log: Path,
    ) -> None:
        self._spec = spec
        self._handover = handover
        self._hooks = hooks
        self._decoys = Decoys(decoy_folder, ports=ports, keys=keys, visible=spec.visible())
        self._log = log
        self._running: sandbox.Running | None = None
        self._verdict = ""
        # None while it is not the task's turn to speak.
        self._silence: _Silence | None = None

    def kill(self, reason: str = "") -> None:
        """Ends the sandbox at once; ``reason`` becomes the outcome's unless one was given before."""
        self._verdict = self._verdict or reason
        if self._running is not None:
            self._running.kill()

    async def run(self) -> Outcome:
        """Runs to the end and returns the outcome; the sandbox is gone when this returns or raises.

        Raises:
            AssayError: the sandbox cannot be started or an input cannot be opened.
        """
        with self._decoys:
            return await self._run()

    async def _run(self) -> Outcome:
        killed_before = _oom_kills()
        running = self._running = sandbox.start(self._spec, self._decoys.targets)
        leader = os.pidfd_open(running.process.pid)
        meter = self._hooks.meter(running.init_pid)
        drain = _LogDrain(running.log, self._log, self._spec.limits.log_bytes)
        watch = asyncio.create_task(self._watch(meter))
        if self._verdict:
            # Ended on request before there was a sandbox to end.
            running.kill()
        try:
            self._hooks.started(running.init_pid)
            reader, writer = await asyncio.open_connection(sock=running.channel, limit=MAX_LINE)
            try:
                isolation, end = await self._converse(reader, writer, running.init_pid, meter)
            finally:
                writer.close()
            await _readable(leader)
        except BaseException:
            running.kill()
            await _readable(leader)
            raise
        finally:
            watch.cancel()
            # The namespace's first process ends last: after it, nothing of the task is alive.
            await _readable(running.init_fd)
            _, status, usage = os.wait4(running.process.pid, 0)
            running.process.returncode = os.waitstatus_to_exitcode(status)
            self._running = None
            os.close(leader)
            os.close(running.init_fd)
            drain.close()
        killed = (running.process.returncode in _KILLED and not end) or end.get("reason") == RANK_LOST
        if killed and _oom_kills() > killed_before:
            self._verdict = self._verdict or "TASK_MEMORY: the kernel killed the task because memory ran out"
        cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000)
        return self._outcome(running.process.returncode, isolation, end, meter.totals(cpu_ms, usage.ru_maxrss * 1024))

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, init_pid: int, meter: Meter
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        isolation: Mapping[str, Any] = {}
        end: Mapping[str, Any] = {}
        try:
            first = _parse(await asyncio.wait_for(reader.readline(), _PROBE_SECONDS))
            self._decoys.close()
            isolation = isolation_of(first) if first.get("type") == "isolation" else {}
            if not isolation.get("proven"):
                self.kill(_not_proven(isolation))
                return isolation, end
            # While only the entry runs there: its children take after it.
            first_to_go(process.pid for process in tree(init_pid))
            await asyncio.to_thread(self._hooks.open_inputs)
            writer.write(self._handover.line())
            self._silence = _Silence(self._spec.limits.silent_seconds)
            while line := await reader.readline():
                message = _parse(line)
                self._silence.broken()
                if message.get("type") == "progress":
                    self._hooks.progress(_progress(message))
                elif message.get("type") == "end":
                    # The entry waits for the channel to close, so that its tree can be measured while it is there.
                    end = message
                    meter.sample()
                    break
        except TimeoutError:
            self.kill("ISOLATION_NOT_PROVEN: the sandbox did not answer")
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            self.kill("TASK_PROTOCOL: the task wrote something else than progress on its channel")
        except ConnectionError:
            # The sandbox died; its exit status says how.
            return isolation, end
        return isolation, end

    async def _watch(self, meter: Meter) -> None:
        """Holds the task to its limits to its end; a task that can no longer be watched is ended."""
        try:
            await self._hold_to_limits(meter)
        except Exception as error:
            _LOG.exception("watcher fault")
            self.kill(fault_words(error))

    async def _hold_to_limits(self, meter: Meter) -> None:
        limits, ticks = self._spec.limits, 0
        disk, memory = DiskWatch((self._spec.work, self._spec.outputs), limits.disk_bytes), MemoryWatch()
        deafness = _Deafness(self._spec.control / PAUSE_FLAG, limits.pause_seconds)
        while True:
            meter.sample()
            totals = meter.totals()
            if limits.memory_bytes and meter.rss_bytes > limits.memory_bytes:
                self.kill("TASK_MEMORY: the task used more memory than it may")
            if low := memory.verdict(meter.private_bytes):
                self.kill(low)
            if totals.wall_ms > limits.wall_seconds * 1000:
                self.kill("TASK_TIMEOUT: the task ran longer than it may")
            if self._silence is not None and self._silence.too_long(totals.cpu_ms):
                self.kill(f"TASK_SILENT: the task neither spoke nor computed for {limits.silent_seconds} s")
            if deafness.too_long():
                self.kill(f"TASK_PAUSE_IGNORED: the task went on for {limits.pause_seconds} s after it was to pause")
            if ticks % _DISK_TICKS == 0 and (full := await asyncio.to_thread(disk.verdict)):
                self.kill(full)
            ticks += 1
            if ticks % _METER_TICKS == 0:
                self._hooks.metered(totals)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _outcome(self, code: int, isolation: Mapping[str, Any], end: Mapping[str, Any], totals: MeterTotals) -> Outcome:
        word = end.get("outcome")
        if self._verdict:
            return Outcome("failed", totals, reason=self._verdict, isolation=isolation)
        if code == EXIT_DONE and word == "done" and isinstance(end.get("claim"), dict):
            return Outcome("done", totals, claim=end["claim"], isolation=isolation)
        if code == EXIT_PAUSED and word == "paused":
            return Outcome("paused", totals, isolation=isolation)
        if code == EXIT_DONE and word == "done":
            return Outcome("failed", totals, reason="TASK_CLAIM: the task returned no claim", isolation=isolation)
        return Outcome("failed", totals, reason=_failure(code, end), isolation=isolation)


def fault_words(error: Exception) -> str:
    """What a task's record says of a fault of its worker: a code and a sentence, nothing of the fault's own text."""
    if no_room(error):
        return "DISK_FULL: the worker's disk is full"
    return f"WORKER_FAULT: {type(error).__name__}"


class _LogDrain:
    """Keeps the first bytes of a task's own output in a file that only the worker reads, and drops the rest.

    So it does with what the disk does not take: no task ends, nor is its end lost, for words that nobody need read.
    """

    def __init__(self, pipe: IO[bytes], path: Path, limit: int) -> None:
        self._pipe = pipe
        self._left = limit
        self._loop = asyncio.get_running_loop()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._drain)

    def _drain(self) -> bool:
        try:
            data = os.read(self._pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe.fileno())
            return False
        try:
            self._left -= self._file.write(data[: self._left]) or 0
        except OSError:
            self._left = 0
        return True

    def close(self) -> None:
        while self._drain():
            continue
        self._loop.remove_reader(self._pipe.fileno())
        self._file.close()
        self._pipe.close()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


def _parse(line: bytes) -> dict[str, Any]:
    if not line:
        return {}
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("a message is an object")
    return value


def _progress(message: Mapping[str, Any]) -> Progress:
    left, metrics = message.get("seconds_left"), message.get("metrics") or {}
    if not isinstance(metrics, dict):
        raise ValueError("metrics are an object")
    return Progress(
        step=max(0, min(int(_number(message["step"])), 2**53)),
        steps=max(0, min(int(_number(message["steps"])), 2**53)),
        message=_words(message.get("message", ""), 200),
        seconds_left=None if left is None else _number(left),
        metrics={k: _number(v) for k, v in list(metrics.items())[:64] if _METRIC.fullmatch(k)},
    )


def _number(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("a number is finite")
    return found


def _failure(code: int, end: Mapping[str, Any]) -> str:
    reason = end.get("reason")
    if end.get("outcome") == "failed" and isinstance(reason, str) and _REASON.fullmatch(reason):
        words = [_words(end.get("message", ""), 500)]
        for violation in end.get("violations", [])[:20] if isinstance(end.get("violations"), list) else []:
            if isinstance(violation, list) and len(violation) == 2:
                words.append(f"{_words(violation[0], 200)}: {_words(violation[1], 300)}")
        if end.get("remedy"):
            words.append("remedy: " + _words(end["remedy"], 500))
        return f"{reason}: " + "; ".join(word for word in words if word)
    if code < 0 or code > 128:
        return f"TASK_CRASHED: the task was ended by signal {-code if code < 0 else code - 128}"
    return f"TASK_CRASHED: the task ended with exit status {code} and no result"


def _oom_kills() -> int:
    """Processes of this machine that its kernel has killed for want of memory, by control groups' limits included."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))


def _not_proven(isolation: Mapping[str, Any]) -> str:
    failed = sorted(name for name, held in isolation.get("probes", {}).items() if not held)
    return "ISOLATION_NOT_PROVEN: " + (", ".join(failed) or "the sandbox gave no proof")


def _words(text: Any, limit: int) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text)[:limit])
