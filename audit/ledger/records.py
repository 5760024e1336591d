"""The ledger record: one float-free canonical JSON object, the data of one leaf. Log and verifier share it.

``{"v":1,"log":origin,"tenant":unit,"tseq":n,"tprev":hex|null,"ts":"...Z","nonce":32
hex,"type":...,"statement":{...},"sigs":[...]}``

``tseq`` counts a unit's records from 1 and ``tprev`` is the leaf hash of the one before, so that a unit's auditor
sees that nothing between two records was left out. ``nonce`` is 128 random bits: a proof shows a neighbour's leaf
hash, and without entropy a short record could be guessed from it. The schema is frozen: a member more, a member less,
an unknown type or another spelling of the same JSON is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from assay import canonical, dsse
from assay.errors import InvalidInputError

VERSION = 1
MAX_BODY = 60_000
SYSTEM_UNIT = "system"
REFUSALS_UNIT = "system-refusals"
"""Chain of refused calls. It grows by whatever anybody with a certificate tries; no bundle of a unit or of jobs has it,
as each has the system's. Earlier builds wrote refusals to the system's chain, where they stay."""
OWN_UNITS = frozenset({SYSTEM_UNIT, REFUSALS_UNIT})
"""Chains of the installation itself: names that no business unit may have."""
REFUSED = "request.refused"
FROZEN = "log.frozen"

_UNIT = re.compile(r"[a-z][a-z0-9-]{0,30}")
_JOB = re.compile(r"units/([a-z][a-z0-9-]{0,30})/tuningJobs/[a-z][a-z0-9-]{0,62}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
_MEMBERS = frozenset({"v", "log", "tenant", "tseq", "tprev", "ts", "nonce", "type", "statement", "sigs"})


@dataclass(frozen=True)
class TypeRule:
    """What a record type must hold: its predicate's short name, and whether people sign it."""

    predicate: str
    signed: bool = False


TYPES: Mapping[str, TypeRule] = {
    "log.opened": TypeRule("log-event"),
    "log.continued": TypeRule("log-continuation", signed=True),
    "log.frozen": TypeRule("freeze", signed=True),
    "policy.published": TypeRule("policy", signed=True),
    "grant.issued": TypeRule("grant", signed=True),
    "grant.revoked": TypeRule("grant-revocation", signed=True),
    "key.rotated": TypeRule("key-rotation", signed=True),
    "key.compromised": TypeRule("key-compromise", signed=True),
    "dataset.created": TypeRule("dataset"),
    "erasure.ordered": TypeRule("erasure-order", signed=True),
    "erasure.executed": TypeRule("erasure"),
    REFUSED: TypeRule("refusal"),
    "job.received": TypeRule("request"),
    "job.preparing": TypeRule("transition"),
    "intake.decided": TypeRule("decision"),
    "training.ordered": TypeRule("work-order"),
    "training.completed": TypeRule("training"),
    "training.replayed": TypeRule("replay"),
    "job.paused": TypeRule("transition"),
    "job.resumed": TypeRule("transition"),
    "job.cancelled": TypeRule("transition"),
    "job.failed": TypeRule("transition"),
    "audit.completed": TypeRule("audit"),
    "release.decided": TypeRule("verdict"),
    "card.rendered": TypeRule("card"),
    "approval.decided": TypeRule("approval", signed=True),
    "job.approved": TypeRule("transition"),
    "job.rejected": TypeRule("transition"),
    "card.issued": TypeRule("card"),
    "permit.issued": TypeRule("permit"),
    "permit.revoked": TypeRule("permit-revocation"),
    "appeal.filed": TypeRule("appeal"),
    "appeal.dismissed": TypeRule("appeal-dismissal", signed=True),
    "appeal.answered": TypeRule("transition"),
    "rules.waived": TypeRule("waiver", signed=True),
    "budget.raised": TypeRule("budget-raise", signed=True),
    "job.waived": TypeRule("transition"),
    "approval.revoked": TypeRule("revocation", signed=True),
    "job.revoked": TypeRule("transition"),
    "job.expired": TypeRule("transition"),
}


@dataclass(frozen=True)
class RecordDraft:
    """What a caller wants recorded; the writer adds place, time and nonce.

    Attributes:
        unit: business unit, or one of :data:`OWN_UNITS`.
        type: one of :data:`TYPES`.
        predicate_name: short predicate name; must be the type's.
        predicate: float-free JSON object; ignored when an envelope is given.
        subjects: pairs of name and hex SHA-256.
        envelope: for human acts, the DSSE envelope; its payload *is* the statement, byte for byte.
        job: resource name of the job, which the predicate must name too; empty for none.
    """

    unit: str
    type: str
    predicate_name: str
    predicate: Mapping[str, Any]
    subjects: Sequence[tuple[str, str]] = ()
    envelope: Mapping[str, Any] | None = None
    job: str = ""


