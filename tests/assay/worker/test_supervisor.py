from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import os
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay import dsse, provenance
from assay.errors import AlreadyExistsError, AssayError, PreconditionError
from assay.worker import supervisor as supervisor_module
from assay.worker.disk import DiskWatch
from assay.worker.service import task_message
from assay.worker.spool import Spool, State, TaskRecord
from assay.worker.supervisor import Snapshot

from .conftest import JOB, TABLE, House, ended, submit, until
from .sandbox_tasks.steps import GARBAGE

pytestmark = pytest.mark.isolation
GOING_ON = {**TABLE, "audit": TABLE["train"]}
"""A task of steps under a kind that needs no work order and goes on from what it left; a preparation does not."""


async def test_a_task_goes_the_whole_way(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 3, "behaviour": "private"}))
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert (last.progress.step, last.progress.steps, dict(last.progress.metrics)) == (3, 3, {"loss": 0.5})

    manifest = house.open_result(supervisor, "t1", house.root / "result")
    assert {f["path"] for f in manifest["files"]} == {"seen.json", "private.bin", "statement.json"}
    seen = json.loads((house.root / "result" / "seen.json").read_text())
    assert seen["inputs"] == ["dataset"]
    assert seen["secret"] == hmac.new(bytes.fromhex("11" * 32), JOB.encode(), hashlib.sha256).hexdigest()

    envelope = json.loads((house.root / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    predicate = verified.predicate
    assert verified.predicate_name == "preparation"
    assert predicate["claim"] == {"rate": "0.25", "steps": 3}
    assert predicate["isolation"]["proven"] is True
    assert all(predicate["isolation"]["probes"].values())
    assert predicate["meter"]["attempts"] == 1
    assert predicate["meter"]["wall_ms"] > 0
    assert predicate["meter"]["cpu_ms"] > 0
    assert predicate["meter"]["max_rss_bytes"] > 1 << 20
    assert predicate["meter"]["energy_uwh"] > 0
    digests = {s["name"]: s["digest"]["sha256"] for s in verified.statement["subject"]}
    assert set(digests) == {"seen.json", "private.bin"}
    assert digests["seen.json"] == hashlib.sha256((house.root / "result" / "seen.json").read_bytes()).hexdigest()

    folder = house.folder / "spool" / "t1"
    # The end is told before the sealed task is cleared away.
    await until(lambda: sorted(os.listdir(folder)) == ["result.bin", "state.json"])
    await supervisor.release("t1")
    await supervisor.release("t1")
    assert os.listdir(folder) == ["state.json"]
    with pytest.raises(PreconditionError, match="released"):
        supervisor.result("t1")
    await supervisor.stop()


async def test_what_a_task_took_is_told_while_it_runs_and_a_restart_does_not_forget_it(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 1, "gate": "go"}))
    told = [task_message(s).meter async for s in first(supervisor.watch("t1"), 3_000)]
    walls = [meter.wall_ms for meter in told]
    assert walls == sorted(walls) and max(b - a for a, b in pairwise(walls)) < 2_500, "about every second"
    assert told[-1].cpu_ms and told[-1].max_rss_bytes > 1 << 20 and told[-1].energy_uwh
    assert told[-1].energy_method.startswith(("measured: ", "modelled: "))
    await supervisor.stop()
    stopped = supervisor.get("t1").record
    assert stopped.state is State.WAITING and stopped.meter.wall_ms >= walls[-1]
    again = house.supervisor()
    await again.start()
    await until(lambda: again.get("t1").record.meter.wall_ms > stopped.meter.wall_ms)
    (house.models / "go-0").touch()
    last = task_message(await ended(again, "t1"))
    house.open_result(again, "t1", house.root / "result")
    envelope = json.loads((house.root / "result" / "statement.json").read_bytes())
    signed = dsse.verify_service(envelope, house.keys().statement.public_key()).predicate["meter"]
    assert (last.meter.wall_ms, last.meter.energy_uwh) == (signed["wall_ms"], signed["energy_uwh"])
    await again.stop()


