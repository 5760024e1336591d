"""What is fuzzed: each target takes bytes and demands that the parser refuses by name or reads what re-encodes.

A target returns whether the parser accepted. Anything but an :class:`AssayError` from a parser, and any accepted value
with another spelling, is a finding. ``run.py`` drives the targets with atheris, ``test_fuzz.py`` with hypothesis; both
begin from the same seeds. Nothing here needs more than ``cryptography``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from assay import canonical, dsse
from assay.errors import AssayError
from audit.ledger import evidence, fork, records, tree
from audit.ledger.cosignature import CosignatureVerifier
from audit.ledger.edge import Edge, TreeReader
from audit.ledger.note import Checkpoint, ProofFile, SignedNote, Verifier, key_id, open_checkpoint, sign_note
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.service import AddCheckpoint
from audit.verify import EXIT_CODES, timestamp
from audit.verify.archive import open_bundle
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from tests.audit.verify.forge import LOG_KEY, ORIGIN, forge, plain_trust

VECTORS = Path(__file__).parents[1] / "data/vectors"
LOG = Verifier.of(ORIGIN, LOG_KEY.public_key())
LEAVES = [tree.leaf_hash(b"%d" % i) for i in range(256)]
EDGE, TILES = Edge().extend(LEAVES)
ROOT = tree.root_of(LEAVES)
NOTE = sign_note(Checkpoint(ORIGIN, 256, ROOT).text(), ORIGIN, LOG_KEY)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRUST = TrustFile.parse(plain_trust())
OPENING = (VECTORS / "records/log.opened.json").read_bytes()


class Finding(AssertionError):
    """A parser that accepted what it does not write itself."""


def demand(holds: bool, what: str) -> None:
    """Raises :class:`Finding` unless it holds."""
    if not holds:
        raise Finding(what)


def note(data: bytes) -> bool:
    """A signed note, and the checkpoint in it."""
    try:
        parsed = SignedNote.parse(data)
    except AssayError:
        _refused(lambda: open_checkpoint(data, LOG))
        return False
    demand(parsed.encode() == data, "a note has two spellings")
    try:
        checkpoint = open_checkpoint(data, LOG)
    except AssayError:
        return True
    demand(checkpoint.text() == parsed.text, "a checkpoint has two spellings")
    demand(checkpoint == Checkpoint(ORIGIN, 256, ROOT), "a checkpoint was forged")
    return True


def vkey(data: bytes) -> bool:
    """A verifier key."""
    try:
        text = data.decode()
        read = Verifier.parse(text)
    except (AssayError, UnicodeDecodeError):
        return False
    demand(read.vkey() == text, "a key has two spellings")
    return True


def proof(data: bytes) -> bool:
    """An offline proof file, checked against a tree of 256 leaves."""
    try:
        parsed = ProofFile.parse(data)
    except AssayError:
        return False
    demand(parsed.encode() == data, "a proof file has two spellings")
    try:
        tree.verify_inclusion(parsed.index, 256, LEAVES[5], parsed.hashes, ROOT)
    except AssayError:
        return True
    demand(parsed.index == 5, "a proof places a leaf elsewhere")
    return True


def record(data: bytes) -> bool:
    """A record, rebuilt from what was read."""
    try:
        read = records.read(data)
    except AssayError:
        return False
    value = {
        "v": records.VERSION,
        "log": read.log,
        "tenant": read.unit,
        "tseq": read.sequence,
        "tprev": read.previous,
        "ts": records.format_time(read.time),
        "nonce": read.nonce,
        "type": read.type,
        "statement": read.statement,
        "sigs": list(read.signatures),
    }
    demand(canonical.encode(value) == data, "a record has two spellings")
    if read.signatures:
        _either(lambda: dsse.envelope_payload(read.envelope()))
    return True


def envelope(data: bytes) -> bool:
    """A DSSE envelope as a worker or person sends it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    _either(lambda: dsse.verify_service(value, LOG_KEY.public_key()))
    try:
        payload = dsse.envelope_payload(value)
    except AssayError:
        return False
    demand(isinstance(payload, bytes), "a payload is not bytes")
    return True


def certificate(data: bytes) -> bool:
    """A person's certificate, which is read before anything about it is believed."""
    signature = {"keyid": "", "sig": "AAAA", "cert": base64.b64encode(data).decode()}
    value = {"payloadType": dsse.PAYLOAD_TYPE, "payload": "AAAA", "signatures": [signature]}
    root = TRUST.people_root
    for at in (NOW, NOW.replace(year=1950)):
        _refused(lambda at=at: dsse.verify_person(value, root, at))  # type: ignore[misc]
    return False


def tile(data: bytes) -> bool:
    """A stored tile, of any length and content: a proof from it is a true proof, or does not verify."""
    reader = TreeReader(EDGE, lambda level, n: data)
    index = data[0] if data else 0
    try:
        made = tree.inclusion_proof(index, 256, reader.read)
        tree.verify_inclusion(index, 256, LEAVES[index], made, ROOT)
    except AssayError:
        return False
    true = tree.inclusion_proof(index, 256, TreeReader(EDGE, lambda level, n: TILES[0].hashes).read)
    demand(list(made) == list(true), "two proofs of one leaf")
    return True


def bundle(data: bytes) -> bool:
    """The ZIP, and everything in it up to the meaning of the records."""
    try:
        files = evidence.read_zip(data)
    except AssayError:
        return False
    for path in files:
        evidence.check_path(path)
    try:
        open_bundle(data, LOG)
    except AssayError:
        return True
    out = io.BytesIO()
    evidence.write_zip(files, out)
    demand(out.getvalue() == data, "a bundle has two spellings")
    return True


