"""From a hostile file to entries under one signed checkpoint: bounded, strict, and rebuilt byte for byte.

Nothing here needs to know what records mean. Afterwards every record is proved to be in the log that the trust file's
key signed, and every byte of the bundle is accounted for: evidence that was checked, or text that follows from it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.dsse import decode_shallow
from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError
from audit.ledger import evidence, records, tree
from audit.ledger.commitment import SALT_SIZE, Opening, commitments_of
from audit.ledger.evidence import Entry, Header
from audit.ledger.note import Checkpoint, ProofFile, Verifier, open_checkpoint, read_hash, read_number

_RECORD = re.compile(r"records/(0|[1-9][0-9]{0,18})\.json")
_TIMESTAMP = re.compile(r"timestamps/([^/]+)\.tsr")
_POLICY_TEXT = re.compile(r"(?:rules|limits)/[0-9a-f]{64}\.json")
_HASHES = re.compile(r"[0-9a-f]{64}")
_LONGEST_PROOF = 64 * 45


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes are all accounted for.

    Attributes:
        header: what its manifest says of it, checked against the checkpoint.
        entries: its records, by index, each proved to be in the log.
        attachments: documents by name.
        note: its checkpoint as signed, with every line; only the log's Ed25519 line is verified.
        timestamps: RFC 3161 responses over the checkpoint by name, not looked into.
        payloads: salt and payload by commitment, each opened.
        policies: texts of rules and limits by path, not looked into.
    """

    header: Header
    entries: tuple[Entry, ...]
    attachments: Mapping[str, bytes]
    note: bytes
    timestamps: Mapping[str, bytes]
    payloads: Mapping[str, bytes]
    policies: Mapping[str, bytes]