async def first(snapshots: AsyncIterator[Snapshot], wall_ms: int) -> AsyncIterator[Snapshot]:
    """Snapshots until so much was metered."""
    async for snapshot in snapshots:
        yield snapshot
        if snapshot.record.meter.wall_ms >= wall_ms:
            return


async def test_the_private_part_comes_back_only_to_the_same_job(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": "private"}))
    await ended(supervisor, "t1")
    house.open_result(supervisor, "t1", house.root / "result")
    private = (house.root / "result" / "private.bin").read_bytes()
    assert b"sealed test rows" not in private

    await submit(supervisor, "t2", "prepare", house.seal("t2", "prepare", {}, {"private.bin": private}))
    assert (await ended(supervisor, "t2")).record.state is State.DONE
    house.open_result(supervisor, "t2", house.root / "again")
    assert json.loads((house.root / "again" / "seen.json").read_text())["inputs"] == ["private/test.jsonl"]

    other = house.seal("t3", "prepare", {}, {"private.bin": private}, job="units/credit/tuningJobs/j2")
    await submit(supervisor, "t3", "prepare", other)
    last = await ended(supervisor, "t3")
    assert last.record.state is State.FAILED
    assert last.record.reason.startswith("PRIVATE_BINDING:")
    await supervisor.stop()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("refuse", "DATA_BAD: row 3 is bad; remedy: mend row 3"),
        ("crash", "TASK_CRASHED: the task ended by RuntimeError"),
        ("die", "TASK_CRASHED: the task ended with exit status 3 and no result"),
        *(
            (garbage, "TASK_PROTOCOL: the task wrote something else than progress on its channel")
            for garbage in GARBAGE
        ),
        ("link", "OUTPUT_NOT_PLAIN: output 'leak' is not a plain file"),
        ("reserved", "OUTPUT_NAME: an output has a name that the supervisor uses"),
        ("pickle", "OUTPUT_ADAPTER: the adapter is refused:"),
    ],
)
async def test_a_failure_has_a_stable_reason_and_no_row_content(house: House, behaviour: str, reason: str) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": behaviour}))
    record = (await ended(supervisor, "t1")).record
    await supervisor.stop()
    assert record.state is State.FAILED
    assert record.reason.startswith(reason)
    assert "secret row content" not in record.reason
    assert set(os.listdir(house.folder / "spool" / "t1")) == {"state.json", "log.txt"}


@pytest.mark.parametrize("behaviour", ["mute", "broken pipe"])
async def test_a_task_that_closed_its_output_is_done_all_the_same(house: House, behaviour: str) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": behaviour}))
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason) == (State.DONE, "")
    await supervisor.stop()


