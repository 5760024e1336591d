"""What people sign: in-toto Statements, built by clients and read by services.

A builder and its reader live side by side, so that what a person signs is exactly what the gateway demands. Every
reader refuses a missing member, an unknown member and a wrong type: what is not understood is not accepted as signed.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from assay import dsse
from assay.certificates import PERSON
from assay.errors import InvalidInputError
from assay.v1 import approval_pb2, identity_pb2, policy_pb2
from audit.ledger.commitment import SALT_SIZE, Opening

T = TypeVar("T")

GRANT = "grant"
REFUSE = "refuse"
REVOCATION_REASONS = ("incident", "defect", "drift", "misuse", "superseded", "withdrawn")
SIGNER_LEFT, SIGNER_KEY = "signer-left", "signer-key"
APPROVE_ANEW = (SIGNER_LEFT, SIGNER_KEY)
"""Why an approval is withdrawn that says nothing against the model: other people may sign."""
APPROVAL_REVOCATION_REASONS = (*REVOCATION_REASONS, *APPROVE_ANEW)
GRANT_REVOCATION_REASONS = ("left", "role-changed", "key-lost", "misuse", "granted-in-error")
FREEZE_REASONS = ("key-compromised", "fork", "anchor-lost", "clock-ahead", "retired")
ERASURE_REASONS = (
    "data-subject-request",
    "consent-withdrawn",
    "retention-ended",
    "unlawful-processing",
    "legal-obligation",
)


@dataclass(frozen=True)
class SignedApproval:
    """The predicate of an approval; attributes are its members."""

    job: str
    etag: str
    decision: str
    role: str
    reason_commitment: str
    card_sha256: str
    card_index: int
    evidence_root: str
    evidence_size: int
    adapter_sha256: str
    base_sha256: str
    purpose: str
    signed_at: str


@dataclass(frozen=True)
class SignedFreeze:
    """The predicate of a freeze order."""

    origin: str
    reason_code: str
    order_id: str


@dataclass(frozen=True)
class SignedContinuation:
    """The predicate of a continuation: the old log's final checkpoint, whole and in parts."""

    origin: str
    previous_origin: str
    size: int
    root: str
    checkpoint: str


@dataclass(frozen=True)
class SignedPolicy:
    """The predicate of a policy publication; its id is used once, so that an old one cannot be put into force again."""

    policy: str
    version: str
    bundle_sha256: str
    limits_sha256: str
    rules: list[str]
    publication_id: str


@dataclass(frozen=True)
class SignedWaiver:
    """The predicate of a waiver; ``expires`` is a day, ISO 8601."""

    job: str
    etag: str
    rules: list[str]
    reason_commitment: str
    compensating_control_commitment: str
    expires: str


@dataclass(frozen=True)
class SignedRaise:
    """The predicate of a raise of a job's budget: what it may cost in all, in millionths of a US dollar."""

    job: str
    etag: str
    max_usd_micros: int
    reason_commitment: str


@dataclass(frozen=True)
class SignedDismissal:
    """The predicate of an appeal's dismissal."""

    job: str
    etag: str
    reason_commitment: str


@dataclass(frozen=True)
class SignedRevocation:
    """The predicate of an approval's revocation."""

    job: str
    etag: str
    reason: str


@dataclass(frozen=True)
class SignedGrant:
    """The predicate of a role grant."""

    subject: str
    role: str
    unit: str
    grant_id: str


@dataclass(frozen=True)
class SignedGrantRevocation:
    """The predicate of a grant's revocation."""

    grant_id: str
    reason: str


@dataclass(frozen=True)
class SignedErasureOrder:
    """The predicate of an order to erase; no free text, since it stays in the log for ever."""

    resource: str
    reason_code: str
    order_id: str


def opening(text: str) -> identity_pb2.Opening:
    """Words with a fresh salt, as a client sends them."""
    return identity_pb2.Opening(salt=secrets.token_bytes(SALT_SIZE), text=text)


def commitment_of(words: identity_pb2.Opening) -> str:
    """What a statement names these words by.

    Raises:
        IntegrityError: ``COMMITMENT_SALT``.
    """
    return Opening(words.salt, words.text.encode()).commitment()