@dataclass(frozen=True)
class Record:
    """A record as read back from its exact bytes.

    Attributes:
        log: origin of the log.
        unit: whose chain it belongs to.
        sequence: place in that chain, from 1.
        previous: hex leaf hash of the unit's record before; None for the first.
        time: when the writer made it.
        nonce: 32 hex digits.
        type: record type.
        statement: in-toto Statement v1.
        signatures: DSSE signatures over the statement; empty unless people sign this type.
    """

    log: str
    unit: str
    sequence: int
    previous: str | None
    time: datetime
    nonce: str
    type: str
    statement: dict[str, Any]
    signatures: tuple[dict[str, Any], ...]

    @property
    def predicate(self) -> dict[str, Any]:
        """The statement's predicate."""
        value: dict[str, Any] = self.statement["predicate"]
        return value

    @property
    def job(self) -> str:
        """Resource name of the job it is about; empty for none."""
        return job_of(self.predicate)

    def subjects(self, name: str) -> set[str]:
        """Digests of the statement's subjects of this name, as hex SHA-256."""
        return {subject["digest"]["sha256"] for subject in self.statement["subject"] if subject["name"] == name}

    def envelope(self) -> dsse.Envelope:
        """The DSSE envelope, for a type that people sign."""
        return dsse.envelope_of(self.statement, self.signatures)


class Prepared(NamedTuple):
    """A draft that was checked and encoded, all but its place; made by :func:`prepare` only, in any thread.

    Attributes:
        unit: whose chain it will join.
        type: record type.
        job: the job that the statement names; empty for none.
        content: canonical bytes of the members ``sigs``, ``statement`` and ``tenant``.
    """

    unit: str
    type: str
    job: str
    content: bytes


class Place(NamedTuple):
    """Where a record goes: log, place in the unit's chain, time and nonce."""

    log: str
    sequence: int
    previous: str | None
    time: datetime
    nonce: str


def prepare(draft: RecordDraft) -> Prepared:
    """Checks a draft and encodes what does not depend on its place; the costly part of writing a record.

    Raises:
        InvalidInputError: ``RECORD_MALFORMED``, ``RECORD_TOO_LARGE``, ``NOT_CANONICAL`` or what the envelope's reader
        says.
    """
    rule = TYPES.get(draft.type)
    if rule is None:
        raise _malformed("unknown record type")
    if draft.predicate_name != rule.predicate:
        raise _malformed(f"a {draft.type} record has predicate {rule.predicate!r}")
    if not _UNIT.fullmatch(draft.unit):
        raise _malformed("the unit's name is malformed")
    statement, signatures, job = _of_service(draft) if draft.envelope is None else _of_people(draft, draft.envelope)
    if draft.job and draft.job != job:
        raise _malformed("the predicate names another job than the draft")
    _check_job(draft.unit, job)
    content = b'"sigs":%b,"statement":%b,"tenant":"%b"' % (signatures, statement, draft.unit.encode())
    if len(content) > MAX_BODY:
        raise _too_large(draft.type, len(content))
    return Prepared(draft.unit, draft.type, job, content)


def place(prepared: Prepared, at: Place) -> bytes:
    """Puts a prepared record in its place; the result is the canonical encoding of the whole.

    Raises:
        InvalidInputError: ``RECORD_TOO_LARGE``.
    """
    previous = "null" if at.previous is None else f'"{at.previous}"'
    # Members in canonical order. Unit and type were checked, hashes and nonces are hex: only the log's name needs care.
    head = f'{{"log":{_text(at.log)},"nonce":"{at.nonce}",'
    tail = (
        f',"tprev":{previous},"ts":"{format_time(at.time)}","tseq":{at.sequence}'
        f',"type":"{prepared.type}","v":{VERSION}}}'
    )
    body = head.encode() + prepared.content + tail.encode()
    if len(body) > MAX_BODY:
        raise _too_large(prepared.type, len(body))
    return body


def encode(draft: RecordDraft, at: Place) -> bytes:
    """The record's bytes: :func:`prepare` and :func:`place` in one.

    Raises:
        InvalidInputError: what they raise.
    """
    return place(prepare(draft), at)


