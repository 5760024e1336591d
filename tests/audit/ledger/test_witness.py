"""What a witness answers, request by request; a lying log gets nothing and leaves evidence."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.ledger import fork, tree
from audit.ledger.cosignature import CosignatureVerifier, read_lines
from audit.ledger.fork import Evidence
from audit.ledger.httpd import Answer, Request
from audit.ledger.note import Checkpoint, SignedNote, Verifier, open_checkpoint, sign_note
from audit.ledger.witness.service import MAX_SUSPECTS, Witness
from audit.ledger.witness.store import Seen, WitnessStore
from tests.audit.ledger.ledger_world import START, ed25519
from tests.audit.ledger.witness_world import (
    LOG,
    LOG_KEY,
    ORIGIN,
    WITNESS_KEY,
    WITNESS_NAME,
    MemoryLog,
    body,
    leaf,
    make_witness,
    origin_hash,
)

KEY = CosignatureVerifier.of(WITNESS_NAME, WITNESS_KEY.public_key())


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return make_witness(tmp_path)


def files(tmp_path: Path) -> list[Evidence]:
    return [Evidence.parse(p.read_bytes()) for p in sorted((tmp_path / "evidence").glob("*.json"))]


def get(witness: Witness, what: str, origin: str = ORIGIN) -> Answer:
    return witness.handle(Request("GET", f"/{origin_hash(origin)}/{what}", b"", ""))


@pytest.mark.parametrize("sizes", [(1, 2, 3, 8, 300), (7, 7, 64, 65), (0, 0, 1), (256, 257, 1000)])
def test_a_log_that_grows_is_cosigned_at_every_size(witness: Witness, sizes: tuple[int, ...]) -> None:
    log, old = MemoryLog(size=sizes[-1]), 0
    for size in sizes:
        answer = witness.add_checkpoint(log.request(old, size))
        assert answer.status == 200, answer
        note = SignedNote.parse(log.note(size))
        assert KEY.open(SignedNote(note.text, (*note.signatures, *read_lines(note.text, answer.body)))) == START
        old = size
    shown = get(witness, "checkpoint")
    assert open_checkpoint(shown.body, LOG).size == sizes[-1] and KEY.open(SignedNote.parse(shown.body)) == START


def test_further_lines_of_a_checkpoint_are_cosigned_and_those_of_a_note_are_not_kept(witness: Witness) -> None:
    text = Checkpoint(ORIGIN, 1, leaf("true", 0)).text() + "extension\n"
    note = sign_note(text, ORIGIN, LOG_KEY)
    stranger = SignedNote.parse(sign_note(text, "stranger", ed25519("stranger"))).signatures[0].line()
    answer = witness.add_checkpoint(body(0, [], note + stranger.encode()))
    assert answer.status == 200
    shown = SignedNote.parse(get(witness, "checkpoint").body)
    assert shown.text == text and [s.name for s in shown.signatures] == [ORIGIN, WITNESS_NAME]


def test_an_older_cosignature_is_renewed_at_the_same_size(witness: Witness) -> None:
    log = MemoryLog(size=5)
    assert witness.add_checkpoint(log.request(0)).status == 200
    assert witness.add_checkpoint(log.request(5)).status == 200
    assert witness.add_checkpoint(log.request(5, proof=[leaf("x", 1)])).status == 422


CASES = {
    "unknown origin": (404, lambda g, f: body(0, [], sign_note(Checkpoint("x", 9, g.root(9)).text(), "x", LOG_KEY))),
    "foreign key": (403, lambda g, f: g.request(3, key=ed25519("thief"))),
    "foreign name": (403, lambda g, f: g.request(3, name="assay.local/other")),
    "bad signature": (403, lambda g, f: g.request(3).replace(b"\n9\n", b"\n8\n")),
    "old above new": (400, lambda g, f: g.request(9, 3, proof=[])),
    "stale old": (409, lambda g, f: g.request(2)),
    "old from nothing": (409, lambda g, f: g.request(0)),
    "old ahead": (409, lambda g, f: g.request(5)),
    "no proof": (422, lambda g, f: g.request(3, proof=[])),
    "short proof": (422, lambda g, f: g.request(3, proof=g.proof(3)[:-1])),
    "long proof": (422, lambda g, f: g.request(3, proof=[*g.proof(3), leaf("x", 1)])),
    "proof of another log": (422, lambda g, f: g.request(3, proof=f.proof(3))),
    "another history": (422, lambda g, f: f.request(3)),
    "another root": (422, lambda g, f: f.request(3, 3)),
    "empty": (400, lambda g, f: b""),
    "no old": (400, lambda g, f: b"\n\n" + g.note()),
    "old 03": (400, lambda g, f: body("03", g.proof(3), g.note())),
    "old +3": (400, lambda g, f: body("+3", g.proof(3), g.note())),
    "old -1": (400, lambda g, f: body("-1", g.proof(3), g.note())),
    "old 2^63": (400, lambda g, f: body(str(2**63), [], g.note())),
    "old arabic": (400, lambda g, f: body("٣", g.proof(3), g.note())),
    "OLD": (400, lambda g, f: g.request(3).replace(b"old", b"OLD", 1)),
    "crlf": (400, lambda g, f: g.request(3).replace(b"\n", b"\r\n")),
    "64 hashes": (400, lambda g, f: body(3, [leaf("x", i) for i in range(64)], g.note())),
    "short hash": (400, lambda g, f: body(3, [b"x" * 31], g.note())),
    "loose base64": (400, lambda g, f: body(3, g.proof(3), g.note()).replace(b"=\n\n", b"\n\n", 1)),
    "no note": (400, lambda g, f: body(3, g.proof(3), b"")),
    "unsigned note": (400, lambda g, f: body(3, g.proof(3), g.note().split(b"\n\n")[0] + b"\n")),
    "size 007": (400, lambda g, f: g.request(3, text=f"{ORIGIN}\n009\n{base64.b64encode(g.root(9)).decode()}\n")),
    "size words": (400, lambda g, f: g.request(3, text=f"{ORIGIN}\n1_0\n{base64.b64encode(g.root(9)).decode()}\n")),
    "no root": (400, lambda g, f: g.request(3, text=f"{ORIGIN}\n9\n")),
    "blank line": (400, lambda g, f: g.request(3, text=Checkpoint(ORIGIN, 9, g.root(9)).text() + "\nmore\n")),
    "many lines": (400, lambda g, f: g.request(3) + g.note().split(b"\n\n")[1] * 100),
    "huge": (400, lambda g, f: g.request(3, text=Checkpoint(ORIGIN, 9, g.root(9)).text() + "x" * 70_000 + "\n")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refusals(witness: Witness, case: str) -> None:
    status, make = CASES[case]
    honest, lying = MemoryLog("true", 9, shared=2), MemoryLog("false", 9, shared=2)
    assert witness.add_checkpoint(honest.request(0, 3)).status == 200
    answer = witness.add_checkpoint(make(honest, lying))
    assert answer.status == status, answer.body
    assert "—" not in answer.body.decode()
    if status == 409:
        assert (answer.body, answer.content_type) == (b"3\n", "text/x.tlog.size")
    if case not in ("another root",):
        assert witness.add_checkpoint(honest.request(3)).status == 200, "a refusal must not harm the honest log"


@pytest.mark.parametrize(
    ("proof", "root", "status"),
    [([], tree.EMPTY_ROOT, 200), ([], leaf("x", 1), 422), ([leaf("x", 1)], tree.EMPTY_ROOT, 422)],
)
def test_the_empty_tree(witness: Witness, proof: list[bytes], root: bytes, status: int) -> None:
    note = sign_note(Checkpoint(ORIGIN, 0, root).text(), ORIGIN, LOG_KEY)
    assert witness.add_checkpoint(body(0, proof, note)).status == status


def test_fork_attack_5_leaves_both_notes_and_is_never_signed_again(witness: Witness, tmp_path: Path) -> None:
    honest, lying = MemoryLog("true", 9, shared=2), MemoryLog("false", 12, shared=2)
    assert witness.add_checkpoint(honest.request(0, 5)).status == 200
    assert get(witness, "fork").status == 404
    answer = witness.add_checkpoint(lying.request(5, 5))
    assert answer.status == 422 and b"LOG_FORKED" in answer.body
    (evidence,) = files(tmp_path)
    assert evidence.kind == "LOG_FORKED" and fork.proves_split(evidence, [LOG])
    assert get(witness, "fork").body == evidence.encode()
    for request in (honest.request(5), honest.request(5, 5), lying.request(5), lying.request(0, 3)):
        assert witness.add_checkpoint(request).status == 422
    assert open_checkpoint(get(witness, "checkpoint").body, LOG).root == honest.root(5)
    reopened = make_witness(tmp_path)
    assert reopened.add_checkpoint(honest.request(5)).status == 422, "a restart forgets nothing"


def test_a_fork_is_seen_even_when_the_old_size_is_wrong(witness: Witness, tmp_path: Path) -> None:
    honest, lying = MemoryLog("true", 5), MemoryLog("false", 5)
    assert witness.add_checkpoint(honest.request(0)).status == 200
    assert witness.add_checkpoint(lying.request(0)).status == 409
    assert [e.kind for e in files(tmp_path)] == ["LOG_FORKED"]
    assert witness.add_checkpoint(honest.request(5)).status == 422


def test_truncated_and_re_appended_attack_5_at_another_size(witness: Witness, tmp_path: Path) -> None:
    """After a restore at 60 of 100 and 50 different appends the witness knows better."""
    honest, restored = MemoryLog("true", 100, shared=60), MemoryLog("false", 110, shared=60)
    assert witness.add_checkpoint(honest.request(0)).status == 200
    answer = witness.add_checkpoint(restored.request(100, 110))
    assert answer.status == 422
    (evidence,) = files(tmp_path)
    assert evidence.kind == "INCONSISTENT" and evidence.proof == tuple(restored.proof(100, 110))
    assert [open_checkpoint(note, LOG).size for note in evidence.notes] == [100, 110]
    assert witness.add_checkpoint(honest.request(100)).status == 200


def test_a_replayed_note_with_a_bad_proof_cannot_lock_the_log_out(witness: Witness) -> None:
    """Anybody may replay a genuine checkpoint with rubbish beside it."""
    log = MemoryLog(size=9)
    assert witness.add_checkpoint(log.request(0, 3)).status == 200
    assert witness.add_checkpoint(log.request(3, 9, proof=[leaf("x", 1)] * 5)).status == 422
    assert witness.add_checkpoint(log.request(3)).status == 200


def test_evidence_cannot_fill_the_disk(witness: Witness, tmp_path: Path) -> None:
    log = MemoryLog(size=120)
    assert witness.add_checkpoint(log.request(0, 3)).status == 200
    for size in range(4, 110):
        assert witness.add_checkpoint(log.request(3, size, proof=[])).status == 422
    assert len(files(tmp_path)) == MAX_SUSPECTS


def test_rubbish_cannot_crowd_out_the_evidence_of_a_fork(witness: Witness, tmp_path: Path) -> None:
    honest, lying = MemoryLog("true", 120), MemoryLog("false", 120)
    assert witness.add_checkpoint(honest.request(0, 3)).status == 200
    for size in range(4, 4 + MAX_SUSPECTS):
        assert witness.add_checkpoint(honest.request(3, size, proof=[])).status == 422
    assert witness.add_checkpoint(honest.request(3, 100)).status == 200
    assert witness.add_checkpoint(lying.request(100, 100)).status == 422
    evidence = Evidence.parse(get(witness, "fork").body)
    assert evidence.kind == "LOG_FORKED" and fork.proves_split(evidence, [LOG])
    assert [e.kind for e in files(tmp_path)].count("LOG_FORKED") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/add-checkpoint", 405),
        ("POST", "/", 404),
        ("GET", "/", 404),
        ("POST", f"/{origin_hash()}/checkpoint", 404),
        ("GET", f"/{origin_hash()}/checkpoint", 404),
        ("GET", f"/{origin_hash('other')}/checkpoint", 404),
        ("GET", f"/{origin_hash().upper()}/checkpoint", 404),
        ("GET", f"/{origin_hash()}/../witness.key", 404),
        ("GET", f"/{origin_hash()}/witness.db", 404),
    ],
)
def test_paths(witness: Witness, method: str, path: str, status: int) -> None:
    assert witness.handle(Request(method, path, b"", "")).status == status


def test_both_keys_of_a_log_that_rotates_are_known(tmp_path: Path) -> None:
    new = ed25519("new log key")
    keys = (LOG, Verifier.of(ORIGIN, new.public_key()))
    witness = Witness(WITNESS_NAME, WITNESS_KEY, {ORIGIN: keys}, WitnessStore(tmp_path / "w.db"), tmp_path / "e")
    log = MemoryLog(size=9)
    assert witness.add_checkpoint(log.request(0, 3)).status == 200
    assert witness.add_checkpoint(log.request(3, key=new)).status == 200


def test_two_requests_that_race_are_both_checked_against_the_same_memory(tmp_path: Path) -> None:
    """The race that the specification warns of: a checkpoint of size N must not be stored over one of N + K."""
    store = WitnessStore(tmp_path / "witness.db")
    inside, go = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Seen:
        inside.set()
        go.wait(10)
        return Seen(seen.size + 1, leaf("slow", 1), b"slow")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.advance, ORIGIN, slow)
        assert inside.wait(10)
        second = pool.submit(store.advance, ORIGIN, lambda seen: Seen(seen.size + 5, leaf("fast", 1), b"fast"))
        assert not second.done()
        go.set()
        assert (first.result().size, second.result().size) == (1, 6)
    assert store.seen(ORIGIN) == Seen(6, leaf("fast", 1), b"fast")


def test_threads_that_race_get_one_history(witness: Witness) -> None:
    stories = [MemoryLog(f"story {i}", 40) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda log: witness.add_checkpoint(log.request(0)), stories))
    statuses = sorted(a.status for a in answers)
    assert statuses[0] == 200 and set(statuses[1:]) <= {409, 422}


def _claim(folder: str, story: int, barrier: object, out: object) -> None:
    witness = make_witness(Path(folder))
    log = MemoryLog(f"story {story}", 30)
    barrier.wait(30)  # type: ignore[attr-defined]
    for size in range(1, 31):
        answer = witness.add_checkpoint(log.request(size - 1, size))
        out.put((story, size, answer.status))  # type: ignore[attr-defined]


def test_processes_that_race_on_one_store_get_one_history(tmp_path: Path) -> None:
    """Two witnesses on one store by mistake: at every size at most one story is cosigned."""
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_claim, args=(str(tmp_path), i, barrier, out)) for i in range(2)]
    for process in processes:
        process.start()
    seen = [out.get(timeout=120) for _ in range(60)]
    for process in processes:
        process.join(30)
    signed = [(size, story) for story, size, status in seen if status == 200]
    assert signed and len({size for size, _ in signed}) == len(signed)
    assert len({story for _, story in signed}) == 1


def _open_at_once(path: str, barrier: object, out: object) -> None:
    for number in range(40):
        barrier.wait(30)  # type: ignore[attr-defined]
        try:
            WitnessStore(Path(f"{path}/{number}.db")).close()
            out.put("")  # type: ignore[attr-defined]
        except Exception as error:
            out.put(repr(error))  # type: ignore[attr-defined]


def test_processes_that_make_one_store_at_once_both_open_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_open_at_once, args=(str(tmp_path), barrier, out)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [out.get(timeout=120) for _ in range(80)] == [""] * 80
    for process in processes:
        process.join(30)


def test_the_store_itself_refuses_to_forget(tmp_path: Path) -> None:
    store = WitnessStore(tmp_path / "witness.db")
    store.advance(ORIGIN, lambda seen: Seen(5, leaf("x", 1), b"note", "fork.json"))
    other = sqlite3.connect(tmp_path / "witness.db", isolation_level=None)
    for statement in ("DELETE FROM log", "UPDATE log SET size = 4", "UPDATE log SET fork = ''"):
        with pytest.raises(sqlite3.DatabaseError, match="forgets nothing"):
            other.execute(statement)
    with pytest.raises(sqlite3.DatabaseError, match="forgets nothing"):
        store.advance(ORIGIN, lambda seen: Seen(4, seen.root, seen.note, seen.fork))
    assert store.seen(ORIGIN).size == 5


# Requests and answers of litewitness's own test (filippo.io/torchwood, cmd/litewitness/testdata/litewitness.txt).
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
_P3 = "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nKgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
_3 = f"{SIGSUM}\n3\nRcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=\n\n— {SIGSUM} "
_SIG3 = "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6g{}=\n"
LITEWITNESS = [
    (200, f"old 0\n\n{SIGSUM}\n1\nKgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— {SIGSUM} "
          "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=\n"),
    # litewitness answers 403; its vector's last digit also makes the base64 non-canonical, which is malformed here.
    (400, f"old 1\n{_P3}\n{_3}{_SIG3.format('x')}"),
    # litewitness answers 403 here; the specification says 404.
    (404, f"old 1\n{_P3}\n{_3}{_SIG3.format('o')}".replace("e562", "e563")),
    (422, f"old 1\n\n{_3}{_SIG3.format('o')}"),
    (422, f"old 1\n{_P3}\n{_3}{_SIG3.format('o')}".replace("AAAA=\n\n", "ABAA=\n\n")),
    (200, f"old 1\n{_P3}\n{_3}{_SIG3.format('o')}"),
    (409, f"old 1\n{_P3}\n{_3}{_SIG3.format('o')}"),
]  # fmt: skip


def test_what_litewitness_is_tested_with(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    log = Verifier.of(SIGSUM, Ed25519PublicKey.from_public_bytes(SIGSUM_KEY))
    store = WitnessStore(tmp_path / "witness.db")
    witness = Witness("example.com/witness", WITNESS_KEY, {SIGSUM: (log,)}, store, tmp_path / "evidence")
    for status, request in LITEWITNESS:
        assert witness.add_checkpoint(request.encode()).status == status, request


def test_a_checkpoint_of_the_go_checksum_database(tmp_path: Path) -> None:
    """Its origin is not its key's name; as torchwood tests it."""
    log = Verifier.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    store = WitnessStore(tmp_path / "witness.db")
    origin = "go.sum database tree"
    witness = Witness("example.com/witness", WITNESS_KEY, {origin: (log,)}, store, tmp_path / "evidence")
    request = (
        "old 0\n\ngo.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n— sum.golang.org "
        "Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n"
    )
    assert witness.add_checkpoint(request.encode()).status == 200
    assert hashlib.sha256(origin.encode()).hexdigest() == origin_hash(origin)
    assert get(witness, "checkpoint", origin).status == 200
