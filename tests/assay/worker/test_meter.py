"""Energy: which counter is read where, and how it adds up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay.worker.meter import EnergyModel, Meter, NvmlCounter, RaplCounter, tree

JOULE = 1000  # millijoules, what NVML counts


class Driver:
    """Two GPUs whose counters a test moves; stands in for NVML where there is no GPU."""

    def __init__(self) -> None:
        self.millijoules = {"a": 5000 * JOULE, "b": 0}

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules[handle]


def test_gpu_energy_counts_from_the_opening_on_and_over_all_gpus():
    driver = Driver()
    counter = NvmlCounter(driver, ["a", "b"])
    assert counter.microwatthours() == 0
    driver.millijoules["a"] += 36 * JOULE
    driver.millijoules["b"] += 36 * JOULE
    assert counter.microwatthours() == 20_000  # 72 J are 0.02 Wh


def test_a_meter_names_both_methods_and_adds_both_energies():
    driver = Driver()
    meter = Meter(os.getpid(), EnergyModel(10.0), None, NvmlCounter(driver, ["a"]))
    driver.millijoules["a"] += 36 * JOULE
    totals = meter.totals(cpu_ms=3600)
    assert totals.energy_uwh == 10_000 + 10_000
    assert totals.energy_method == "modelled: 10 W per busy core; GPU measured: NVML, the GPUs of the task"


def test_a_task_counts_the_cards_of_its_slot_alone(monkeypatch: pytest.MonkeyPatch):
    """NVML's order and the nodes' numbers differ, as they may."""
    driver = Driver()
    names = ["a", "b"]
    nvml = SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=names.__getitem__, nvmlDeviceGetMinorNumber={"a": 1, "b": 0}.__getitem__,
        nvmlDeviceGetTotalEnergyConsumption=driver.nvmlDeviceGetTotalEnergyConsumption,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    mine, none = NvmlCounter.open((0,)), NvmlCounter.open((2,))
    assert mine is not None and none is None
    driver.millijoules["a"] += 36 * JOULE
    assert mine.microwatthours() == 0
    driver.millijoules["b"] += 36 * JOULE
    assert mine.microwatthours() == 10_000


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_claims_no_gpu_energy():
    assert NvmlCounter.open((0,)) is None
    assert "GPU" not in Meter(os.getpid(), EnergyModel(10.0)).totals().energy_method


def test_an_unreadable_rapl_counter_is_not_guessed(tmp_path):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "name").write_text("package-0\n")
    assert RaplCounter.open(tmp_path) is None


_FAMILY = """
import subprocess, threading
def start():
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    threading.Event().wait()
threading.Thread(target=start).start()
"""


def test_a_meter_counts_what_any_thread_of_a_task_started():
    parent = subprocess.Popen([sys.executable, "-c", _FAMILY], stdout=subprocess.PIPE, text=True)
    child = 0
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        found = {p.pid: p.memory_info().rss for p in tree(parent.pid)}
        assert set(found) == {parent.pid, child}
        meter = Meter(parent.pid, EnergyModel(10.0))
        meter.sample()
        assert meter.rss_bytes > max(found.values())
    finally:
        parent.kill()
        parent.wait()
        if child:
            os.kill(child, 9)
    meter.sample()
    assert (meter.rss_bytes, tree(parent.pid)) == (0, []), "of a task that has ended"


def test_a_thread_that_ends_while_it_is_looked_at_hides_no_child(monkeypatch: pytest.MonkeyPatch):
    """A task that started and ended threads without pause would have no limit on its children's memory."""
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [folder / "ended", *listed(folder)])
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert child.pid in {process.pid for process in tree(os.getpid())}
    finally:
        child.kill()
        child.wait()
