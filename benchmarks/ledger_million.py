"""A log of a million records on disk: its proofs, its hash audit and its start-up, for :mod:`benchmarks.ledger`.

The log is written straight into the tables, guards off and back on, with one checkpoint at its end: a million appends
would take minutes and are measured elsewhere. What is measured reads it through the product's own path, guards checked.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.ledger import fsck, records, schema, tree
from audit.ledger.anchor import FileAnchor
from audit.ledger.batch import Batch
from audit.ledger.edge import Edge, TreeReader
from audit.ledger.ledger import Ledger
from audit.ledger.note import Checkpoint
from audit.ledger.signer import LogSigner
from audit.ledger.sqlite import connect_engine, connect_migration_engine
from audit.ledger.store import LogStore

_CHUNK = 16_384
_PROOFS = 1000


def write(folder: Path, origin: str, key: Ed25519PrivateKey, size: int) -> Edge:
    """Writes the log and anchors its checkpoint; returns the tree's edge."""
    from benchmarks.ledger import draft

    (folder / "anchor").mkdir(parents=True)
    migration = connect_migration_engine(folder / "log.db")
    schema.create(migration)
    connection = migration.raw_connection().driver_connection
    assert connection is not None
    connection.execute("DROP TRIGGER log_record_guard")
    prepared = [records.prepare(draft(n)) for n in range(4096)]
    nonces = random.Random(1)
    batch, edge, now = Batch(origin, 0, {}, None), Edge(), datetime.now(UTC)
    firsts: dict[str, int] = {}
    connection.execute("BEGIN")
    for n in range(size):
        batch.append(prepared[n % len(prepared)], now, f"{nonces.getrandbits(128):032x}")
        if len(batch.rows) == _CHUNK or n == size - 1:
            records_of = [(*row, firsts.setdefault(row[6], row[0])) for row in batch.rows]
            connection.executemany("INSERT INTO log_record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", records_of)
            edge, tiles = edge.extend([row[1] for row in batch.rows])
            rows = [(tile.level, tile.n, tile.hashes) for tile in tiles]
            connection.executemany("INSERT INTO log_tile VALUES (?, ?, ?)", rows)
            batch = Batch(origin, n + 1, batch.chains, batch.newest)
    root = tree.root(size, TreeReader(edge, lambda level, n: _tile(connection, level, n)).read)
    note = LogSigner(origin, key).sign(Checkpoint(origin, size, root), now)
    connection.execute("INSERT INTO log_checkpoint VALUES (?, ?)", (size, note))
    connection.execute("COMMIT")
    connection.execute(schema.TRIGGERS["log_record_guard"])
    migration.dispose()
    anchor = FileAnchor(folder / "anchor")
    anchor.swap(None, note)
    anchor.close()
    return edge


def _tile(connection: Any, level: int, n: int) -> bytes:
    (hashes,) = connection.execute("SELECT hashes FROM log_tile WHERE level = ? AND n = ?", (level, n)).fetchone()
    return bytes(hashes)


def startups(folder: Path, origin: str, key: Ed25519PrivateKey, times: int) -> list[float]:
    """Seconds from a closed ledger to one that may write, each with connections of its own."""
    found = []
    for _ in range(times):
        engine = connect_engine(folder / "log.db")
        ledger = Ledger(engine, origin, key, FileAnchor(folder / "anchor"))
        begin = time.perf_counter()
        ledger.start()
        found.append(time.perf_counter() - begin)
        ledger.close()
        engine.dispose()
    return found


class Proofs:
    """Inclusion proofs of one log at random indices, each from a cold tile cache: it reads every tile that it needs.

    The cache holds 256 tiles; were it left to fill, most proofs of a small log would read nothing, and few of a large
    one.
    """

    def __init__(self, file: Path, edge: Edge) -> None:
        self._engine = connect_engine(file)
        self._store = LogStore(self._engine)
        self._reader, self._size = TreeReader(edge, self._store.tile), edge.size
        self._root = tree.root(edge.size, self._reader.read)
        self.times: list[float] = []
        self.made: list[Any] = []

    def make(self, pick: random.Random) -> None:
        """Makes one, times it in milliseconds and keeps it."""
        index = pick.randrange(self._size)
        self._store.tile.cache_clear()
        begin = time.perf_counter()
        proof = tree.inclusion_proof(index, self._size, self._reader.read)
        self.times.append((time.perf_counter() - begin) * 1000)
        leaf = self._store.record(index).leaf  # type: ignore[union-attr]
        self.made.append((index, self._size, leaf, proof, self._root))

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()


