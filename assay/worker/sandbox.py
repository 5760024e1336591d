"""The sandbox: one process tree with no network, no other file, no privilege and hard limits, by bubblewrap + seccomp.

Two ways to an identity that limits can bind, since RLIMIT_NPROC does nothing for the host's uid 0:

* started as root: no user namespace; bubblewrap keeps CAP_SETUID and CAP_SETGID only, and :mod:`assay.worker.entry`
  becomes a host uid of the sandbox's own before anything else, which clears every capability;
* started as anybody else: a user namespace, closed to further ones, and that user's real uid.

Either way the pids limit is proven inside, by bounded forks, before data is opened.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from assay.errors import InternalError, PreconditionError
from assay.worker import seccomp
from assay.worker.diagnosis import bubblewrap, diagnose

METHOD = "bubblewrap+seccomp"
__all__ = ["METHOD", "Limits", "Running", "Spec", "TaskModule", "diagnose", "sandbox_uid", "start", "task_environment"]

# A range that systemd's conventions leave unassigned, clear of accounts, dynamic users and containers.
_UID_FIRST, _UID_COUNT = 60_706, 470
_CUDA_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""What CUDA opens beside a GPU's own node; they lead to no GPU whose node is not there."""
_HOST_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "OpenCL", "vulkan")
_HOST_SYS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_GPU_SYS = ("/sys/bus/pci", "/sys/devices", "/sys/class/drm", "/sys/module/nvidia")


@dataclass(frozen=True)
class TaskModule:
    """A module that a worker may run, and the source packages that it and the entry need.

    Attributes:
        module: dotted name; comes from the worker's own table, never from outside.
        packages: folders of import packages, bound read-only at their own paths.
    """

    module: str
    packages: tuple[Path, ...]

    @classmethod
    def installed(cls, module: str) -> TaskModule:
        """Finds an installed module's top-level package without importing it."""
        found = [_package_folder("assay"), _package_folder(module.partition(".")[0])]
        return cls(module, tuple(dict.fromkeys(found)))


@dataclass(frozen=True)
class Limits:
    """Hard limits of one sandbox; 0 switches one off where that is allowed.

    Attributes:
        pids: processes and threads.
        file_bytes: largest file that can be written.
        data_bytes: private memory of one process (RLIMIT_DATA); never RLIMIT_AS, since CUDA reserves huge ranges.
        memory_bytes: resident memory of the whole tree, watched by the supervisor, which keeps some of the machine's
            free besides (:mod:`assay.worker.memory`).
        open_files: descriptors of one process.
        tmp_bytes: size of ``/tmp`` and of ``/dev/shm``, which are memory.
        output_bytes: all outputs together.
        disk_bytes: what work and output folders may hold together while the task runs, watched by the supervisor.
        wall_seconds: running time.
        silent_seconds: how long the task may neither speak nor compute.
        pause_seconds: how long it may go on once a pause was asked for.
        log_bytes: what is kept of the task's own output, on this worker only.
    """

    pids: int = 1024
    file_bytes: int = 16 << 30
    data_bytes: int = 0
    memory_bytes: int = 0
    open_files: int = 4096
    tmp_bytes: int = 1 << 30
    output_bytes: int = 16 << 30
    disk_bytes: int = 0
    wall_seconds: int = 24 * 3600
    silent_seconds: int = 600
    pause_seconds: int = 600
    log_bytes: int = 1 << 20

    def inside(self) -> dict[str, int]:
        """What the entry sets on itself."""
        out = {"nproc": self.pids, "fsize": self.file_bytes, "nofile": self.open_files, "core": 0}
        if self.data_bytes:
            out["data"] = self.data_bytes
        return out


@dataclass(frozen=True)
class Spec:
    """One sandbox: what runs, which host folders it may see, and which GPUs (by number, see :func:`cards_of`)."""

    module: TaskModule
    inputs: Path
    outputs: Path
    work: Path
    control: Path
    models: Path
    limits: Limits
    uid: int
    threads: int
    cards: tuple[int, ...] = ()
    cpu_isa: str = ""
    alone: bool = False
    extra_read_only: tuple[Path, ...] = field(default=())

    @property
    def identity(self) -> dict[str, int] | None:
        """The uid that the entry becomes, when the worker runs as root."""
        return {"uid": self.uid, "gid": self.uid} if os.geteuid() == 0 else None

    def visible(self) -> tuple[Path, ...]:
        """Host paths that show inside at their own place."""
        return (*_interpreter_paths(), *self.module.packages, *self.extra_read_only)


