"""The table of attacks in README.md names tests that exist; and the cases that have no better home."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from assay import canonical, dsse
from audit.ledger import evidence, records, tree
from audit.ledger.ledger import system_sources
from audit.ledger.note import Checkpoint, ProofFile, Verifier, key_id, open_checkpoint, sign_note
from audit.ledger.records import Place, RecordDraft
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import (
    JOB,
    ORIGIN,
    START,
    Person,
    Story,
    World,
    authority,
    b64,
    ed25519,
    p256,
    person_certificate,
    refused,
    subject,
)
from tests.audit.verify.forge import edited, forge, pack, plain_trust
from tests.readme_rows import absent, functions, named, rows

FOLDER = Path(__file__).parent
CASES = [*range(1, 19), 21, 26, 29, 30, 31, 37, 38, 40, 41, 42, 44]
OPENING = (FOLDER.parent / "data/vectors/records/log.opened.json").read_bytes()
TRUST = TrustFile.parse(plain_trust())


ROWS = {int(row.split("|")[1]): row for row in rows(FOLDER / "README.md", r"\| \d+ \|")}


def test_every_case_has_a_row() -> None:
    assert list(ROWS) == CASES


@pytest.mark.parametrize("case", CASES)
def test_the_tests_named_exist(case: int) -> None:
    assert absent(FOLDER, ROWS[case]) == []


def test_every_test_of_a_case_is_named_in_its_row() -> None:
    for path in sorted(FOLDER.parent.rglob("test_*.py")):
        for name in functions(path):
            for case in map(int, re.findall(r"\d+", "".join(re.findall(r"attack_\d+(?:_and_\d+)*", name)))):
                assert case not in ROWS or (path, name) in named(FOLDER, ROWS[case]), f"{path}::{name}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A ledger with the machine's own randomness."""
    made = World(tmp_path)
    made.nonces = system_sources().nonce
    made.ledger = made.open()
    return made.start()


def failed(data: bytes, trust: TrustFile = TRUST) -> list[str]:
    """Failing checks of a bundle that must be invalid."""
    report = verify_bytes(data, trust, START)
    assert report.verdict == "invalid"
    return [c.detail for c in report.checks if c.outcome == "failed"]


def test_attack_12_two_checkpoints_of_one_size_cannot_both_be_believed() -> None:
    """Both are signed by the log; who holds one refuses the other, and the pair is the proof of the fork."""
    key, log = ed25519("log"), Verifier.of(ORIGIN, ed25519("log").public_key())
    notes = [sign_note(Checkpoint(ORIGIN, 7, root * 32).text(), ORIGIN, key) for root in (b"a", b"b")]
    first, second = (open_checkpoint(note, log) for note in notes)
    assert first.size == second.size and first.root != second.root
    refused("CONSISTENCY_BAD", lambda: tree.verify_consistency(7, 7, first.root, second.root, []))
    refused("CONSISTENCY_BAD", lambda: tree.verify_consistency(7, 7, first.root, second.root, [first.root]))


def test_attack_16_a_node_shown_as_a_leaf() -> None:
    """An interior node's preimage, placed as a record one level up with the shorter proof that would fit it."""
    leaves = [tree.leaf_hash(b"%d" % i) for i in range(4)]
    root = tree.root_of(leaves)
    inner = leaves[0] + leaves[1]
    sibling = tree.node_hash(leaves[2], leaves[3])
    assert tree.root_from_inclusion(0, 2, tree.node_hash(leaves[0], leaves[1]), [sibling]) == root
    for body in (inner, b"\x01" + inner):
        for size in (2, 3, 4):
            refused(
                "INCLUSION_BAD", lambda b=body, s=size: tree.verify_inclusion(0, s, tree.leaf_hash(b), [sibling], root)
            )


