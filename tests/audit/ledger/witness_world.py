"""A log in memory that can lie, and a real witness to tell it to."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Sequence
from pathlib import Path

from audit.ledger import tree
from audit.ledger.note import Checkpoint, Verifier, sign_note
from audit.ledger.witness.service import Witness
from audit.ledger.witness.store import WitnessStore
from tests.audit.ledger.ledger_world import START, ed25519

ORIGIN = "assay.local/log"
LOG_KEY = ed25519("log")
LOG = Verifier.of(ORIGIN, LOG_KEY.public_key())
WITNESS_NAME = "w.example/w"
WITNESS_KEY = ed25519("witness w")


class MemoryLog:
    """Leaves in a list; signs whatever it is told to."""

    def __init__(self, story: str = "true", size: int = 0, shared: int = 0) -> None:
        """``shared`` first leaves are those of every log; the others are this story's own."""
        self.leaves = [leaf("shared" if i < shared else story, i) for i in range(size)]

    def root(self, size: int) -> bytes:
        return tree.root_of(self.leaves[:size])

    def note(self, size: int | None = None, **changes: object) -> bytes:
        at = len(self.leaves) if size is None else size
        checkpoint = Checkpoint(ORIGIN, at, self.root(at))
        text = str(changes.get("text", checkpoint.text()))
        return sign_note(text, str(changes.get("name", ORIGIN)), changes.get("key", LOG_KEY))  # type: ignore[arg-type]

    def proof(self, old: int, new: int | None = None) -> list[bytes]:
        at = len(self.leaves) if new is None else new
        if not 0 < old < at:
            return []

        def read(nodes: Sequence[tuple[int, int]]) -> list[bytes]:
            return [tree.root_of(self.leaves[i << level : (i + 1) << level]) for level, i in nodes]

        return tree.consistency_proof(old, at, read)

    def request(self, old: int, size: int | None = None, **changes: object) -> bytes:
        at = len(self.leaves) if size is None else size
        proof = changes.pop("proof", None)
        return body(old, self.proof(old, at) if proof is None else proof, self.note(at, **changes))  # type: ignore[arg-type]


def leaf(story: str, index: int) -> bytes:
    return tree.leaf_hash(f"{story} {index}".encode())


def body(old: int | str, proof: Sequence[bytes], note: bytes) -> bytes:
    lines = [f"old {old}", *(base64.b64encode(h).decode() for h in proof), "", ""]
    return "\n".join(lines).encode() + note


def origin_hash(origin: str = ORIGIN) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()


def make_witness(folder: Path, at: dt.datetime = START) -> Witness:
    store = WitnessStore(folder / "witness.db")
    return Witness(WITNESS_NAME, WITNESS_KEY, {ORIGIN: (LOG,)}, store, folder / "evidence", lambda: at)
