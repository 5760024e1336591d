"""What the ledger costs on SQLite: ``python -m benchmarks.ledger`` (``make bench-ledger``) prints one JSON object.

Disks differ and change their mind, so that only ratios of interleaved runs mean anything: each pair writes the same
records through the product's own path and through the standard library's sqlite3, the same bytes in the same batches
under the same pragmas, in a table without guard, index, tree, signature or anchor. The median of the pairs counts, and
their range is in ``details``. A batch is one unit of work of 64 records, as the raw side's is one ``executemany``;
``b64_of_64_units`` has 64 callers with one record each. What bounds the ratios is measured beside them: the same rows
through sqlite3 into the log's own guarded tables, and a raw commit followed by one durable write of the anchor's size.
Proofs, audit and start-up are measured on a log of a million records (:mod:`benchmarks.ledger_million`), PostgreSQL by
:mod:`benchmarks.ledger_postgres` where a server can be started.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.ledger import records, schema
from audit.ledger.anchor import FileAnchor
from audit.ledger.batch import Batch
from audit.ledger.ledger import Ledger
from audit.ledger.records import Prepared, RecordDraft
from audit.ledger.sqlite import connect_engine, connect_migration_engine

ORIGIN = "bench.example/log"
BATCH = 64
JOBS_AT_ONCE = 16
RECORDS_A_JOB = 16
RAW_TABLE = (
    "CREATE TABLE r (idx INTEGER PRIMARY KEY, leaf BLOB, body BLOB, unit TEXT, tseq INTEGER, type TEXT, job TEXT)"
)

Draft = RecordDraft | Prepared


def draft(n: int) -> RecordDraft:
    """A record of ordinary size, about 570 bytes: 16 jobs at a time, of 16 records and an unguessable name each."""
    number = n // (JOBS_AT_ONCE * RECORDS_A_JOB) * JOBS_AT_ONCE + n % JOBS_AT_ONCE
    step = {"event": "train", "from": "QUEUED", "to": "TRAINING", "version": n, "reason": "a worker is free"}
    predicate = {
        "job": f"units/credit/tuningJobs/job-{hashlib.sha256(b'%d' % number).hexdigest()[:10]}",
        "actor": "spiffe://assay.local/services/gateway",
        "trace_id": f"{n:032x}",
        "transition": step,
    }
    return RecordDraft("credit", "job.preparing", "transition", predicate)


def open_ledger(folder: Path, key: Ed25519PrivateKey) -> Ledger:
    """A started ledger in a folder."""
    (folder / "anchor").mkdir(exist_ok=True)
    migration = connect_migration_engine(folder / "log.db")
    schema.create(migration)
    migration.dispose()
    ledger = Ledger(connect_engine(folder / "log.db"), ORIGIN, key, FileAnchor(folder / "anchor"))
    ledger.start()
    return ledger


def append_batches(ledger: Ledger, drafts: Sequence[Draft]) -> float:
    """Seconds for batches of one unit of work each: one caller, who waits for every batch."""
    batches = [drafts[at : at + BATCH] for at in range(0, len(drafts), BATCH)]
    begin = time.perf_counter()
    for batch in batches:
        ledger.run(lambda uow, batch=batch: [uow.append(draft) for draft in batch])  # type: ignore[misc]
    return time.perf_counter() - begin


def append_loaded(ledger: Ledger, drafts: Iterable[Draft]) -> float:
    """Seconds for units of one record each, handed in without waiting: as many as wait, at most 64, share a batch."""
    begin = time.perf_counter()
    futures = [ledger.submit(lambda uow, draft=draft: uow.append(draft)) for draft in drafts]  # type: ignore[misc]
    for future in futures:
        future.result()
    return time.perf_counter() - begin


def append_single(ledger: Ledger, count: int) -> float:
    """Seconds for ``count`` records, each waited for."""
    drafts = [draft(n) for n in range(count)]
    begin = time.perf_counter()
    for one in drafts:
        ledger.run(lambda uow, one=one: uow.append(one))  # type: ignore[misc]
    return time.perf_counter() - begin


def rows_of(drafts: Iterable[RecordDraft], first: int) -> list[tuple[Any, ...]]:
    """The rows that the log stores for these records, from index ``first`` on, but for each job's first record."""
    batch = Batch(ORIGIN, first, {}, None)
    for one in drafts:
        batch.append(one, datetime.now(UTC), os.urandom(16).hex())
    return batch.rows


