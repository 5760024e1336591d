"""Export of evidence bundles from a live ledger; :mod:`audit.ledger.evidence` has the layout.

What a bundle may hold is what its verifier opens. A bundle that would hold more is refused before it is made, or while
its first files are, and one that is made lies on disk: memory holds no record but the one at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, NoReturn

from assay.errors import ExhaustedError
from audit.ledger import evidence, records
from audit.ledger.commitment import commitments_of
from audit.ledger.evidence import Chains, Entry, Header
from audit.ledger.ledger import Ledger
from audit.ledger.note import Checkpoint, ProofFile, SignedNote
from audit.ledger.records import REFUSALS_UNIT, REFUSED, SYSTEM_UNIT
from audit.ledger.spool import Spool

_PAGE = 500
# Each has two files; the rest is for what people signed, cards, payloads and policies.
MAX_RECORDS = evidence.MAX_ENTRIES // 2 - 500
_READ_ONE_BY_ONE = "`assay audit records` and `assay audit inclusion` show records and their proofs"
_REMEDIES = {
    "log": "export by unit, or jobs by name (--job, 100 at once); monitors read a log of any size over HTTP (log_http)",
    "unit": "export jobs by name (--job, 100 at once): each bundle has what they rest on",
    "selection": f"name fewer jobs; of one alone, {_READ_ONE_BY_ONE}",
    REFUSALS_UNIT: _READ_ONE_BY_ONE,
}


class Exported(NamedTuple):
    """What was written.

    Attributes:
        sha256: hex SHA-256 of the bundle.
        without_refusals: all records of refused calls were left out, since with them it would hold too much.
        without_documents: names of the attachments that were left out for the same reason.
    """

    sha256: str
    without_refusals: bool
    without_documents: tuple[str, ...]


class _Choice(NamedTuple):
    """Which records a bundle shows, and what it may say of itself."""

    scope: str
    indices: Sequence[int]
    without_refusals: bool = False


def export(
    ledger: Ledger,
    out: BinaryIO,
    *,
    unit: str | None = None,
    jobs: Iterable[str] = (),
    indices: Iterable[int] | None = None,
    attachments: Callable[[], Iterable[tuple[str, bytes]]] = tuple,
    disclose: Callable[[str], bytes] = lambda commitment: b"",
    policy_of: Callable[[str, str], Mapping[str, bytes]] = lambda rules, limits: {},
    policy_text: str,
    checkpoint: bytes | None = None,
) -> Exported:
    """Writes a bundle: the whole log, one unit with the system's records, jobs with what they rest on, or records.

    Jobs rest on the system's records and on their units' records that name no job. What a bundle cannot hold with the
    records of refused calls is written without them, and is a selection, which the verifier says; documents that do not
    fit beside the records are left out too. The same log, arguments and checkpoint give the same bytes.

    Args:
        ledger: a started ledger.
        out: where the ZIP goes.
        unit: business unit; None for the whole log.
        jobs: resource names of the only jobs to show; none for all.
        indices: the only records to show, in place of unit and jobs: for tests, which make bundles that lack something.
        attachments: gives documents with their plain file names, anew at each call; the verifier demands that a record
            names each one's SHA-256.
        disclose: salt and payload of a commitment that the records name; empty for one that is erased or kept back.
        policy_of: texts of the rules and limits of two digests that decisions name, by path; none that is not kept or
            shows what is not this bundle's.
        policy_text: the log's key and witness policy, as the exporter sees it.
        checkpoint: the note to export under, with its cosignatures; None for the newest, which no witness has seen.

    Raises:
        NotFoundError: ``RECORD_NOT_FOUND`` for an index beyond the log.
        InvalidInputError: ``ATTACHMENT_NAME``.
        ExhaustedError: ``BUNDLE_TOO_LARGE``.
    """
    note = ledger.checkpoint() if checkpoint is None else checkpoint
    head = Checkpoint.parse(SignedNote.parse(note).text)
    asked = sorted(set(jobs))
    scope = "selection" if asked or indices is not None else "log" if unit is None else "unit"
    refuse = _refusal_of(REFUSALS_UNIT if unit == REFUSALS_UNIT else scope)
    made = _Bundle(ledger, note, head, unit or "", attachments, disclose, policy_of, policy_text, refuse)
    if indices is not None:
        return made.write(out, _Choice(scope, sorted({*indices})))
    parts = _parts(ledger, unit, asked)
    found = _gather(ledger, parts, head.size)
    try:
        return made.write(out, _Choice(scope, found))
    except ExhaustedError:  # Before a byte was written.
        others = [part for part in parts if part[0] != REFUSALS_UNIT]
        fewer = found if unit == REFUSALS_UNIT else _gather(ledger, others, head.size, REFUSED)
        if fewer == found:
            raise
    return made.write(out, _Choice("selection", fewer, True))


@dataclass
class _Named:
    """What records name that a bundle shows beside them: digests of policies, sizes signed over, commitments."""

    policies: dict[tuple[str, str], None] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    commitments: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Bundle:
    """What a bundle is made of, whichever records it shows: as :func:`export` has it."""

    ledger: Ledger
    note: bytes
    head: Checkpoint
    unit: str
    attachments: Callable[[], Iterable[tuple[str, bytes]]]
    disclose: Callable[[str], bytes]
    policy_of: Callable[[str, str], Mapping[str, bytes]]
    policy_text: str
    refuse: Callable[[str], NoReturn]

    def write(self, out: BinaryIO, choice: _Choice) -> Exported:
        """Writes it, or nothing.

        Raises:
            ExhaustedError: ``BUNDLE_TOO_LARGE``.
        """
        ledger, head = self.ledger, self.head
        if len(choice.indices) > MAX_RECORDS:
            self.refuse(f"more than {MAX_RECORDS} records with a proof each")
        if sum(ledger.weight(page) for page in _pages(choice.indices)) > evidence.MAX_BYTES:
            self.refuse(f"more than {evidence.MAX_BYTES} bytes of records")
        quorum = evidence.quorum_of(self.policy_text)
        header = Header(ledger.origin, head.size, head.root, choice.scope, self.unit, quorum)
        sink = _Hashing(out)
        with Spool(self.refuse) as files:
            files[evidence.POLICY], files[evidence.CHECKPOINT] = self.policy_text.encode(), self.note
            named = self._put_records(choice.indices, files)
            texts = {path: text for pair in named.policies for path, text in self.policy_of(*pair).items()}
            for path, data in (*texts.items(), (evidence.README, evidence.readme(bool(texts)))):
                files[path] = data
            for size in named.sizes:
                proof = ledger.consistency_proof(size, head.size)
                files[evidence.consistency_path(size, head.size)] = evidence.consistency_text(proof)
            for commitment in sorted(named.commitments):
                if data := self.disclose(commitment):
                    files[evidence.payload_path(commitment)] = data
            left_out: list[str] = []
            for name, data in self.attachments():
                if files.has_room(path := evidence.attachment_path(name), data):
                    files[path] = data
                else:
                    left_out.append(name)
            files[evidence.MANIFEST] = evidence.manifest(header, files)
            evidence.write_zip(files, sink)
        return Exported(sink.digest.hexdigest(), choice.without_refusals, tuple(left_out))

    def _put_records(self, indices: Sequence[int], files: Spool) -> _Named:
        """Puts each record with its proof and what follows from it among the files, and nothing of it into memory."""
        named, chains, values = _Named(), Chains(), 0
        for entry in _entries(self.ledger, indices):
            values += evidence.values_in([entry.body])
            if values > evidence.MAX_VALUES:
                self.refuse(f"more than {evidence.MAX_VALUES} values in its records")
            proof = self.ledger.inclusion_proof(entry.index, self.head.size)
            files[evidence.record_path(entry.index)] = entry.body
            files[evidence.proof_path(entry.index)] = ProofFile(entry.index, tuple(proof), self.note).encode()
            for path, data in evidence.envelope_file(entry).items():
                files[path] = data
            chains.add(entry)
            named.policies |= dict.fromkeys(evidence.policies_named([entry]))
            named.sizes |= evidence.evidence_sizes([entry], self.head.size).keys()
            named.commitments |= set(commitments_of(entry.record.predicate))
        files[evidence.CHAIN] = chains.encode()
        return named


def _parts(ledger: Ledger, unit: str | None, jobs: Sequence[str]) -> list[tuple[str, str | None]]:
    """Units of which records are shown, each with the only job; empty for the records of none, None for all."""
    if not jobs:
        return [(u, None) for u in (ledger.units() if unit is None else sorted({unit, SYSTEM_UNIT}))]
    units = sorted({job.split("/")[1] for job in jobs})
    return [*((u, "") for u in units), *((job.split("/")[1], job) for job in jobs), (SYSTEM_UNIT, None)]


def _gather(ledger: Ledger, parts: Iterable[tuple[str, str | None]], size: int, without: str = "") -> list[int]:
    """Where the records of units, or of their jobs, lie, each once; not all where they are too many for a bundle."""
    found: set[int] = set()
    for unit, job in parts:
        found.update(ledger.indices(unit, job, below=size, limit=MAX_RECORDS + 1, without=without))
        if len(found) > MAX_RECORDS:
            break
    return sorted(found)


def _refusal_of(scope: str) -> Callable[[str], NoReturn]:
    def refuse(what: str) -> NoReturn:
        raise evidence.too_large(what, _REMEDIES[scope])

    return refuse


def _pages(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    yield from (indices[n : n + _PAGE] for n in range(0, len(indices), _PAGE))


def _entries(ledger: Ledger, indices: Sequence[int]) -> Iterator[Entry]:
    for page in _pages(indices):
        for stored in ledger.records_at(page):
            yield Entry(stored.index, stored.body, stored.leaf, records.read(stored.body))


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