def approval_statement(
    pending: approval_pb2.PendingApproval,
    *,
    granted: bool,
    role: str,
    reason: identity_pb2.Opening,
    signed_at: dt.datetime,
) -> dict[str, Any]:
    """The statement by which a person grants or refuses what is pending; it commits to the reason."""
    predicate = {
        "job": pending.tuning_job,
        "etag": pending.etag,
        "decision": GRANT if granted else REFUSE,
        "role": role_name(role),
        "reason_commitment": commitment_of(reason),
        "card_sha256": pending.card_sha256,
        "card_index": pending.card_record_index,
        "evidence_root": pending.evidence_root,
        "evidence_size": pending.evidence_size,
        "adapter_sha256": pending.adapter_sha256,
        "base_sha256": pending.base_sha256,
        "purpose": pending.purpose,
        "signed_at": rfc3339(signed_at),
    }
    return dsse.statement("approval", predicate, [("card", pending.card_sha256), ("adapter", pending.adapter_sha256)])


def waiver_statement(
    job: str,
    etag: str,
    rules: Sequence[str],
    reason: identity_pb2.Opening,
    compensating_control: identity_pb2.Opening,
    expires: dt.date,
) -> dict[str, Any]:
    """The statement by which a person waives named rules of a denied or quarantined job; it commits to the words."""
    predicate = {
        "job": job,
        "etag": etag,
        "rules": sorted(set(rules)),
        "reason_commitment": commitment_of(reason),
        "compensating_control_commitment": commitment_of(compensating_control),
        "expires": expires.isoformat(),
    }
    return dsse.statement("waiver", predicate, [])


def raise_statement(job: str, etag: str, max_usd_micros: int, reason: identity_pb2.Opening) -> dict[str, Any]:
    """The statement by which a person lets a paused job cost more; it commits to the reason."""
    predicate = {
        "job": job,
        "etag": etag,
        "max_usd_micros": max_usd_micros,
        "reason_commitment": commitment_of(reason),
    }
    return dsse.statement("budget-raise", predicate, [])


def dismissal_statement(job: str, etag: str, reason: identity_pb2.Opening) -> dict[str, Any]:
    """The statement by which a person dismisses the appeal that a job waits with; it commits to the reason."""
    predicate = {"job": job, "etag": etag, "reason_commitment": commitment_of(reason)}
    return dsse.statement("appeal-dismissal", predicate, [])


def revocation_statement(job: str, etag: str, reason: str) -> dict[str, Any]:
    """The statement by which a person withdraws an approval, for one of ``APPROVAL_REVOCATION_REASONS``.

    Raises:
        InvalidInputError: ``REASON_CODE``.
    """
    check_code(reason, APPROVAL_REVOCATION_REASONS)
    return dsse.statement("revocation", {"job": job, "etag": etag, "reason": reason}, [])


def grant_statement(subject: str, role: str, unit: str, grant_id: str) -> dict[str, Any]:
    """The statement by which an operator grants a role; ``unit`` ``-`` means every unit."""
    predicate = {"subject": subject, "role": role_name(role), "unit": unit, "grant_id": grant_id}
    return dsse.statement("grant", predicate, [])


def grant_revocation_statement(grant_id: str, reason: str) -> dict[str, Any]:
    """The statement by which an operator revokes a grant; the reason is one of ``GRANT_REVOCATION_REASONS``.

    Raises:
        InvalidInputError: ``REASON_CODE``.
    """
    check_code(reason, GRANT_REVOCATION_REASONS)
    return dsse.statement("grant-revocation", {"grant_id": grant_id, "reason": reason}, [])


def freeze_statement(origin: str, reason_code: str) -> dict[str, Any]:
    """The statement by which an operator ends a log.

    Raises:
        InvalidInputError: ``REASON_CODE``.
    """
    check_code(reason_code, FREEZE_REASONS)
    return dsse.statement("freeze", {"origin": origin, "reason_code": reason_code, "order_id": uuid.uuid4().hex}, [])


