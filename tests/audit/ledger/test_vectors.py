"""Every public vector, run and counted in one place: a file that lost cases, or a test that ran fewer, shows here."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from assay import canonical, dsse
from assay.errors import AssayError
from audit.ledger import tree
from audit.ledger.note import Verifier, open_note

VECTORS = Path(__file__).parents[2] / "data/vectors"
MERKLE: dict[str, Any] = json.loads((VECTORS / "merkle_vectors.json").read_text("utf-8"))
NOTES: dict[str, Any] = json.loads((VECTORS / "note_vectors.json").read_text("utf-8"))
LEAVES = [tree.leaf_hash(bytes.fromhex(text)) for text in MERKLE["leaf_inputs_hex"]]
ROOTS = [bytes.fromhex(text) for text in MERKLE["roots_by_size_hex"]]


def outcome(call: Callable[[], object]) -> str:
    """``accepted``, or the reason of the refusal; anything but a named refusal is raised."""
    try:
        call()
    except AssayError as error:
        return error.reason
    return "accepted"


def b64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def subtree(nodes: Sequence[tree.Node]) -> list[bytes]:
    return [tree.root_of(LEAVES[i << level : (i + 1) << level]) for level, i in nodes]


def test_eight_leaves_and_nine_roots() -> None:
    assert [leaf.hex() for leaf in LEAVES] == MERKLE["leaf_hashes_hex"]
    assert [tree.root_of(LEAVES[:size]) for size in range(9)] == ROOTS
    assert (len(LEAVES), len(ROOTS)) == (8, 9)


def test_four_hasher_cases() -> None:
    seen: Counter[str] = Counter()
    for case in MERKLE["hasher_vectors"]:
        made = {
            "empty root": lambda: tree.EMPTY_ROOT,
            "leaf": lambda c=case: tree.leaf_hash(
                bytes.fromhex(c.get("data_hex", "")) + c.get("data_utf8", "").encode()
            ),
            "node": lambda c=case: tree.node_hash(c["left_utf8"].encode(), c["right_utf8"].encode()),
        }[case["kind"]]()  # type: ignore[no-untyped-call]
        assert made.hex() == case["hash"]
        seen[case["kind"]] += 1
    assert seen == {"empty root": 1, "leaf": 2, "node": 1}


def test_seventy_two_proofs_are_made_and_accepted() -> None:
    seen: Counter[str] = Counter()
    for case in MERKLE["all_inclusion_proofs_le8"]:
        index, size, proof = case["leafIdx"], case["treeSize"], [bytes.fromhex(h) for h in case["proof"]]
        assert tree.inclusion_proof(index, size, subtree) == proof
        seen[outcome(lambda: tree.verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size]))] += 1  # noqa: B023
    for case in MERKLE["all_consistency_proofs_le8"]:
        old, new, proof = case["size1"], case["size2"], [bytes.fromhex(h) for h in case["proof"]]
        assert tree.consistency_proof(old, new, subtree) == proof
        seen[outcome(lambda: tree.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof))] += 1  # noqa: B023
    assert seen == {"accepted": 72}


def test_196_upstream_cases_end_as_expected() -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for case in MERKLE["upstream_inclusion_cases"]:
        proof = [b64(h) for h in case["proof"] or ()]
        given = (case["leafIdx"], case["treeSize"], b64(case["leafHash"]), proof, b64(case["root"]))
        seen[outcome(lambda: tree.verify_inclusion(*given)), case["wantErr"]] += 1  # noqa: B023
    for case in MERKLE["upstream_consistency_cases"]:
        proof = [b64(h) for h in case["proof"] or ()]
        both = (case["size1"], case["size2"], b64(case["root1"]), b64(case["root2"]), proof)
        seen[outcome(lambda: tree.verify_consistency(*both)), case["wantErr"]] += 1  # noqa: B023
    assert seen.total() == 196
    assert {key: n for key, n in seen.items() if key[0] == "accepted"} == {("accepted", False): 12}
    assert {key for key in seen if key[0] != "accepted"} == {("INCLUSION_BAD", True), ("CONSISTENCY_BAD", True)}


def test_eighteen_notes_open() -> None:
    opened = 0
    for case in NOTES["notes"]:
        note = open_note(case["note"].encode(), [Verifier.parse(v) for v in case["vkeys"]])
        assert list(note.signers) == [name.rpartition("+")[0] for name in case["verified_by"]]
        opened += 1
    assert opened == 18


def test_every_key_that_must_be_rejected() -> None:
    """Every proper substring of a key, every byte of it incremented, and the two that upstream names."""
    vkey = NOTES["notes"][1]["vkeys"][0]
    ends = [(i, j) for i in range(len(vkey)) for j in range(i, len(vkey) + 1) if (i, j) != (0, len(vkey))]
    bad = [vkey[i:j] for i, j in ends]
    bad += [vkey[:i] + chr(ord(vkey[i]) + 1) + vkey[i + 1 :] for i in range(len(vkey))]
    bad += NOTES["must_reject"][2:]
    seen = Counter(outcome(lambda text=text: Verifier.parse(text)) for text in bad)  # type: ignore[misc]
    assert outcome(lambda: Verifier.parse(vkey)) == "accepted"
    assert seen == {"VKEY_MALFORMED": len(bad)}
    assert len(bad) == len(ends) + len(vkey) + 2 > 2_000


def test_the_checksum_databases_tree_text_reads_as_a_checkpoints() -> None:
    text = NOTES["go_sumdb_tree_text"]["text"].split("\n")
    assert b64(text[2]) == tree.leaf_hash(b"hello world")


def test_the_dsse_vector() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    case = NOTES["dsse"]
    message = dsse.pae(case["payloadType"], case["payload"].encode())
    assert message.decode() == case["pae"]
    raw = b64(case["sig_b64"])
    signature = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    key = ec.EllipticCurvePublicNumbers(int(case["x"]), int(case["y"]), ec.SECP256R1()).public_key()
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def test_six_canonicalisation_cases() -> None:
    """Inside the subset the bytes are those of RFC 8785; the cases with floats or keys beyond ASCII are refused."""
    seen = {}
    for case in NOTES["jcs"]:
        value = json.loads(case["input_utf8"])
        seen[case["name"]] = outcome(lambda: canonical.encode(value))  # noqa: B023
        if seen[case["name"]] == "accepted":
            assert canonical.encode(value).hex() == case["output_hex"]
    assert seen == {
        "arrays": "accepted",
        "french": "NOT_CANONICAL",
        "structures": "NOT_CANONICAL",
        "unicode": "accepted",
        "values": "NOT_CANONICAL",
        "weird": "NOT_CANONICAL",
    }


def test_the_files_are_the_ones_whose_source_is_named() -> None:
    """Digests of the copies; tests/data/vectors/README.md names source and licence of each."""
    text = (VECTORS / "README.md").read_text()
    for name in ("merkle_vectors.json", "note_vectors.json"):
        assert hashlib.sha256((VECTORS / name).read_bytes()).hexdigest() in text
    assert "Apache-2.0" in text and "BSD-3-Clause" in text and "CC BY 4.0" in text
