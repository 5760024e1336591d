"""A person's signatures. The key is read here, on the person's side; only the signed statement travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay import canonical, dsse
from assay.errors import PermissionDeniedError
from assay.identity import load_certificate, load_p256
from assay.v1 import approval_pb2, identity_pb2
from gateway.cli.files import read_object
from gateway.cli.session import Session


def sign(session: Session, statement: dict[str, Any]) -> identity_pb2.Envelope:
    """Signs an in-toto statement (``gateway.statements`` builds them) with the person's own key."""
    certificate = load_certificate(session.folder / "person.crt")
    envelope = dsse.sign_person(canonical.encode(statement), load_p256(session.folder / "person.key"), certificate)
    return dsse.envelope_to_proto(envelope)


def signing_role(session: Session, pending: approval_pb2.PendingApproval, *, granted: bool) -> str:
    """The role under which the caller can sign: one still missing, or, for a refusal, any reviewer's role it holds.

    A role counts where it was granted: in the job's unit, or in every unit.

    Raises:
        PermissionDeniedError: ``NO_ROLE_MISSING`` when there is none.
    """
    unit = pending.tuning_job.split("/")[1]
    grants = session.identity.WhoAmI(identity_pb2.WhoAmIRequest()).grants
    held = {g.role for g in grants if g.unit in (unit, "-")}
    wanted = list(pending.missing_roles) + ([] if granted else list(_REVIEWERS))
    role = next((r for r in wanted if r in held), None)
    if role is None:
        missing = ", ".join(identity_pb2.Role.Name(r) for r in pending.missing_roles) or "none"
        raise PermissionDeniedError(
            "NO_ROLE_MISSING", f"none of your roles in {unit} is still needed (missing: {missing})"
        )
    return identity_pb2.Role.Name(role)


def read_order(path: Path) -> dict[str, Any]:
    """An order that was signed elsewhere.

    Raises:
        InvalidInputError: ``ORDER_MALFORMED``.
    """
    return read_object(path, "ORDER_MALFORMED")


_REVIEWERS = (identity_pb2.ROLE_COMPLIANCE_OFFICER, identity_pb2.ROLE_VALIDATOR)