def continuation_statement(origin: str, previous: str, size: int, root: str, checkpoint: str) -> dict[str, Any]:
    """The statement by which an operator says that a log continues another; ``root`` is hex."""
    predicate = {
        "origin": origin,
        "previous_origin": previous,
        "size": size,
        "root": root,
        "checkpoint": checkpoint,
    }
    return dsse.statement("log-continuation", predicate, [])


def policy_statement(policy: policy_pb2.Policy) -> dict[str, Any]:
    """The statement by which a person publishes a policy: rules and limits by digest."""
    predicate = {
        "policy": policy.name,
        "version": policy.version,
        "bundle_sha256": policy.bundle_sha256,
        "limits_sha256": policy.limits_sha256,
        "rules": [rule.id for rule in policy.rules],
        "publication_id": uuid.uuid4().hex,
    }
    return dsse.statement("policy", predicate, [("rules", policy.bundle_sha256), ("limits", policy.limits_sha256)])


def erasure_order_statement(resource: str, reason_code: str) -> dict[str, Any]:
    """The statement by which a compliance officer orders an erasure.

    Raises:
        InvalidInputError: ``REASON_CODE``.
    """
    check_code(reason_code, ERASURE_REASONS)
    predicate = {"resource": resource, "reason_code": reason_code, "order_id": uuid.uuid4().hex}
    return dsse.statement("erasure-order", predicate, [])


def read_approval(statement: Mapping[str, Any]) -> SignedApproval:
    """Reads an approval's predicate and demands that its subjects are the card and the adapter it names.

    Raises:
        InvalidInputError: ``STATEMENT`` for any other shape.
    """
    signed = _read(statement, "approval", SignedApproval)
    digests = {s.get("digest", {}).get("sha256") for s in statement.get("subject", ())}
    if not {signed.card_sha256, signed.adapter_sha256} <= digests:
        raise _malformed("approval", "its subjects are not the card and the adapter")
    if signed.decision not in (GRANT, REFUSE):
        raise _malformed("approval", "decision must be grant or refuse")
    return signed


def read_waiver(statement: Mapping[str, Any]) -> SignedWaiver:
    """Reads a waiver's predicate.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    signed = _read(statement, "waiver", SignedWaiver)
    if not signed.rules or not all(isinstance(r, str) for r in signed.rules):
        raise _malformed("waiver", "rules must name at least one rule")
    if len(set(signed.rules)) < len(signed.rules):
        raise _malformed("waiver", "rules must name no rule twice")
    if not _is_day(signed.expires):
        raise _malformed("waiver", "expires is not a day, YYYY-MM-DD")
    return signed


def read_raise(statement: Mapping[str, Any]) -> SignedRaise:
    """Reads the predicate of a raise.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    return _read(statement, "budget-raise", SignedRaise)


def read_dismissal(statement: Mapping[str, Any]) -> SignedDismissal:
    """Reads the predicate of a dismissal.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    return _read(statement, "appeal-dismissal", SignedDismissal)


def read_revocation(statement: Mapping[str, Any]) -> SignedRevocation:
    """Reads a revocation's predicate.

    Raises:
        InvalidInputError: ``STATEMENT`` or ``REASON_CODE``.
    """
    signed = _read(statement, "revocation", SignedRevocation)
    check_code(signed.reason, APPROVAL_REVOCATION_REASONS)
    return signed


def read_grant(statement: Mapping[str, Any]) -> SignedGrant:
    """Reads a grant's predicate: a known role, a person's subject, and an id that can be a resource's name.

    Raises:
        InvalidInputError: ``STATEMENT`` or ``ROLE``.
    """
    signed = _read(statement, "grant", SignedGrant)
    role_name(signed.role)
    if not PERSON.fullmatch(signed.subject):
        raise _malformed("grant", "subject is not a person's, spiffe://DOMAIN/people/NAME")
    if not re.fullmatch(r"[a-z0-9-]{1,64}", signed.grant_id):
        raise _malformed("grant", "grant_id is not 1 to 64 of a-z, 0-9 and -")
    if not signed.unit:
        raise _malformed("grant", "unit must be given")
    return signed


def read_freeze(statement: Mapping[str, Any]) -> SignedFreeze:
    """Reads a freeze order's predicate.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    signed = _read(statement, "freeze", SignedFreeze)
    if signed.reason_code not in FREEZE_REASONS:
        raise _malformed("freeze", "unknown reason_code")
    return signed


