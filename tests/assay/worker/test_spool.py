from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import ExhaustedError, IntegrityError, InvalidInputError
from assay.worker import recovery
from assay.worker import spool as spool_module
from assay.worker.meter import EnergyModel, Meter, RaplCounter, process_started
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.spool import MeterTotals, Spool, State, TaskRecord

from .conftest import House
from .test_folders import nest


def record(task_id: str = "t1", state: State = State.WAITING, sequence: int = 1, kind: str = "audit") -> TaskRecord:
    return TaskRecord(
        task_id=task_id,
        kind=kind,
        state=state,
        sha256="0" * 64,
        manifest_sha256="1" * 64,
        job="units/credit/tuningJobs/j1",
        unit="credit",
        accepted="2026-01-01T00:00:00Z",
        sequence=sequence,
        meter=MeterTotals(5, 4, 3, 2, "modelled"),
    )


def admitted(spool: Spool, task: TaskRecord) -> TaskRecord:
    sealed = spool.incoming()
    sealed.write_bytes(b"sealed")
    spool.admit(task, sealed)
    return task


def test_what_is_saved_is_read_back_in_order_and_leftovers_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record("b", sequence=1))
    admitted(spool, replace(record("a", sequence=2), sandbox=(1, "x"), state=State.PAUSED))
    spool.incoming().write_bytes(b"half a task")
    (spool.root / ".new-1234").mkdir()
    (spool.folder("a") / ".state-1234").write_bytes(b"half a state")
    found = Spool(tmp_path / "spool").load()
    assert [task.task_id for task in found] == ["b", "a"]
    assert found[1] == replace(record("a", sequence=2), sandbox=(1, "x"), state=State.PAUSED)
    assert sorted(os.listdir(spool.root)) == ["a", "b"]
    assert sorted(os.listdir(spool.folder("a"))) == ["state.json", "task.bin"]
    assert (spool.root.stat().st_mode & 0o777) == 0o700


def test_a_task_that_cannot_be_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(tmp_path / "spool")
    monkeypatch.setattr(spool_module, "_write", full)
    with pytest.raises(OSError, match="No space"):
        admitted(spool, record())
    assert os.listdir(spool.root) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b'{"task_id": "t1", "unknown": 1}'])
def test_a_damaged_state_is_named_not_guessed(tmp_path: Path, damage: bytes) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record())
    (spool.folder("t1") / "state.json").write_bytes(damage)
    with pytest.raises(IntegrityError) as refused:
        spool.load()
    assert refused.value.reason == "SPOOL_DAMAGED"
    assert "t1" in refused.value.message


def test_a_damaged_state_leaves_no_rows_in_plain_in_any_folder(tmp_path: Path) -> None:
    """Its remedy would carry them to where no later start clears anything."""
    spool = Spool(tmp_path / "spool of a worker")
    for number, (task_id, kind) in enumerate((("a", "prepare"), ("b", "audit"), ("c", "train"), ("d", "prepare"))):
        admitted(spool, record(task_id, State.RUNNING, number, kind))
        for name in ("in", "out", "work"):
            (spool.folder(task_id) / name).mkdir()
            (spool.folder(task_id) / name / "rows").write_text("what a customer wrote")
    (spool.folder("b") / "state.json").write_bytes(b"")
    (spool.root / "stray.txt").write_text("no folder")
    with pytest.raises(IntegrityError) as refused:
        recovery.recover(spool, lambda task: False)
    assert refused.value.remedy.startswith(f"remove its folder, `rm -r '{spool.folder('b')}'`")
    left = [path.parent for path in spool.root.rglob("rows")]
    assert left == [spool.folder("c") / "work"], "what is sealed there can be gone on from"


