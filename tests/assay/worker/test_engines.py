"""The contract of every engine, run on each: this machine, and a Ray cluster of a head and a node on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import assay
import trainer
from assay import dsse, provenance
from assay.identity import write_secret
from assay.modelfiles import check_adapter_folder, read_base_manifest
from assay.worker import exchange, recovery
from assay.worker.sandbox import TaskModule
from assay.worker.settings import RaySettings
from assay.worker.spool import Spool, State
from assay.worker.supervisor import Supervisor
from tests.e2e.e2e_world import chat_rows
from tests.trainer.tiny_models import BASE_MODEL, tiny_models

from .conftest import House, ended, submit, until
from .ray_cluster import Cluster, ray_command

pytestmark = pytest.mark.isolation

PACKAGES = tuple(Path(package.__file__).parent for package in (assay, trainer))
REAL = {kind: TaskModule("trainer.task", PACKAGES) for kind in ("prepare", "train", "audit")}
NODE = (sys.executable, str(Path(__file__).parent / "node_process.py"))
REAL_NODE = (*NODE, "--trainer")
ROWS = {"train.jsonl": b"what a customer wrote\n", "validation.jsonl": b"what a customer wrote\n"}
RAY = pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)])
Make = Callable[..., Supervisor]


def need_ray() -> str:
    """Where ``ray`` is. Skips where it is not, and fails instead where ``ASSAY_REQUIRE_RAY`` is set."""
    ray = ray_command()
    if ray is None:
        text = "Ray is not installed, so the Ray engine was NOT TESTED: run `make ray`"
        (pytest.fail if os.environ.get("ASSAY_REQUIRE_RAY") else pytest.skip)(text)
    return ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(need_ray())
    cluster.start_node()
    yield cluster
    cluster.close()


def ray_settings(house: House, cluster: Cluster, **changes: Any) -> RaySettings:
    """Settings of a worker whose attempts run on the cluster; its folder is where the nodes look, too."""
    token = house.folder / "ray-token.key"
    if not token.exists():
        write_secret(token, cluster.token.encode())
    return RaySettings(
        address=cluster.address,
        token_file=token,
        exchange=house.root / "exchange",
        node_dir=house.folder,
        resources={"assay_attempt": 1},
        cpus=0,
        **{"poll_seconds": 0.2, "command": NODE, **changes},
    )


@pytest.fixture(params=["this machine", RAY])
def make(request: pytest.FixtureRequest, house: House) -> Make:
    if request.param == "this machine":
        return house.supervisor
    settings = ray_settings(house, request.getfixturevalue("cluster"))
    return lambda **changes: house.supervisor(ray=settings, **changes)


def train(house: House, task_id: str = "t1", **order: Any) -> bytes:
    return house.seal(task_id, "train", house.work_order(ROWS, **order), dict(ROWS))


def open_gate(house: House, *steps: int) -> None:
    for step in steps:
        (house.models / f"go-{step}").touch()


def progressed(supervisor: Supervisor, step: int, task_id: str = "t1") -> Callable[[], bool]:
    return lambda: supervisor.get(task_id).progress.step >= step


def trace(house: House, supervisor: Supervisor, into: Path) -> list[str]:
    """The steps that the task did, in order, over all its attempts that left a checkpoint."""
    house.open_result(supervisor, "t1", into)
    return list(json.loads((into / "seen.json").read_text())["trace"])


def plain_text_below(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if b"what a customer wrote" in path.read_bytes()]


def processes(house: House) -> list[str]:
    """What still runs over the worker's folder, other than this process and Ray's own."""
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(house.folder) in line and "bwrap" in line]


def sandboxes_of(node: subprocess.Popen[bytes], house: House) -> list[str]:
    """Sandboxes over the worker's folder that run under a node of the cluster."""
    lines = [" ".join(p.cmdline()) for p in psutil.Process(node.pid).children(recursive=True) if p.is_running()]
    return [line for line in lines if str(house.folder) in line and "bwrap" in line]