def verdict(data: bytes) -> bool:
    """A hostile gateway's record in a bundle that is right in every other way: there is a verdict, and no crash."""
    try:
        body = canonical.encode(json.loads(data))
        records.read(body)
    except (AssayError, ValueError, RecursionError):
        return False
    report = verify_bytes(forge([OPENING, body]), TRUST, NOW)
    demand(report.verdict in EXIT_CODES and bool(report.text()), "no verdict")
    return True


def trust(data: bytes) -> bool:
    """A trust file."""
    try:
        TrustFile.parse(data.decode())
    except (AssayError, UnicodeDecodeError):
        return False
    return True


def policy(data: bytes) -> bool:
    """A quorum policy."""
    try:
        read = QuorumPolicy.parse(data.decode())
    except (AssayError, UnicodeDecodeError):
        return False
    demand(QuorumPolicy.parse(read.text()).text() == read.text(), "a policy reads back as another")
    return True


def stamp(data: bytes) -> bool:
    """An RFC 3161 response, and the DER reader under it."""
    _either(lambda: timestamp.verify(data, b"any note\n", TRUST.people_root))
    try:
        timestamp.open_response(data)
    except AssayError:
        return False
    return True


def cosigner(data: bytes) -> bool:
    """A witness's verifier key."""
    try:
        text = data.decode()
        read = CosignatureVerifier.parse(text)
    except (AssayError, UnicodeDecodeError):
        return False
    demand(read.vkey() == text, "a key has two spellings")
    return True


def add_checkpoint(data: bytes) -> bool:
    """A request to a witness."""
    try:
        read = AddCheckpoint.parse(data)
    except AssayError:
        return False
    lines = [f"old {read.old}", *(base64.b64encode(h).decode() for h in read.proof), "", ""]
    demand("\n".join(lines).encode() + read.note == data, "a request has two spellings")
    _either(lambda: fork.head_of(SignedNote.parse(read.note).text))
    return True


def fork_evidence(data: bytes) -> bool:
    """A file of fork evidence from elsewhere; what is no split view by itself proves none."""
    try:
        read = fork.Evidence.parse(data)
    except AssayError:
        return False
    demand(not fork.proves_split(read, [LOG]), "a split view was forged")
    return True


def _refused(call: Callable[[], object]) -> None:
    try:
        call()
    except AssayError:
        return
    raise Finding("one reader refuses what another accepts")


def _either(call: Callable[[], object]) -> None:
    """Calls what may refuse by name and in no other way."""
    try:
        call()
    except AssayError:
        pass


TARGETS: Mapping[str, Callable[[bytes], bool]] = {
    "note": note,
    "vkey": vkey,
    "proof": proof,
    "record": record,
    "envelope": envelope,
    "certificate": certificate,
    "tile": tile,
    "bundle": bundle,
    "trust": trust,
    "verdict": verdict,
    "policy": policy,
    "timestamp": stamp,
    "cosigner": cosigner,
    "add-checkpoint": add_checkpoint,
    "fork-evidence": fork_evidence,
}


def seeds(name: str) -> list[bytes]:
    """True inputs of a target, from the vectors and from this log's own writers; the parser accepts them all."""
    vectors = json.loads((VECTORS / "note_vectors.json").read_text("utf-8"))
    bodies = [path.read_bytes() for path in sorted((VECTORS / "records").glob("*.json"))]
    reader = TreeReader(EDGE, lambda level, n: TILES[0].hashes).read
    made: dict[str, Callable[[], list[bytes]]] = {
        "note": lambda: [NOTE, *(case["note"].encode() for case in vectors["notes"])],
        "vkey": lambda: [LOG.vkey().encode(), *(v.encode() for case in vectors["notes"] for v in case["vkeys"])],
        "proof": lambda: [ProofFile(5, tuple(tree.inclusion_proof(5, 256, reader)), NOTE).encode()],
        "record": lambda: bodies,
        "envelope": lambda: [json.dumps(r.envelope()).encode() for r in map(records.read, bodies) if r.signatures],
        "certificate": lambda: [TRUST.people_root.public_bytes(Encoding.DER), *_certificates(bodies)],
        "tile": lambda: [TILES[0].hashes],
        "bundle": lambda: [forge(bodies[:2]), forge([])],
        "trust": lambda: [plain_trust().encode()],
        "verdict": lambda: bodies,
        "policy": lambda: [_policy()],
        "timestamp": lambda: [(VECTORS / "timestamp.tsr").read_bytes()],
        "cosigner": lambda: [CosignatureVerifier.of("w.example/w", LOG_KEY.public_key()).vkey().encode()],
        "add-checkpoint": lambda: [b"old 0\n\n" + NOTE, b"old 5\n" + base64.b64encode(ROOT) + b"\n\n" + NOTE],
        "fork-evidence": lambda: [fork.Evidence("LOG_FORKED", ORIGIN, NOW, (NOTE, NOTE), (ROOT,)).encode()],
    }
    return made[name]()


def _policy() -> bytes:
    witnesses = ""
    for name in ("w1", "w2", "w3"):
        raw = Ed25519PrivateKey.from_private_bytes(name.encode() * 16).public_key().public_bytes_raw()
        identity = key_id(name, raw, 4).hex()
        witnesses += f"witness {name} {name}+{identity}+{base64.b64encode(bytes([4]) + raw).decode()}\n"
    return f"log {LOG.vkey()}\n{witnesses}group g 2 w1 w2 w3\nquorum g\n".encode()


def _certificates(bodies: list[bytes]) -> list[bytes]:
    return [base64.b64decode(s["cert"]) for body in bodies for s in records.read(body).signatures]