def test_a_state_that_the_system_hides_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record("t1", State.RUNNING, 1, "train"))
    for name in ("in", "work"):
        (spool.folder("t1") / name).mkdir()
    read = Path.read_bytes

    def hidden(path: Path) -> bytes:
        if path.name == "state.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path)

    with monkeypatch.context() as context:
        context.setattr(Path, "read_bytes", hidden)  # root reads what it likes
        with pytest.raises(IntegrityError) as refused:
            spool.load()
    assert "own again" in refused.value.remedy
    assert sorted(os.listdir(spool.folder("t1"))) == ["state.json", "task.bin", "work"]
    assert [task.task_id for task in spool.load()] == ["t1"]


def test_a_spool_that_is_a_volume_of_its_own_starts(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record())
    (spool.root / "lost+found").mkdir(mode=0o700)
    assert recovery.recover(spool, lambda task: False) == [record()]
    assert (spool.root / "lost+found").is_dir()


def test_what_a_task_took_is_noted_every_second_without_waiting_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool")
    task = admitted(spool, record(state=State.RUNNING))
    later = replace(task, meter=MeterTotals(9000, 8, 7, 6, "modelled"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: pytest.fail("waited for the disk"))
        spool.note(later)
    assert spool.load() == [later]
    spool.clear("t1", keep=("task.bin",))
    assert spool.load() == [later], "what is cleared is not what is known of the task"
    for damage in (b"", b"{", b"[]", b'{"wall_ms": "long"}', b'{"other": 1}'):
        (spool.folder("t1") / "meter.json").write_bytes(damage)
        assert spool.load() == [task]
    spool.note(task)
    spool.save(later)
    assert spool.load() == [later] and sorted(os.listdir(spool.folder("t1"))) == ["state.json", "task.bin"]


def test_a_state_of_another_task_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record())
    os.rename(spool.folder("t1"), spool.root / "t2")
    with pytest.raises(IntegrityError):
        spool.load()


