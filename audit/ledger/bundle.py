"""Export of evidence bundles from a live ledger; :mod:`audit.ledger.evidence` has the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from assay.errors import InvalidInputError
from audit.ledger import evidence, records
from audit.ledger.commitment import commitments_of
from audit.ledger.evidence import Entry, Header
from audit.ledger.ledger import Ledger, StoredRecord
from audit.ledger.note import Checkpoint, ProofFile, SignedNote
from audit.ledger.records import SYSTEM_UNIT

_PAGE = 500


def export(
    ledger: Ledger,
    out: BinaryIO,
    *,
    indices: Sequence[int] | None = None,
    unit: str | None = None,
    attachments: Mapping[str, bytes] | None = None,
    disclose: Callable[[str], bytes] = lambda commitment: b"",
    policy_of: Callable[[str, str], Mapping[str, bytes]] = lambda rules, limits: {},
    policy_text: str,
    checkpoint: bytes | None = None,
) -> str:
    """Writes a bundle: the whole log, one unit with the system's records, or the records at ``indices``.

    The same log, arguments and checkpoint give the same bytes.

    Args:
        ledger: a started ledger.
        out: where the ZIP goes.
        indices: records to disclose; None for all of the log or unit. :func:`select` finds a job's.
        unit: business unit; None for the whole log.
        attachments: documents by plain file name; the verifier demands that a record names each one's SHA-256.
        disclose: salt and payload of a commitment that the records name; empty for one that is erased or kept back.
        policy_of: texts of the rules and limits of two digests that decisions name, by path; none that is not kept or
            shows what is not this bundle's.
        policy_text: the log's key and witness policy, as the exporter sees it.
        checkpoint: the note to export under, with its cosignatures; None for the newest, which no witness has seen.

    Returns:
        Hex SHA-256 of the bundle.

    Raises:
        NotFoundError: ``RECORD_NOT_FOUND`` for an index beyond the log.
        InvalidInputError: ``ATTACHMENT_NAME``.
        ExhaustedError: ``BUNDLE_TOO_LARGE``.
    """
    note = ledger.checkpoint() if checkpoint is None else checkpoint
    head = Checkpoint.parse(SignedNote.parse(note).text)
    entries = [_entry(stored) for stored in _chosen(ledger, indices, unit, head.size)]
    scope = "selection" if indices is not None else "log" if unit is None else "unit"
    texts = {path: text for pair in evidence.policies_named(entries) for path, text in policy_of(*pair).items()}
    files = {
        evidence.POLICY: policy_text.encode(),
        evidence.CHECKPOINT: note,
        **evidence.derived_files(entries, policies=bool(texts)),
        **texts,
    }
    for entry in entries:
        files[evidence.record_path(entry.index)] = entry.body
        proof = ledger.inclusion_proof(entry.index, head.size)
        files[evidence.proof_path(entry.index)] = ProofFile(entry.index, tuple(proof), note).encode()
    for size in evidence.evidence_sizes(entries, head.size):
        proof = ledger.consistency_proof(size, head.size)
        files[evidence.consistency_path(size, head.size)] = evidence.consistency_text(proof)
    for name, data in (attachments or {}).items():
        files[evidence.attachment_path(name)] = data
    for commitment in {c for entry in entries for c in commitments_of(entry.record.predicate)}:
        if data := disclose(commitment):
            files[evidence.payload_path(commitment)] = data
    header = Header(ledger.origin, head.size, head.root, scope, unit or "", evidence.quorum_of(policy_text))
    files[evidence.MANIFEST] = evidence.manifest(header, files)
    sink = _Hashing(out)
    evidence.write_zip(files, sink)
    return sink.digest.hexdigest()


def select(ledger: Ledger, unit: str, jobs: Iterable[str]) -> list[int]:
    """Indices of jobs' records and what they rest on: the system's records and the unit's records that name no job.

    Raises:
        InvalidInputError: ``JOB_OF_ANOTHER_UNIT``.
    """
    wanted = set(jobs)
    if any(not job.startswith(f"units/{unit}/") for job in wanted):
        raise InvalidInputError("JOB_OF_ANOTHER_UNIT", f"a job is not of {unit}")
    rests = (s for u in sorted({unit, SYSTEM_UNIT}) for s in _pages(ledger, u, ledger.size))
    return sorted(s.index for s in rests if s.job in wanted or not s.job or s.unit == SYSTEM_UNIT)


def _chosen(ledger: Ledger, indices: Sequence[int] | None, unit: str | None, size: int) -> Iterator[StoredRecord]:
    """Records in log order."""
    if indices is not None:
        yield from (ledger.record(index) for index in sorted(set(indices)))
    elif unit is None:
        yield from _pages(ledger, None, size)
    else:
        found = [stored for u in {unit, SYSTEM_UNIT} for stored in _pages(ledger, u, size)]
        yield from sorted(found, key=lambda stored: stored.index)


def _pages(ledger: Ledger, unit: str | None, size: int) -> Iterator[StoredRecord]:
    after = -1
    while page := ledger.records(unit, None, after, _PAGE):
        yield from (stored for stored in page if stored.index < size)
        after = page[-1].index


def _entry(stored: StoredRecord) -> Entry:
    return Entry(stored.index, stored.body, stored.leaf, records.read(stored.body))


class _Hashing:
    """A writer that hashes what passes."""

    def __init__(self, out: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._out = out

    def write(self, data: bytes) -> int:
        """Writes and hashes."""
        self.digest.update(data)
        self._out.write(data)
        return len(data)
