"""Runs under ``LD_PRELOAD`` of the shim: a ledger writes while the n-th write or flush fails, then starts again.

``sweep.py FOLDER MODE FIRST STEP``: every round is a forked child with its own folder, so that interpreter and
libraries are loaded once. The last line printed is one JSON object; ``losses`` and ``faults`` must be empty.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay.errors import AssayError
from audit.ledger import fsck, schema, tree
from audit.ledger.anchor import FileAnchor
from audit.ledger.ledger import Ledger
from audit.ledger.note import Verifier, open_checkpoint
from audit.ledger.records import RecordDraft
from audit.ledger.sqlite import connect_engine, connect_migration_engine

ORIGIN = "assay.local/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
LOG = Verifier.of(ORIGIN, KEY.public_key())
MODES = {"eio": (errno.EIO, 0), "enospc": (errno.ENOSPC, 1), "torn": (errno.EIO, 2)}
SHIM: Any = ctypes.CDLL(None)
SHIM.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
SHIM.fault_hits.restype = SHIM.fault_seen.restype = ctypes.c_long


def draft(n: int) -> RecordDraft:
    """A record."""
    return RecordDraft("credit", "dataset.created", "dataset", {"n": n})


def write(folder: Path, at: int, code: int, mode: int) -> dict[str, Any]:
    """A ledger's life, from start to close, in which one system call fails; returns what it acknowledged."""
    acknowledged: list[tuple[int, str]] = []
    notes: list[str] = []
    refusals: list[str] = []
    SHIM.fault_arm(os.fsencode(folder), at, code, mode)
    engine = connect_engine(folder / "assay.db")
    ledger = Ledger(engine, ORIGIN, KEY, FileAnchor(folder / "anchor"))
    try:
        ledger.start()
        notes.append(ledger.checkpoint().decode())
        for count in (1, 3, 260, 1, 2):
            try:
                indices = ledger.run(lambda uow, c=count: [uow.append(draft(n)) for n in range(c)])  # type: ignore[misc]
            except AssayError as error:
                refusals.append(error.reason)
                continue
            notes.append(ledger.checkpoint().decode())
            acknowledged += [(i, ledger.record(i).leaf.hex()) for i in indices]
        ledger.close()
        engine.dispose()
    except Exception as error:
        refusals.append(error.reason if isinstance(error, AssayError) else type(error).__name__)
    return {
        "acknowledged": acknowledged,
        "notes": notes,
        "refusals": refusals,
        "hits": SHIM.fault_hits(),
        "calls": SHIM.fault_seen(),
    }


def restart(folder: Path, said: dict[str, Any]) -> dict[str, Any]:
    """Starts again on a healthy disk and looks for every acknowledged record; returns losses and faults."""
    engine = connect_engine(folder / "assay.db")
    anchor = FileAnchor(folder / "anchor")
    ledger = Ledger(engine, ORIGIN, KEY, anchor)
    ledger.start()
    ledger.run(lambda uow: uow.append(draft(0)))
    records = {r.index: r.leaf for r in ledger.records(limit=10**6)}
    losses = [i for i, leaf in said["acknowledged"] if records.get(i, b"").hex() != leaf]
    faults = [f"{fault.reason} {fault.index}" for fault in fsck.check(engine, LOG)]
    if ledger.root(ledger.size) != tree.root_of(records[i] for i in range(ledger.size)):
        faults.append("ROOT")
    if anchor.read() != ledger.checkpoint():
        faults.append("ANCHOR")
    for note in said["notes"]:
        shown = open_checkpoint(note.encode(), LOG)
        if shown.root != ledger.root(shown.size):
            faults.append(f"TWO_CHECKPOINTS {shown.size}")
    ledger.close()
    engine.dispose()
    return {"losses": losses, "faults": faults}


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Runs ``work`` in a forked process that ends without cleaning up, as a crash would."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return dict(json.loads(data)) if data else {"losses": [], "faults": ["CRASHED"], "hits": 1}


def rounds(folder: Path, mode: str, first: int, step: int) -> Iterator[dict[str, Any]]:
    """One round a failing call, until a life passes in which nothing failed."""
    code, how = MODES[mode]
    at, hit = first, True
    while hit:
        place = folder / f"{mode}-{at}"
        shutil.copytree(folder / "new", place)
        said = in_child(lambda p=place, n=at: write(p, n, code, how))  # type: ignore[misc]
        found = in_child(lambda p=place, s=said: restart(p, s)) if "notes" in said else said  # type: ignore[misc]
        shutil.rmtree(place)
        hit = said["hits"] > 0
        yield {"at": at, **said, **found}
        at += step


def main(folder: Path, mode: str, first: int, step: int) -> None:
    """Sweeps and prints the sum."""
    new = folder / "new"
    (new / "anchor").mkdir(parents=True)
    engine = connect_migration_engine(new / "assay.db")
    schema.create(engine)
    engine.dispose()
    done = list(rounds(folder, mode, first, step))
    refusals = sorted({reason for one in done for reason in one.get("refusals", ())})
    print(
        json.dumps(
            {
                "mode": mode,
                "rounds": len(done),
                "calls": done[-1].get("calls", 0),
                "acknowledged": sum(len(one.get("acknowledged", ())) for one in done),
                "losses": sum(len(one["losses"]) for one in done),
                "faults": [(one["at"], one["faults"]) for one in done if one["faults"]],
                "refusals": refusals,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
