"""What the ledger costs on PostgreSQL: ``python -m benchmarks.ledger_postgres`` prints one JSON object.

A server of the run's own, over a socket, with its defaults (``fsync`` and ``synchronous_commit`` on). Each pair writes
as many records through the product's own path, from dicts, with a queue that fills every batch, and through psycopg's
``executemany``: rows of the same size, 64 a batch, under the same advisory lock, one commit a batch, with no guard,
tree, signature or anchor. Only the ratio means anything.
"""

from __future__ import annotations

import argparse
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.ledger import dialect, postgres, schema
from audit.ledger.anchor import FileAnchor
from audit.ledger.ledger import Ledger
from benchmarks.ledger import BATCH, ORIGIN, append_batches, append_single, draft, ratios
from tests.postgres_server import GATEWAY, MIGRATOR, Cluster, Server

RAW_TABLE = """
CREATE TABLE public.raw
(idx bigint PRIMARY KEY, leaf bytea, body bytea, unit text, tseq bigint, type text, job text);
GRANT INSERT ON public.raw TO assay_writer; GRANT USAGE ON SCHEMA public TO assay_writer;
"""


class Raw:
    """Rows of the log's size through psycopg alone, by the same login."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        cluster.sql(database, RAW_TABLE)
        self.connection = psycopg.connect(cluster.dsn(database, GATEWAY), autocommit=True)
        self.next = 0

    def write(self, count: int, batch: int) -> float:
        """Seconds to insert ``count`` rows in batches, each under the lock and durable."""
        rows = self.rows(count)
        begin = time.perf_counter()
        for at in range(0, count, batch):
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.execute(postgres.TAKE_BATCH_LOCK)
                cursor.executemany("INSERT INTO public.raw VALUES (%s, %s, %s, %s, %s, %s, %s)", rows[at : at + batch])
        return time.perf_counter() - begin

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        """Rows of the size that the log stores."""
        body = secrets.token_bytes(640)
        begin, self.next = self.next, self.next + count
        return [
            (i, secrets.token_bytes(32), body, "credit", i, "job.preparing", f"units/credit/tuningJobs/job-{i % 97}")
            for i in range(begin, begin + count)
        ]


def open_ledger(folder: Path, cluster: Cluster, database: str) -> Ledger:
    """A started ledger on a fresh database."""
    migration = dialect.connect_for_migration(cluster.url(database, MIGRATOR))
    schema.create(migration)
    migration.dispose()
    ledger = Ledger(
        dialect.connect(cluster.url(database)), ORIGIN, Ed25519PrivateKey.generate(), FileAnchor(folder / "anchor")
    )
    ledger.start()
    return ledger


def measure(pairs: int) -> dict[str, Any]:
    """Starts a server, measures, and stops it."""
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "anchor").mkdir()
            cluster = server.cluster
            database = cluster.create_database()
            ledger, raw = open_ledger(folder, cluster, database), Raw(cluster, database)
            count = 30 * BATCH
            drafts = [draft(n) for n in range(count)]
            append_batches(ledger, drafts[: 2 * BATCH])
            raw.write(2 * BATCH, BATCH)
            batched = ratios(pairs, lambda: append_batches(ledger, drafts), lambda: raw.write(count, BATCH))
            single = ratios(pairs, lambda: append_single(ledger, 40), lambda: raw.write(40, 1))
            version = cluster.sql(database, "SHOW server_version")[0][0]
            ledger.close()
    finally:
        server.stop()
    return {
        "pg_append_ratio_b64": batched,
        "pg_single_latency_ratio": round(1 / single["median"], 3),
        "pg_server": version,
    }


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    print(json.dumps(measure(options.pairs), indent=1))


if __name__ == "__main__":
    main()
