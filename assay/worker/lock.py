"""The environment lock: what decides the bits of a run and stands in no order.

Exactness was found to hold for the same packages, processor features, kernel settings and threads, and no further
(``ONEDNN_MAX_CPU_ISA`` alone changes the digest). The lock is taken by the supervisor, outside the sandbox, from what
it gave the sandbox: a task cannot lie about it. It names no person and no path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path

from assay import processor
from assay.digests import sha256_bytes, sha256_file
from assay.worker.sandbox import task_environment

# Variables that choose kernels or the order of sums; one that the sandbox does not set is at its library's default.
_DECIDING = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
_CPU = {"vendor_id": "cpu_vendor", "cpu family": "cpu_family", "model": "cpu_model_number", "stepping": "cpu_stepping"}
_BUILD = re.compile(r"^(git_version|cuda|hip)[^=\n]*= *'?([^'\n]*)'?", re.MULTILINE)


def environment(
    threads: int, cpu_isa: str = "", cpuinfo: Path = processor.CPUINFO, *, processes: int = 1
) -> dict[str, str]:
    """Processor, torch build and settings of a task that computes with ``threads`` threads.

    Args:
        threads: of the task.
        cpu_isa: ``ONEDNN_MAX_CPU_ISA`` as the worker sets it, or empty.
        cpuinfo: the kernel's list of processors.
        processes: that the worker lets a training share its rows out to, and its threads; its claim says how many it
            had, and their backend.
    """
    given = task_environment(threads, cpu_isa)
    cpu = processor.read(cpuinfo)
    return {
        **{name: cpu[field] for field, name in _CPU.items() if field in cpu},
        "cpu_flags_sha256": sha256_bytes(" ".join(sorted(cpu.get("flags", "").split())).encode()),
        "threads": str(threads),
        "processes": str(processes),
        **{name: given.get(name, "default") for name in _DECIDING},
        **_torch_build(),
    }


def packages() -> dict[str, str]:
    """Version of every installed distribution, by its normalised name (PEP 503)."""
    # One reading of a distribution's metadata gives both; `name` and `version` would parse it twice.
    found = ((m["Name"], m["Version"]) for m in (d.metadata for d in importlib.metadata.distributions()))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found if name}


def sources(folders: Sequence[Path]) -> dict[str, str]:
    """Digest of the Python source of each import package, by its name: an editable installation has no version."""
    return {folder.name: _source(folder) for folder in folders}


def _source(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _torch_build() -> dict[str, str]:
    """The commit and the platforms that torch was built from, read without importing it."""
    try:
        # Its list of files has fifteen thousand lines; a distribution lies beside its package.
        place = importlib.metadata.distribution("torch").locate_file("torch/version.py")
        text = Path(str(place)).read_text()
    except (importlib.metadata.PackageNotFoundError, OSError):
        return {}
    found: dict[str, str] = {name: value.strip() for name, value in _BUILD.findall(text)}
    return {f"torch_{name}": value for name, value in found.items() if value != "None"}
