"""The evidence bundle: names, derived files and the one way to write the ZIP. Export and verifier share it.

Everything in a bundle is either evidence (records, checkpoint, proofs, attachments, the log's policy) or derived from
it (manifest, unit chains, DSSE files, README). The derived files and the ZIP itself have exactly one spelling, so
that a verifier rebuilds the whole and demands identity: no byte is free to carry something else.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assay import canonical
from assay.digests import sha256_bytes
from assay.errors import ExhaustedError, InvalidInputError
from audit.ledger.records import TYPES, Record

POLICY = "policy.txt"
CHECKPOINT = "checkpoint"
CHAIN = "tenant-chain.json"
MANIFEST = "manifest.json"
README = "README.txt"
SCOPES = ("log", "unit", "selection")
MAX_ENTRIES = 65_000
MAX_BYTES = 1 << 29
# Parsed JSON takes up to 35 times its bytes in memory: what is parsed is bounded by its values. An object or array
# counts twice, another value once, which is about 100 bytes of memory a count.
MAX_VALUES = 8_000_000
MAX_POLICY_VALUES = 500_000
MAX_MANIFEST_ROW = 512
MAX_TEXT = 1024
MAX_TIMESTAMP = 65_536
MAX_TIMESTAMPS = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COMMITMENT = _DIGEST = re.compile(r"[0-9a-f]{64}")
_JUDGED = {"intake.decided": "decision", "release.decided": "verdict"}
"""Member of a record's predicate that holds policy's answer."""
_HEAD = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_DATE = (1 << 5) | 1  # 1980-01-01, the first day that the format knows

README_TEXT = b"""Evidence bundle of an Assay ledger.

checkpoint                  the log's signed statement of its size and root (C2SP signed note)
records/INDEX.json          exact bytes of each record: the data of leaf INDEX
proofs/INDEX.tlog-proof     proof that the record is in the log (c2sp.org/tlog-proof@v1)
consistency/OLD-NEW         proof that the log people signed over is a prefix of this one
dsse/INDEX.json             signed statements of people, as DSSE envelopes
tenant-chain.json           each unit's records in order: index, sequence number, leaf hash
attachments/NAME            documents that a record names by digest
payloads/COMMITMENT         what a record commits to and nobody had erased: 32 bytes of salt, then the payload
timestamps/NAME.tsr         RFC 3161 time stamps of the checkpoint by an authority, added after the export
policy.txt                  which log key and which witnesses the exporter used; not a reason to believe it
manifest.json               digest and size of every file

Verify with a trust file that did NOT come with this bundle:

    python -m audit.verify BUNDLE --trust trust.txt

Exit codes: 0 valid, 1 invalid, 2 wrong usage, 3 stale, 4 incomplete, 5 suspect (a key that was compromised later
signed some of it).
"""


_POLICY_LINES = b"""rules/SHA256.json           rules that a decision or verdict here names by this digest
limits/SHA256.json          limits, likewise
"""
"""Stand in the README of a bundle with such files alone, since the README of one from before is as it was."""


class Writable(Protocol):
    """Anything that takes bytes in order."""

    def write(self, data: bytes, /) -> int:
        """Writes all of ``data``."""
        ...


@dataclass(frozen=True)
class Entry:
    """A record in its place: index, exact bytes, leaf hash, and what the bytes say."""

    index: int
    body: bytes
    leaf: bytes
    record: Record


@dataclass(frozen=True)
class Header:
    """What the manifest says of the bundle as a whole.

    Attributes:
        log: origin.
        size: size of the checkpoint's tree.
        root: its root hash.
        scope: ``log`` (every record), ``unit`` (every record of one unit and of the system) or ``selection``.
        unit: the unit; empty for the whole log.
        quorum: which witnesses had to sign, in the exporter's words.
    """

    log: str
    size: int
    root: bytes
    scope: str
    unit: str
    quorum: str


def record_path(index: int) -> str:
    """Name of a record's file."""
    return f"records/{index}.json"


def proof_path(index: int) -> str:
    """Name of a record's proof."""
    return f"proofs/{index}.tlog-proof"


def consistency_path(old: int, new: int) -> str:
    """Name of a consistency proof."""
    return f"consistency/{old}-{new}"