async def test_a_task_ends_in_a_sealed_result_and_a_statement(house: House, make: Make, tmp_path: Path) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=3))
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert last.progress.step == 3
    assert trace(house, supervisor, tmp_path / "result") == ["0", "1", "2"]
    envelope = json.loads((tmp_path / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    predicate = provenance.read_training(verified.statement)
    assert predicate["isolation"]["proven"] is True
    assert predicate["meter"]["cpu_ms"] > 0
    assert last.record.meter.cpu_ms > 0
    assert plain_text_below(house.root) == []
    await supervisor.stop()


async def test_the_same_task_twice_runs_once(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    sealed = train(house, steps=2)
    await submit(supervisor, "t1", "train", sealed)
    await submit(supervisor, "t1", "train", sealed)
    await submit(supervisor, "t1", "train", train(house, steps=2))
    last = await ended(supervisor, "t1")
    assert (last.record.state, last.record.attempts) == (State.DONE, 1)
    await supervisor.stop()


async def test_nothing_plain_lies_outside_the_running_attempt(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(progressed(supervisor, 1))
    found = plain_text_below(house.root)
    assert found  # the attempt itself reads it
    assert {path.parent.name for path in found} == {"files"}
    assert plain_text_below(house.root / "exchange") == []
    open_gate(house, 1)
    assert (await ended(supervisor, "t1")).record.state is State.DONE
    assert plain_text_below(house.root) == []
    await supervisor.stop()


@pytest.mark.parametrize("end", ["pause", "stop", "kill"])
async def test_a_preparation_that_does_not_run_leaves_no_rows_in_plain(house: House, end: str) -> None:
    """It unpacks them into its scratch folder, and begins anew."""
    supervisor = house.supervisor()
    await supervisor.start()
    order = {"behaviour": "unpack", "steps": 2, "gate": "go"}
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", order, {"dataset": ROWS["train.jsonl"]}))
    open_gate(house, 0)
    await until(progressed(supervisor, 1))
    assert {path.parent.name for path in plain_text_below(house.root)} == {"files", "work"}
    if end == "pause":
        supervisor.pause("t1")
        await until(lambda: supervisor.get("t1").record.state is State.PAUSED)
    elif end == "kill":
        for runner in supervisor._runners:
            runner.cancel()
        await asyncio.gather(*supervisor._runners, return_exceptions=True)
        assert plain_text_below(house.root)
        recovery.recover(Spool(house.folder / "spool"), lambda record: False)
    if end != "kill":
        await supervisor.stop()
    assert plain_text_below(house.root) == []
    open_gate(house, 1)
    again = house.supervisor()
    await again.start()
    if end == "pause":
        again.resume("t1")
    assert (await ended(again, "t1")).record.state is State.DONE
    assert plain_text_below(house.root) == []
    await again.stop()


async def test_a_paused_task_goes_on_from_its_checkpoint(house: House, make: Make, tmp_path: Path) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=3, gate="go"))
    open_gate(house, 0)
    await until(progressed(supervisor, 1))
    supervisor.pause("t1")
    await until(lambda: supervisor.get("t1").record.state is State.PAUSED)
    assert processes(house) == []
    open_gate(house, 1, 2)
    supervisor.resume("t1")
    last = await ended(supervisor, "t1")
    assert (last.record.state, last.record.attempts) == (State.DONE, 2)
    assert trace(house, supervisor, tmp_path / "result") == ["0", "1", "2"]
    await supervisor.stop()


async def test_a_fault_after_a_checkpoint_is_a_pause_from_which_the_task_goes_on(
    house: House, make: Make, tmp_path: Path
) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=3, fault="disk full", fault_at=2))
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.PAUSED and record.reason.startswith("DISK_FULL")
    assert record.reason.endswith("; the checkpoint of step 2 is kept")
    assert processes(house) == [] and plain_text_below(house.root / "exchange") == []
    (house.models / "mended").touch()
    supervisor.resume("t1")
    last = await ended(supervisor, "t1")
    assert (last.record.state, last.record.attempts) == (State.DONE, 2)
    assert trace(house, supervisor, tmp_path / "result") == ["0", "1", "2"]
    await supervisor.stop()


async def test_a_cancelled_task_is_gone(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(progressed(supervisor, 1))
    assert (await supervisor.cancel("t1")).record.state is State.CANCELLED
    await until(lambda: processes(house) == [])
    await until(lambda: plain_text_below(house.root) == [])
    await supervisor.stop()


async def test_why_a_task_failed_is_told(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, behaviour="refuse"))
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.FAILED
    assert record.reason == "DATA_BAD: row 3 is bad; remedy: mend row 3"
    await supervisor.stop()


async def test_a_killed_sandbox_is_a_failed_task(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(progressed(supervisor, 1))
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "-S" in line and "assay.worker.entry" in line[-1] and str(house.folder) in line[-1]:
            os.kill(process.pid, signal.SIGKILL)
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason.partition(":")[0]) == (State.FAILED, "TASK_CRASHED")
    await supervisor.stop()


