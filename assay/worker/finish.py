"""From a finished sandbox to the sealed result: check the outputs, seal what is private, sign, seal for the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from assay import bundle, durable
from assay.worker.admit import Admitted
from assay.worker.attempt import Outcome
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.spool import RESULT_FILE, TaskRecord
from assay.worker.statement import (
    PRIVATE_FILE,
    STATEMENT_FILE,
    Account,
    Lock,
    Outputs,
    sign,
)


def make_result(
    folder: Path,
    record: TaskRecord,
    admitted: Admitted,
    outcome: Outcome,
    settings: WorkerSettings,
    keys: WorkerKeys,
    taken: Lock,
) -> str:
    """Writes ``result.bin`` and returns its hex SHA-256.

    Args:
        folder: the task's spool folder; ``out`` holds what the sandbox left.
        record: the task, with all attempts metered.
        admitted: the verified task.
        outcome: a ``done`` outcome.
        settings: the worker's settings.
        keys: the worker's keys.
        taken: the environment when the attempt began.

    Raises:
        AssayError: whatever :meth:`assay.worker.statement.Outputs.collect` or :func:`assay.worker.statement.sign`
            refuses.
    """
    outputs = Outputs.collect(folder / "out", max_bytes=settings.limits.output_bytes)
    facts = {"task_id": record.task_id, "job": record.job, "unit": record.unit, "order": {}}
    files = dict(outputs.files)
    if outputs.private:
        private = folder / PRIVATE_FILE
        with private.open("wb") as stream:
            bundle.seal(outputs.private, {**facts, "kind": "private"}, keys.seal.public_key(), keys.statement, stream)
        files[PRIVATE_FILE] = private
    account = Account(
        builder=settings.subject,
        order=admitted.order,
        claim=outcome.claim,
        isolation=outcome.isolation,
        meter=record.meter,
        ended=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        lock=taken,
    )
    sealed: Mapping[str, Path | bytes] = {**files, STATEMENT_FILE: sign(record, account, files, keys.statement)}
    with durable.replacing(folder / RESULT_FILE) as stream:
        return bundle.seal(sealed, {**facts, "kind": "result"}, keys.gateway_sealing, keys.statement, stream)