def attachment_path(name: str) -> str:
    """Name of an attachment's file.

    Raises:
        InvalidInputError: ``ATTACHMENT_NAME`` for a name that is not one plain file name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError("ATTACHMENT_NAME", "an attachment has a plain ASCII file name")
    return f"attachments/{name}"


def timestamp_path(name: str) -> str:
    """Name of a time stamp's file.

    Raises:
        InvalidInputError: ``ATTACHMENT_NAME``.
    """
    if not _NAME.fullmatch(f"{name}.tsr"):
        raise InvalidInputError("ATTACHMENT_NAME", "a time stamp has a plain ASCII name")
    return f"timestamps/{name}.tsr"


def payload_path(commitment: str) -> str:
    """Name of a disclosed payload's file, which holds the salt and then the payload.

    Raises:
        InvalidInputError: ``BUNDLE_MALFORMED`` for a name that is no commitment.
    """
    if not _COMMITMENT.fullmatch(commitment):
        raise InvalidInputError("BUNDLE_MALFORMED", "a payload is not named by its commitment")
    return f"payloads/{commitment}"


def rules_path(sha256: str) -> str:
    """Name of the file with the text of rules."""
    return f"rules/{_named(sha256)}.json"


def limits_path(sha256: str) -> str:
    """Name of the file with the text of limits."""
    return f"limits/{_named(sha256)}.json"


def _named(sha256: str) -> str:
    if not _DIGEST.fullmatch(sha256):
        raise malformed("the text of a policy is not named by its digest")
    return sha256


def policies_named(entries: Iterable[Entry]) -> dict[tuple[str, str], int]:
    """Digests of rules and limits that decisions and verdicts name, each pair with the first record that does."""
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        answer = entry.record.predicate.get(_JUDGED.get(entry.record.type, ""))
        named = [answer.get(name) for name in ("bundle_sha256", "limits_sha256")] if isinstance(answer, dict) else []
        if named and all(isinstance(sha256, str) and _DIGEST.fullmatch(sha256) for sha256 in named):
            found.setdefault((str(named[0]), str(named[1])), entry.index)
    return found


def evidence_sizes(entries: Iterable[Entry], size: int) -> dict[int, set[str]]:
    """Tree sizes below ``size`` that people signed over, with the hex roots that they signed."""
    sizes: dict[int, set[str]] = {}
    for entry in entries:
        if entry.record.type == "approval.decided":
            signed, root = entry.record.predicate.get("evidence_size"), entry.record.predicate.get("evidence_root")
            if isinstance(signed, int) and not isinstance(signed, bool) and isinstance(root, str) and 0 < signed < size:
                sizes.setdefault(signed, set()).add(root)
    return sizes


def consistency_text(hashes: Sequence[bytes]) -> bytes:
    """A consistency proof's file: one base64 hash a line."""
    return "".join(base64.b64encode(value).decode() + "\n" for value in hashes).encode()


class Chains:
    """What the units' records make one after another: the chains of ``tenant-chain.json``."""

    def __init__(self) -> None:
        self._units: dict[str, list[list[Any]]] = {}

    def add(self, entry: Entry) -> None:
        """Takes the next record, in log order."""
        place = [entry.index, entry.record.sequence, entry.leaf.hex()]
        self._units.setdefault(entry.record.unit, []).append(place)

    def encode(self) -> bytes:
        """The file."""
        return canonical.encode({"v": 1, "units": self._units})


def envelope_file(entry: Entry) -> dict[str, bytes]:
    """The DSSE file of a record that people sign; none of another."""
    if not TYPES[entry.record.type].signed:
        return {}
    return {f"dsse/{entry.index}.json": canonical.encode(entry.record.envelope())}


def readme(policies: bool) -> bytes:
    """The README, of a bundle with policies' texts or without."""
    return README_TEXT.replace(b"policy.txt", _POLICY_LINES + b"policy.txt", 1) if policies else README_TEXT


def derived_files(entries: Sequence[Entry], *, policies: bool = False) -> dict[str, bytes]:
    """README, unit chains and DSSE files: what follows from the records, and from whether policies' texts are there."""
    chains, files = Chains(), {README: readme(policies)}
    for entry in entries:
        chains.add(entry)
        files |= envelope_file(entry)
    files[CHAIN] = chains.encode()
    return files


def values_in(texts: Iterable[bytes]) -> int:
    """Upper bound of the values in JSON texts, objects and arrays twice; counting is far cheaper than parsing."""
    return sum(2 * (text.count(b"{") + text.count(b"[")) + text.count(b",") for text in texts)


def manifest(header: Header, files: Mapping[str, bytes]) -> bytes:
    """The manifest over all other files."""
    rows = [
        {"path": path, "sha256": sha256_bytes(data), "size": len(data)}
        for path, data in ((path, files[path]) for path in sorted(files))
    ]
    return canonical.encode(
        {
            "v": 1,
            "log": header.log,
            "size": header.size,
            "root": header.root.hex(),
            "scope": header.scope,
            "unit": header.unit,
            "quorum": header.quorum,
            "files": rows,
        }
    )


def quorum_of(policy_text: str) -> str:
    """The ``quorum`` line of a policy; ``none`` when it has no such line."""
    for line in policy_text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "quorum":
            return value.strip()
    return "none"


