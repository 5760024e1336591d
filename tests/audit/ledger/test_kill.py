"""kill -9 in the middle of writing, again and again: after each restart nothing acknowledged is gone.

A process appends through the real writer and prints every acknowledged index with its leaf hash, and every checkpoint
that it was shown. It is killed at a random moment, sometimes while it is still starting. After each round: every
acknowledged record is there, the root is the recomputed one, and no size ever had two checkpoints.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from audit.ledger import fsck, tree
from audit.ledger.ledger import system_sources
from audit.ledger.note import Verifier, open_checkpoint
from tests.audit.ledger.ledger_world import ORIGIN, World

pytestmark = pytest.mark.usefixtures("ledger_database")

CHILD = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from audit.ledger.records import RecordDraft
from audit.ledger.ledger import system_sources
from tests.audit.ledger.ledger_world import World
out, gate = open(1, "w", buffering=1), threading.Lock()
world = World(Path(sys.argv[1]), clock=system_sources().clock, nonces=system_sources().nonce)
out.write('["starting"]\\n')
world.start()
def one(n):
    index = world.ledger.run(lambda uow: uow.append(RecordDraft("credit", "dataset.created", "dataset", {"n": n})))
    leaf, note = world.ledger.record(index).leaf.hex(), world.ledger.checkpoint().decode()
    with gate:
        out.write(json.dumps([index, leaf, note]) + "\\n")
with ThreadPoolExecutor(6) as pool:
    n = 0
    while True:
        list(pool.map(one, range(n, n + 60)))
        n += 60
"""


@dataclass
class Memory:
    """What the outside was told so far: acknowledged leaves by index, shown roots by size."""

    leaves: dict[int, str] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)

    def hear(self, log: Verifier, index: int, leaf: str, note: str) -> None:
        """An acknowledgement; an index or size that was heard of before must say the same."""
        assert self.leaves.setdefault(index, leaf) == leaf
        shown = open_checkpoint(note.encode(), log)
        assert self.roots.setdefault(shown.size, shown.root) == shown.root


def one_round(folder: Path, seconds: float, *, heard: bool) -> list[tuple[int, str, str]]:
    """Runs a writing process, kills it after a while, returns what it acknowledged.

    ``heard`` starts the clock at the first acknowledgement, which a busy machine may take seconds for.
    """
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == '["starting"]\n'
    first = child.stdout.readline() if heard else ""
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    whole = (first + child.stdout.read()).split("\n")[:-1]
    child.wait()
    return [tuple(json.loads(line)) for line in whole]


def check(folder: Path, memory: Memory) -> int:
    """Starts again and looks for everything that was acknowledged; returns the number of records."""
    sources = system_sources()
    world = World(folder, clock=sources.clock, nonces=sources.nonce).start()  # type: ignore[arg-type]
    leaves = {r.index: r.leaf for r in world.ledger.records(limit=10**6)}
    assert [i for i, leaf in memory.leaves.items() if i not in leaves or leaves[i].hex() != leaf] == []
    assert world.ledger.root(world.ledger.size) == tree.root_of(leaves[i] for i in range(world.ledger.size))
    assert world.anchor.read() == world.ledger.checkpoint()
    assert [size for size, root in memory.roots.items() if world.ledger.root(size) != root] == []
    assert list(fsck.check(world.engine, Verifier.of(ORIGIN, world.services["log"].public_key()))) == []
    world.close()
    return len(leaves)


def run(folder: Path, rounds: int) -> None:
    pick, memory, total = random.Random(7), Memory(), 0
    log = Verifier.of(ORIGIN, World(folder).services["log"].public_key())
    for number in range(rounds):
        # Every third round ends while the ledger may still be starting.
        early = number % 3 == 2
        told = one_round(folder, pick.uniform(0.0, 0.06 if early else 0.5), heard=not early)
        for line in told:
            memory.hear(log, *line)
        total = check(folder, memory)
    print(f"rounds {rounds}, records {total}, acknowledged {len(memory.leaves)}, lost 0")
    assert memory.leaves


def test_kill_minus_9(tmp_path: Path) -> None:
    run(tmp_path, 3)


@pytest.mark.slow
def test_kill_minus_9_many_rounds(tmp_path: Path) -> None:
    run(tmp_path, 60)