def read_file(path: Path) -> bytes:
    """Reads a plain file of bounded size.

    Raises:
        InvalidInputError: ``BUNDLE_MALFORMED`` for anything else.
    """
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > evidence.MAX_BYTES:
                raise InvalidInputError("BUNDLE_MALFORMED", "not a plain file, or too long")
            return stream.read(evidence.MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInputError("BUNDLE_MALFORMED", f"cannot be read: {error.strerror}") from error


def open_bundle(data: bytes, log: Verifier) -> Bundle:
    """Checks everything about a bundle but the meaning of its records.

    Raises:
        InvalidInputError: a file, record, proof or checkpoint is malformed.
        IntegrityError: ``MANIFEST_MISMATCH``, ``BUNDLE_NOT_IDENTICAL``, ``NOTE_SIGNATURE_BAD``, ``CHECKPOINT_ORIGIN``,
            ``INCLUSION_BAD``, ``CONSISTENCY_BAD``, ``PROOF_OF_ANOTHER_CHECKPOINT``, ``COMMITMENT_MISMATCH`` or
            ``COMMITMENT_SALT``.
    """
    files = evidence.read_zip(data)
    note = _member(files, evidence.CHECKPOINT)
    checkpoint = open_checkpoint(note, log)
    header = _header(files, checkpoint)
    entries = _entries(files, checkpoint, note)
    attachments = {p.partition("/")[2]: d for p, d in files.items() if p.startswith("attachments/")}
    timestamps = {m[1]: d for p, d in files.items() if (m := _TIMESTAMP.fullmatch(p))}
    if len(timestamps) > evidence.MAX_TIMESTAMPS:
        raise InvalidInputError("BUNDLE_MALFORMED", f"more than {evidence.MAX_TIMESTAMPS} time stamps")
    payloads = _payloads(files, entries)
    policies = {p: d for p, d in files.items() if _POLICY_TEXT.fullmatch(p)}
    if any(evidence.values_in([text]) > evidence.MAX_POLICY_VALUES for text in policies.values()):
        raise ExhaustedError("BUNDLE_TOO_LARGE", "the text of a policy holds more values than can be read at once")
    rebuilt = {
        evidence.POLICY: _member(files, evidence.POLICY),
        evidence.CHECKPOINT: note,
        **evidence.derived_files(entries, policies=bool(policies)),
        **{evidence.record_path(e.index): e.body for e in entries},
        **{evidence.proof_path(e.index): files[evidence.proof_path(e.index)] for e in entries},
        **_consistency(files, entries, checkpoint),
        **{evidence.attachment_path(name): content for name, content in attachments.items()},
        **{evidence.timestamp_path(name): content for name, content in timestamps.items()},
        **{evidence.payload_path(commitment): content for commitment, content in payloads.items()},
        **policies,
    }
    rebuilt[evidence.MANIFEST] = evidence.manifest(header, rebuilt)
    for path in sorted(files.keys() | rebuilt.keys()):
        if files.get(path) != rebuilt.get(path):
            raise IntegrityError(
                "MANIFEST_MISMATCH", f"{path} is missing, foreign or not what follows from the records"
            )
    whole = _Comparing(data)
    evidence.write_zip(rebuilt, whole)
    if not whole.identical:
        raise IntegrityError("BUNDLE_NOT_IDENTICAL", "the file holds bytes that its contents do not explain")
    _check_policy(rebuilt[evidence.POLICY], header, log)
    return Bundle(header, tuple(entries), attachments, note, timestamps, payloads, policies)


def _header(files: Mapping[str, bytes], checkpoint: Checkpoint) -> Header:
    """Reads the manifest's head; its file list is compared as a whole later."""
    text = _member(files, evidence.MANIFEST)
    # Nothing but a digest in it is signed: before it is parsed it may be as large as its own files can make it.
    rows = len(files) + evidence.MAX_TEXT
    if len(text) > evidence.MAX_MANIFEST_ROW * rows or evidence.values_in([text]) > 8 * rows:
        raise InvalidInputError("BUNDLE_MALFORMED", "the manifest holds more than a list of files")
    value = decode_shallow(text)
    members: dict[str, Any] = value if isinstance(value, dict) else {}
    texts = {name: members.get(name) for name in ("log", "root", "scope", "unit", "quorum")}
    if members.get("v") != 1 or not all(isinstance(t, str) and len(t) <= evidence.MAX_TEXT for t in texts.values()):
        raise InvalidInputError("BUNDLE_MALFORMED", "the manifest is not of version 1")
    if texts["scope"] not in evidence.SCOPES or not _HASHES.fullmatch(str(texts["root"])):
        raise InvalidInputError("BUNDLE_MALFORMED", "the manifest's scope or root is malformed")
    if (texts["scope"] == "unit") != bool(texts["unit"]) and texts["scope"] != "selection":
        raise InvalidInputError("BUNDLE_MALFORMED", "the manifest's unit does not go with its scope")
    size = members.get("size")
    claimed = Checkpoint(str(texts["log"]), size if isinstance(size, int) else -1, bytes.fromhex(str(texts["root"])))
    if claimed != checkpoint:
        raise IntegrityError("MANIFEST_MISMATCH", "the manifest is of another checkpoint")
    return Header(
        claimed.origin, claimed.size, claimed.root, str(texts["scope"]), str(texts["unit"]), str(texts["quorum"])
    )


def _entries(files: Mapping[str, bytes], checkpoint: Checkpoint, note: bytes) -> list[Entry]:
    """Reads every record and checks its proof."""
    if evidence.values_in(body for path, body in files.items() if _RECORD.fullmatch(path)) > evidence.MAX_VALUES:
        raise ExhaustedError("BUNDLE_TOO_LARGE", "the records hold more values than can be replayed at once")
    entries: list[Entry] = []
    for path, body in files.items():
        match = _RECORD.fullmatch(path)
        if match is None:
            continue
        index = read_number(match[1], "BUNDLE_MALFORMED")
        try:
            record = records.read(body)
        except AssayError as error:
            raise InvalidInputError(error.reason, f"record {index}: {error.message}") from error
        if record.log != checkpoint.origin:
            raise IntegrityError("CHECKPOINT_ORIGIN", f"record {index} is of another log")
        proof = ProofFile.parse(_member(files, evidence.proof_path(index)))
        if proof.checkpoint != note or proof.index != index:
            raise IntegrityError(
                "PROOF_OF_ANOTHER_CHECKPOINT", f"the proof of record {index} is of another leaf or tree"
            )
        leaf = tree.leaf_hash(body)
        tree.verify_inclusion(index, checkpoint.size, leaf, proof.hashes, checkpoint.root)
        if proof.encode() != files[evidence.proof_path(index)]:
            raise IntegrityError("BUNDLE_NOT_IDENTICAL", f"the proof of record {index} has another spelling")
        entries.append(Entry(index, body, leaf, record))
    return sorted(entries, key=lambda entry: entry.index)


def _payloads(files: Mapping[str, bytes], entries: Sequence[Entry]) -> dict[str, bytes]:
    """Every disclosed payload opens the commitment that it is named by, which a record here names."""
    out = {path.partition("/")[2]: data for path, data in files.items() if path.startswith("payloads/")}
    named = {c for entry in entries for c in commitments_of(entry.record.predicate)}
    for commitment, data in out.items():
        if commitment not in named:
            raise IntegrityError("COMMITMENT_MISMATCH", "no record here names a payload of the bundle")
        Opening(data[:SALT_SIZE], data[SALT_SIZE:]).check(commitment)
    return out


def _consistency(files: Mapping[str, bytes], entries: Sequence[Entry], checkpoint: Checkpoint) -> dict[str, bytes]:
    """Checks that every tree people signed over is a prefix of the checkpoint's."""
    out: dict[str, bytes] = {}
    for size, roots in evidence.evidence_sizes(entries, checkpoint.size).items():
        path = evidence.consistency_path(size, checkpoint.size)
        text = _member(files, path)
        if len(text) > _LONGEST_PROOF:
            raise InvalidInputError("PROOF_MALFORMED", "a consistency proof is too long")
        lines = text.decode("ascii", "replace").split("\n")[:-1]
        proof = [read_hash(line, "PROOF_MALFORMED") for line in lines]
        for root in sorted(roots):
            if not _HASHES.fullmatch(root):
                raise InvalidInputError("PROOF_MALFORMED", "an evidence root is not a hex hash")
            tree.verify_consistency(size, checkpoint.size, bytes.fromhex(root), checkpoint.root, proof)
        out[path] = evidence.consistency_text(proof)
    return out


def _check_policy(policy: bytes, header: Header, log: Verifier) -> None:
    """The exporter's policy may not contradict the trust file or the manifest."""
    try:
        text = policy.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise InvalidInputError("BUNDLE_MALFORMED", "the policy is not UTF-8") from error
    if evidence.quorum_of(text) != header.quorum:
        raise IntegrityError("MANIFEST_MISMATCH", "manifest and policy name different quorums")
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "log" and value.strip() != log.vkey():
            raise IntegrityError("POLICY_OTHER_KEY", "the bundle's policy names another log key than the trust file")


class _Comparing:
    """Takes the rebuilt file piece by piece and holds it against the one given, without a second copy in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0
        self._same = True

    def write(self, piece: bytes) -> int:
        """Compares the next piece."""
        end = self._position + len(piece)
        self._same = self._same and self._data[self._position : end] == piece
        self._position = end
        return len(piece)

    @property
    def identical(self) -> bool:
        """True when all of the file was rebuilt, and nothing more."""
        return self._same and self._position == len(self._data)


def _member(files: Mapping[str, bytes], path: str) -> bytes:
    if path not in files:
        raise InvalidInputError("BUNDLE_MALFORMED", f"{path} is missing")
    return files[path]