def write_zip(files: Mapping[str, bytes], out: Writable) -> None:
    """Writes the ZIP: stored, sorted by name, one fixed date, no extra fields, so that equal files give equal bytes.

    Raises:
        ExhaustedError: ``BUNDLE_TOO_LARGE`` beyond what a bundle may hold; some of it may have been written by then.
    """
    if len(files) > MAX_ENTRIES:
        raise too_large(f"{len(files)} files")
    directory: list[bytes] = []
    offset = 0
    for path in sorted(files):
        name, data = path.encode("ascii"), files[path]
        crc = zlib.crc32(data)
        common = (10, 0, 0, 0, _DATE, crc, len(data), len(data), len(name), 0)
        head = _HEAD.pack(b"PK\x03\x04", *common) + name
        mode = 0o100644 << 16
        directory.append(_ENTRY.pack(b"PK\x01\x02", (3 << 8) | 10, *common, 0, 0, 0, mode, offset) + name)
        out.write(head)
        out.write(data)
        offset += len(head) + len(data)
        if offset > MAX_BYTES:
            raise too_large(f"more than {MAX_BYTES} bytes")
    table = b"".join(directory)
    out.write(table)
    out.write(_END.pack(b"PK\x05\x06", 0, 0, len(files), len(files), len(table), offset, 0))


def checkpoint_of(data: bytes) -> bytes:
    """The checkpoint note of a bundle, unverified.

    Raises:
        InvalidInputError: ``BUNDLE_MALFORMED``.
    """
    files = read_zip(data)
    if CHECKPOINT not in files:
        raise malformed("it has no checkpoint")
    return files[CHECKPOINT]


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """The whole ZIP in memory."""
    out = io.BytesIO()
    write_zip(files, out)
    return out.getvalue()


def read_zip(data: bytes) -> dict[str, bytes]:
    """Reads what :func:`write_zip` writes and nothing else; memory is bounded by the file, since nothing is compressed.

    Raises:
        InvalidInputError: ``BUNDLE_MALFORMED``.
    """
    if not _END.size <= len(data) <= MAX_BYTES + (MAX_ENTRIES << 8):
        raise malformed("the file is too short or too long")
    magic, disk, first, count, total, length, start, comment = _END.unpack(data[-_END.size :])
    if magic != b"PK\x05\x06" or disk or first or comment or count != total or count > MAX_ENTRIES:
        raise malformed("no plain end of directory")
    if start + length != len(data) - _END.size:
        raise malformed("the directory is not where its end says")
    files: dict[str, bytes] = {}
    position, begin = start, 0
    for _ in range(count):
        # One after another without overlap, or sixty thousand names for one megabyte would unpack to sixty gigabytes.
        name, body, position = _read_entry(data, position, begin, start)
        begin += _HEAD.size + len(name) + len(body)
        if name in files:
            raise malformed("two files of one name")
        files[name] = body
    if position != start + length:
        raise malformed("the directory has another length")
    return files


def _read_entry(data: bytes, position: int, begin: int, limit: int) -> tuple[str, bytes, int]:
    """One directory entry of a file at ``begin``: file name, contents, and where the next entry begins."""
    if position + _ENTRY.size > len(data):
        raise malformed("the directory is cut off")
    fields = _ENTRY.unpack_from(data, position)
    size, name_size, extra, comment, offset = fields[9], fields[10], fields[11], fields[12], fields[16]
    if fields[0] != b"PK\x01\x02" or fields[4] != 0 or fields[8] != size or extra or comment:
        raise malformed("a file is compressed or has extra fields")
    end = position + _ENTRY.size + name_size
    name = data[position + _ENTRY.size : end].decode("ascii", "replace")
    check_path(name)
    start = offset + _HEAD.size + name_size
    if offset != begin or start + size > limit:
        raise malformed("a file does not follow the one before it, or reaches into the directory")
    return name, data[start : start + size], end


def check_path(path: str) -> None:
    """Demands one or two plain name parts: nothing that climbs, hides or names a device.

    Raises:
        InvalidInputError: ``BUNDLE_MALFORMED``.
    """
    parts = path.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise malformed("a file has a name that is not plain")


def size_in_zip(path: str, data: bytes) -> int:
    """Bytes that a file takes in the ZIP, those of its places in it among them."""
    return _HEAD.size + _ENTRY.size + 2 * len(path) + len(data)


def too_large(what: str, remedy: str = "") -> ExhaustedError:
    """The refusal of a bundle that no verifier would open: a plain ZIP, read into memory, has an end."""
    most = f"a bundle holds {MAX_ENTRIES} files, {MAX_BYTES >> 20} MiB and {MAX_VALUES} JSON values in its records"
    return ExhaustedError("BUNDLE_TOO_LARGE", f"{what}, where {most}", remedy=remedy)


def malformed(message: str) -> InvalidInputError:
    """The refusal of a bundle that is not one."""
    return InvalidInputError("BUNDLE_MALFORMED", message)
