from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import IntegrityError, InternalError, InvalidInputError
from audit.ledger import tree
from audit.ledger.edge import TILE_BYTES, Edge, TreeReader
from audit.ledger.tree import leaf_hash, node_hash, verify_consistency, verify_inclusion
from tests.audit.ledger.ledger_world import refused

V: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data/vectors/merkle_vectors.json").read_text("utf-8"))
INPUTS = [bytes.fromhex(x) for x in V["leaf_inputs_hex"]]
LEAVES = [leaf_hash(x) for x in INPUTS]
ROOTS = [bytes.fromhex(x) for x in V["roots_by_size_hex"]]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """The RFC's recursion, written as it stands there."""
    if not leaves:
        return tree.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def reader(leaves: Sequence[bytes]) -> Callable[[Sequence[tree.Node]], list[bytes]]:
    return lambda nodes: [naive_root(leaves[i << level : (i + 1) << level]) for level, i in nodes]


def some_leaves(n: int) -> list[bytes]:
    return [leaf_hash(b"%d" % i) for i in range(n)]


def b64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_leaf_hashes_and_roots() -> None:
    assert [x.hex() for x in LEAVES] == V["leaf_hashes_hex"]
    for size, root in enumerate(ROOTS):
        assert tree.root_of(LEAVES[:size]) == root
        assert tree.root(size, reader(LEAVES)) == root


def test_interior_hashes() -> None:
    for level, row in enumerate(V["node_hashes_hex"].values(), 1):
        assert [naive_root(LEAVES[i << level : (i + 1) << level]).hex() for i in range(8 >> level)] == row[: 8 >> level]


@pytest.mark.parametrize("case", V["all_inclusion_proofs_le8"], ids=str)
def test_all_inclusion_proofs(case: dict[str, Any]) -> None:
    index, size = case["leafIdx"], case["treeSize"]
    proof = [bytes.fromhex(h) for h in case["proof"]]
    assert tree.inclusion_proof(index, size, reader(LEAVES)) == proof
    assert verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])


@pytest.mark.parametrize("case", V["all_consistency_proofs_le8"], ids=str)
def test_all_consistency_proofs(case: dict[str, Any]) -> None:
    old, new = case["size1"], case["size2"]
    proof = [bytes.fromhex(h) for h in case["proof"]]
    assert tree.consistency_proof(old, new, reader(LEAVES)) == proof
    assert verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


@pytest.mark.parametrize("case", V["upstream_inclusion_cases"], ids=lambda c: c["file"][19:])
def test_upstream_inclusion(case: dict[str, Any]) -> None:
    proof = [b64(h) for h in case["proof"] or ()]
    arguments = (case["leafIdx"], case["treeSize"], b64(case["leafHash"]), proof, b64(case["root"]))
    if case["wantErr"]:
        with pytest.raises(IntegrityError):
            verify_inclusion(*arguments)
    else:
        assert verify_inclusion(*arguments)


@pytest.mark.parametrize("case", V["upstream_consistency_cases"], ids=lambda c: c["file"][21:])
def test_upstream_consistency(case: dict[str, Any]) -> None:
    proof = [b64(h) for h in case["proof"] or ()]
    arguments = (case["size1"], case["size2"], b64(case["root1"]), b64(case["root2"]), proof)
    if case["wantErr"]:
        with pytest.raises(IntegrityError):
            verify_consistency(*arguments)
    else:
        assert verify_consistency(*arguments)


def test_upstream_has_the_expected_number_of_cases() -> None:
    cases = V["upstream_inclusion_cases"] + V["upstream_consistency_cases"]
    assert (len(cases), sum(not c["wantErr"] for c in cases)) == (196, 12)


def test_attack_15_proof_abuse() -> None:
    proof = tree.inclusion_proof(2, 5, reader(LEAVES))
    good = (2, 5, LEAVES[2], proof, ROOTS[5])
    assert verify_inclusion(*good)
    bad: list[tuple[Any, ...]] = [
        (2, 5, LEAVES[2], proof[:-1], ROOTS[5]),
        (2, 5, LEAVES[2], [*proof, LEAVES[0]], ROOTS[5]),
        (5, 5, LEAVES[2], proof, ROOTS[5]),
        (-1, 5, LEAVES[2], proof, ROOTS[5]),
        (2, 2**63, LEAVES[2], proof, ROOTS[5]),
        (2, 5, LEAVES[2][:31], proof, ROOTS[5]),
        (2, 5, LEAVES[2], [proof[0][:31], *proof[1:]], ROOTS[5]),
        (2, 5, LEAVES[2], proof, b""),
        (2, 5, LEAVES[2], ["x" * 32, *proof[1:]], ROOTS[5]),
        (True, 5, LEAVES[1], proof, ROOTS[5]),
        (2, 5, LEAVES[2], [LEAVES[0]] * 300, ROOTS[5]),
        (0, 1, b"", [], b""),
    ]
    for arguments in bad:
        refused("INCLUSION_BAD", lambda a=arguments: verify_inclusion(*a))
    shared = tree.consistency_proof(3, 7, reader(LEAVES))
    for arguments in [
        (0, 7, ROOTS[0], ROOTS[7], []),
        (0, 0, ROOTS[0], ROOTS[0], []),
        (7, 3, ROOTS[7], ROOTS[3], shared),
        (3, 7, ROOTS[3], ROOTS[7], shared[:-1]),
        (3, 7, ROOTS[3], ROOTS[7], [*shared, LEAVES[0]]),
        (3, 7, ROOTS[3], ROOTS[7], []),
        (4, 8, ROOTS[4], ROOTS[8], []),
        (3, 3, ROOTS[3], ROOTS[3], [LEAVES[0]]),
        (3, 3, ROOTS[3], ROOTS[4], []),
        (3, 7, ROOTS[4], ROOTS[7], shared),
        (3, 7, ROOTS[3], ROOTS[6], shared),
    ]:
        refused("CONSISTENCY_BAD", lambda a=arguments: verify_consistency(*a))