async def test_what_a_task_printed_last_is_in_its_log(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": "last words"}))
    assert (await ended(supervisor, "t1")).record.state is State.FAILED
    log = (house.folder / "spool" / "t1" / "log.txt").read_text()
    await supervisor.stop()
    assert log.endswith("never flushed")


async def test_memory_and_time_are_capped(house: House) -> None:
    limits = house.settings().limits
    small = limits.model_copy(update={"memory_bytes": 200 << 20})
    supervisor = house.supervisor(limits=small)
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": "memory"}))
    assert (await ended(supervisor, "t1")).record.reason.startswith("TASK_MEMORY:")
    await supervisor.stop()

    short = limits.model_copy(update={"wall_seconds": 1})
    supervisor = house.supervisor(limits=short)
    await supervisor.start()
    await submit(supervisor, "t2", "prepare", house.seal("t2", "prepare", {"gate": "never"}))
    assert (await ended(supervisor, "t2")).record.reason.startswith("TASK_TIMEOUT:")
    await supervisor.stop()


class FullDisk:
    """The worker's spool on a disk that is full while ``full`` holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.refused, self._save = False, 0, Spool.save
        monkeypatch.setattr(Spool, "save", lambda spool, record: self.save(spool, record))

    def save(self, spool: Spool, record: TaskRecord) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._save(spool, record)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_task_whose_end_cannot_be_written_is_settled_once_there_is_room(
    house: House, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    monkeypatch.setattr(supervisor_module, "RETRY_SECONDS", 0.05)
    disk, supervisor = FullDisk(monkeypatch), house.supervisor()
    await supervisor.start()
    (house.models / "go-0").touch()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 2, "gate": "go"}))
    await until(lambda: supervisor.get("t1").progress.step > 0)
    asked = asyncio.create_task(supervisor.cancel("t1")) if cancelled else None
    if asked is not None:
        await asyncio.sleep(0)  # the wish is written while there is room
    disk.full = True
    if asked is None:
        (house.models / "go-1").touch()
    await until(lambda: disk.refused > 3)
    assert supervisor.get("t1").record.state is State.RUNNING
    disk.full = False
    last = await ended(supervisor, "t1")
    if asked is not None:
        assert (await asked).record.state is last.record.state is State.CANCELLED
    else:
        assert last.record.state is State.FAILED and last.record.reason.startswith("DISK_FULL:")
    await supervisor.stop()


async def test_a_task_that_cannot_be_settled_holds_no_slot_and_is_not_run_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RETRY_SECONDS", 0.05)
    stuck, clear = [True], Spool.clear

    def refuse(spool: Spool, task_id: str, *, keep: tuple[str, ...]) -> None:
        if task_id == "t1" and stuck:
            raise RecursionError
        clear(spool, task_id, keep=keep)

    monkeypatch.setattr(Spool, "clear", refuse)
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {}))
    await submit(supervisor, "t2", "prepare", house.seal("t2", "prepare", {}))
    assert (await ended(supervisor, "t2")).record.state is State.DONE
    record = supervisor.get("t1").record
    assert (record.state, record.attempts, record.sandbox) == (State.RUNNING, 1, None)
    stuck.clear()
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason) == (State.FAILED, "WORKER_FAULT: RecursionError")
    await supervisor.stop()


async def test_a_slot_that_cannot_be_had_stops_the_queue_for_a_while_only(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "RETRY_SECONDS", 0.05)
    supervisor = house.supervisor()
    await supervisor.start()
    failing, opened = ["slot", ".door"], os.open

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if failing and Path(path).name == failing[-1]:
            failing.pop()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *rest, **named)

    monkeypatch.setattr("assay.worker.slots.os.open", refuse)
    for task_id in ("t1", "t2"):
        await submit(supervisor, task_id, "prepare", house.seal(task_id, "prepare", {}))
    assert [(await ended(supervisor, task_id)).record.state for task_id in ("t1", "t2")] == [State.DONE] * 2
    assert not failing and [line.message for line in caplog.records].count("runner fault") == 2
    await supervisor.stop()


class HeldUp:
    """Clearing one task's folder takes until ``go``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, task_id: str) -> None:
        self.entered, self.go, clear = threading.Event(), threading.Event(), Spool.clear

        def slowly(spool: Spool, cleared: str, *, keep: tuple[str, ...]) -> None:
            if cleared == task_id:
                self.entered.set()
                self.go.wait(60)
            clear(spool, cleared, keep=keep)

        monkeypatch.setattr(Spool, "clear", slowly)


async def test_a_waiting_task_that_is_being_cancelled_is_not_started(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, held = house.supervisor(), HeldUp(monkeypatch, "t2")
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"gate": "go"}))
    await submit(supervisor, "t2", "prepare", house.seal("t2", "prepare", {}))
    await submit(supervisor, "t3", "prepare", house.seal("t3", "prepare", {}))
    await until(lambda: supervisor.get("t1").record.sandbox is not None)
    cancelled = asyncio.create_task(supervisor.cancel("t2"))
    await asyncio.to_thread(held.entered.wait, 60)
    (house.models / "go-0").touch()
    # The slot is free, and the second is the next in the queue.
    assert (await ended(supervisor, "t3")).record.state is State.DONE
    held.go.set()
    record = (await cancelled).record
    assert (record.state, record.attempts, record.reason) == (State.CANCELLED, 0, "")
    await supervisor.stop()
    assert supervisor.get("t2").record == record and os.listdir(house.folder / "spool" / "t2") == ["state.json"]


