"""RFC 9162 Merkle trees over SHA-256: hashes, proofs and verifiers; no storage, no state.

Leaf hash ``SHA-256(0x00 || data)``, node hash ``SHA-256(0x01 || left || right)``, split at the largest power of two
below n, the empty tree's root is ``SHA-256("")`` (RFC 9162 section 2.1.1). A *node* is named by ``(level, index)``:
the root of the perfect subtree over leaves ``index << level`` up to ``(index + 1) << level``. Proofs are made from
perfect nodes only, so that a store needs nothing else. Verifiers refuse by exception and check every length
themselves: two upstream vectors exist because others did not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from assay.errors import IntegrityError, InvalidInputError

HASH_SIZE = 32
MAX_SIZE = 2**63 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = tuple[int, int]
ReadNodes = Callable[[Sequence[Node]], Sequence[bytes]]


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf's data."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an interior node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes, in one pass and O(log n) memory."""
    stack: list[bytes] = []
    sha256 = hashlib.sha256
    push, pop = stack.append, stack.pop
    for size, leaf in enumerate(leaves):
        value, merges = leaf, size
        while merges & 1:
            value = sha256(b"\x01" + pop() + value).digest()
            merges >>= 1
        push(value)
    return fold_peaks(stack)


def fold_peaks(stack: Sequence[bytes]) -> bytes:
    """Root over the hashes of the peaks, largest first; the empty tree's for none."""
    if not stack:
        return EMPTY_ROOT
    value = stack[-1]
    for peak in reversed(stack[:-1]):
        value = node_hash(peak, value)
    return value


def peaks(begin: int, end: int) -> list[Node]:
    """Perfect nodes that cover leaves ``begin`` up to ``end``, left to right.

    For ``begin = 0`` these are the peaks of the tree of ``end`` leaves.
    """
    nodes: list[Node] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        nodes.append((level, begin >> level))
        begin += 1 << level
    return nodes


def root(size: int, read: ReadNodes) -> bytes:
    """Root of the first ``size`` leaves, from stored perfect nodes."""
    return fold_peaks(read(peaks(0, size)))


def inclusion_proof(index: int, size: int, read: ReadNodes) -> list[bytes]:
    """Sibling hashes from leaf to root (RFC 9162 section 2.1.3.1).

    Raises:
        InvalidInputError: ``PROOF_RANGE`` unless ``0 <= index < size``.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise InvalidInputError("PROOF_RANGE", f"index {index} is not in a tree of size {size}")
    return _read_ranges(_path(index, 0, size), read)


def consistency_proof(old: int, new: int, read: ReadNodes) -> list[bytes]:
    """Hashes that show the tree of ``old`` leaves to be a prefix of that of ``new`` (RFC 9162 section 2.1.4.1).

    Raises:
        InvalidInputError: ``PROOF_RANGE`` unless ``1 <= old <= new``.
    """
    if not 1 <= old <= new <= MAX_SIZE:
        raise InvalidInputError("PROOF_RANGE", f"no consistency proof from {old} to {new}")
    if old == new:
        return []
    return _read_ranges(_subproof(old, 0, new, True), read)


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], expected: bytes) -> bool:
    """Checks an inclusion proof (RFC 9162 section 2.1.3.2): leaf hash ``leaf`` is at ``index`` under root ``expected``.

    Returns:
        True, so that it can stand in a condition; a proof that does not hold is an exception, never False.

    Raises:
        IntegrityError: ``INCLUSION_BAD``.
    """
    _require_hashes("INCLUSION_BAD", [leaf, expected, *proof])
    if not _is_index(index) or not _is_index(size) or not 0 <= index < size <= MAX_SIZE:
        raise IntegrityError("INCLUSION_BAD", "the index is not in the tree")
    if root_from_inclusion(index, size, leaf, proof) != expected:
        raise IntegrityError("INCLUSION_BAD", f"the proof of index {index} leads to another root")
    return True


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Root that a proof of the right length leads to; :func:`verify_inclusion` is the check.

    Raises:
        IntegrityError: ``INCLUSION_BAD`` when the proof's length is wrong for index and size.
    """
    node, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise IntegrityError("INCLUSION_BAD", "the proof is too long")
        if node & 1 or node == last:
            value = node_hash(sibling, value)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            value = node_hash(value, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise IntegrityError("INCLUSION_BAD", "the proof is too short")
    return value


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Checks a consistency proof (RFC 9162 section 2.1.4.2); an empty old tree proves nothing and is refused.

    Returns:
        True, so that it can stand in a condition; a proof that does not hold is an exception, never False.

    Raises:
        IntegrityError: ``CONSISTENCY_BAD``.
    """
    if not _is_index(old) or not _is_index(new) or not 1 <= old <= new <= MAX_SIZE:
        raise IntegrityError("CONSISTENCY_BAD", "sizes must satisfy 1 <= old <= new")
    if old == new:
        if proof or old_root != new_root:
            raise IntegrityError("CONSISTENCY_BAD", "one size, two roots")
        return True  # nothing is hashed; an upstream vector has equal roots that are no hashes
    _require_hashes("CONSISTENCY_BAD", [old_root, new_root, *proof])
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise IntegrityError("CONSISTENCY_BAD", "the proof is empty")
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = hashes[0]
    for value in hashes[1:]:
        if last == 0:
            raise IntegrityError("CONSISTENCY_BAD", "the proof is too long")
        if node & 1 or node == last:
            first = node_hash(value, first)
            second = node_hash(value, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = node_hash(second, value)
        node >>= 1
        last >>= 1
    if last != 0 or first != old_root or second != new_root:
        raise IntegrityError("CONSISTENCY_BAD", f"size {old} is not a prefix of size {new}")
    return True


def _path(index: int, begin: int, end: int) -> list[tuple[int, int]]:
    """Leaf ranges of PATH(index, D[begin:end]), leaf to root."""
    ranges: list[tuple[int, int]] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def _subproof(old: int, begin: int, end: int, whole: bool) -> list[tuple[int, int]]:
    """Leaf ranges of SUBPROOF(old, D[begin:end], whole), in proof order."""
    ranges: list[tuple[int, int]] = []
    while old != end - begin:
        middle = _split(end - begin)
        if old <= middle:
            ranges.append((begin + middle, end))
            end = begin + middle
        else:
            ranges.append((begin, begin + middle))
            old -= middle
            begin += middle
            whole = False
    if not whole:
        ranges.append((begin, end))
    return ranges[::-1]


def _read_ranges(ranges: Sequence[tuple[int, int]], read: ReadNodes) -> list[bytes]:
    """Reads all nodes of all ranges in one call and folds each range to its subtree hash."""
    covers = [peaks(begin, end) for begin, end in ranges]
    values = iter(read([node for cover in covers for node in cover]))
    return [fold_peaks([next(values) for _ in cover]) for cover in covers]


def _split(n: int) -> int:
    """Largest power of two strictly below n, for n >= 2."""
    return 1 << ((n - 1).bit_length() - 1)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_hashes(reason: str, values: Sequence[object]) -> None:
    if len(values) > 200:
        raise IntegrityError(reason, "the proof is too long")
    for value in values:
        if not isinstance(value, bytes) or len(value) != HASH_SIZE:
            raise IntegrityError(reason, "a hash is not 32 bytes")
