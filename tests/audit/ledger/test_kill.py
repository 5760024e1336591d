"""kill -9 in the middle of writing: every acknowledged record is there afterwards, and the log starts again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audit.ledger import fsck, tree
from audit.ledger.note import Verifier
from tests.audit.ledger.ledger_world import ORIGIN, World

CHILD = """
import datetime, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from audit.ledger.records import RecordDraft
from audit.ledger.ledger import system_sources
from tests.audit.ledger.ledger_world import World
world = World(Path(sys.argv[1]), clock=system_sources().clock, nonces=system_sources().nonce).start()
out, gate = open(1, "w", buffering=1), threading.Lock()
def one(n):
    index = world.ledger.run(lambda uow: uow.append(RecordDraft("credit", "dataset.created", "dataset", {"n": n})))
    leaf = world.ledger.record(index).leaf.hex()
    with gate:
        out.write(f'[{index}, "{leaf}"]\\n')
with ThreadPoolExecutor(6) as pool:
    n = 0
    while True:
        list(pool.map(one, range(n, n + 60)))
        n += 60
"""


def one_round(folder: Path, seconds: float) -> list[tuple[int, str]]:
    """Runs a writing process, kills it, returns what it acknowledged."""
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    lines = [first, *child.stdout.read().split("\n")[:-1]]
    child.wait()
    return [(int(index), leaf) for index, leaf in map(json.loads, filter(None, map(str.strip, lines)))]


def check(folder: Path, acknowledged: list[tuple[int, str]]) -> int:
    world = World(folder)
    world.clock.now = world.clock.now.replace(year=2200)
    world.start()
    records = {r.index: r for r in world.ledger.records(limit=10**6)}
    lost = [index for index, leaf in acknowledged if index not in records or records[index].leaf.hex() != leaf]
    assert lost == []
    assert world.ledger.root(world.ledger.size) == tree.root_of(records[i].leaf for i in range(world.ledger.size))
    assert world.anchor.read() == world.ledger.checkpoint()
    log = Verifier.of(ORIGIN, world.services["log"].public_key())
    assert list(fsck.check(world.engine, log)) == []
    world.close()
    return len(records)


def run(folder: Path, rounds: int) -> None:
    pick, acknowledged = random.Random(7), []
    for _ in range(rounds):
        acknowledged += one_round(folder, pick.uniform(0.05, 0.4))
    assert len({index for index, _ in acknowledged}) == len(acknowledged)
    total = check(folder, acknowledged)
    print(f"rounds {rounds}, records {total}, acknowledged {len(acknowledged)}, lost 0")
    assert acknowledged


def test_kill_minus_9(tmp_path: Path) -> None:
    run(tmp_path, 3)


@pytest.mark.slow
def test_kill_minus_9_many_rounds(tmp_path: Path) -> None:
    run(tmp_path, 25)
