"""As much of a DER reader as a time-stamp token takes: definite, minimal lengths; nothing recursive; no guessing."""

from __future__ import annotations

from dataclasses import dataclass

from assay.errors import InvalidInputError

INTEGER, OCTETS, OID, TIME, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x18, 0x30, 0x31


@dataclass(frozen=True)
class Node:
    """One element: its tag, its contents, and both together as they stand."""

    tag: int
    body: bytes
    whole: bytes

    def children(self, *tags: int) -> list[Node]:
        """The elements inside; with ``tags``, the first ones must carry exactly these.

        Raises:
            InvalidInputError: ``TIMESTAMP_MALFORMED``.
        """
        out: list[Node] = []
        rest = self.body
        while rest:
            node = _first(rest)
            out.append(node)
            rest = rest[len(node.whole) :]
        if [node.tag for node in out[: len(tags)]] != list(tags):
            raise malformed("an element is not of the kind that belongs there")
        return out

    def child(self, tag: int) -> Node:
        """The one element inside."""
        found = self.children(tag)
        if len(found) != 1:
            raise malformed("one element belongs there")
        return found[0]


def read(data: bytes) -> Node:
    """Reads bytes that are one element and nothing after it.

    Raises:
        InvalidInputError: ``TIMESTAMP_MALFORMED``.
    """
    node = _first(data)
    if node.whole != data:
        raise malformed("bytes after the end")
    return node


def write(tag: int, *parts: bytes) -> bytes:
    """One element of these contents."""
    body = b"".join(parts)
    size = len(body)
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    head = bytes([size]) if size < 0x80 else bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + head + body


def _first(data: bytes) -> Node:
    if len(data) < 2 or data[0] & 0x1F == 0x1F:
        raise malformed("an element is cut off, or has a long tag")
    start, size = 2, data[1]
    if size >= 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(data[2:start])
        if not 2 < start <= 6 or len(data) < start or size < 0x80 or data[2] == 0:
            raise malformed("a length is not minimal and definite")
    if start + size > len(data):
        raise malformed("an element is cut off")
    return Node(data[0], data[start : start + size], data[: start + size])


def malformed(message: str, reason: str = "TIMESTAMP_MALFORMED") -> InvalidInputError:
    """The refusal of a token that cannot be read."""
    return InvalidInputError(reason, message)
