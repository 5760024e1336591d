"""What a witness answers: ``add-checkpoint`` of c2sp.org/tlog-witness, the newest note, and proof of a fork."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay.errors import AssayError, IntegrityError, InvalidInputError
from audit.ledger import fork, tree
from audit.ledger.cosignature import CosignatureVerifier, cosign, with_lines
from audit.ledger.fork import Evidence
from audit.ledger.httpd import Answer, Request
from audit.ledger.note import (
    MAX_NOTE,
    Checkpoint,
    NoteSignature,
    SignedNote,
    Verifier,
    open_note,
    read_hash,
    read_number,
)
from audit.ledger.witness.store import Seen, WitnessStore

ADD_CHECKPOINT = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
MAX_PROOF = 63
MAX_BODY = MAX_NOTE + 4096
MAX_SUSPECTS = 64
FORK_FOUND = "this log has signed two histories: tell its operator and its auditors; nothing of it is cosigned any more"
_logger = logging.getLogger(__name__)
_GET = re.compile(r"/([0-9a-f]{64})/(checkpoint|fork)")


@dataclass(frozen=True)
class AddCheckpoint:
    """A request as read: the size that the log believes was cosigned last, the proof, the note and its first lines."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes
    origin: str

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Reads a request's body.

        Raises:
            InvalidInputError: ``REQUEST_MALFORMED`` or ``NOTE_MALFORMED``.
        """
        head, separator, note = body.partition(b"\n\n")
        try:
            first, *rest = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError("REQUEST_MALFORMED", "the lines before the checkpoint are not ASCII") from error
        if not separator or not first.startswith("old ") or len(rest) > MAX_PROOF:
            raise InvalidInputError("REQUEST_MALFORMED", "not an old size, at most 63 hashes, and a checkpoint")
        old = read_number(first[4:], "REQUEST_MALFORMED")
        proof = tuple(read_hash(line, "REQUEST_MALFORMED") for line in rest)
        return cls(old, proof, note, fork.origin_of(note))


class _Refused(Exception):
    """An answer that is a refusal, and the evidence that it leaves."""

    def __init__(self, answer: Answer, evidence: Evidence | None = None) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.evidence = evidence


class Witness:
    """One witness: answers requests, whoever transports them.

    Args:
        name: of the witness, as a note's line carries it.
        key: this witness's own; used for nothing else, since a cosignature names nobody.
        logs: keys by origin.
        store: its memory.
        evidence: folder for what contradicts itself.
        clock: aware time.
    """

    def __init__(
        self,
        name: str,
        key: Ed25519PrivateKey,
        logs: Mapping[str, Sequence[Verifier]],
        store: WitnessStore,
        evidence: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.verifier = CosignatureVerifier.of(name, key.public_key())
        self._key = key
        self._logs = logs
        self._origins = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in logs}
        self._store = store
        self._evidence = evidence
        self._clock = clock

    def handle(self, request: Request) -> Answer:
        """Answers a request."""
        if request.path == ADD_CHECKPOINT:
            if request.method != "POST":
                return _refuse(405, "POST a checkpoint here", {"Allow": "POST"})
            return self.add_checkpoint(request.body)
        match = _GET.fullmatch(request.path)
        if match is None or request.method == "POST" or match[1] not in self._origins:
            return _refuse(404, "there is nothing here")
        seen = self._store.seen(self._origins[match[1]])
        if match[2] == "checkpoint":
            return Answer(200, seen.note, headers=_BRIEFLY) if seen.note else _refuse(404, "never cosigned")
        if not seen.fork:
            return _refuse(404, "no fork is known")
        return Answer(200, (self._evidence / seen.fork).read_bytes(), "application/json", _BRIEFLY)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Checks a checkpoint against what was seen, remembers it durably, and answers with the cosignature."""
        try:
            request = AddCheckpoint.parse(body)
            keys = self._logs.get(request.origin)
            if keys is None:
                return _refuse(404, "the log is unknown")
            try:
                signers = open_note(request.note, keys).signers
                checkpoint = fork.head_of(SignedNote.parse(request.note).text)
            except IntegrityError as error:
                return _refuse(403, error.message)
            if request.old > checkpoint.size:
                raise InvalidInputError("REQUEST_MALFORMED", "the old size is larger than the checkpoint")
        except InvalidInputError as error:
            return _refuse(400, f"{error.reason}: {error.message}")
        lines: list[NoteSignature] = []
        try:
            self._store.advance(
                request.origin, lambda seen: self._decide(seen, request, checkpoint, keys, signers, lines)
            )
        except _Refused as refused:
            if refused.evidence is not None:
                self._keep(request.origin, refused.evidence)
            return refused.answer
        return Answer(200, "".join(line.line() for line in lines).encode())

    def _decide(
        self,
        seen: Seen,
        request: AddCheckpoint,
        checkpoint: Checkpoint,
        keys: Sequence[Verifier],
        signers: Sequence[str],
        lines: list[NoteSignature],
    ) -> Seen:
        """What to remember next; runs under the store's lock. Cosigns last, when nothing can refuse any more."""
        if seen.fork:
            raise _Refused(_refuse(422, "LOG_FORKED: this log has signed two histories; the proof is kept"))
        split = seen.size == checkpoint.size and seen.size > 0 and seen.root != checkpoint.root
        evidence = self._contradiction(fork.FORKED, seen, request) if split else None
        if request.old != seen.size:
            raise _Refused(Answer(409, f"{seen.size}\n".encode(), SIZE_TYPE), evidence)
        if split:
            raise _Refused(_refuse(422, "LOG_FORKED: another root at the same size"), evidence)
        try:
            _check_growth(seen, request, checkpoint)
        except AssayError as error:
            suspect = self._contradiction(fork.INCONSISTENT, seen, request) if seen.size else None
            raise _Refused(_refuse(422, error.message), suspect) from error
        note = SignedNote.parse(request.note)
        known = {(key.name, key.key_id) for key in keys if key.name in signers}
        mine = cosign(note.text, self.verifier.name, self._key, self._clock())
        lines.append(mine)
        kept = tuple(line for line in note.signatures if (line.name, line.key_id) in known)
        return Seen(checkpoint.size, checkpoint.root, with_lines(SignedNote(note.text, kept), [mine]).encode())

    def _contradiction(self, kind: str, seen: Seen, request: AddCheckpoint) -> Evidence:
        return Evidence(kind, request.origin, self._clock(), (seen.note, request.note), request.proof)

    def _keep(self, origin: str, evidence: Evidence) -> None:
        """Writes the evidence; a proven fork is remembered, and nothing of that log is cosigned from then on.

        Of proofs that failed so many are kept and no more: anybody can send a genuine note with rubbish beside it, and
        would fill the disk. A fork takes the log's key to make, and is always kept.
        """
        facts = {"origin": origin, "folder": str(self._evidence)}
        if evidence.kind == fork.INCONSISTENT:
            kept = ""
            if len(fork.found_in(self._evidence, [fork.INCONSISTENT])) < MAX_SUSPECTS:
                kept = evidence.write(self._evidence).name
            _logger.warning("a consistency proof failed", extra={"facts": {**facts, "evidence": kept}})
            return
        path = evidence.write(self._evidence)
        _logger.critical(FORK_FOUND, extra={"facts": {**facts, "evidence": path.name}})

        def mark(seen: Seen) -> Seen:
            return Seen(seen.size, seen.root, seen.note, seen.fork or path.name)

        self._store.advance(origin, mark)


_BRIEFLY = {"Cache-Control": "no-cache"}


def _check_growth(seen: Seen, request: AddCheckpoint, checkpoint: Checkpoint) -> None:
    """The new tree grows out of the one that was seen."""
    if seen.size == 0:
        if request.proof:
            raise IntegrityError("CONSISTENCY_BAD", "nothing is proved from an empty tree; the proof must be empty")
        if checkpoint.size == 0 and checkpoint.root != tree.EMPTY_ROOT:
            raise IntegrityError("CONSISTENCY_BAD", "the root of an empty tree is the hash of nothing")
        return
    tree.verify_consistency(seen.size, checkpoint.size, seen.root, checkpoint.root, request.proof)


def _refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, f"{message}\n".encode(), headers=headers or {})