def read_continuation(statement: Mapping[str, Any]) -> SignedContinuation:
    """Reads a continuation's predicate.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    return _read(statement, "log-continuation", SignedContinuation)


def read_policy(statement: Mapping[str, Any]) -> SignedPolicy:
    """Reads a policy publication's predicate.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    signed = _read(statement, "policy", SignedPolicy)
    if not signed.publication_id:
        raise _malformed("policy", "publication_id must be given")
    return signed


def read_grant_revocation(statement: Mapping[str, Any]) -> SignedGrantRevocation:
    """Reads a grant revocation's predicate.

    Raises:
        InvalidInputError: ``STATEMENT`` or ``REASON_CODE``.
    """
    signed = _read(statement, "grant-revocation", SignedGrantRevocation)
    check_code(signed.reason, GRANT_REVOCATION_REASONS)
    return signed


def read_erasure_order(statement: Mapping[str, Any]) -> SignedErasureOrder:
    """Reads an erasure order's predicate; the reason must be a known code.

    Raises:
        InvalidInputError: ``STATEMENT`` or ``REASON_CODE``.
    """
    signed = _read(statement, "erasure-order", SignedErasureOrder)
    check_code(signed.reason_code, ERASURE_REASONS)
    if not re.fullmatch(r"[0-9a-f]{32}", signed.order_id):
        raise _malformed("erasure-order", "order_id is not 32 hex digits")
    return signed


def check_code(code: str, known: Sequence[str]) -> None:
    """Demands a reason from a fixed vocabulary: it stays in the log for ever, so it may hold nobody's words.

    Raises:
        InvalidInputError: ``REASON_CODE``.
    """
    if code not in known:
        raise InvalidInputError("REASON_CODE", f"no reason {code[:64]!r}", remedy=f"one of: {', '.join(known)}")


def role_name(text: str) -> str:
    """The enum name of a role written as ``validator`` or ``ROLE_VALIDATOR``.

    Raises:
        InvalidInputError: ``ROLE`` for anything else.
    """
    name = text if text.startswith("ROLE_") else f"ROLE_{text.upper()}"
    if name not in identity_pb2.Role.keys() or name == "ROLE_UNSPECIFIED":
        words = (known.removeprefix("ROLE_").lower().replace("_", "-") for known in identity_pb2.Role.keys()[1:])
        raise InvalidInputError("ROLE", f"{text[:64]!r} is not a role", remedy=f"one of: {', '.join(words)}")
    return name


def rfc3339(moment: dt.datetime) -> str:
    """A UTC moment as text, to the second."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str, what: str) -> dt.datetime:
    """Reads a moment as :func:`rfc3339` writes it.

    Raises:
        InvalidInputError: ``STATEMENT``.
    """
    try:
        return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise _malformed(what, "signed_at is not a UTC time to the second") from error


def _read(statement: Mapping[str, Any], name: str, kind: type[T]) -> T:
    expected = dsse.predicate_type(name)
    predicate = statement.get("predicate")
    if statement.get("predicateType") != expected or not isinstance(predicate, Mapping):
        raise _malformed(name, f"the predicate type is not {expected}")
    fields = {n: str(t) for n, t in kind.__annotations__.items()}
    if set(predicate) != set(fields):
        odd = sorted(set(predicate) ^ set(fields))
        raise _malformed(name, f"members missing or unknown: {', '.join(odd)[:200]}")
    types: dict[str, type] = {"str": str, "int": int, "list[str]": list}
    for member, value in predicate.items():
        if type(value) is not types[fields[member]]:
            raise _malformed(name, f"{member} has the wrong type")
    return kind(**predicate)


def _is_day(text: str) -> bool:
    """Whether it is a day in the one spelling in which days compare as texts."""
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _malformed(name: str, why: str) -> InvalidInputError:
    return InvalidInputError("STATEMENT", f"not a valid {name} statement: {why}", remedy="sign it with `assay`")