def test_attack_16_the_last_record_doubled() -> None:
    """The duplicated-leaf trick of other trees: a third leaf shown again as a fourth."""
    body = edited(OPENING, nonce="1" * 32)
    files = evidence.read_zip(forge([OPENING, OPENING, body]))
    proof = ProofFile.parse(files["proofs/2.tlog-proof"])
    files["records/3.json"] = body
    files["proofs/3.tlog-proof"] = ProofFile(3, proof.hashes, proof.checkpoint).encode()
    assert failed(pack(files))[0].startswith("INCLUSION_BAD")


def test_attack_26_signed_with_a_services_certificate(world: World) -> None:
    """The gateway has a certificate and a key of its own; neither makes it a person."""
    story = Story(world).found().ask().decide().train().audit()
    key = p256("gateway tls")
    own = authority("services root")
    for cert in (
        person_certificate(key, ["spiffe://assay.local/services/gateway"], own),
        person_certificate(key, [subject("cora")], own),
        person_certificate(key, ["spiffe://assay.local/services/gateway"], world.root),
    ):
        world.people["cora"] = Person("cora", key, cert)
        story.approve("cora", "ROLE_COMPLIANCE_OFFICER")
    details = failed(world.export(), world.trust)
    assert len([d for d in details if "CERTIFICATE_BAD" in d]) == 3
    world.close()


def test_attack_29_no_two_records_share_a_nonce(world: World) -> None:
    Story(world).whole()
    nonces = [records.read(r.body).nonce for r in world.ledger.records(limit=500)]
    assert len(nonces) > 20 and len(set(nonces)) == len(nonces)
    assert all(re.fullmatch(r"[0-9a-f]{32}", nonce) for nonce in nonces)
    world.close()


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\x00", "a\u202eb", "A", "a" * 100, "", "a/b", "../a"])
def test_attack_42_names_that_would_move_a_cursor(name: str) -> None:
    place = Place(ORIGIN, 1, None, START, "0" * 32)
    job = {"job": f"units/credit/tuningJobs/{name}"}
    refused(
        "RECORD_MALFORMED", lambda: records.encode(RecordDraft("credit", "job.preparing", "transition", job), place)
    )
    refused("RECORD_MALFORMED", lambda: records.encode(RecordDraft(name, "policy.published", "policy", {}), place))
    refused("RECORD_MALFORMED", lambda: records.read(edited(OPENING, tenant=name)))


def test_attack_44_other_versions_and_weak_keys(world: World) -> None:
    value = canonical.decode(OPENING)
    for uri in ("https://assay.dev/predicate/log-event/v0", "https://assay.dev/predicate/log-event/v2", "x"):
        changed = {**value["statement"], "predicateType": uri}
        refused("RECORD_MALFORMED", lambda c=changed: records.read(edited(OPENING, statement=c)))
        assert failed(forge([edited(OPENING, statement=changed)]))[0].startswith("RECORD_MALFORMED")
    raw = ed25519("log").public_key().public_bytes_raw()
    for kind in (0, 2, 3, 4, 5, 255):
        text = f"{ORIGIN}+{key_id(ORIGIN, raw, kind).hex()}+{b64(bytes([kind]) + raw)}"
        refused("VKEY_MALFORMED", lambda t=text: Verifier.parse(t))
    weak = ec.derive_private_key(12345, ec.SECP192R1())
    cert = person_certificate(weak, [subject("cora")], world.root)
    statement = canonical.encode(dsse.statement("approval", {"job": JOB}, []))
    signature = weak.sign(dsse.pae(dsse.PAYLOAD_TYPE, statement), ec.ECDSA(hashes.SHA256()))
    item = {"keyid": "", "sig": b64(signature), "cert": b64(cert.public_bytes(Encoding.DER))}
    envelope = {"payloadType": dsse.PAYLOAD_TYPE, "payload": b64(statement), "signatures": [item]}
    refused("CERTIFICATE_BAD", lambda: dsse.verify_person(envelope, world.root[1], START))
    world.close()
