"""Publishing a policy: two people sign the digests of rules and limits, and the gateway runs under no others.

The gateway holds nobody's key, so that it cannot put a policy into force by itself, and no one person can either. A
publication that two people signed lies in a file beside the first grants; at the first start under another policy than
the recorded one the gateway reads it, demands that it names exactly the policy that was loaded, and records it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography import x509
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection

from assay import canonical, dsse, durable
from assay.errors import AssayError, InvalidInputError, PermissionDeniedError, PreconditionError
from assay.identity import Layout, load_certificate, load_p256
from assay.v1 import policy_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import statements
from gateway.caller import ALL_UNITS, SYSTEM_UNIT, Caller
from gateway.identity_registry import grants_of
from gateway.key_registry import People
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.database import Store
from gateway.store.tables import FactRow

PUBLISHERS = ("ROLE_OPERATOR", "ROLE_COMPLIANCE_OFFICER")
SIGNERS = 2
_IN_FORCE, _SINCE = "policy.in-force", "policy.in-force-since"
_USED = "policy.publication."


def publish(layout: Layout, person: Path, policy: policy_pb2.Policy) -> dict[str, Any]:
    """Signs a policy with a person's own key and puts the publication where the gateway looks for it at its next start.

    A publication of the same policy that another person has signed already gets this signature beside theirs.

    Returns:
        The envelope; with one signature it puts nothing into force.

    Raises:
        InvalidInputError: the person's key or certificate cannot be read.
    """
    certificate = load_certificate(person / "person.crt")
    key, target = load_p256(person / "person.key"), layout.policy_publication
    known = _of_another(target, policy, certificate)
    if known is not None:
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


def _of_another(path: Path, policy: policy_pb2.Policy, certificate: x509.Certificate) -> dict[str, Any] | None:
    """The publication that waits, if it is of this policy and waits for a second person."""
    try:
        envelope = _read(path)
        signed = statements.read_policy(dsse.read_statement(dsse.envelope_payload(envelope)))
        certificates = [x509.load_der_x509_certificate(dsse.from_base64(s["cert"])) for s in envelope["signatures"]]
    except (AssayError, KeyError, TypeError, ValueError):
        return None
    same = (signed.bundle_sha256, signed.limits_sha256) == (policy.bundle_sha256, policy.limits_sha256)
    waits = len(certificates) == 1 and certificates[0].public_key() != certificate.public_key()
    return envelope if same and waits else None


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
