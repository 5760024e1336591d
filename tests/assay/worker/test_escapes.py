"""The escape table: what a hostile task of each kind tries inside the real sandbox, and what the kernel answers.

The task forks against its limit first, a bounded number of times, and tries nothing else where it does not hold.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import assay
from assay import dsse, provenance
from assay.worker.spool import State

from .conftest import House, ended, make_house, submit, task_module

pytestmark = pytest.mark.isolation

KINDS = ("prepare", "train", "audit")
RANK = "rank of a training that is shared out to two processes"
HOSTILE = {kind: task_module("attacks") for kind in KINDS}
ROWS = {"train.jsonl": b"rows\n", "validation.jsonl": b"rows\n"}
PIDS, FILE_BYTES, TMP_BYTES, DATA_BYTES = 64, 1 << 20, 2 << 20, 256 << 20

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
    "memory_hog": {"ENOMEM"},
    # Its own loopback it must have: torch's process groups need it.
    "own_loopback": {"succeeded"},
}
for names, words in (
    {
        "ptrace mount pivot_root chroot unshare unshare_user setns keyctl add_key bpf perf_event_open": {"EPERM"},
        "io_uring_setup userfaultfd open_by_handle_at process_vm_readv pidfd_getfd kexec_load fsopen": {"EPERM"},
        "vsock vsock_high_bits packet alg raw netlink_audit": DENIED,
        # Inside a user namespace uid 0 is not even mapped.
        "become_root": DENIED | {"EINVAL"},
        "sysctl fill_root fill_dev write_inputs write_models write_code": {"EROFS", "EACCES"},
        "fill_tmp fill_dev_shm": {"ENOSPC"},
        "read_decoy read_worker_key read_worker_sealing_key read_canary read_gateway_key read_spool": GONE,
        "read_other_rows read_other_bundle read_shadow read_repository read_socket_folder": GONE,
    }
).items():
    ESCAPES |= {name: words for name in names.split()}

ENDINGS = {
    "memory": "TASK_MEMORY",
    "disk": "TASK_DISK",
    "nest": "TASK_DISK",
    "time": "TASK_TIMEOUT",
    # The namespace's first process is gone, so its child is too; there is no result to believe.
    "orphan": "TASK_CRASHED",
}


def sealed(house: House, kind: str, order: dict[str, Any]) -> bytes:
    """A hostile task of a kind; for training its order is signed, as a gateway that was deceived would sign it."""
    if kind == "train":
        return house.seal("t1", kind, house.work_order(ROWS, **order), dict(ROWS))
    return house.seal("t1", kind, order)


@contextmanager
def targets(house: House) -> Iterator[dict[str, Any]]:
    """What the task is told to reach, each of which is really there and can be reached on the host."""
    with ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = house.root / "services" / "gateway"
        other = house.root / "other"
        for folder in (gateway, other):
            folder.mkdir(mode=0o755)
        decoy, gateway_key = house.root / "decoy.txt", gateway / "permit.key"
        for path in (decoy, gateway_key, other / "rows.jsonl", other / "task.bin"):
            path.write_text("readable on the host")
        tcp = stack.enter_context(socket.socket())
        tcp.bind(("127.0.0.1", 0))
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(short / "s"))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0assay-test-{os.getpid()}-{house.root.name}")
        for listener in (tcp, named, abstract):
            listener.listen()
            client = stack.enter_context(socket.socket(listener.family))
            client.connect(listener.getsockname())
        paths = {
            "decoy": str(decoy),
            "worker_key": str(house.folder / "statement.key"),
            "worker_sealing_key": str(house.folder / "seal.key"),
            "canary": str(house.folder / "canary.key"),
            "gateway_key": str(gateway_key),
            "spool": str(house.folder / "spool") + "/",
            "other_rows": str(house.folder / "spool" / "other" / "rows.jsonl"),
            "other_bundle": str(house.folder / "spool" / "other" / "task.bin"),
            "shadow": "/etc/shadow",
            "repository": str(Path(assay.__file__).parent.parent / "pyproject.toml"),
            "socket_folder": str(short) + "/",
        }
        yield {
            "host_pid_namespace": os.readlink("/proc/self/ns/pid"),
            "host_pid": os.getpid(),
            "port": tcp.getsockname()[1],
            "path_socket": str(short / "s"),
            "abstract_socket": f"assay-test-{os.getpid()}-{house.root.name}",
            "code": str(Path(assay.__file__).parent),
            "file_bytes": FILE_BYTES,
            "tmp_bytes": TMP_BYTES,
            "data_bytes": DATA_BYTES,
            "pids": PIDS,
            "host_paths": paths,
        }


async def attack(house: House, who: str) -> dict[str, str]:
    """Runs the hostile task to its end and returns what it saw, from the statement that the supervisor signed."""
    caps = {"pids": PIDS, "file_bytes": FILE_BYTES, "tmp_bytes": TMP_BYTES, "data_bytes": DATA_BYTES}
    limits = house.settings().limits.model_copy(update=caps)
    kind, processes = ("train", 2) if who == RANK else (who, 1)
    supervisor = house.supervisor(HOSTILE, limits=limits, processes=processes)
    with targets(house) as order:
        order["from_a_rank"] = who == RANK
        await supervisor.start()
        # Another job's folder, as the spool would hold it; made after the start, which knows every folder there.
        os.rename(house.root / "other", house.folder / "spool" / "other")
        for path in order["host_paths"].values():
            assert os.path.exists(path), path
        await submit(supervisor, "t1", kind, sealed(house, kind, order))
        last = await ended(supervisor, "t1")
    await supervisor.stop()
    assert last.record.state is State.DONE, last.record.reason
    house.open_result(supervisor, "t1", house.root / "result")
    envelope = json.loads((house.root / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    predicate = provenance.read_training(verified.statement) if kind == "train" else verified.predicate
    assert predicate["isolation"]["proven"] is True
    assert predicate["claim"].get("processes", 1) == processes
    saw = predicate["claim"]["saw"]
    assert isinstance(saw, dict)
    return saw


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, str]]:
    """What the task of each kind saw, once tried."""
    return {}


@pytest.mark.parametrize("name", sorted(ESCAPES, key=lambda name: name != "forks"))
@pytest.mark.parametrize("who", (*KINDS, RANK))
async def test_no_way_out(
    who: str, name: str, seen: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if who not in seen:
        seen[who] = await attack(make_house(tmp_path_factory.mktemp("house")), who)
    assert set(seen[who]) == set(ESCAPES)
    assert seen[who][name] in ESCAPES[name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_who_takes_too_much_is_ended(kind: str, ending: str, house: House) -> None:
    caps = {
        "pids": PIDS,
        "memory_bytes": (200 << 20) if ending == "memory" else 0,
        "disk_bytes": (32 << 20) if ending == "disk" else 0,
        "wall_seconds": 2 if ending == "time" else 60,
    }
    supervisor = house.supervisor(HOSTILE, limits=house.settings().limits.model_copy(update=caps))
    await supervisor.start()
    order = {"host_pid_namespace": os.readlink("/proc/self/ns/pid"), "pids": PIDS, "ending": ending}
    await submit(supervisor, "t1", kind, sealed(house, kind, order))
    record = (await ended(supervisor, "t1")).record
    await supervisor.stop()
    assert (record.state, record.reason.partition(":")[0]) == (State.FAILED, ENDINGS[ending])
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(house.folder) in " ".join(p.info["cmdline"] or ())]
    assert set(os.listdir(house.folder / "spool" / "t1")) == {"state.json", "log.txt"}