def test_attack_16_leaf_node_confusion_and_duplicated_leaf() -> None:
    a, b, c = INPUTS[1], INPUTS[2], INPUTS[3]
    inner = b"\x01" + leaf_hash(a) + leaf_hash(b)
    assert leaf_hash(inner) != node_hash(leaf_hash(a), leaf_hash(b))
    three = [leaf_hash(x) for x in (a, b, c)]
    assert tree.root_of(three) != tree.root_of([*three, three[2]])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, 2**63)])
def test_no_inclusion_proof_out_of_range(index: int, size: int) -> None:
    with pytest.raises(InvalidInputError):
        tree.inclusion_proof(index, size, reader(LEAVES))


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_no_consistency_proof_out_of_range(old: int, new: int) -> None:
    with pytest.raises(InvalidInputError):
        tree.consistency_proof(old, new, reader(LEAVES))


@settings(max_examples=60)
@given(st.integers(1, 200), st.data())
def test_proofs_agree_with_the_naive_recursion(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    read, root = reader(leaves), naive_root(leaves)
    assert tree.root_of(leaves) == tree.root(size, read) == root
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(index, size, read)
    assert len(proof) <= (size - 1).bit_length()
    verify_inclusion(index, size, leaves[index], proof, root)
    old = data.draw(st.integers(1, size))
    steps = tree.consistency_proof(old, size, read)
    assert len(steps) <= (size - 1).bit_length() + 1
    verify_consistency(old, size, naive_root(leaves[:old]), root, steps)


@settings(max_examples=80)
@given(st.integers(2, 120), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(index, size, reader(leaves))
    root = naive_root(leaves)
    at = data.draw(st.integers(0, len(proof) - 1))
    changed = bytearray(proof[at])
    changed[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        verify_inclusion(index, size, leaves[index], [*proof[:at], bytes(changed), *proof[at + 1 :]], root)
    other = data.draw(st.integers(0, size - 1).filter(lambda i: i != index))
    with pytest.raises(IntegrityError):
        verify_inclusion(other, size, leaves[index], proof, root)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_edge_and_tiles_give_every_node(batches: list[int]) -> None:
    leaves = some_leaves(sum(batches))
    edge, tiles, done = Edge(), {}, 0
    for count in batches:
        edge, full = edge.extend(leaves[done : done + count])
        tiles |= {(tile.level, tile.n): tile.hashes for tile in full}
        done += count
    assert all(len(hashes) == TILE_BYTES for hashes in tiles.values())
    assert edge.size == len(leaves)
    assert edge.root() == tree.root_of(leaves)
    read = TreeReader(edge, lambda level, n: tiles[level, n]).read
    assert tree.root(edge.size, read) == tree.root_of(leaves)
    for level in range(edge.size.bit_length()):
        last = (edge.size >> level) - 1
        for index in {0, last // 2, last} if last >= 0 else ():
            assert read([(level, index)]) == [tree.root_of(leaves[index << level : (index + 1) << level])]
    with pytest.raises(InternalError):
        read([(0, edge.size)])


def test_tile_begins_with_the_256_hashes_of_tlog_tiles() -> None:
    leaves = some_leaves(256)
    _, tiles = Edge().extend(leaves)
    assert tiles[0].hashes[:8192] == b"".join(leaves)
    assert tiles[0].hashes[-32:] == tree.root_of(leaves)


def test_a_tree_of_three_tile_levels() -> None:
    leaves = [i.to_bytes(32) for i in range(65536 + 300)]
    edge, full = Edge().extend(leaves)
    tiles = {(tile.level, tile.n): tile.hashes for tile in full}
    assert (1, 0) in tiles and len(edge.levels) == 3
    read = TreeReader(edge, lambda level, n: tiles[level, n]).read
    root = tree.root_of(leaves)
    for index in (0, 255, 256, 65535, 65536, 65835):
        verify_inclusion(index, edge.size, leaves[index], tree.inclusion_proof(index, edge.size, read), root)
    for old in (1, 256, 65535, 65536, 65537, 65836):
        verify_consistency(old, edge.size, tree.root(old, read), root, tree.consistency_proof(old, edge.size, read))
