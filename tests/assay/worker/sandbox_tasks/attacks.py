"""A hostile task: tries each way out and tells what the kernel answered. Runs only where it can do no harm."""

import ctypes
import errno
import mmap
import multiprocessing
import os
import platform
import resource
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

from assay.worker.task import TaskContext
from sandbox_tasks.steps import leave_nested_folders

# Numbers on x86_64 and aarch64; called with zeros, so that an unfiltered call fails otherwise or does nothing.
CALLS = {
    "ptrace": (101, 117),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "process_vm_readv": (310, 270),
    "pidfd_getfd": (438, 438),
    "kexec_load": (246, 104),
    "fsopen": (430, 430),
    "clone3": (435, 435),
}


def run(context: TaskContext) -> dict:
    order = context.order
    if os.readlink("/proc/self/ns/pid") == order["host_pid_namespace"]:
        raise RuntimeError("refusing to attack outside a sandbox")
    if order.get("from_a_rank"):
        return _in_a_new_process(context)
    # The pids limit first: what follows may be dangerous only where it does not hold.
    saw = {"forks": _forks(order["pids"])}
    if saw["forks"] != "EAGAIN":
        return {"saw": saw}
    if order.get("ending"):
        ENDINGS[order["ending"]](context)
    saw |= {name: _call(numbers) for name, numbers in CALLS.items()}
    saw["unshare_user"] = _call(CALLS["unshare"], 0x10000000)
    saw |= {
        "tcp_to_host": _try(lambda: socket.create_connection(("127.0.0.1", order["port"]), 2)),
        "udp_out": _try(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53))),
        "path_socket": _try(lambda: socket.socket(socket.AF_UNIX).connect(order["path_socket"])),
        "abstract_socket": _try(lambda: socket.socket(socket.AF_UNIX).connect("\0" + order["abstract_socket"])),
        "vsock": _try(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "vsock_high_bits": _call((41, 198), (1 << 32) | 40, 1, 0),
        "packet": _try(lambda: socket.socket(17, socket.SOCK_RAW)),
        "alg": _try(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
        "raw": _try(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        "netlink_audit": _try(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)),
        "become_root": _try(lambda: os.setuid(0)),
        "signal_host": _try(lambda: os.kill(order["host_pid"], 0)),
        "sysctl": _try(lambda: Path("/proc/sys/kernel/hostname").write_text("x")),
        "fill_root": _try(lambda: Path("/filled").write_text("x")),
        "write_inputs": _try(lambda: (context.inputs / "x").write_text("x")),
        "write_models": _try(lambda: (context.models / "x").write_text("x")),
        "write_code": _try(lambda: Path(order["code"], "x.py").write_text("x")),
        "big_file": _try(lambda: _write_big(context.work / "big", order["file_bytes"] + 1)),
    }
    for name, path in order["host_paths"].items():
        saw["read_" + name] = _try(
            lambda path=path: os.listdir(path) if path.endswith("/") else open(path, "rb").read(1)
        )
    for place in ("/tmp", "/dev/shm", "/dev"):
        saw["fill_" + place.strip("/").replace("/", "_")] = _try(lambda place=place: _fill(place, order["tmp_bytes"]))
    saw["memory_hog"] = _hog(order["data_bytes"])
    with socket.socket() as listener:
        # The sandbox's own loopback must work: torch's process groups need it.
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        saw["own_loopback"] = _try(lambda: socket.create_connection(listener.getsockname(), 2))
    return {"saw": saw}


def _in_a_new_process(context: TaskContext) -> dict:
    """Attacks from a process that is started as the trainer starts its ranks."""
    spawn = multiprocessing.get_context("spawn")
    reader, writer = spawn.Pipe(duplex=False)
    inner = replace(context, order={**context.order, "from_a_rank": False}, send=print)
    process = spawn.Process(target=_told, args=(inner, writer), daemon=True)
    process.start()
    writer.close()
    claim = reader.recv()
    process.join()
    return {**claim, "processes": context.processes}


def _told(context: TaskContext, writer) -> None:
    writer.send(run(context))


def _try(attempt) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "succeeded"


def _call(numbers: tuple[int, int], *arguments: int) -> str:
    number = numbers[0] if platform.machine() == "x86_64" else numbers[1]
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(value) for value in (*arguments, 0, 0, 0, 0, 0)[:5]]
    if libc.syscall(ctypes.c_long(number), *words) == -1:
        return errno.errorcode.get(ctypes.get_errno(), "?")
    return "succeeded"


def _write_big(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.seek(size - 1)
        stream.write(b"x")


def _fill(place: str, room: int) -> None:
    """Writes a little more than there should be room for, in files that are each small enough."""
    paths = [Path(place, f"fill{i}") for i in range(2 + room // (256 << 10))]
    try:
        for path in paths:
            path.write_bytes(b"x" * (256 << 10))
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _hog(room: int) -> str:
    """Asks for a little more private memory than one process may have, and touches none of it."""
    try:
        with mmap.mmap(-1, room + (16 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            return "succeeded"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")


def _many_hogs(context: TaskContext) -> None:
    """Several processes of which none has too much: 12 of 32 MiB, in all no more than the machine bears."""
    for _ in range(12):
        if os.fork() == 0:
            hoard = b"x" * (32 << 20)
            time.sleep(30)
            os._exit(len(hoard) % 2)
    time.sleep(30)


def _fill_disk(context: TaskContext) -> None:
    """Many files that are each small enough, 96 MiB in all."""
    for i in range(96):
        (context.work / f"fill{i}").write_bytes(os.urandom(1 << 20))
    time.sleep(30)


def _never_end(context: TaskContext) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(120)


def _die_and_leave_a_child(context: TaskContext) -> None:
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
    os._exit(0)


def _nest(context: TaskContext) -> None:
    """Folders that a walk which calls itself, or goes by paths, neither counts nor removes."""
    leave_nested_folders(context)
    time.sleep(30)


ENDINGS = {
    "nest": _nest,
    "memory": _many_hogs,
    "disk": _fill_disk,
    "time": _never_end,
    "orphan": _die_and_leave_a_child,
}


def _forks(limit: int) -> str:
    """Forks at most 24 more than the limit, and only once the limit is known to be set."""
    if resource.getrlimit(resource.RLIMIT_NPROC)[1] > limit:
        return "no limit"
    children = []
    try:
        for _ in range(limit + 24):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
        return "succeeded"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