def proofs_of(large: tuple[Path, Edge], small: tuple[Path, Edge], pick: random.Random) -> tuple[Proofs, Proofs]:
    """Proofs of both logs in turn, so that whatever else the machine does slows both."""
    both = Proofs(*large), Proofs(*small)
    for _ in range(_PROOFS):
        for log in both:
            log.make(pick)
    for log in both:
        log.close()
    return both


def checks_per_s(proofs: list[Any]) -> float:
    """Proofs checked a second, every one of which must hold."""
    begin = time.perf_counter()
    for proof in proofs:
        tree.verify_inclusion(*proof)
    return len(proofs) / (time.perf_counter() - begin)


def node_hashes_per_s(count: int = 100_000) -> float:
    """How many node hashes a second this core makes, one at a time."""
    value = bytes(32)
    begin = time.perf_counter()
    for _ in range(count):
        value = tree.node_hash(value, value)
    return count / (time.perf_counter() - begin)


def bodies(ledger_file: Path, count: int) -> list[bytes]:
    """The first bodies of the log, in memory."""
    engine = connect_engine(ledger_file)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT body FROM log_record WHERE idx < ? ORDER BY idx", (count,))
        found = [row[0] for row in rows]
    engine.dispose()
    return found


def memory_rate(data: list[bytes]) -> float:
    """Records a second whose leaf and root are hashed in memory."""
    begin = time.perf_counter()
    tree.root_of(tree.leaf_hash(body) for body in data)
    return len(data) / (time.perf_counter() - begin)


def audit_rate(ledger_file: Path, log: Any, size: int) -> float:
    """Records a second of the whole hash check, which must find nothing."""
    engine = connect_engine(ledger_file)
    begin = time.perf_counter()
    faults = list(fsck.check_hashes(engine, log))
    rate = size / (time.perf_counter() - begin)
    engine.dispose()
    assert faults == []
    return rate


def measure(folder: Path, size: int, pairs: int) -> dict[str, Any]:
    """Everything that needs the million; ``pairs`` interleaved runs of each ratio, five of those that read it all."""
    from benchmarks.ledger import ORIGIN, summary

    key = Ed25519PrivateKey.generate()
    log = LogSigner(ORIGIN, key).verifier
    large, small = folder / "large", folder / "small"
    edge, begin = write(large, ORIGIN, key, size), time.perf_counter()
    small_edge = write(small, ORIGIN, key, size // 10)
    started = startups(large, ORIGIN, key, pairs)
    runs = [
        proofs_of((large / "log.db", edge), (small / "log.db", small_edge), random.Random(pair))
        for pair in range(pairs)
    ]
    times = sorted(itertools.chain.from_iterable(of_large.times for of_large, _ in runs))
    growth = [statistics.median(of_large.times) / statistics.median(of_small.times) for of_large, of_small in runs]
    checked = [(checks_per_s(of_large.made), node_hashes_per_s()) for of_large, _ in runs]
    data = bodies(large / "log.db", size // 5)
    audited = list(_audits(large / "log.db", log, size, data))
    return {
        "proofs": {"p50_ms": round(times[len(times) // 2], 3), "p99_ms": round(times[len(times) * 99 // 100], 3)},
        "proof_growth": summary(growth),
        "proof_check": summary([checks / nodes for checks, nodes in checked]),
        "proof_checks_per_s": round(max(checks for checks, _ in checked)),
        "hash_audit": summary([audit / memory for audit, memory in audited]),
        "hash_audit_records_per_s": round(max(audit for audit, _ in audited)),
        "startup_s": summary(started),
        "records": size,
        "million_seconds": round(time.perf_counter() - begin),
    }


def _audits(file: Path, log: Any, size: int, data: list[bytes]) -> Iterator[tuple[float, float]]:
    for _ in range(5):
        yield audit_rate(file, log, size), memory_rate(data)