def with_firsts(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same rows with the index of their job's first record among them."""
    firsts: dict[str, int] = {}
    return [(*row, firsts.setdefault(row[6], row[0])) for row in rows]


class Raw:
    """The log's rows through the standard library, with the product's pragmas; by default into a bare table."""

    def __init__(self, file: Path, *, guarded: bool = False) -> None:
        if guarded:
            migration = connect_migration_engine(file)
            schema.create(migration)
            migration.dispose()
        self.connection = sqlite3.connect(file, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        if not guarded:
            self.connection.execute(RAW_TABLE)
        places = ", ".join("?" * (7 + guarded))
        self._insert = f"INSERT INTO {'log_record' if guarded else 'r'} VALUES ({places})"  # noqa: S608
        self.rows: list[tuple[Any, ...]] = []
        self.next = 0

    def take(self, rows: list[tuple[Any, ...]]) -> None:
        """What the next writes insert."""
        self.rows, self.next = rows, 0

    def write(self, count: int, batch: int, also: Callable[[int], object] = lambda at: None) -> float:
        """Seconds to insert the next ``count`` rows in durable batches, and to do something else after each."""
        rows = self.rows[self.next : self.next + count]
        self.next += count
        assert len(rows) == count
        begin = time.perf_counter()
        for at in range(0, count, batch):
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(self._insert, rows[at : at + batch])
            self.connection.execute("COMMIT")
            also(at)
        return time.perf_counter() - begin


def ratios(pairs: int, one: Callable[[], float], other: Callable[[], float]) -> dict[str, Any]:
    """Median and range of ``other / one`` over interleaved runs: above 1 means that ``one`` is faster."""
    found = sorted(other() / one() for _ in range(pairs))
    return summary(found)


def summary(found: Sequence[float]) -> dict[str, Any]:
    """Median and range."""
    ordered = sorted(found)
    return {
        "median": round(statistics.median(ordered), 3),
        "range": [round(ordered[0], 3), round(ordered[-1], 3)],
        "pairs": len(ordered),
    }


def flushes_per_s(folder: Path, count: int = 200) -> int:
    """Durable overwrites of 4 KiB a second on the disk that is measured."""
    fd = os.open(folder / "flush", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(8192), 0)
    os.fsync(fd)
    begin = time.perf_counter()
    for n in range(count):
        os.pwrite(fd, bytes([n % 256]) * 4096, n % 2 * 4096)
        os.fdatasync(fd)
    rate = count / (time.perf_counter() - begin)
    os.close(fd)
    return round(rate)


def appends(folder: Path, pairs: int, batches: int, singles: int) -> dict[str, Any]:
    """Every way to append, in turn and each against a raw run right beside it."""
    ledger, bare = open_ledger(folder, Ed25519PrivateKey.generate()), Raw(folder / "raw.db")
    guarded = Raw(folder / "guarded.db", guarded=True)
    slot = os.open(folder / "slot", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
    os.pwrite(slot, bytes(8192), 0)
    count = batches * BATCH
    drafts = [draft(n) for n in range(count)]
    prepared = [records.prepare(one) for one in drafts]
    total = (pairs + 1) * (4 * count + 3 * singles)
    rows = rows_of((drafts[n % count] for n in range(total)), 0)
    bare.take(rows)
    guarded.take(with_firsts(rows))
    ways: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "b64": (lambda: append_batches(ledger, drafts), lambda: bare.write(count, BATCH)),
        "preencoded": (lambda: append_batches(ledger, prepared), lambda: bare.write(count, BATCH)),
        "b64_of_64_units": (lambda: append_loaded(ledger, drafts), lambda: bare.write(count, BATCH)),
        "raw_to_own_tables": (lambda: guarded.write(count, BATCH), lambda: bare.write(count, BATCH)),
        "single": (lambda: append_single(ledger, singles), lambda: bare.write(singles, 1)),
        "single_floor_of_two_flushes": (
            lambda: bare.write(singles, 1, lambda at: os.pwrite(slot, bytes([at % 256]) * 250, at % 2 * 4096)),
            lambda: bare.write(singles, 1),
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {"records_per_s_b64": [], "raw_per_s_b64": [], "single_ms": [], "raw_single_ms": []}
    for pair in range(pairs + 1):
        for name, (product, raw) in ways.items():
            # Whoever comes second finds a warmer machine: they change places.
            mine, other = (product(), raw()) if pair % 2 else (raw(), product())[::-1]
            if pair == 0:
                continue  # the first round warms up
            found[name].append(mine / other if name.startswith("single") else other / mine)
            if name == "b64":
                rates["records_per_s_b64"].append(count / mine)
                rates["raw_per_s_b64"].append(count / other)
            if name == "single":
                rates["single_ms"].append(mine / singles * 1000)
                rates["raw_single_ms"].append(other / singles * 1000)
    ledger.close()
    os.close(slot)
    return {
        **{name: summary(values) for name, values in found.items()},
        **{name: round(statistics.median(values), 3) for name, values in rates.items()},
    }


def postgres(pairs: int) -> dict[str, Any] | None:
    """The ratios of PostgreSQL; None, with the reason on stderr, where no server can be started."""
    try:
        from benchmarks import ledger_postgres

        return ledger_postgres.measure(pairs)
    except Exception as error:
        print(f"PostgreSQL not measured: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Runs and prints."""
    from benchmarks import ledger_million

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--size", type=int, default=1_000_000, help="records of the larger log")
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flushes = [flushes_per_s(folder)]
        appended = appends(folder, options.pairs, batches=20, singles=60)
        flushes.append(flushes_per_s(folder))
        large = ledger_million.measure(folder, options.size, options.pairs)
    pg = postgres(options.pairs)
    print(
        json.dumps(
            {
                "append_ratio_b64": appended["b64"]["median"],
                "append_ratio_preencoded": appended["preencoded"]["median"],
                "single_latency_ratio": appended["single"]["median"],
                "proof_p50_ms_1m": large["proofs"]["p50_ms"],
                "proof_p99_ms_1m": large["proofs"]["p99_ms"],
                "proof_growth": large["proof_growth"]["median"],
                "proof_check_ratio": large["proof_check"]["median"],
                "hash_audit_ratio": large["hash_audit"]["median"],
                "startup_s_1m": large["startup_s"]["median"],
                "pg_append_ratio_b64": None if pg is None else pg["pg_append_ratio_b64"]["median"],
                "details": {
                    "append": appended,
                    **large,
                    "postgres": pg,
                    "flushes_per_s": flushes,
                    "seconds": round(time.perf_counter() - begin),
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