def test_clearing_follows_no_link_and_opens_locked_folders(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    admitted(spool, record())
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep me")
    out = spool.folder("t1") / "out"
    (out / "locked" / "deep").mkdir(parents=True)
    (out / "locked" / "deep" / "file").write_text("x")
    (out / "link").symlink_to(precious)
    (out / "locked" / "deep").chmod(0)
    (out / "locked").chmod(0)
    spool.clear("t1", keep=("task.bin",))
    assert sorted(os.listdir(spool.folder("t1"))) == ["state.json", "task.bin"]
    assert (precious / "file").read_text() == "keep me"


def test_nested_folders_are_cleared_and_stop_no_start(nests: Path) -> None:
    spool = Spool(nests / "spool")
    admitted(spool, record(state=State.RUNNING))
    spool.prepare_attempt("t1", os.geteuid())
    for name in ("work", "out"):
        nest(spool.folder("t1") / name)
    (spool.folder("t1") / "in" / "rows.jsonl").write_text("plaintext")
    (found,) = recovery.recover(spool, lambda task: False)
    assert found.state is State.WAITING
    assert sorted(os.listdir(spool.folder("t1"))) == ["state.json", "task.bin", "work"]
    spool.clear("t1", keep=())
    assert os.listdir(spool.folder("t1")) == ["state.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user hands nothing over")
def test_work_that_is_nested_too_deep_is_handed_to_nobody(nests: Path) -> None:
    spool = Spool(nests / "spool")
    admitted(spool, record())
    spool.prepare_attempt("t1", 60_706)
    (spool.folder("t1") / "work" / "link").symlink_to(nests)
    spool.prepare_attempt("t1", 60_707)
    assert (spool.folder("t1") / "work" / "link").lstat().st_uid == 60_707 and nests.stat().st_uid == 0
    nest(spool.folder("t1") / "work")
    with pytest.raises(ExhaustedError) as refused:
        spool.prepare_attempt("t1", 60_706)
    assert refused.value.reason == "TASK_DISK"


def test_inputs_go_before_what_a_task_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, gone = Spool(tmp_path / "spool"), []
    admitted(spool, record())
    spool.prepare_attempt("t1", os.geteuid())
    monkeypatch.setattr(spool_module, "remove", lambda path: gone.append(path.name))
    spool.clear("t1", keep=())
    assert gone[0] == "in" and set(gone[1:3]) == {"out", "work"} and set(gone[3:]) == {"control", "task.bin"}


@pytest.mark.parametrize("kind", ["prepare", "train", "audit"])
@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (record(state=State.WAITING), State.WAITING, {"task.bin", "work"}),
        (record(state=State.RUNNING), State.WAITING, {"task.bin", "work"}),
        (replace(record(state=State.RUNNING), pause_requested=True), State.PAUSED, {"task.bin", "work"}),
        (replace(record(state=State.RUNNING), cancel_requested=True), State.CANCELLED, set()),
        (replace(record(state=State.DONE), cancel_requested=True), State.CANCELLED, set()),
        (record(state=State.PAUSED), State.PAUSED, {"task.bin", "work"}),
        (record(state=State.DONE), State.DONE, {"result.bin"}),
        (replace(record(state=State.DONE), released=True), State.DONE, set()),
        (record(state=State.FAILED), State.FAILED, {"log.txt"}),
        (record(state=State.CANCELLED), State.CANCELLED, set()),
    ],
)
def test_recovery_by_state(tmp_path: Path, before: TaskRecord, after: State, left: set[str], kind: str) -> None:
    # A preparation's scratch folder holds its rows in plain, and it begins anew.
    left = left - {"work"} if kind == "prepare" else left
    spool, before = Spool(tmp_path / "spool"), replace(before, kind=kind)
    admitted(spool, before)
    folder = spool.folder("t1")
    for name in ("in", "out", "work", "control"):
        (folder / name).mkdir()
    (folder / "in" / "rows.jsonl").write_text("plaintext")
    for name in ("result.bin", "log.txt"):
        (folder / name).write_text("x")
    (found,) = recovery.recover(spool, lambda task: False)
    assert found.state is after
    assert found.interruptions == (1 if before.state is State.RUNNING and not before.cancel_requested else 0)
    assert set(os.listdir(folder)) == {"state.json", *left}
    assert spool.load() == [found]


def test_recovery_ends_its_own_sandbox_and_no_other_process(tmp_path: Path) -> None:
    ours, other = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    try:
        spool = Spool(tmp_path / "spool")
        admitted(spool, replace(record("a", State.RUNNING), sandbox=(ours.pid, process_started(ours.pid))))
        # The pid was given to another process meanwhile: its start time tells.
        admitted(spool, replace(record("b", State.RUNNING, 2), sandbox=(other.pid, "0.0")))
        recovery.recover(spool, lambda task: False)
        assert ours.wait(10) == -9
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_recovery_ends_a_sandbox_that_nobody_noted(tmp_path: Path) -> None:
    """A worker killed while bubblewrap is setting up leaves its inner process waiting for ever."""
    spool = Spool(tmp_path / "spool")
    admitted(spool, record("a"))

    def pretend(name: str, place: Path) -> subprocess.Popen[bytes]:
        command = [name, "-c", "echo; read line", str(place)]
        process = subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # for a moment of its exec it has no arguments by which it could be known
        return process

    stray = pretend("bwrap", spool.folder("a") / "in")
    others = [pretend("bwrap", tmp_path / "spool2" / "a" / "in"), pretend("cat", spool.folder("a") / "in")]
    try:
        recovery.recover(spool, lambda task: False)
        assert stray.wait(10) == -9
        assert [other.poll() for other in others] == [None, None]
    finally:
        for process in (stray, *others):
            process.kill()
            process.communicate()


