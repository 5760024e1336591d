"""What stands before a task: the probes, that they can fail, and that nothing runs where the sandbox is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import assay
from assay.worker import sandbox
from assay.worker.attempt import Attempt, Handover, Hooks
from assay.worker.decoys import Decoys
from assay.worker.meter import EnergyModel, Meter
from assay.worker.spool import State

from .conftest import TABLE, House, ended, submit

pytestmark = pytest.mark.isolation


def _spec(house: House, root: Path, *extra: Path) -> sandbox.Spec:
    for name in ("in", "out", "work", "control"):
        (root / name).mkdir()
    return sandbox.Spec(
        TABLE["prepare"],
        root / "in",
        root / "out",
        root / "work",
        root / "control",
        house.models,
        sandbox.Limits(),
        sandbox.sandbox_uid(root, 0),
        1,
        extra_read_only=extra,
    )


async def test_a_leaky_sandbox_is_refused_before_an_input_is_opened(house: House, tmp_path: Path) -> None:
    opened: list[bool] = []
    hooks = Hooks(
        started=lambda pid: None,
        open_inputs=lambda: opened.append(True),
        progress=lambda progress: None,
        metered=lambda totals: None,
        meter=lambda pid: Meter(pid, EnergyModel(10.0)),
    )
    (house.folder / "spool").mkdir()
    root = tmp_path / "attempt"
    root.mkdir()
    # The worker's own folder is bound by mistake: decoy and keys show inside.
    spec = _spec(house, root, house.folder)
    house.folder.chmod(0o755)
    (house.folder / "statement.key").chmod(0o644)
    attempt = Attempt(
        spec,
        Handover("t1", "prepare", {}, b"", b"", "sandbox_tasks.steps"),
        hooks,
        decoy_folder=house.folder,
        ports={},
        keys=[house.folder / "statement.key"],
        log=root / "log.txt",
    )
    outcome = await attempt.run()
    assert outcome.kind == "failed"
    assert outcome.reason == "ISOLATION_NOT_PROVEN: decoy_files_unreadable, keys_unreadable"
    assert outcome.isolation["proven"] is False
    assert opened == []


def test_the_probes_see_that_the_host_is_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "statement.key").write_text("key")
    script = (
        "import json, sys; from assay.worker import probes;"
        "print(json.dumps(probes.run(json.loads(sys.argv[1]), pids=64)))"
    )
    with Decoys(tmp_path, ports={}, keys=[tmp_path / "statement.key"], visible=[]) as decoys:
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(decoys.targets)],
            capture_output=True,
            check=True,
            cwd=Path(assay.__file__).parent.parent,
        )
    held = json.loads(done.stdout)["probes"]
    for name in (
        "host_ports_refused",
        "abstract_socket_refused",
        "path_socket_invisible",
        "decoy_files_unreadable",
        "keys_unreadable",
        "own_namespaces",
        "no_privilege",
        "pids_limited",
    ):
        assert held[name] is False, name


@pytest.mark.skipif(os.geteuid() != 0, reason="shows what RLIMIT_NPROC does not do for uid 0")
def test_the_fork_probe_sees_that_root_escapes_rlimit_nproc() -> None:
    script = (
        "import resource; from assay.worker import probes;"
        "resource.setrlimit(resource.RLIMIT_NPROC, (64, 64)); print(probes._pids_limited(64))"
    )
    root = Path(assay.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "(False, '6 forks passed a limit of 3')"


def test_diagnose_names_every_part_and_a_remedy_where_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = sandbox.diagnose()
    assert [name for name, *_ in findings] == ["bubblewrap", "libseccomp", "namespaces", "limits"]
    assert all(ok for _, ok, _, _ in findings)
    monkeypatch.setenv("PATH", "/nonexistent")
    missing = {name: (ok, remedy) for name, ok, _, remedy in sandbox.diagnose()}
    assert missing["bubblewrap"][0] is False
    assert "apt-get install bubblewrap" in missing["bubblewrap"][1]
    assert missing["namespaces"][0] is False


async def test_without_bubblewrap_no_task_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    monkeypatch.setenv("PATH", "/nonexistent")
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {}))
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.FAILED
    assert record.reason.startswith("ISOLATION_MISSING:")
    assert not (house.folder / "spool" / "t1" / "in").exists()
    await supervisor.stop()


def test_threads_wait_busily_only_where_no_other_task_runs() -> None:
    beside, alone = sandbox.task_environment(2), sandbox.task_environment(2, alone=True)
    assert beside == {**alone, "OMP_WAIT_POLICY": "PASSIVE"} and "OMP_WAIT_POLICY" not in alone
