"""Settings and keys of one worker: ``worker.toml`` and the files beside it.

The table of task modules stands here, in code: which module a sealed task runs is never a string from outside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from assay import toml_file
from assay.errors import InvalidInputError
from assay.identity import load_ed25519, load_x25519, read_private
from assay.toml_file import Address
from assay.worker.sandbox import Limits

Kind = Literal["prepare", "train", "audit"]
_PIDS_OF_A_PROCESS = 32
"""Threads of a training's process, beside those it computes with; each counts against ``limits.pids``."""

TASK_MODULES: Mapping[str, str] = {
    "prepare": "audit.prepare.task",
    "train": "trainer.task",
    "audit": "audit.probes.task",
}


class LimitSettings(BaseModel):
    """Caps of one sandbox; what is not set keeps the default of :class:`assay.worker.sandbox.Limits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pids: int = Field(default=1024, ge=16, le=32768)
    memory_bytes: int = Field(default=0, ge=0)
    data_bytes: int = Field(default=0, ge=0)
    tmp_bytes: int = Field(default=1 << 30, ge=1 << 20)
    file_bytes: int = Field(default=16 << 30, ge=1 << 20)
    output_bytes: int = Field(default=16 << 30, ge=1 << 20)
    disk_bytes: int = Field(default=0, ge=0)
    wall_seconds: int = Field(default=24 * 3600, ge=1)
    silent_seconds: int = Field(default=600, ge=0)
    pause_seconds: int = Field(default=600, ge=1)


class RaySettings(BaseModel):
    """Where :class:`assay.worker.ray_jobs.RayJobs` runs attempts.

    Attributes:
        address: of the cluster's job service; ``https``, or ``http`` on this machine's loopback.
        token_file: holds the cluster's token; a cluster without one is refused.
        exchange: folder that this machine and all nodes see, for sealed bytes only.
        node_dir: this worker's folder as the nodes see it: settings, keys and base models.
        command: what starts :mod:`assay.worker.node` on a node, without its arguments.
        resources: Ray resources that one attempt takes.
        cpus: processors that one attempt takes.
        gpus: GPUs that one attempt takes.
        poll_seconds: how often the cluster and the exchange are looked at.
        heartbeat_seconds: silence of a running attempt after which it counts as lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(pattern=r"^https?://[A-Za-z0-9_.\[\]:-]+$")
    token_file: Path
    exchange: Path
    node_dir: Path
    command: tuple[str, ...] = ("python3", "-m", "assay.worker.node")
    resources: Mapping[str, float] = Field(default_factory=dict)
    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    heartbeat_seconds: float = Field(default=60.0, ge=5, le=3600)