def test_rapl_counts_packages_once_and_over_the_wrap(tmp_path: Path) -> None:
    for name, label, energy in (("intel-rapl:0", "package-0", 900), ("intel-rapl:0:0", "core", 500)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(label + "\n")
        (folder / "energy_uj").write_text(str(energy))
        (folder / "max_energy_range_uj").write_text("1000000")
    counter = RaplCounter.open(tmp_path)
    assert counter is not None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("720900")
    assert counter.microwatthours() == 200
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("900")
    assert counter.microwatthours() == 277
    assert RaplCounter.open(tmp_path / "none") is None


def test_modelled_energy_names_its_figure() -> None:
    model = EnergyModel(12.0)
    assert model.method == "modelled: 12 W per busy core"
    # 12 W for one core-hour is 12 Wh.
    assert model.microwatthours(3_600_000) == 12_000_000


def test_the_meter_sees_children(tmp_path: Path) -> None:
    code = "import os, time\nx = bytearray(64 << 20)\npid = os.fork()\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    try:
        meter = Meter(process.pid, EnergyModel(12.0))
        deadline = time.monotonic() + 30
        while meter.rss_bytes <= 128 << 20 and time.monotonic() < deadline:
            meter.sample()
            time.sleep(0.01)
        assert meter.totals().max_rss_bytes > 128 << 20
        assert meter.totals(cpu_ms=10_000_000).cpu_ms == 10_000_000
    finally:
        import psutil

        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def test_settings_name_the_field_at_fault(house: House) -> None:
    assert house.settings().gateway_subject == "spiffe://assay.local/services/gateway"
    assert house.settings().slot_file == house.root.resolve() / "slot"
    path = house.folder / "worker.toml"
    good = path.read_text()
    for text, field in (
        (good + "modules = ['os']\n", "modules"),
        (good.replace('"prepare", ', '"shell", '), "kinds.0"),
        (good + 'isolation = "none"\n', "isolation"),
        (good.replace("127.0.0.1:0", "somewhere"), "listen"),
        (good.replace("127.0.0.1:0", "127.0.0.1:70000"), "listen"),
        (good + "[limits]\npids = 1\n", "limits.pids"),
        (good + "processes = 0\n", "processes"),
        (good + "processes = 65\n", "processes"),
        (good.replace('"prepare", "train", ', "") + "processes = 2\n", "processes"),
        (good + "processes = 2\n[limits]\npids = 95\n", "processes"),
        # A training never leaves its machine, so there is nothing to say of another one.
        (good + "processes = 2\nnodes = 2\n", "nodes"),
        (good + 'processes = 2\nmaster_address = "10.0.0.1:29500"\n', "master_address"),
        (good + 'processes = 2\npeers = ["10.0.0.2"]\n', "peers"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidInputError) as refused:
            WorkerSettings.load(house.folder)
        assert refused.value.reason == "SETTINGS"
        assert field in [v.field for v in refused.value.violations]
    path.write_text(good + "processes = 2\n[limits]\npids = 96\n")
    assert WorkerSettings.load(house.folder).processes == 2
    path.write_text("not [toml")
    with pytest.raises(InvalidInputError):
        WorkerSettings.load(house.folder)
    path.unlink()
    with pytest.raises(InvalidInputError) as missing:
        WorkerSettings.load(house.folder)
    assert missing.value.reason == "SETTINGS_MISSING"


def test_keys_that_others_can_read_are_refused(house: House) -> None:
    assert {path.name for path in house.keys().files} >= {"statement.key", "seal.key", "canary.key", "tls.key"}
    assert repr(b"\x11" * 4)[2:-1] not in repr(house.keys())
    (house.folder / "seal.key").chmod(0o644)
    with pytest.raises(InvalidInputError) as refused:
        WorkerKeys.load(house.folder)
    assert refused.value.reason == "KEY_EXPOSED"
    (house.folder / "seal.key").chmod(0o600)
    (house.folder / "gateway.pub").write_text("{}")
    with pytest.raises(InvalidInputError) as public:
        WorkerKeys.load(house.folder)
    assert public.value.reason == "PUBLIC_KEYS"
