"""From a task and a worker's settings to one attempt: which folders, limits and secret, and which keys to hide."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from assay.worker import admit
from assay.worker.attempt import Attempt, Handover, Hooks, Progress
from assay.worker.meter import EnergyModel, Meter, NvmlCounter, RaplCounter
from assay.worker.sandbox import Spec, TaskModule, cards_of, sandbox_uid
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.spool import LOG_FILE, TASK_FILE, MeterTotals, Spool, TaskRecord


@dataclass(frozen=True)
class Callbacks:
    """What the supervisor wants to hear of an attempt, on its event loop."""

    started: Callable[[int], None]
    progress: Callable[[Progress], None]
    metered: Callable[[MeterTotals], None]


@dataclass(frozen=True)
class Launcher:
    """Makes attempts for one worker."""

    folder: Path
    spool: Spool
    settings: WorkerSettings
    keys: WorkerKeys
    modules: Mapping[str, TaskModule]

    def admitted(self, record: TaskRecord) -> admit.Admitted:
        """Verifies the kept bytes again: what is run is what was accepted. Errors are those of ``admit.inspect``."""
        sealed, size = self.spool.folder(record.task_id) / TASK_FILE, self.settings.max_task_bytes
        return admit.inspect(sealed, record.task_id, record.kind, self.keys, max_bytes=size)

    def attempt(
        self, record: TaskRecord, admitted: admit.Admitted, slot: int, callbacks: Callbacks, environment: str
    ) -> Attempt:
        """Makes the folders of an attempt in an environment of this digest, and the attempt, not started yet."""
        folder, size = self.spool.folder(record.task_id), self.settings.max_task_bytes
        uid, cards = sandbox_uid(self.folder, slot), cards_of(slot, self.settings.slots)
        self.spool.prepare_attempt(record.task_id, uid)
        spec = Spec(
            module=self.modules[record.kind],
            inputs=folder / "in",
            outputs=folder / "out",
            work=folder / "work",
            control=folder / "control",
            models=self.settings.models_dir,
            limits=self.settings.sandbox_limits(),
            uid=uid,
            threads=self.settings.task_threads(),
            cpu_isa=self.settings.cpu_isa,
            alone=self.settings.slots == 1,
            cards=cards,
        )
        sealed, inputs = folder / TASK_FILE, folder / "in" / "files"
        hooks = Hooks(
            started=callbacks.started,
            open_inputs=lambda: admit.open_inputs(sealed, inputs, record.job, self.keys, max_bytes=size),
            progress=callbacks.progress,
            metered=callbacks.metered,
            meter=partial(self._meter, cards),
        )
        return Attempt(
            spec,
            Handover(
                record.task_id,
                record.kind,
                admitted.order,
                self._secret(record),
                work_key(self.keys, record),
                spec.module.module,
                self.settings.processes if record.kind == "train" else 1,
                environment,
                self.settings.task_memory(),
            ),
            hooks,
            decoy_folder=self.spool.root,
            ports=self._ports(),
            keys=self.keys.files,
            log=folder / LOG_FILE,
        )

    def _secret(self, record: TaskRecord) -> bytes:
        # The train worker must not be able to tell canaries from rows.
        if not self.keys.canary or record.kind == "train":
            return b""
        return hmac.new(self.keys.canary, record.job.encode(), hashlib.sha256).digest()

    def _meter(self, cards: Sequence[int], pid: int) -> Meter:
        return Meter(pid, EnergyModel(self.settings.watts_per_core), RaplCounter.open(), NvmlCounter.open(cards))

    def _ports(self) -> dict[str, int]:
        ports = {"worker": self.settings.port, "gateway": self.settings.gateway_port}
        return {name: port for name, port in ports.items() if port}


def work_key(keys: WorkerKeys, record: TaskRecord) -> bytes:
    """Derived from the key that opens the task itself: who cannot read the rows cannot read a checkpoint."""
    raw = keys.seal.private_bytes_raw()
    label = f"assay/work/{record.task_id}/{record.manifest_sha256}".encode()
    return hmac.new(raw, label, hashlib.sha256).digest()
