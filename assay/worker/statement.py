"""What the supervisor signs about a task: outputs by digest, the claim, the proof of cut-off, its own measurements."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay import canonical, dsse
from assay.bundle import check_paths
from assay.digests import folder_manifest, sha256_bytes, sha256_file
from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError
from assay.worker.sandbox import METHOD, package_versions
from assay.worker.spool import MeterTotals, TaskRecord

PREDICATES = {"prepare": "preparation", "train": "training", "audit": "audit"}
STATEMENT_FILE, PRIVATE_FILE, PRIVATE_FOLDER, ADAPTER = "statement.json", "private.bin", "private", "adapter"
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_PACKAGES = ("torch", "transformers", "peft", "presidio-analyzer", "fairlearn")


@dataclass(frozen=True)
class Outputs:
    """Checked outputs of a task: plain files only, by relative path."""

    files: Mapping[str, Path]
    private: Mapping[str, Path]

    @classmethod
    def collect(cls, folder: Path, *, max_bytes: int) -> Outputs:
        """Looks through what a task left, believing none of it.

        Raises:
            IntegrityError: ``OUTPUT_NOT_PLAIN`` for a link, device or pipe; ``OUTPUT_ADAPTER`` for weights that are
                not safe.
            InvalidInputError: ``BUNDLE_PATH`` or ``OUTPUT_NAME`` for a name that may not travel.
            ExhaustedError: ``OUTPUT_TOO_LARGE``.
        """
        found: dict[str, Path] = {}
        total = 0
        for root, folders, names in os.walk(folder, onerror=_refuse_walk):
            for name in [*folders, *names]:
                path = Path(root, name)
                status = path.lstat()
                if stat.S_ISDIR(status.st_mode):
                    continue
                relative = path.relative_to(folder).as_posix()
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise IntegrityError("OUTPUT_NOT_PLAIN", f"output {relative[:100]!r} is not a plain file")
                found[relative] = path
                total += status.st_size
            if total > max_bytes:
                raise ExhaustedError("OUTPUT_TOO_LARGE", f"the outputs have more than {max_bytes} bytes")
        check_paths(sorted(found))
        if STATEMENT_FILE in found or PRIVATE_FILE in found:
            raise InvalidInputError("OUTPUT_NAME", "an output has a name that the supervisor uses")
        mark = PRIVATE_FOLDER + "/"
        _check_adapter(folder / ADAPTER)
        return cls(
            {path: place for path, place in found.items() if not path.startswith(mark)},
            {path.removeprefix(mark): place for path, place in found.items() if path.startswith(mark)},
        )


@dataclass(frozen=True)
class Account:
    """What the supervisor knows of a finished task beside its outputs."""

    order_sha256: str
    claim: Mapping[str, Any]
    isolation: Mapping[str, Any]
    meter: MeterTotals
    ended: str
    environment: Mapping[str, str]


def sign(record: TaskRecord, account: Account, files: Mapping[str, Path], key: Ed25519PrivateKey) -> bytes:
    """Makes the DSSE envelope over all output files and returns its canonical bytes.

    Args:
        record: the task, after its last attempt.
        account: claim, proof of cut-off, meter, environment.
        files: every file of the result by path, ``private.bin`` included.
        key: the supervisor's statement key.

    Raises:
        InvalidInputError: ``TASK_CLAIM`` when the claim does not fit canonical JSON.
    """
    subjects = [(path, sha256_file(place)) for path, place in sorted(files.items())]
    adapter = [place for path, place in files.items() if path.startswith(ADAPTER + "/")]
    if adapter:
        folder = next(parent for parent in adapter[0].parents if parent.name == ADAPTER)
        subjects.append((ADAPTER, folder_manifest(folder).sha256))
    predicate = {
        "task_id": record.task_id,
        "job": record.job,
        "kind": record.kind,
        "order_sha256": account.order_sha256,
        "claim": dict(account.claim),
        "isolation": dict(account.isolation),
        "meter": {
            "wall_ms": account.meter.wall_ms,
            "cpu_ms": account.meter.cpu_ms,
            "max_rss_bytes": account.meter.max_rss_bytes,
            "energy_uwh": account.meter.energy_uwh,
            "energy_method": account.meter.energy_method,
            "started": record.started,
            "ended": account.ended,
            "attempts": record.attempts,
        },
        "environment": dict(account.environment),
    }
    try:
        statement = dsse.statement(PREDICATES[record.kind], canonical.float_free(predicate), subjects)
        payload = canonical.encode(statement)
    except (AssayError, RecursionError, TypeError) as error:
        raise InvalidInputError("TASK_CLAIM", "the task's claim does not fit canonical JSON") from error
    return canonical.encode(dsse.sign_service(payload, key))


def isolation_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The statement's ``isolation`` from a probe report; ``proven`` only if every probe held."""
    probes = {str(name): held is True for name, held in report["probes"].items()}
    saw = {str(name): str(word)[:200] for name, word in report["saw"].items()}
    return {"method": METHOD, "probes": probes, "saw": saw, "proven": bool(probes) and all(probes.values())}


def order_sha256(order: Mapping[str, Any]) -> str:
    """Digest of the order as the task saw it: SHA-256 of its canonical JSON."""
    return sha256_bytes(canonical.encode(dict(order)))


def environment() -> dict[str, str]:
    """Hardware and software facts of this worker; names no person and no path."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    cpu = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = cpu.get("flags", "").split()
    facts["cpu"] = cpu.get("model name", "unknown")
    facts["cpu_features"] = " ".join(feature for feature in _CPU_FEATURES if feature in flags)
    facts["gpu"] = "nvidia" if Path("/dev/nvidiactl").exists() else "none"
    return facts | package_versions(_PACKAGES)


def _check_adapter(folder: Path) -> None:
    if not folder.is_dir():
        return
    from assay.modelfiles import check_adapter_folder

    try:
        check_adapter_folder(folder)
    except AssayError as error:
        raise IntegrityError("OUTPUT_ADAPTER", f"the adapter is refused: {error.reason}") from error


def _refuse_walk(error: OSError) -> None:
    raise IntegrityError("OUTPUT_NOT_PLAIN", "an output folder cannot be read") from error
