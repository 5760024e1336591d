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

from assay import canonical, dsse, processor, provenance
from assay.bundle import check_paths
from assay.digests import folder_manifest, sha256_bytes, sha256_file
from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError
from assay.worker import lock
from assay.worker.folders import walk
from assay.worker.sandbox import METHOD, TaskModule, package_versions
from assay.worker.settings import WorkerSettings
from assay.worker.spool import MeterTotals, TaskRecord

PREDICATES = {"prepare": "preparation", "audit": "audit"}
STATEMENT_FILE, PRIVATE_FILE, PRIVATE_FOLDER, ADAPTER = "statement.json", "private.bin", "private", "adapter"
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "presidio-analyzer", "fairlearn")


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
            ExhaustedError: ``OUTPUT_TOO_LARGE``; ``TASK_DISK`` for folders that are nested too deep.
        """
        found: dict[str, Path] = {}
        total = 0
        for entry in walk(folder, _refuse_walk):
            if stat.S_ISDIR(entry.status.st_mode):
                continue
            if not stat.S_ISREG(entry.status.st_mode) or entry.status.st_nlink != 1:
                raise IntegrityError("OUTPUT_NOT_PLAIN", f"output {entry.path[:100]!r} is not a plain file")
            found[entry.path] = folder / entry.path
            total += entry.status.st_size
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
    """What the supervisor knows of a finished task beside its outputs; ``lock`` is its environment in full."""

    builder: str
    order: Mapping[str, Any]
    claim: Mapping[str, Any]
    isolation: Mapping[str, Any]
    meter: MeterTotals
    ended: str
    lock: Lock


@dataclass(frozen=True)
class Lock:
    """What decides the bits of a run and stands in no order, see :mod:`assay.worker.lock`."""

    environment: Mapping[str, str]
    packages: Mapping[str, str]
    sources: Mapping[str, str]

    @classmethod
    def take(cls, settings: WorkerSettings, module: TaskModule) -> Lock:
        """The lock of a train task of this worker now."""
        deciding = lock.environment(settings.task_threads(), settings.cpu_isa, processes=settings.processes)
        return cls({**environment(), **deciding}, lock.packages(), lock.sources(module.packages))

    @property
    def sha256(self) -> str:
        """Digest of all of it, by which a checkpoint knows where it was written."""
        members = [dict(self.environment), dict(self.packages), dict(self.sources)]
        return sha256_bytes(canonical.encode(members))


def sign(record: TaskRecord, account: Account, files: Mapping[str, Path], key: Ed25519PrivateKey) -> bytes:
    """Makes the DSSE envelope over all output files and returns its canonical bytes.

    A training statement is SLSA provenance (:mod:`assay.provenance`), the others are of our own types.

    Args:
        record: the task, after its last attempt.
        account: order, claim, proof of cut-off, meter, environment.
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
    meter = {
        "wall_ms": account.meter.wall_ms,
        "cpu_ms": account.meter.cpu_ms,
        "max_rss_bytes": account.meter.max_rss_bytes,
        "energy_uwh": account.meter.energy_uwh,
        "energy_method": account.meter.energy_method,
        "started": record.started,
        "ended": account.ended,
        "attempts": record.attempts,
    }
    try:
        if record.kind == "train":
            beside = {path: digest for path, digest in subjects if path.partition("/")[0] != ADAPTER}
            name, predicate = provenance.NAME, provenance.predicate(_run(record, account, meter, beside))
        else:
            name, predicate = PREDICATES[record.kind], _predicate(record, account, meter)
        payload = canonical.encode(dsse.statement(name, canonical.float_free(predicate), subjects))
    except (AssayError, RecursionError, TypeError, KeyError) as error:
        raise InvalidInputError("TASK_CLAIM", "the task's claim does not fit canonical JSON") from error
    return canonical.encode(dsse.sign_service(payload, key))


def _predicate(record: TaskRecord, account: Account, meter: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task_id": record.task_id,
        "job": record.job,
        "kind": record.kind,
        "order_sha256": order_sha256(account.order),
        "claim": dict(account.claim),
        "isolation": dict(account.isolation),
        "meter": dict(meter),
        "environment": environment(),
    }


def _run(record: TaskRecord, account: Account, meter: Mapping[str, Any], files: Mapping[str, str]) -> provenance.Run:
    checkpoint = str(account.claim.get("checkpoint_sha256", ""))
    return provenance.Run(
        builder=account.builder,
        version=account.lock.packages.get("assay", "unknown"),
        task_id=record.task_id,
        order=account.order,
        order_sha256=order_sha256(account.order),
        environment=account.lock.environment,
        packages=account.lock.packages,
        sources=account.lock.sources,
        claim=account.claim,
        isolation=account.isolation,
        meter=meter,
        byproducts={**files, **({"checkpoint": checkpoint} if checkpoint else {})},
    )


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
    cpu = processor.read()
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
