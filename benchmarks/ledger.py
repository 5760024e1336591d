"""What the ledger costs: ``python benchmarks/ledger.py`` prints one JSON object.

Disks differ and change their mind, so that only ratios of interleaved runs mean anything: each pair writes the same
records through the product's own path and through the standard library's sqlite3 with the same bytes, batch and
pragmas; the median of the pairs is given with its range. Proof times are absolute, and informative only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import secrets
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from audit.ledger import schema, tree
from audit.ledger.anchor import FileAnchor
from audit.ledger.edge import Edge, TreeReader
from audit.ledger.ledger import Ledger
from audit.ledger.records import RecordDraft
from audit.ledger.sqlite import connect_engine, connect_migration_engine
from audit.ledger.store import LogStore

ORIGIN = "bench.example/log"
BATCH = 64


def draft(n: int) -> RecordDraft:
    """A record of ordinary size, about 600 bytes."""
    step = {"event": "train", "from": "QUEUED", "to": "TRAINING", "version": n, "reason": "a worker is free"}
    predicate = {
        "job": f"units/credit/tuningJobs/job-{n % 97}",
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


def append_batches(ledger: Ledger, batches: int) -> float:
    """Seconds for batches of one record a unit of work, gathered as under load."""
    begin = time.perf_counter()
    for batch in range(batches):
        gate = threading.Event()
        ledger.submit(lambda _, g=gate: g.wait(10))  # holds the writer until the batch is queued
        futures = [
            ledger.submit(lambda uow, n=n: uow.append(draft(n))) for n in range(batch * BATCH, (batch + 1) * BATCH)
        ]
        gate.set()
        for future in futures:
            future.result()
    return time.perf_counter() - begin


def append_single(ledger: Ledger, count: int) -> float:
    """Seconds for ``count`` records, each waited for."""
    begin = time.perf_counter()
    for n in range(count):
        ledger.run(lambda uow, n=n: uow.append(draft(n)))
    return time.perf_counter() - begin


class Raw:
    """The same rows through the standard library, with the product's pragmas and no guard, tree or signature."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute(
            "CREATE TABLE r "
            "(idx INTEGER PRIMARY KEY, leaf BLOB, body BLOB, unit TEXT, tseq INTEGER, type TEXT, job TEXT)"
        )
        self.next = 0

    def write(self, rows: list[tuple[Any, ...]], batch: int) -> float:
        """Seconds to insert rows in batches."""
        begin = time.perf_counter()
        for at in range(0, len(rows), batch):
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?, ?, ?, ?)", rows[at : at + batch])
            self.connection.execute("COMMIT")
        return time.perf_counter() - begin

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        """Rows of the size that the log stores."""
        body = secrets.token_bytes(640)
        begin, self.next = self.next, self.next + count
        return [
            (i, secrets.token_bytes(32), body, "credit", i, "job.preparing", f"units/credit/tuningJobs/job-{i % 97}")
            for i in range(begin, begin + count)
        ]


def ratios(pairs: int, one: Callable[[], float], other: Callable[[], float]) -> dict[str, Any]:
    """Median and range of ``other / one`` over interleaved runs: above 1 means that ``one`` is faster."""
    found = sorted(other() / one() for _ in range(pairs))
    return {
        "median": round(statistics.median(found), 3),
        "range": [round(found[0], 3), round(found[-1], 3)],
        "pairs": pairs,
    }


def reader_of(folder: Path, size: int) -> tuple[TreeReader, list[bytes]]:
    """A stored tree of ``size`` leaves: full tiles on disk, the edge in memory; and its leaves."""
    migration = connect_migration_engine(folder / "tree.db")
    schema.create(migration)
    leaves = [hashlib.sha256(n.to_bytes(8)).digest() for n in range(size)]
    edge, tiles = Edge().extend(leaves)
    with migration.connect().execution_options(begin="IMMEDIATE") as connection:
        connection.execute(insert(schema.TILES), [{"level": t.level, "n": t.n, "hashes": t.hashes} for t in tiles])
        connection.commit()
    migration.dispose()
    return TreeReader(edge, LogStore(connect_engine(folder / "tree.db")).tile), leaves


def proofs(folder: Path, size: int, count: int) -> dict[str, float]:
    """Milliseconds an inclusion proof at random indices; every proof is verified afterwards."""
    reader, leaves = reader_of(folder, size)
    root = tree.root(size, reader.read)
    pick, times, made = random.Random(1), [], []
    for _ in range(count):
        index = pick.randrange(size)
        begin = time.perf_counter()
        proof = tree.inclusion_proof(index, size, reader.read)
        times.append((time.perf_counter() - begin) * 1000)
        made.append((index, proof))
    begin = time.perf_counter()
    for index, proof in made:
        tree.verify_inclusion(index, size, leaves[index], proof, root)
    checked = count / (time.perf_counter() - begin)
    times.sort()
    return {
        "p50_ms": round(times[count // 2], 3),
        "p99_ms": round(times[count * 99 // 100], 3),
        "checks_per_s": round(checked),
    }


def node_hashes_per_s(count: int = 200_000) -> float:
    """How many node hashes a second this core makes, in this process."""
    value = bytes(32)
    begin = time.perf_counter()
    for _ in range(count):
        value = tree.node_hash(value, value)
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1_000_000, help="leaves of the larger tree")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger, raw = open_ledger(folder, Ed25519PrivateKey.generate()), Raw(folder)
        append_batches(ledger, 2)
        batched = ratios(
            options.pairs, lambda: append_batches(ledger, 20), lambda: raw.write(raw.rows(20 * BATCH), BATCH)
        )
        single = ratios(options.pairs, lambda: append_single(ledger, 40), lambda: raw.write(raw.rows(40), 1))
        ledger.close()
        large = proofs(make(folder / "large"), options.size, 1000)
        small = proofs(make(folder / "small"), options.size // 10, 1000)
        nodes = node_hashes_per_s()
    print(
        json.dumps(
            {
                "append_ratio_b64": batched,
                "single_latency_ratio": round(1 / single["median"], 3),
                "single_ratio": single,
                "proof_leaves": options.size,
                "proof_p50_ms": large["p50_ms"],
                "proof_p99_ms": large["p99_ms"],
                "proof_growth": round(large["p50_ms"] / small["p50_ms"], 3),
                "proof_check_ratio": round(large["checks_per_s"] / nodes, 4),
            },
            indent=1,
        )
    )


def make(folder: Path) -> Path:
    """Makes a folder."""
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
