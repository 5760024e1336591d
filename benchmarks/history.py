"""What history costs: start, erasure, housekeeping, listings and searches beside four times as many jobs.

Run: ``python -m benchmarks.history``; five seconds. Rows have the sizes that jobs of the zoo have; a tenth of the
datasets is erased. Prints one JSON object: for each, how many times as long it takes with four times the history, and
the milliseconds there, of the processor (the best of some runs). A start is to grow as history does and no faster,
an erasure likewise; what people and the clock ask all day is to stay.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select

from assay.v1 import policy_pb2
from audit.ledger import dialect
from audit.ledger.anchor import FileAnchor
from audit.ledger.ledger import Ledger
from audit.ledger.writer import UnitOfWork
from gateway.caller import Caller
from gateway.erasures import ErasureService
from gateway.precedents import Precedents
from gateway.retention import RetentionService
from gateway.store import jobs, rows
from gateway.store.blobs import FileBlobStore
from gateway.store.database import Store
from gateway.store.migrations import migrate
from gateway.store.scope_keys import FileScopeKeys
from gateway.store.tables import DatasetRow, ErasureRow, FactRow, JobRow, ModelRow, Row
from policies.authorization import CedarAuthorizer

_FEW, _TIMES, _UNIT = 100, 4, "credit"
_TEXTS = {"data": 16_000, "audit": 120_000, "verdict": 12_000}
_FACTS = {"question.release": 90_000, "question.intake": 17_000, "train.predicate": 5_000, "prepare.predicate": 3_300}
_FILES = ("prepare.train.jsonl", "prepare.validation.jsonl", "prepare.selection.jsonl", "prepare.private.bin")
_ASKER = Caller("spiffe://assay.local/people/cora", frozenset({("ROLE_COMPLIANCE_OFFICER", "-")}))


def main() -> None:
    """Measures both histories."""
    few, many = (_measured(size) for size in (_FEW, _FEW * _TIMES))
    result: dict[str, Any] = {"benchmark": "history", "jobs": [_FEW, _FEW * _TIMES]}
    for what, seconds in many.items():
        result[what] = {"ratio": round(seconds / few[what], 2), "ms": round(seconds * 1000, 1)}
    print(json.dumps(result, indent=2))


def _measured(size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, _store(Path(folder), size) as (store, erasures):
        job = rows.table(JobRow).c
        middle = rows.Position(size // 2, "")
        page = partial(rows.page, kind=JobRow, time="created_us", name="name", size=50, after=middle, newest_first=True)
        by_state = select(job.state, func.count()).group_by(job.state)
        settings: Any = SimpleNamespace(units=(_UNIT,))
        searched = Precedents(settings, store, CedarAuthorizer.load())
        asked = policy_pb2.ListPrecedentsRequest(parent="units/-", rule_id="NEVER-FIRED")
        nothing: Any = None
        clock = RetentionService("gateway", store, erasures, nothing, nothing)
        left = iter(range(size // 2 + 1, size))
        return {
            "start": _best(erasures.resume, 3),
            "erasure": _best(lambda: store.ledger.run(partial(_ordered, erasures, f"d{next(left)}")), 5),
            "retention": _best(lambda: asyncio.run(clock.end()), 10),
            "lapsed_approvals": _best(lambda: store.read(lambda c: jobs.lapsed(c, 5)), 10),
            "jobs_by_state": _best(lambda: store.read(lambda c: c.execute(by_state).all()), 10),
            "page_of_jobs": _best(lambda: store.read(lambda c: page(c, where=[job.unit == _UNIT])), 10),
            "precedents": _best(lambda: asyncio.run(searched.list_precedents(_ASKER, asked)), 5),
        }


def _ordered(erasures: ErasureService, dataset: str, uow: UnitOfWork) -> None:
    name = f"units/{_UNIT}/datasets/{dataset}"
    rows.insert(uow.connection, ErasureRow(resource=name, unit=_UNIT, reason_code="retention-ended", order_index=0))
    erasures._execute(uow, name, "")


def _best(call: Callable[[], object], runs: int) -> float:
    """Seconds of the processor, in whichever thread; the least of some runs."""
    seconds = []
    for _ in range(runs):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return min(seconds)


@contextmanager
def _store(folder: Path, size: int) -> Iterator[tuple[Store, ErasureService]]:
    """An installation's database with so many jobs of one unit, every tenth dataset erased."""
    url = f"sqlite:///{folder}/assay.db"
    migration = dialect.connect_for_migration(url)
    migrate(migration)
    with migration.begin() as connection:
        for number in range(size):
            for row in _rows(number):
                rows.insert(connection, row)
    migration.dispose()
    (folder / "anchor").mkdir()
    nothing: Any = None
    gateway: Any = SimpleNamespace(subject="spiffe://assay.local/services/gateway")
    blobs = FileBlobStore(folder / "blobs", os.urandom(32))
    engine = dialect.connect(url)
    ledger = Ledger(engine, "bench.example/log", Ed25519PrivateKey.generate(), FileAnchor(folder / "anchor"))
    ledger.start()
    store = Store(engine, ledger, nothing)
    try:
        yield store, ErasureService(gateway, store, blobs, FileScopeKeys(blobs), nothing)
    finally:
        store.searches.close()
        ledger.close()
        engine.dispose()


def _rows(n: int) -> Iterator[Row]:
    """A dataset, the job on it, the job's model, and what is established about the job."""
    dataset, job, model = (f"units/{_UNIT}/{kind}{n}" for kind in ("datasets/d", "tuningJobs/j", "models/j"))
    request = {"parent": f"units/{_UNIT}", "dataset": dataset, "purpose": "x" * 400}
    texts: dict[str, Any] = {column: "x" * length for column, length in _TEXTS.items()}
    plan = {"canary_manifest_sha256": f"{n:064x}"}
    decision = {"audit_plan": plan, "outcomes": [{"rule_id": f"RULE-{k}", "message": "x" * 200} for k in range(60)]}
    yield DatasetRow(
        name=dataset, unit=_UNIT, format=1, datasheet="{}", sha256=f"{n:063x}d", size_bytes=1, creator="c",
        created_us=n, record_index=n,
    )  # fmt: skip
    yield JobRow(
        name=job, unit=_UNIT, creator="c", state=("REJECTED", "DENIED", "APPROVED")[n % 3], version=9, model=model,
        approved_until_us=10**18,
        request=json.dumps(request), decision=json.dumps(decision), created_us=n, updated_us=n, needs_work=False,
        **texts,
    )  # fmt: skip
    yield ModelRow(
        name=model, unit=_UNIT, job=job, files=json.dumps([{"path": "a", "sha256": f"{n:063x}a", "size": 1}]),
        adapter_sha256=f"{n:063x}a", base_model="b", base_sha256="b" * 64, created_us=n,
    )  # fmt: skip
    for key, length in _FACTS.items():
        yield FactRow(job=job, key=key, value="x" * length)
    for number, key in enumerate(_FILES):
        yield FactRow(job=job, key=key, value=f"{n:060x}{number:04x}")
    if n % 10 == 0:
        yield ErasureRow(resource=dataset, unit=_UNIT, reason_code="retention-ended", order_index=n, executed_index=n)


if __name__ == "__main__":
    main()
