"""Two processes of one training in the real sandbox: what the supervisor sees, ends, lets go on and signs."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

import assay
import trainer
from assay import dsse, provenance
from assay.digests import sha256_file
from assay.modelfiles import read_base_manifest
from assay.worker.sandbox import TaskModule
from assay.worker.spool import State
from assay.worker.supervisor import Supervisor
from tests.assay.worker.conftest import House, ended, make_house, submit, until
from tests.e2e.e2e_world import chat_rows
from tests.trainer.tiny_models import BASE_MODEL, tiny_models

pytestmark = [pytest.mark.isolation, pytest.mark.slow, pytest.mark.timeout(900)]
FILES = {"train.jsonl": chat_rows(240), "validation.jsonl": chat_rows(8)}
PACKAGES = tuple(Path(package.__file__).parent for package in (assay, trainer))
TABLE = {kind: TaskModule("trainer.task", PACKAGES) for kind in ("prepare", "train", "audit")}


@pytest.fixture
def real(tmp_path: Path) -> House:
    """A worker whose train tasks are the real trainer's, with a tiny base."""
    house = make_house(tmp_path)
    tiny_models(house.models)
    return house


async def handed_in(house: House, supervisor: Supervisor, name: str, **changes: Any) -> None:
    order = house.work_order(
        FILES, base_model=BASE_MODEL, base_sha256=read_base_manifest(house.models / BASE_MODEL).sha256, seed=5,
        hyperparameters={"epochs": "2.0", "lora_rank": 4, "lora_dropout": "0.1"}, max_train_tokens=10_000_000,
        **changes,
    )  # fmt: skip
    await submit(supervisor, name, "train", house.seal(name, "train", order, FILES))


def inside(supervisor: Supervisor, name: str) -> list[psutil.Process]:
    """Every process of a task's sandbox; none while there is no sandbox."""
    sandbox = supervisor.get(name).record.sandbox
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(sandbox[0]).children(recursive=True) if sandbox else []
    return []


def ranks(supervisor: Supervisor, name: str) -> list[psutil.Process]:
    """Those that train, in the order in which they were started."""
    found = []
    for process in inside(supervisor, name):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(process.cmdline()):
                found.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(found)]


def statement(house: House, supervisor: Supervisor, name: str) -> dict[str, Any]:
    house.open_result(supervisor, name, house.root / name)
    envelope = json.loads((house.root / name / "statement.json").read_bytes())
    return provenance.read_training(dsse.verify_service(envelope, house.keys().statement.public_key()).statement)


async def test_two_processes_are_attested_and_survive_a_killed_one_a_pause_and_a_stop(real: House) -> None:
    supervisor = real.supervisor(TABLE, processes=2)
    await supervisor.start()
    await handed_in(real, supervisor, "left")
    assert (await ended(supervisor, "left")).record.state is State.DONE, supervisor.get("left").record.reason

    await handed_in(real, supervisor, "disturbed")
    await until(lambda: supervisor.get("disturbed").progress.step >= 27, 300)
    before = inside(supervisor, "disturbed")
    computing = ranks(supervisor, "disturbed")
    assert len(computing) == 2
    computing[1].send_signal(signal.SIGKILL)
    record = (await ended(supervisor, "disturbed")).record
    assert record.state is State.PAUSED
    assert record.reason.startswith("RANK_LOST: process 2 of 2 of the training was ended by signal 9")
    assert record.reason.endswith("; the checkpoint of step 25 is kept")
    assert not any(process.is_running() for process in before)

    supervisor.resume("disturbed")
    await until(lambda: supervisor.get("disturbed").progress.step >= 40, 300)
    supervisor.pause("disturbed")
    assert (await ended(supervisor, "disturbed")).record.state is State.PAUSED
    assert supervisor.get("disturbed").record.reason == ""

    supervisor.resume("disturbed")
    await until(lambda: len(ranks(supervisor, "disturbed")) == 2, 300)
    await supervisor.stop()
    supervisor = real.supervisor(TABLE, processes=2)
    await supervisor.start()
    assert (await ended(supervisor, "disturbed")).record.state is State.DONE

    said = [statement(real, supervisor, name) for name in ("left", "disturbed")]
    await supervisor.stop()
    adapters = [sha256_file(real.root / n / "adapter" / "adapter_model.safetensors") for n in ("left", "disturbed")]
    assert adapters[0] == adapters[1]
    for one in said:
        assert one["isolation"]["proven"] and one["isolation"]["probes"]["only_loopback"]
        assert one["environment"]["processes"] == "2"
        assert (one["claim"]["processes"], one["claim"]["process_backend"]) == (2, "gloo")
    assert said[0]["claim"]["trained_tokens"] == said[1]["claim"]["trained_tokens"]
    assert said[0]["meter"]["cpu_ms"] > 1000 * float(said[0]["claim"]["train_seconds"]), "both are counted"


async def test_processes_that_stand_still_are_noticed_and_a_cancelled_task_leaves_none(real: House) -> None:
    limits = real.settings().limits.model_copy(update={"silent_seconds": 3})
    supervisor = real.supervisor(TABLE, processes=2, limits=limits)
    await supervisor.start()
    await handed_in(real, supervisor, "stopped")
    await until(lambda: supervisor.get("stopped").progress.step >= 27, 300)
    # One alone: the other then waits for it, and that is no computing.
    ranks(supervisor, "stopped")[1].send_signal(signal.SIGSTOP)
    record = (await ended(supervisor, "stopped")).record
    assert record.state is State.PAUSED and record.reason.startswith("TASK_SILENT")

    supervisor.resume("stopped")
    await until(lambda: len(ranks(supervisor, "stopped")) == 2, 300)
    before = inside(supervisor, "stopped")
    assert (await supervisor.cancel("stopped")).record.state is State.CANCELLED
    assert not any(process.is_running() for process in before)
    await supervisor.stop()