@dataclass
class Running:
    """A started sandbox.

    Attributes:
        process: bubblewrap outside; it ends after the namespace's first process and reports its status.
        channel: speaks to the entry.
        log: what the task prints.
        init_pid: host pid of the namespace's first process.
        init_fd: pidfd of it, readable once it and everything under it is gone.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    log: IO[bytes]
    init_pid: int
    init_fd: int

    def kill(self) -> None:
        """Ends the whole process tree at once: the namespace dies with its first process."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init_fd, signal.SIGKILL)


def sandbox_uid(worker: Path, slot: int) -> int:
    """A host uid for one slot of one worker, stable over restarts, used only when the worker runs as root."""
    return _UID_FIRST + (zlib.crc32(str(worker.resolve()).encode()) + slot) % _UID_COUNT


def start(spec: Spec, targets: Mapping[str, Any]) -> Running:
    """Starts bubblewrap with the entry inside, which proves the cut-off and then waits for its order on the channel.

    Must be called from the thread that lives as long as the worker: the sandbox dies with the thread that started it.

    Args:
        spec: what runs and what it may see.
        targets: what the probes try to reach, from :class:`assay.worker.decoys.Decoys`; they must exist by now.

    Raises:
        PreconditionError: ``ISOLATION_MISSING`` or ``SECCOMP_MISSING``, with the remedy.
        InternalError: ``SANDBOX_START`` when there is no pipe to read what it prints.
    """
    bubblewrap()
    ours, theirs = socket.socketpair()
    info_read, info_write = os.pipe()
    filter_fd = _memory_file(seccomp.program())
    data = {path: _memory_file(text.encode()) for path, text in _etc_files(spec.uid).items()}
    handed = [theirs.fileno(), info_write, filter_fd, *data.values()]
    try:
        process = subprocess.Popen(
            _command(spec, targets, theirs.fileno(), info_write, filter_fd, data),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=handed,
            env={},
            cwd="/",
            start_new_session=True,
        )
    finally:
        theirs.close()
        for descriptor in [info_write, filter_fd, *data.values()]:
            os.close(descriptor)
    with os.fdopen(info_read, "rb") as info:
        words = info.read(65536)
    log = process.stdout
    if log is None:
        raise InternalError("SANDBOX_START", "the sandbox has no output pipe")
    if not words:
        text = log.read(2000).decode("utf-8", "replace")
        ours.close()
        process.wait()
        raise PreconditionError(
            "ISOLATION_MISSING", f"bubblewrap did not start: {text.strip()[:300]}", remedy="run `assay doctor`"
        )
    pid = int(json.loads(words)["child-pid"])
    return Running(process, ours, log, pid, os.pidfd_open(pid))


def _command(
    spec: Spec, targets: Mapping[str, Any], channel: int, info: int, filter_fd: int, data: Mapping[str, int]
) -> list[str]:
    out = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:
        out += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        out += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    out += ["--new-session", "--die-with-parent", "--hostname", "assay-sandbox", "--clearenv"]
    for name, value in task_environment(spec.threads, spec.cpu_isa, alone=spec.alone).items():
        out += ["--setenv", name, value]
    # First what covers a folder, then the binds: code may lie below /tmp.
    out += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):  # noqa: S108  (places inside the sandbox)
        out += ["--perms", "1777", "--size", str(spec.limits.tmp_bytes), "--tmpfs", place]
    gpu = _gpu_binds(spec.cards)
    shown = [*spec.visible(), *map(Path, _HOST_SYS), Path("/etc/passwd"), Path("/task/in")]
    out += _folders([*shown, *map(Path, _GPU_SYS)] if gpu else shown)
    out += _system_binds()
    for path in _HOST_SYS:
        out += ["--ro-bind-try", path, path]
    out += gpu
    for place, descriptor in data.items():
        out += ["--perms", "0644", "--ro-bind-data", str(descriptor), place]
    for folder in spec.visible():
        out += ["--ro-bind", str(folder), str(folder)]
    out += ["--ro-bind", str(spec.models), "/models"]
    out += ["--ro-bind", str(spec.inputs), "/task/in", "--ro-bind", str(spec.control), "/task/control"]
    out += ["--bind", str(spec.outputs), "/task/out", "--bind", str(spec.work), "/task/work"]
    # The root and /dev are each a tmpfs without a size, so they must not be writable; an ordinary user would own /dev.
    out += [
        "--remount-ro",
        "/",
        "--remount-ro",
        "/dev",
        "--chdir",
        "/task/work",
        "--seccomp",
        str(filter_fd),
        "--info-fd",
        str(info),
    ]
    return [*out, "--", sys.executable, *_boot(spec, targets, channel)]