async def test_a_stopped_supervisor_goes_on_after_its_next_start(house: House, make: Make, tmp_path: Path) -> None:
    first = make()
    await first.start()
    await submit(first, "t1", "train", train(house, steps=3, gate="go"))
    open_gate(house, 0)
    await until(progressed(first, 1))
    await first.stop()
    open_gate(house, 1, 2)
    second = make()
    await second.start()
    last = await ended(second, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert trace(house, second, tmp_path / "result") == ["0", "1", "2"]
    await second.stop()


async def test_what_a_task_took_is_counted_once_when_its_supervisor_is_killed(
    house: House, make: Make, tmp_path: Path
) -> None:
    began = time.monotonic()
    first = make()
    await first.start()
    await submit(first, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(lambda: first.get("t1").record.meter.wall_ms > 0)
    before = first.get("t1").record.meter.wall_ms
    for runner in first._runners:
        runner.cancel()
    await asyncio.gather(*first._runners, return_exceptions=True)
    open_gate(house, 1)
    second = make()
    await second.start()
    last = await ended(second, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert before < last.record.meter.wall_ms < 1000 * (time.monotonic() - began)
    house.open_result(second, "t1", tmp_path / "result")
    envelope = json.loads((tmp_path / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    assert provenance.read_training(verified.statement)["meter"]["wall_ms"] == last.record.meter.wall_ms
    await second.stop()


async def test_an_altered_task_is_refused_before_anything_runs(house: House, make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    sealed = bytearray(train(house))
    sealed[-1] ^= 1
    from assay.errors import IntegrityError

    with pytest.raises(IntegrityError):
        await submit(supervisor, "t1", "train", bytes(sealed))
    assert supervisor.tasks() == []
    await supervisor.stop()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster that the test may break."""
    cluster = Cluster(need_ray())
    yield cluster
    cluster.close()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
async def test_a_killed_node_s_task_runs_again_on_the_other(house: House, own_cluster: Cluster, tmp_path: Path) -> None:
    nodes = [own_cluster.start_node(), own_cluster.start_node()]
    toml = house.folder / "worker.toml"
    toml.write_text(f"keep_seconds = 0.2\n{toml.read_text()}")
    supervisor = house.supervisor(ray=ray_settings(house, own_cluster))
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=2, gate="go", fault="nan", fault_at=99))
    open_gate(house, 0)
    await until(progressed(supervisor, 1), 180)
    await until((house.root / "exchange" / "t1" / exchange.WORK).exists, 60)
    await asyncio.sleep(1.0)  # what was written after the step that was just linked is kept by the next look
    (house.models / "go-0").unlink()
    [computing] = [node for node in nodes if sandboxes_of(node, house)]
    [other] = [node for node in nodes if node is not computing]
    own_cluster.kill(computing)
    await until(lambda: bool(sandboxes_of(other, house)), 180)
    open_gate(house, 1)
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert (last.record.attempts, last.record.interruptions) == (2, 1)
    # A run that began anew would wait at the first step for ever: its gate is shut.
    assert trace(house, supervisor, tmp_path / "result") == ["0", "1"]
    assert plain_text_below(house.root) == []
    await supervisor.stop()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
async def test_a_killed_head_loses_no_task(house: House, own_cluster: Cluster, tmp_path: Path) -> None:
    node = own_cluster.start_node()
    supervisor = house.supervisor(ray=ray_settings(house, own_cluster))
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(progressed(supervisor, 1), 180)
    own_cluster.kill(own_cluster.head)
    own_cluster.kill(node)
    assert supervisor.get("t1").record.state is State.RUNNING
    own_cluster.start_head()
    own_cluster.start_node()
    open_gate(house, 1)
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert trace(house, supervisor, tmp_path / "result") == ["0", "1"]
    await supervisor.stop()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
async def test_a_supervisor_killed_meanwhile_finds_its_job_again(
    house: House, cluster: Cluster, tmp_path: Path
) -> None:
    settings = ray_settings(house, cluster)
    first = house.supervisor(ray=settings)
    await first.start()
    await submit(first, "t1", "train", train(house, steps=2, gate="go"))
    open_gate(house, 0)
    await until(progressed(first, 1), 180)
    # As after kill -9: nothing is asked of the job, and the spool says that it runs.
    for runner in first._runners:
        runner.cancel()
    second = house.supervisor(ray=settings)
    await second.start()
    open_gate(house, 1)
    last = await ended(second, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert (last.record.attempts, last.record.interruptions) == (1, 0)
    assert trace(house, second, tmp_path / "result") == ["0", "1"]
    await second.stop()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
async def test_the_real_trainer_leaves_the_same_bits_on_a_node_as_here(
    house: House, cluster: Cluster, tmp_path: Path
) -> None:
    tiny_models(house.models)
    files = {"train.jsonl": chat_rows(80), "validation.jsonl": chat_rows(8)}
    order = house.work_order(
        files, base_model=BASE_MODEL, base_sha256=read_base_manifest(house.models / BASE_MODEL).sha256, seed=5,
        hyperparameters={"epochs": "2.0", "lora_rank": 4, "lora_dropout": "0.1"}, max_train_tokens=10_000_000,
    )  # fmt: skip
    found = {}
    for place, changes in (("here", {}), ("node", {"ray": ray_settings(house, cluster, command=REAL_NODE)})):
        supervisor = house.supervisor(REAL, **changes)
        await supervisor.start()
        await submit(supervisor, place, "train", house.seal(place, "train", order, files))
        last = await ended(supervisor, place)
        assert last.record.state is State.DONE, last.record.reason
        house.open_result(supervisor, place, tmp_path / place)
        found[place] = check_adapter_folder(tmp_path / place / "adapter")
        envelope = json.loads((tmp_path / place / "statement.json").read_bytes())
        verified = dsse.verify_service(envelope, house.keys().statement.public_key())
        assert provenance.read_training(verified.statement)["claim"]["steps"] == 20
        await supervisor.stop()
    assert found["node"].sha256 == found["here"].sha256
