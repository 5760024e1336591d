"""Publishing a policy: two people sign the digests of rules and limits, and the gateway runs under no others.

The gateway holds nobody's key, so that it cannot put a policy into force by itself, and no one person can either. A
publication that two people signed lies in a file beside the first grants; at the first start under another policy than
the recorded one the gateway reads it, demands that it names exactly the policy that was loaded, and records it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from assay import canonical, dsse, durable
from assay.errors import (
    AlreadyExistsError,
    AssayError,
    InvalidInputError,
    PermissionDeniedError,
    PreconditionError,
)
from assay.identity import Layout, load_certificate, load_p256, subject_of
from assay.v1 import policy_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import database_file, history, statements
from gateway.caller import ALL_UNITS, SYSTEM_UNIT, Caller
from gateway.identity_registry import grants_of
from gateway.key_registry import People
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.database import Store
from gateway.store.tables import FactRow, GrantRow

T = TypeVar("T")
PUBLISHERS = ("ROLE_OPERATOR", "ROLE_COMPLIANCE_OFFICER")
SIGNERS = 2
_IN_FORCE, _SINCE = "policy.in-force", "policy.in-force-since"
_USED = "policy.publication."


def publish(layout: Layout, person: Path, policy: policy_pb2.Policy) -> dict[str, Any]:
    """Signs a policy with a person's own key and puts the publication where the gateway looks for it at its next start.

    A publication of the same policy that another person has signed already gets this signature beside theirs; one that
    is complete is not replaced before the gateway has recorded it.

    Returns:
        The envelope; with one signature it puts nothing into force.

    Raises:
        InvalidInputError: the person's key or certificate cannot be read.
        AlreadyExistsError: ``POLICY_SIGNED``: enough people have signed this policy.
    """
    certificate = load_certificate(person / "person.crt")
    key, target = load_p256(person / "person.key"), layout.policy_publication
    known = _of_same(target, policy)
    signed = [] if known is None else signers(known)
    if known is not None and len(set(signed)) >= SIGNERS and not _used(layout, known):
        raise AlreadyExistsError(
            "POLICY_SIGNED",
            f"{' and '.join(signed)} have signed this policy",
            remedy="restart the gateway to put it in force; where that refuses it, or the policy was in force before, "
            f"move {target} away and sign anew",
        )
    if known is not None and len(signed) == 1 and signed[0] != subject_of(certificate):
        envelope = dsse.cosign_person(known, key, certificate)
    else:
        envelope = dsse.sign_person(canonical.encode(statements.policy_statement(policy)), key, certificate)
    target.parent.mkdir(exist_ok=True)
    durable.write(target, f"{json.dumps(envelope, indent=1)}\n".encode())
    return envelope


def put_in_force(settings: Settings, store: Store, policy: policy_pb2.Policy, people: People) -> None:
    """Records the publication of the policy that was loaded, when it is another than the recorded one.

    Raises:
        PreconditionError: ``POLICY_UNPUBLISHED`` when no publication names this policy, it was used before, or not
            exactly two people signed it.
        PermissionDeniedError: ``ROLE_MISSING`` when one of its signers holds no publisher's role in every unit.
        InvalidInputError, IntegrityError: the publication cannot be read, or its signature does not hold.
    """
    in_force = f"{policy.bundle_sha256} {policy.limits_sha256}"

    def work(uow: UnitOfWork) -> None:
        known = rows.get(uow.connection, FactRow, job=SYSTEM_UNIT, key=_IN_FORCE)
        if known is not None and known.value == in_force:
            return
        envelope = _read(settings.layout.policy_publication)
        verified = people.verify(envelope, uow.now)
        signed = statements.read_policy(verified.statement)
        if (signed.bundle_sha256, signed.limits_sha256) != (policy.bundle_sha256, policy.limits_sha256):
            raise _unpublished("the newest publication names other rules or limits than those installed here")
        if rows.get(uow.connection, FactRow, job=SYSTEM_UNIT, key=_USED + signed.publication_id) is not None:
            raise _unpublished("this publication was used before; coming back to a policy takes a new one")
        if len({signer.subject for signer in verified.signers}) != SIGNERS or len(verified.signers) != SIGNERS:
            raise _unpublished(f"a publication has {SIGNERS} signers, and {len(verified.signers)} signed this one")
        for signer in verified.signers:
            _demand_role(uow.connection, signer.subject, settings.layout.policy_publication)
        uow.append(RecordDraft(SYSTEM_UNIT, "policy.published", "policy", {}, envelope=envelope))
        rows.insert(uow.connection, FactRow(job=SYSTEM_UNIT, key=_USED + signed.publication_id, value=in_force))
        for key, value in ((_IN_FORCE, in_force), (_SINCE, str(rows.micros(uow.now)))):
            if rows.get(uow.connection, FactRow, job=SYSTEM_UNIT, key=key) is None:
                rows.insert(uow.connection, FactRow(job=SYSTEM_UNIT, key=key, value=value))
            else:
                rows.update(uow.connection, FactRow, {"job": SYSTEM_UNIT, "key": key}, {"value": value})

    store.ledger.run(work)


def in_force_since(store: Store) -> Timestamp | None:
    """The time of the record that put the policy in force; None where that was before this was noted."""
    noted = store.read(lambda c: rows.get(c, FactRow, job=SYSTEM_UNIT, key=_SINCE))
    return None if noted is None else rows.timestamp(int(noted.value))


def demand_publisher(layout: Layout, person: Path) -> None:
    """Demands a publisher's role of whoever is about to sign, as far as grants lie here.

    On a person's own machine there are none, and the gateway asks at its start.

    Raises:
        InvalidInputError: the person's certificate cannot be read.
        PermissionDeniedError: ``ROLE_MISSING``.
    """
    subject = subject_of(load_certificate(person / "person.crt"))
    grants = _granted(layout)
    if grants is not None and not any((subject, role, ALL_UNITS) in grants for role in PUBLISHERS):
        raise PermissionDeniedError(
            "ROLE_MISSING", f"{subject} holds neither {' nor '.join(PUBLISHERS)} in every unit", remedy=_REMEDY
        )


def signers(envelope: Mapping[str, Any]) -> list[str]:
    """The subjects who have signed a publication, as their certificates say; only the gateway verifies them.

    Raises:
        InvalidInputError, UnauthenticatedError: it is none.
    """
    try:
        certificates = [x509.load_der_x509_certificate(dsse.from_base64(s["cert"])) for s in envelope["signatures"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("POLICY_PUBLICATION", "a signature has no certificate", remedy=_REMEDY) from error
    return [subject_of(certificate) for certificate in certificates]


def _of_same(path: Path, policy: policy_pb2.Policy) -> dict[str, Any] | None:
    """The publication that lies there, if it is of this policy."""
    try:
        envelope = _read(path)
        signed = _signed(envelope)
        signers(envelope)
    except AssayError:
        return None
    same = (signed.bundle_sha256, signed.limits_sha256) == (policy.bundle_sha256, policy.limits_sha256)
    return envelope if same else None


def _signed(envelope: Mapping[str, Any]) -> statements.SignedPolicy:
    return statements.read_policy(dsse.read_statement(dsse.envelope_payload(envelope)))


def _used(layout: Layout, envelope: Mapping[str, Any]) -> bool:
    """Whether a publication is known here to be recorded."""
    key = _USED + _signed(envelope).publication_id
    return bool(_ask(layout, lambda c: rows.get(c, FactRow, job=SYSTEM_UNIT, key=key)))


def _granted(layout: Layout) -> set[tuple[str, str, str]] | None:
    """Subject, role and unit of each grant that holds: of the rows, and before the first start the first grants.

    None where neither is here to be read.
    """
    try:
        settings = Settings.load(layout.root)
        if database_file.is_there(settings):
            held = _ask(layout, lambda c: rows.select_all(c, GrantRow, revoked_us=0))
            if held is None:
                return None
            if held:
                return {(g.subject, g.role, g.unit) for g in held}
        database_file.demand_not_lost(settings)
        envelopes = json.loads(layout.bootstrap_grants.read_text("utf-8"))
        first = [statements.read_grant(dsse.read_statement(dsse.envelope_payload(e))) for e in envelopes]
        return {(g.subject, statements.role_name(g.role), g.unit) for g in first}
    except (AssayError, OSError, TypeError, ValueError):
        return None


def _ask(layout: Layout, question: Callable[[Connection], T]) -> T | None:
    """What the gateway's rows say; None where they do not lie here or cannot be read."""
    try:
        settings = Settings.load(layout.root)
        if not database_file.is_there(settings):
            return None
        engine = history.reader(settings)
        try:
            with engine.connect() as connection:
                return question(connection)
        finally:
            engine.dispose()
    except (AssayError, SQLAlchemyError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise _unpublished(f"{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise InvalidInputError("POLICY_PUBLICATION", f"cannot read {path.name}", remedy=_REMEDY) from error
    if not isinstance(value, dict):
        raise InvalidInputError("POLICY_PUBLICATION", f"{path.name} holds no envelope", remedy=_REMEDY)
    return value


def _demand_role(connection: Connection, subject: str, publication: Path) -> None:
    caller = Caller(subject, frozenset((g.role, g.unit) for g in grants_of(connection, subject)))
    if not any(caller.holds(role, ALL_UNITS) for role in PUBLISHERS):
        raise PermissionDeniedError(
            "ROLE_MISSING",
            f"{subject} signed {publication} and holds neither {' nor '.join(PUBLISHERS)} in every unit",
            remedy=f"move that file away; then {_REMEDY}",
        )


def _unpublished(why: str) -> AssayError:
    return PreconditionError("POLICY_UNPUBLISHED", f"nobody has published the installed policy: {why}", remedy=_REMEDY)


_REMEDY = "assay policy publish DIR --as FOLDER, by two people who are operators or compliance officers of every unit"