def _boot(spec: Spec, targets: Mapping[str, Any], channel: int) -> list[str]:
    """Python's arguments. The settings are a literal in the code: nothing need be imported to read them.

    The process ends without taking torch's modules apart, which would cost most of a CPU second: what it wrote is
    closed, and the kernel frees the rest. How it ends does not hang on whether its last words can still be printed.
    """
    roots = list(dict.fromkeys(str(folder.parent) for folder in spec.module.packages))
    settings = {"probe": dict(targets), "limits": spec.limits.inside(), "identity": spec.identity}
    code = f"import os, sys; sys.path += {roots!r}; from assay.worker.entry import main\n"
    code += f"ended = main({channel}, {settings!r})\n"
    code += "try: sys.stdout.flush(); sys.stderr.flush()\nfinally: os._exit(ended)"
    return ["-I", "-B", "-S", "-c", code]


def task_environment(threads: int, cpu_isa: str = "", *, alone: bool = False) -> dict[str, str]:
    """Every variable that a task sees.

    Args:
        threads: that it computes with.
        cpu_isa: bounds oneDNN's instruction set; empty for the processor's own.
        alone: no other task runs on the machine meanwhile, so idle OpenMP threads may wait busily. A step of a small
            model is hundreds of short parallel parts: woken each time, threads take about a third longer
            (``benchmarks/waiting.py``). Beside other tasks it is the busy waiting that costs, all of them.
    """
    isa = {"ONEDNN_MAX_CPU_ISA": cpu_isa} if cpu_isa else {}
    waiting = {} if alone else {"OMP_WAIT_POLICY": "PASSIVE"}
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        "USER": "assay",
        "LOGNAME": "assay",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        **waiting,
        # Without a fixed workspace cuBLAS may choose another sum order from call to call.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        **isa,
    }


def _folders(paths: Sequence[Path]) -> list[str]:
    """Makes the way to each path passable: bubblewrap creates parents of a bind for its own uid only."""
    made = {Path("/"), Path("/tmp"), Path("/dev"), Path("/proc")}  # noqa: S108
    parents = {parent for path in paths for parent in path.parents if parent not in made}
    bound = [Path("/usr"), *paths]
    out: list[str] = []
    for folder in sorted(parents):
        if not any(folder.is_relative_to(other) for other in bound):
            out += ["--perms", "0755", "--dir", str(folder)]
    return out


def _system_binds() -> list[str]:
    out = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            out += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            out += ["--ro-bind", str(path), str(path)]
    for name in _HOST_ETC:
        out += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return out


def cards_of(slot: int, slots: int, devices: Path = Path("/dev")) -> tuple[int, ...]:
    """Numbers of the NVIDIA GPUs that belong to a device slot: all of them to the only one, else dealt out in turn.

    A slot without one of its own, since there are more slots than GPUs, shares the card of another.
    """
    found = sorted(int(path.name[6:]) for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit())
    return tuple(found[slot::slots]) or tuple(found[slot % len(found) :][:1] if found else ())


def _gpu_binds(cards: Sequence[int], devices: Path = Path("/dev")) -> list[str]:
    """The device nodes of these NVIDIA GPUs and no others, after ``--dev``; empty where none of the GPUs is there.

    Folders of nodes (``dri``, ``nvidia-caps``) are never shown: they hold those of every GPU of the machine.
    """
    own = [node for number in cards if (node := devices / f"nvidia{number}").exists()]
    if not own:
        return []
    out: list[str] = []
    for node in [*own, *(devices / name for name in _CUDA_NODES)]:
        out += ["--dev-bind-try", str(node), str(node)]
    for path in _GPU_SYS:
        out += ["--ro-bind-try", path, path]
    return out


def _interpreter_paths() -> tuple[Path, ...]:
    """The interpreter's real home, and the virtual environment around it, unless ``/usr`` holds them already."""
    found = {Path(sys.base_prefix), Path(sys.base_exec_prefix), Path(sys.prefix), Path(sys.exec_prefix)}
    found |= {path.resolve() for path in found}
    found |= {Path(sys.executable).resolve().parent.parent}
    kept: list[Path] = []
    for path in sorted(found):
        if path != Path("/") and not any(path.is_relative_to(parent) for parent in [Path("/usr"), *kept]):
            kept.append(path)
    return tuple(kept)


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    if not places:
        raise PreconditionError("TASK_MODULE_MISSING", f"package {name!r} is not installed here")
    return Path(places[0]).resolve()


def _etc_files(uid: int) -> dict[str, str]:
    """Just enough of ``/etc`` for libraries that look up their user or ``localhost``."""
    shown = uid if os.geteuid() == 0 else os.getuid()
    return {
        "/etc/passwd": f"assay:x:{shown}:{shown}:assay:/tmp:/bin/false\n",
        "/etc/group": f"assay:x:{shown}:\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("assay-sandbox", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of installed distributions, without importing them."""
    out = {}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out
