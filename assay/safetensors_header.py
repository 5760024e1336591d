"""The header of a safetensors file, read without trusting a byte of it.

A file is eight bytes (little-endian length of the header), the header (a JSON object of tensor name to dtype, shape and
byte range), then the data. The ranges must tile the data exactly: no overlap, no hole, nothing after the last one, so
that no byte of an approved file is free for other use. Format: the safetensors README, section "Format".
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from assay.errors import InvalidInputError

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 100_000
MAX_RANK = 8

_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: data bytes ``begin`` to ``end`` hold ``shape`` elements of ``dtype``, row-major, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class SafetensorsHeader:
    """Tensors sorted by name, the text metadata, and the offset in the file at which the data starts."""

    tensors: tuple[TensorInfo, ...]
    metadata: tuple[tuple[str, str], ...]
    data_start: int


def read_header(path: Path) -> SafetensorsHeader:
    """Reads and checks the header; the data is not read.

    Raises:
        InvalidInputError: ``SAFETENSORS_NOT_A_FILE``, ``SAFETENSORS_TOO_SHORT``, ``SAFETENSORS_IS_PICKLE``,
            ``SAFETENSORS_HEADER_TOO_LARGE``, ``SAFETENSORS_HEADER_NOT_JSON``, ``SAFETENSORS_DUPLICATE_KEY``,
            ``SAFETENSORS_ENTRY``, ``SAFETENSORS_UNKNOWN_DTYPE``, ``SAFETENSORS_SHAPE``, ``SAFETENSORS_OFFSETS``,
            ``SAFETENSORS_OVERLAP``, ``SAFETENSORS_HOLE`` or ``SAFETENSORS_TRAILING_BYTES``.
    """
    facts = path.lstat() if path.is_symlink() or path.exists() else None
    if facts is None or not stat.S_ISREG(facts.st_mode):
        _refuse("NOT_A_FILE", "not a plain file")
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(8)
        if len(head) < 8:
            _refuse("TOO_SHORT", "shorter than eight bytes")
        length = int.from_bytes(head, "little")
        if _looks_like_pickle(head):
            _refuse("IS_PICKLE", "a pickle or an archive under a safetensors name; it was not opened")
        if length > MAX_HEADER_BYTES or length < 2:
            _refuse("HEADER_TOO_LARGE", f"declares a header of {length} bytes, allowed are 2 to {MAX_HEADER_BYTES}")
        if 8 + length > size:
            _refuse("TOO_SHORT", f"declares a header of {length} bytes but holds {size} bytes in all")
        entries = _parse(stream.read(length))
    metadata = _metadata(entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        _refuse("ENTRY", f"holds {len(entries)} tensors, allowed are {MAX_TENSORS}")
    tensors = tuple(_tensor(name, entry) for name, entry in sorted(entries.items()))
    _check_tiling(tensors, size - 8 - length)
    return SafetensorsHeader(tensors, metadata, 8 + length)


def _looks_like_pickle(head: bytes) -> bool:
    # Protocol 2 to 5 pickles start with 0x80 and the protocol number, torch.save's default is a zip archive.
    # A pickle is also handed around in a 7z archive.
    archive = head.startswith((b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c"))
    return archive or (head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2:8] != bytes(6))


def _parse(raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            _refuse("DUPLICATE_KEY", "the header names a key twice")
        return dict(pairs)

    try:
        value = json.loads(raw.decode("utf-8", "strict"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        _refuse("HEADER_NOT_JSON", "the header is not UTF-8 JSON")
    if not isinstance(value, dict):
        _refuse("HEADER_NOT_JSON", "the header is not an object")
    return value


def _metadata(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        _refuse("ENTRY", "__metadata__ must map text to text")
    return tuple(sorted(value.items()))


def _tensor(name: str, entry: Any) -> TensorInfo:
    shown = repr(name[:120])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse("ENTRY", f"tensor {shown} must have dtype, shape and data_offsets and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        _refuse("UNKNOWN_DTYPE", f"tensor {shown} has an unknown dtype")
    if not _whole_numbers(shape) or len(shape) > MAX_RANK:
        _refuse("SHAPE", f"tensor {shown} has a malformed shape")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse("OFFSETS", f"tensor {shown} has malformed offsets")
    tensor = TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * _ITEM_BYTES[dtype] != tensor.end - tensor.begin:
        _refuse("SHAPE", f"tensor {shown}: shape and dtype do not fill its byte range")
    return tensor


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_tiling(tensors: tuple[TensorInfo, ...], data_bytes: int) -> None:
    position = 0
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.end)):
        shown = repr(tensor.name[:120])
        if tensor.end > data_bytes:
            _refuse("OFFSETS", f"tensor {shown} ends beyond the file")
        if tensor.begin < position:
            _refuse("OVERLAP", f"tensor {shown} overlaps another")
        if tensor.begin > position:
            _refuse("HOLE", f"bytes before tensor {shown} belong to no tensor")
        position = tensor.end
    if position != data_bytes:
        _refuse("TRAILING_BYTES", f"{data_bytes - position} bytes after the last tensor belong to none")


def _refuse(reason: str, what: str) -> NoReturn:
    raise InvalidInputError(f"SAFETENSORS_{reason}", f"safetensors file: {what}")
