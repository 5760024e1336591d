"""The supervisor's own clock, memory and energy of a sandbox: what a worker's claim is compared with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from assay.worker.spool import MeterTotals

_RAPL = Path("/sys/class/powercap")
_MICROJOULES_PER_MICROWATTHOUR = 3600
_Domain = tuple[Path, int]


@dataclass(frozen=True)
class EnergyModel:
    """How energy is told where nothing can be read: CPU seconds times a stated figure."""

    watts_per_core: float

    @property
    def method(self) -> str:
        """The method's name, as it stands in the statement and on the card."""
        return f"modelled: {self.watts_per_core:g} W per busy core"

    def microwatthours(self, cpu_ms: int) -> int:
        """Energy of some CPU time."""
        return round(cpu_ms * self.watts_per_core * 1000 / _MICROJOULES_PER_MICROWATTHOUR)


class RaplCounter:
    """Intel/AMD package energy counters; of the whole machine, hence an upper bound for one task."""

    method = "measured: RAPL packages, whole machine"

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._last = [_number(folder / "energy_uj") for folder, _ in domains]
        self._total = 0

    @classmethod
    def open(cls, root: Path = _RAPL) -> RaplCounter | None:
        """Opens every package counter; ``None`` where there is none that this user may read."""
        domains: list[_Domain] = []
        try:
            for folder in sorted(root.glob("intel-rapl:[0-9]*")):
                # `intel-rapl:0:1` is a part of package 0 and would count twice.
                if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package"):
                    _number(folder / "energy_uj")
                    domains.append((folder, _number(folder / "max_energy_range_uj")))
        except (OSError, ValueError):
            return None
        return cls(domains) if domains else None

    def microwatthours(self) -> int:
        """Energy since the counter was opened; must be read more often than the counter wraps (minutes)."""
        for i, (folder, wrap) in enumerate(self._domains):
            now = _number(folder / "energy_uj")
            self._total += now - self._last[i] if now >= self._last[i] else now + wrap - self._last[i]
            self._last[i] = now
        return self._total // _MICROJOULES_PER_MICROWATTHOUR


class NvmlCounter:
    """The driver's own energy counter of each NVIDIA GPU that a task has (NVML, millijoules since it was loaded).

    Whole devices, hence an upper bound for one task; one task a device at a time makes it the task's own.
    """

    method = "measured: NVML, the GPUs of the task"

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml, self._handles = nvml, handles
        self._first = self._millijoules()

    @classmethod
    def open(cls, cards: Sequence[int]) -> NvmlCounter | None:
        """Opens the counters of cards by their number in ``/dev``.

        ``None`` where there is no such card, no NVML binding or no counter (before Volta).
        """
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            # NVML counts by bus, the driver's nodes by a number of their own.
            known = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            handles = [handle for handle in known if pynvml.nvmlDeviceGetMinorNumber(handle) in cards]
            return cls(pynvml, handles) if handles else None
        except pynvml.NVMLError:
            return None

    def microwatthours(self) -> int:
        """Energy since the counter was opened."""
        return (self._millijoules() - self._first) * 1000 // _MICROJOULES_PER_MICROWATTHOUR

    def _millijoules(self) -> int:
        return sum(int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)


class Meter:
    """Measures one attempt: sampled while it runs, closed with what the kernel counted."""

    def __init__(
        self, init_pid: int, model: EnergyModel, rapl: RaplCounter | None = None, gpus: NvmlCounter | None = None
    ) -> None:
        self._init_pid = init_pid
        self._model = model
        self._rapl = rapl
        self._gpus = gpus
        self._start = time.monotonic()
        self._cpu_ms = 0
        self._max_rss = 0
        self.rss_bytes = 0
        self.private_bytes = 0

    def sample(self) -> None:
        """Looks at the process tree: resident memory, what of it is no file's and not shared, and CPU time so far."""
        rss, private, cpu = 0, 0, 0.0
        for process in tree(self._init_pid):
            try:
                with process.oneshot():
                    memory = process.memory_info()
                    rss += memory.rss
                    private += memory.rss - memory.shared
                    times = process.cpu_times()
                    # Children's times count only those that ended and were waited for, so nothing counts twice.
                    cpu += times.user + times.system + times.children_user + times.children_system
            except psutil.Error:
                continue
        self.rss_bytes, self.private_bytes = rss, private
        self._max_rss = max(self._max_rss, rss)
        self._cpu_ms = max(self._cpu_ms, round(cpu * 1000))

    def totals(self, cpu_ms: int = 0, max_rss_bytes: int = 0) -> MeterTotals:
        """Returns the attempt so far.

        Args:
            cpu_ms: what the kernel's accounting of the ended tree says, if it has ended by itself.
            max_rss_bytes: the largest single process by the same accounting; sampling may have missed a peak.
        """
        cpu = max(self._cpu_ms, cpu_ms)
        energy = self._rapl.microwatthours() if self._rapl is not None else self._model.microwatthours(cpu)
        method = self._rapl.method if self._rapl is not None else self._model.method
        if self._gpus is not None:
            energy += self._gpus.microwatthours()
            method = f"{method}; GPU {self._gpus.method}"
        return MeterTotals(
            wall_ms=round((time.monotonic() - self._start) * 1000),
            cpu_ms=cpu,
            max_rss_bytes=max(self._max_rss, max_rss_bytes),
            energy_uwh=energy,
            energy_method=method,
        )


def process_started(pid: int) -> str:
    """Start time of a process as text that identifies it beyond its pid; empty when it is gone."""
    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants: asked of the kernel, four times a second, and not of every process there is."""
    try:
        root = psutil.Process(pid)
        if not Path(f"/proc/{pid}/task/{pid}/children").exists():
            return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
    found, todo = [root], [pid]
    while todo:
        for child in _children(todo.pop()):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(child))
                todo.append(child)
    return found


def _children(pid: int) -> list[int]:
    """Children of all threads of a process; none of one that is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # A thread that ends meanwhile hides nothing but its own: its children go to another.
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _number(path: Path) -> int:
    return int(path.read_text())