class WorkerSettings(BaseModel):
    """``worker.toml``.

    Attributes:
        listen: host and port of the gRPC service.
        subject: the SPIFFE id in this worker's certificate.
        kinds: the tasks that it accepts.
        slots: tasks at once, each holding one device slot of the machine.
        slot_file: flock'ed file(s) that all workers of this machine share; relative to ``worker.toml``.
        models_dir: installed base models; relative to ``worker.toml``.
        gateway_port: a port on 127.0.0.1 that the cut-off probe must find refused; 0 where the gateway is elsewhere.
        isolation: the only method there is; anything else is refused.
        threads: threads a task computes with; 0 for all cores of this process.
        cpu_isa: the widest instruction set that oneDNN may use (``ONEDNN_MAX_CPU_ISA``), so that a run can be repeated
            bit by bit on a newer processor; empty for the processor's own.
        watts_per_core: what a busy core is taken to draw where no energy counter can be read.
        max_interruptions: times that the worker may die in a task before the task counts as failed.
        keep_seconds: how often a node of a cluster leaves a running training's checkpoints, sealed, in the exchange.
        max_task_bytes: cap on a sealed task.
        limits: caps of a sandbox.
        processes: processes of one sandbox that a training shares its rows out to, with a GPU each where the machine
            has GPUs, else with an equal part of the threads; always of one machine.
        ray: a Ray cluster that runs the attempts; this machine does where it is not set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: Address
    subject: str = Field(pattern=r"^spiffe://[a-z0-9.-]+/services/[a-z0-9-]+$")
    kinds: tuple[Kind, ...] = Field(min_length=1)
    slots: int = Field(default=1, ge=1, le=64)
    slot_file: Path
    models_dir: Path
    gateway_port: int = Field(default=0, ge=0, le=65535)
    isolation: Literal["bubblewrap+seccomp"] = "bubblewrap+seccomp"
    threads: int = Field(default=0, ge=0, le=1024)
    cpu_isa: Literal["", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16"] = ""
    watts_per_core: float = Field(default=12.0, gt=0, le=1000)
    max_interruptions: int = Field(default=5, ge=0, le=100)
    keep_seconds: float = Field(default=300.0, gt=0, le=86_400)
    max_task_bytes: int = Field(default=16 << 30, ge=1 << 16)
    limits: LimitSettings = LimitSettings()
    processes: int = Field(default=1, ge=1, le=64)
    ray: RaySettings | None = None

    @field_validator("processes")
    @classmethod
    def _have_room(cls, value: int, info: ValidationInfo) -> int:
        """Refuses processes that nothing would use, or that the sandbox's own limit would end."""
        kinds, limits = info.data.get("kinds", ()), info.data.get("limits", LimitSettings())
        if value > 1 and "train" not in kinds:
            raise ValueError("only a train task shares its rows out, and this worker does none")
        if value > 1 and limits.pids < (value + 1) * _PIDS_OF_A_PROCESS:
            raise ValueError(f"needs limits.pids of at least {(value + 1) * _PIDS_OF_A_PROCESS}")
        return value

    @classmethod
    def load(cls, folder: Path) -> WorkerSettings:
        """Reads ``folder/worker.toml``; relative paths in it start at ``folder``.

        Raises:
            InvalidInputError: ``SETTINGS_MISSING``, or ``SETTINGS`` naming each field at fault.
        """
        found = toml_file.read(cls, folder / "worker.toml", "run `assay init DIR`, then start in its folder")
        places = {"slot_file": folder / found.slot_file, "models_dir": folder / found.models_dir}
        return found.model_copy(update={name: value.resolve() for name, value in places.items()})

    @property
    def gateway_subject(self) -> str:
        """The only subject whose calls are accepted."""
        return self.subject.rpartition("/services/")[0] + "/services/gateway"

    @property
    def port(self) -> int:
        """The port of ``listen``."""
        return int(self.listen.rpartition(":")[2])

    def sandbox_limits(self) -> Limits:
        """The caps of one sandbox; memory that is not set is bounded by what the machine has.

        Disk that is not set is bounded by :class:`assay.worker.disk.DiskWatch` alone, which keeps a reserve free.
        """
        limits = Limits(**self.limits.model_dump())
        memory = psutil.virtual_memory().total
        # CUDA maps more than the machine has into each process, which RLIMIT_DATA would count.
        data = limits.data_bytes or (0 if Path("/dev/nvidiactl").exists() else memory)
        return replace(limits, data_bytes=data, memory_bytes=limits.memory_bytes or memory * 9 // 10)

    def task_memory(self) -> int:
        """Bytes that a task is to use at most: its own cap, or its slot's part of what the machine has."""
        return self.limits.memory_bytes or psutil.virtual_memory().total * 9 // 10 // self.slots

    def task_threads(self) -> int:
        """Threads that a task computes with."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class WorkerKeys:
    """Keys of one worker. The sandboxed task sees none of them, only ``secret`` of its own job.

    Attributes:
        statement: signs statements and results.
        seal: opens sealed tasks and what this worker sealed to itself.
        gateway_permit: verifies sealed tasks and work orders.
        gateway_sealing: results are sealed to it.
        canary: master secret of the audit worker; empty for others.
        files: the private key files, which must be unreadable inside a sandbox.
    """

    statement: Ed25519PrivateKey
    seal: X25519PrivateKey
    gateway_permit: Ed25519PublicKey
    gateway_sealing: X25519PublicKey
    canary: bytes = field(repr=False)
    files: tuple[Path, ...]

    @classmethod
    def load(cls, folder: Path) -> WorkerKeys:
        """Reads the key files of a worker's folder.

        Raises:
            InvalidInputError: ``KEY_MISSING``, ``KEY_EXPOSED``, ``KEY_MALFORMED``, ``KEY_TYPE`` or ``PUBLIC_KEYS``.
        """
        try:
            public = json.loads((folder / "gateway.pub").read_text("utf-8"))
            permit = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public["permit_key"]))
            sealing = X25519PublicKey.from_public_bytes(bytes.fromhex(public["sealing_key"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                "PUBLIC_KEYS",
                f"{folder / 'gateway.pub'} does not hold the gateway's public keys",
                remedy="put it back as `assay init` wrote it",
            ) from error
        canary = folder / "canary.key"
        return cls(
            statement=load_ed25519(folder / "statement.key"),
            seal=load_x25519(folder / "seal.key"),
            gateway_permit=permit,
            gateway_sealing=sealing,
            canary=bytes.fromhex(read_private(canary).decode().strip()) if canary.exists() else b"",
            files=tuple(path for path in sorted(folder.glob("*.key"))),
        )