async def test_a_task_that_is_given_up_while_it_is_cancelled_is_cancelled(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, held = house.supervisor(), HeldUp(monkeypatch, "t1")
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {}))
    path = house.folder / "spool" / "t1" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "interruptions": 6}))
    held.go.set()
    supervisor = house.supervisor()
    await supervisor.start()
    # Recovery is over, and the queue has not begun.
    held.go.clear()
    held.entered.clear()
    await asyncio.to_thread(held.entered.wait, 60)
    cancelled = asyncio.create_task(supervisor.cancel("t1"))
    await until(lambda: supervisor.get("t1").record.cancel_requested)
    held.go.set()
    assert (await cancelled).record.state is State.CANCELLED
    await supervisor.stop()
    assert supervisor.get("t1").record.state is State.CANCELLED
    assert os.listdir(house.folder / "spool" / "t1") == ["state.json"]


async def test_a_task_that_can_no_longer_be_watched_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher holds it to every limit, so without one it has none."""
    monkeypatch.setattr(DiskWatch, "verdict", lambda watch: 1 / 0)
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"gate": "never"}))
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason) == (State.FAILED, "WORKER_FAULT: ZeroDivisionError")
    await supervisor.stop()


async def test_cpu_of_children_that_ended_is_counted(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"behaviour": "burn"}))
    record = (await ended(supervisor, "t1")).record
    # Parent and child each burn until their own clocks say 0.4 s; the child's starts at zero.
    assert record.meter.cpu_ms >= 750
    await supervisor.stop()


async def test_pause_resume_and_cancel(house: House) -> None:
    supervisor = house.supervisor(GOING_ON)
    await supervisor.start()
    sealed = house.seal("t1", "audit", {"steps": 4, "gate": "go"})
    for step in (0, 1):
        (house.models / f"go-{step}").touch()
    await submit(supervisor, "t1", "audit", sealed)
    await until(lambda: supervisor.get("t1").progress.step == 2)
    supervisor.pause("t1")
    last = await ended(supervisor, "t1")
    assert last.record.state is State.PAUSED
    assert set(os.listdir(house.folder / "spool" / "t1")) == {"state.json", "task.bin", "work"}

    for step in (2, 3):
        (house.models / f"go-{step}").touch()
    assert (await submit(supervisor, "t1", "audit", sealed)).record.state is State.WAITING
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE
    assert last.record.attempts == 2
    house.open_result(supervisor, "t1", house.root / "result")
    # Every step was done once: the second attempt went on from the checkpoint.
    assert json.loads((house.root / "result" / "seen.json").read_text())["trace"] == ["0", "1", "2", "3"]
    paused = supervisor.pause("t1").record
    assert (paused.state, paused.meter) == (State.DONE, last.record.meter) and paused.meter.wall_ms > 0
    with pytest.raises(PreconditionError) as refused:
        supervisor.resume("t1")
    assert refused.value.reason == "TASK_ENDED"

    await submit(supervisor, "t2", "audit", house.seal("t2", "audit", {"gate": "never"}))
    await submit(supervisor, "t3", "audit", house.seal("t3", "audit", {"gate": "never"}))
    await until(lambda: supervisor.get("t2").record.sandbox is not None)
    pid = supervisor.get("t2").record.sandbox[0]  # type: ignore[index]
    assert supervisor.get("t3").record.state is State.WAITING
    assert (await supervisor.cancel("t2")).record.state is State.CANCELLED
    assert not os.path.exists(f"/proc/{pid}")
    assert os.listdir(house.folder / "spool" / "t2") == ["state.json"]
    # The queue goes on with the next one.
    await until(lambda: supervisor.get("t3").record.state is State.RUNNING)
    assert (await supervisor.cancel("t3")).record.state is State.CANCELLED
    assert (await supervisor.cancel("t3")).record.state is State.CANCELLED
    await supervisor.stop()


async def test_an_id_is_one_task_for_ever(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    sealed = house.seal("t1", "prepare", {"steps": 1})
    first = await submit(supervisor, "t1", "prepare", sealed)
    await ended(supervisor, "t1")
    again = await submit(supervisor, "t1", "prepare", sealed)
    assert again.record.accepted == first.record.accepted
    # Sealed anew, the bytes differ, yet it is the same task: a gateway that died may have lost its copy.
    anew = house.seal("t1", "prepare", {"steps": 1})
    assert anew != sealed
    assert (await submit(supervisor, "t1", "prepare", anew)).record.state is State.DONE
    with pytest.raises(AlreadyExistsError) as taken:
        await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 2}))
    assert taken.value.reason == "TASK_ID_TAKEN"
    await supervisor.release("t1")
    tombstone = await submit(supervisor, "t1", "prepare", anew)
    assert tombstone.record.released
    assert tombstone.record.attempts == 1
    await supervisor.stop()

    restarted = house.supervisor()
    await restarted.start()
    assert (await submit(restarted, "t1", "prepare", sealed)).record.released
    await restarted.stop()


async def test_a_caller_that_dies_while_its_task_is_kept_finds_it_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    entered, go = threading.Event(), threading.Event()

    def slowly(self: Spool, record: TaskRecord, path: Path) -> None:
        entered.set()
        assert go.wait(60)
        admit(self, record, path)

    admit = Spool.admit
    monkeypatch.setattr(Spool, "admit", slowly)
    sealed = house.seal("t1", "prepare", {})
    path = supervisor.incoming()
    path.write_bytes(sealed)
    call = asyncio.create_task(supervisor.submit("t1", "prepare", hashlib.sha256(sealed).hexdigest(), path))
    await asyncio.to_thread(entered.wait, 60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    assert (await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {}))).record.sequence == 1
    assert (await ended(supervisor, "t1")).record.state is State.DONE
    await supervisor.stop()


async def test_what_is_not_the_gateways_is_refused_before_it_is_kept(house: House) -> None:
    supervisor = house.supervisor()
    stranger = Ed25519PrivateKey.generate()
    data = {"train.jsonl": b"a\n", "validation.jsonl": b"b\n"}
    good = house.work_order(data)
    changed = {**data, "train.jsonl": b"other rows\n"}
    cases = [
        ("prepare", house.seal("t1", "prepare", {}, signer=stranger), "BUNDLE_SIGNATURE"),
        ("prepare", house.seal("t2", "prepare", {}), "TASK_BINDING"),
        ("prepare", house.seal("t1", "audit", {}), "TASK_BINDING"),
        ("prepare", house.seal("t1", "prepare", {"job": "units/credit/tuningJobs/other"}), "ORDER_BINDING"),
        ("prepare", house.seal("t1", "prepare", {}, job=7), "TASK_MANIFEST"),  # type: ignore[arg-type]
        ("train", house.seal("t1", "train", house.work_order(data, signer=stranger), data), "ORDER_SIGNATURE"),
        ("train", house.seal("t1", "train", good, changed), "ORDER_BINDING"),
        ("train", house.seal("t1", "train", good, {"train.jsonl": b"a\n"}), "ORDER_BINDING"),
        ("train", house.seal("t1", "train", good, data, job="units/credit/tuningJobs/j2"), "ORDER_BINDING"),
        ("train", house.seal("t1", "train", {"job": JOB}, data), "TASK_MANIFEST"),
        ("train", house.seal("t1", "train", good, {**data, "selection.jsonl": b"c\n"}), "ORDER_BINDING"),
        ("train", house.seal("t1", "train", house.work_order(data, selection_sha256="0" * 64), data), "ORDER_BINDING"),
    ]
    for kind, sealed, reason in cases:
        with pytest.raises(AssayError) as refused:
            await submit(supervisor, "t1", kind, sealed)
        assert refused.value.reason == reason
    assert os.listdir(house.folder / "spool") == []

    only_train = house.supervisor(kinds=("train",))
    with pytest.raises(PreconditionError) as refused_kind:
        await submit(only_train, "t1", "prepare", house.seal("t1", "prepare", {}))
    assert refused_kind.value.reason == "TASK_KIND"


async def test_a_verified_work_order_reaches_the_task_without_the_canary_secret(house: House) -> None:
    supervisor = house.supervisor(cpu_isa="AVX2")
    await supervisor.start()
    data = {"train.jsonl": b"a\n", "validation.jsonl": b"b\n"}
    await submit(supervisor, "t1", "train", house.seal("t1", "train", house.work_order(data, steps=2), data))
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    house.open_result(supervisor, "t1", house.root / "result")
    seen = json.loads((house.root / "result" / "seen.json").read_text())
    assert seen == {"inputs": ["train.jsonl", "validation.jsonl"], "trace": ["0", "1"], "secret": ""}
    envelope = json.loads((house.root / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    assert verified.statement["predicateType"] == "https://slsa.dev/provenance/v1"
    flat, lock = provenance.read_training(verified.statement), provenance.lock_of(verified.statement)
    assert (flat["task_id"], flat["job"], flat["isolation"]["proven"]) == ("t1", JOB, True)
    assert verified.predicate["runDetails"]["builder"]["id"] == house.settings().subject
    assert [b["name"] for b in verified.predicate["runDetails"]["byproducts"]] == ["seen.json"]
    assert lock["ONEDNN_MAX_CPU_ISA"] == "AVX2" and {"package torch", "source assay"} <= set(lock)
    await supervisor.stop()


async def test_two_workers_share_one_device_slot(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"gate": "never"}))
    await until(lambda: supervisor.get("t1").record.state is State.RUNNING)
    other = House(house.root, house.services, house.permit, house.sealing, house.root / "second", house.models)
    other.folder.mkdir()
    for path in house.folder.iterdir():
        if path.is_file():
            (other.folder / path.name).write_bytes(path.read_bytes())
            (other.folder / path.name).chmod(0o600)
    settings = other.settings(slot_file=house.settings().slot_file, models_dir=house.models)
    from assay.worker.supervisor import Supervisor

    second = Supervisor(other.folder, settings, other.keys(), TABLE)
    await second.start()
    await submit(second, "t2", "prepare", house_seal_for(other, "t2"))
    await until(lambda: supervisor.get("t1").record.sandbox is not None)
    assert second.get("t2").record.state is State.WAITING
    await supervisor.cancel("t1")
    assert (await ended(second, "t2")).record.state is State.DONE
    await supervisor.stop()
    await second.stop()


def house_seal_for(house: House, task_id: str) -> bytes:
    return house.seal(task_id, "prepare", {})


async def test_a_graceful_stop_goes_on_after_the_next_start(house: House) -> None:
    supervisor = house.supervisor(GOING_ON)
    await supervisor.start()
    (house.models / "go-0").touch()
    await submit(supervisor, "t1", "audit", house.seal("t1", "audit", {"steps": 2, "gate": "go"}))
    await until(lambda: supervisor.get("t1").progress.step == 1)
    await supervisor.stop()
    (house.models / "go-1").touch()
    again = house.supervisor(GOING_ON)
    await again.start()
    last = await ended(again, "t1")
    assert last.record.state is State.DONE
    assert last.record.interruptions == 0
    house.open_result(again, "t1", house.root / "result")
    assert json.loads((house.root / "result" / "seen.json").read_text())["trace"] == ["0", "1"]
    await again.stop()