def read(body: bytes) -> Record:
    """Reads a record strictly: canonical bytes, frozen members, known type, statement of the type's predicate.

    Raises:
        InvalidInputError: ``NOT_CANONICAL``, ``RECORD_MALFORMED``, ``RECORD_TOO_LARGE`` or ``STATEMENT_MALFORMED``.
    """
    if len(body) > MAX_BODY:
        raise InvalidInputError("RECORD_TOO_LARGE", f"a record of more than {MAX_BODY} bytes")
    value = dsse.decode_shallow(body)
    if not isinstance(value, dict) or set(value) != _MEMBERS:
        raise _malformed("a record has exactly the members of version 1")
    if value["v"] != VERSION or isinstance(value["v"], bool):
        raise _malformed("not version 1")
    texts = {name: value[name] for name in ("log", "tenant", "ts", "nonce", "type")}
    if not all(isinstance(text, str) for text in texts.values()) or not texts["log"]:
        raise _malformed("log, tenant, ts, nonce and type are texts")
    sequence, previous = value["tseq"], value["tprev"]
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
        raise _malformed("tseq counts from 1")
    if (previous is None) != (sequence == 1) or not (previous is None or _is_hash(previous)):
        raise _malformed("tprev is null for the first record and else a hex hash")
    if not _UNIT.fullmatch(texts["tenant"]) or not _NONCE.fullmatch(texts["nonce"]):
        raise _malformed("tenant or nonce is malformed")
    _check_content(texts["type"], value["statement"], value["sigs"])
    _check_job(texts["tenant"], job_of(value["statement"]["predicate"]))
    return Record(
        log=texts["log"],
        unit=texts["tenant"],
        sequence=sequence,
        previous=previous,
        time=parse_time(texts["ts"]),
        nonce=texts["nonce"],
        type=texts["type"],
        statement=value["statement"],
        signatures=tuple(value["sigs"]),
    )


def job_of(predicate: Mapping[str, Any]) -> str:
    """Resource name of the job that a predicate names; empty for none."""
    job = predicate.get("job", "")
    return job if isinstance(job, str) else ""


@lru_cache(maxsize=1)
def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds: one spelling a moment."""
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    # Not strftime, whose %Y writes a year below 1000 with fewer than four digits; 26 characters end before the offset.
    return utc.isoformat(timespec="microseconds")[:26] + "Z"


def parse_time(text: str) -> datetime:
    """Reads what :func:`format_time` writes, and nothing else.

    Raises:
        InvalidInputError: ``RECORD_MALFORMED``.
    """
    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise _malformed("a time is UTC with microseconds")


# Whatever is written must read back, or the log would refuse its own next start: the record is one level more.
_LEVELS = dsse.MAX_DEPTH - 1


def _of_service(draft: RecordDraft) -> tuple[bytes, bytes, str]:
    """Canonical bytes of the statement that a draft describes and of no signatures, and the job that it names."""
    _check_signatures(draft.type, [])
    predicate = dict(draft.predicate)
    statement = dsse.encode_statement(draft.predicate_name, predicate, draft.subjects, _LEVELS)
    return statement, b"[]", job_of(predicate)


def _of_people(draft: RecordDraft, envelope: Mapping[str, Any]) -> tuple[bytes, bytes, str]:
    """The same of what people signed: the payload is the statement."""
    statement = dsse.read_statement(dsse.envelope_payload(envelope))
    signatures = [dict(s) for s in envelope["signatures"]]
    _check_content(draft.type, statement, signatures)
    job = job_of(statement["predicate"])
    return canonical.encode(statement, _LEVELS), canonical.encode(signatures, _LEVELS), job


def _check_job(unit: str, named: str) -> None:
    """Demands that a job that a record names is its unit's: another chain hides it from its auditors."""
    match = _JOB.fullmatch(named) if named else None
    if named and (match is None or unit not in (SYSTEM_UNIT, match[1])):
        raise _malformed("the job's name is malformed or of another unit")


def _check_content(kind: str, statement: Any, signatures: Any) -> None:
    """Checks type, statement and the shape of the signatures; who signed is for those who hold a root."""
    rule = TYPES.get(kind)
    if rule is None:
        raise _malformed("unknown record type")
    dsse.check_statement(statement)
    if dsse.predicate_name(statement["predicateType"]) != rule.predicate:
        raise _malformed(f"a {kind} record has predicate {rule.predicate!r}")
    _check_signatures(kind, signatures)


def _check_signatures(kind: str, signatures: Any) -> None:
    """Demands signatures, and of the right shape, of a type that people sign; and none of any other."""
    signed = TYPES[kind].signed
    if not isinstance(signatures, list) or bool(signatures) != signed or len(signatures) > dsse.MAX_SIGNATURES:
        raise _malformed(f"a {kind} record {'needs' if signed else 'has no'} signatures")
    for item in signatures:
        if not isinstance(item, dict) or set(item) != {"keyid", *dsse.signature_members(item)}:
            raise _malformed("a signature has keyid, sig and cert, and what its scheme needs")
        if not all(isinstance(text, str) for text in item.values()):
            raise _malformed("a signature's members are texts")


@lru_cache(maxsize=64)
def _text(value: str) -> str:
    """A text as canonical JSON; a process writes few logs."""
    return canonical.encode(value).decode()


def _too_large(kind: str, size: int) -> InvalidInputError:
    return InvalidInputError(
        "RECORD_TOO_LARGE",
        f"a {kind} record of {size} bytes exceeds {MAX_BODY}",
        remedy="record a digest and keep the content outside the log",
    )


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _malformed(message: str) -> InvalidInputError:
    return InvalidInputError("RECORD_MALFORMED", message)
