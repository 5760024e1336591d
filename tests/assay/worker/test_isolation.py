"""The escape table: what a hostile task tries inside the real sandbox, and what it gets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import assay
from assay import dsse
from assay.worker import sandbox
from assay.worker.attempt import Attempt, Handover, Hooks
from assay.worker.decoys import Decoys
from assay.worker.meter import EnergyModel, Meter
from assay.worker.spool import State

from .conftest import TABLE, House, ended, submit

pytestmark = pytest.mark.isolation

DENIED = {"EPERM", "EACCES"}
GONE = {"ENOENT", "EACCES"}
ESCAPES: dict[str, set[str]] = {
    "clone3": {"ENOSYS"},
    "tcp_to_host": {"ECONNREFUSED"},
    "udp_out": {"ENETUNREACH"},
    "path_socket": {"ENOENT"},
    "abstract_socket": {"ECONNREFUSED"},
    "signal_host": {"ESRCH"},
    "big_file": {"EFBIG"},
    "forks": {"EAGAIN"},
    "own_loopback": {"succeeded"},
}
for names, words in (
    {
        "ptrace mount pivot_root chroot unshare unshare_user setns keyctl add_key bpf perf_event_open": {"EPERM"},
        "io_uring_setup userfaultfd open_by_handle_at process_vm_readv pidfd_getfd kexec_load fsopen": {"EPERM"},
        "vsock vsock_high_bits packet alg raw netlink_audit": DENIED,
        # Inside a user namespace uid 0 is not even mapped.
        "become_root": DENIED | {"EINVAL"},
        "sysctl fill_root write_inputs write_models write_code": {"EROFS", "EACCES"},
        "read_decoy read_key read_canary read_spool read_other_task read_shadow": GONE,
        "read_repository read_socket_folder": GONE,
    }
).items():
    ESCAPES |= {name: words for name in names.split()}


async def test_no_way_out(house: House, tmp_path: Path) -> None:
    limits = house.settings().limits.model_copy(update={"pids": 64, "file_bytes": 1 << 20})
    supervisor = house.supervisor(limits=limits)
    supervisor_spool = house.folder / "spool"
    other = supervisor_spool / "other"
    other.mkdir(mode=0o755)
    (other / "rows.jsonl").write_text("rows of another task")
    decoy = tmp_path / "decoy.txt"
    decoy.write_text("readable on the host")
    short = Path(tempfile.mkdtemp())
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as path, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        path.bind(str(short / "s"))
        abstract.bind(f"\0assay-test-{os.getpid()}")
        for listener in (tcp, path, abstract):
            listener.listen()
        order = {
            "host_pid_namespace": os.readlink("/proc/self/ns/pid"),
            "host_pid": os.getpid(),
            "port": tcp.getsockname()[1],
            "path_socket": str(short / "s"),
            "abstract_socket": f"assay-test-{os.getpid()}",
            "code": str(Path(assay.__file__).parent),
            "file_bytes": 1 << 20,
            "pids": 64,
            "host_paths": {
                "decoy": str(decoy),
                "key": str(house.folder / "statement.key"),
                "canary": str(house.folder / "canary.key"),
                "spool": str(supervisor_spool) + "/",
                "other_task": str(other / "rows.jsonl"),
                "shadow": "/etc/shadow",
                "repository": str(Path(assay.__file__).parent.parent / "pyproject.toml"),
                "socket_folder": str(short) + "/",
            },
        }
        # Each target is real: on the host it can be reached.
        for host_path in order["host_paths"].values():  # type: ignore[attr-defined]
            assert os.path.exists(host_path)
        socket.create_connection(("127.0.0.1", order["port"]), 2).close()
        rows = other / "rows.jsonl"
        kept = rows.read_bytes()
        os.rename(other, tmp_path / "aside")
        await supervisor.start()
        os.rename(tmp_path / "aside", other)
        await submit(supervisor, "t1", "audit", house.seal("t1", "audit", order))
        last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    house.open_result(supervisor, "t1", tmp_path / "result")
    envelope = json.loads((tmp_path / "result" / "statement.json").read_bytes())
    saw = dsse.verify_service(envelope, house.keys().statement.public_key()).predicate["claim"]["saw"]
    assert set(saw) == set(ESCAPES)
    assert {name: word for name, word in saw.items() if word not in ESCAPES[name]} == {}
    assert rows.read_bytes() == kept
    await supervisor.stop()


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
        Handover("t1", "prepare", {}, b"", "sandbox_tasks.steps"),
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
    assert done.stdout.strip() == "(False, '12 forks passed a limit of 8')"


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
