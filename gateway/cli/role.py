"""``assay role``: whoami, list, grant, revoke."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from assay.certificates import PERSON
from assay.errors import InvalidInputError
from assay.v1 import identity_pb2
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit, every_page, table
from gateway.cli.session import AddressOption, IdentityOption, open_session
from gateway.cli.signing import sign
from gateway.statements import GRANT_REVOCATION_REASONS, grant_revocation_statement, grant_statement, role_name

app = typer.Typer()


@app.command()
def whoami(identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show your subject and live roles, as the gateway sees them.

    Example: assay role whoami
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = session.identity.WhoAmI(identity_pb2.WhoAmIRequest())
        emit(output, answer, [answer.subject, *[f"  {_role(g.role)} in {g.unit}" for g in answer.grants]])


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also revoked grants.")] = False,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List role grants.

    Example: assay role list --all
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = identity_pb2.ListRoleGrantsRequest(include_revoked=all_, page_size=200)
        answer = every_page(session.identity.ListRoleGrants, request)
        rows = [
            (g.name, g.subject, _role(g.role), g.unit, "revoked" if g.HasField("revoke_time") else "live")
            for g in answer.role_grants
        ]
        emit(output, answer, [table(("name", "subject", "role", "unit", "state"), rows)])


@app.command()
def grant(
    subject: Annotated[str, typer.Argument(help="spiffe://DOMAIN/people/NAME")],
    role: Annotated[
        str, typer.Argument(help="requester, compliance-officer, validator, deployer, auditor or operator.")
    ],
    unit: Annotated[str, typer.Option(help="A unit, or - for all.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Grant a role; signed with the operator's own key.

    Example: assay role grant spiffe://assay.local/people/vera validator --unit support
    """
    with exit_on_error(), open_session(identity, address) as session:
        name = role_name(role.replace("-", "_"))
        if not PERSON.fullmatch(subject):
            raise InvalidInputError(
                "SUBJECT", f"{subject[:100]!r} is no person's subject", remedy="write it as `assay role whoami` shows "
                "yours: spiffe://DOMAIN/people/NAME",
            )  # fmt: skip
        envelope = sign(session, grant_statement(subject, name, unit, f"g-{uuid.uuid4().hex[:12]}"))
        answer = session.identity.GrantRole(identity_pb2.GrantRoleRequest(envelope=envelope))
        emit(output, answer.role_grant, [f"{answer.role_grant.name} granted"])


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="roleGrants/ID")],
    reason: Annotated[str, typer.Option(help=f"One of: {', '.join(GRANT_REVOCATION_REASONS)}.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Revoke a grant at once; signed with the operator's own key.

    Example: assay role revoke roleGrants/g-1a2b3c --reason left
    """
    with exit_on_error(), open_session(identity, address) as session:
        envelope = sign(session, grant_revocation_statement(name.removeprefix("roleGrants/"), reason))
        answer = session.identity.RevokeRole(identity_pb2.RevokeRoleRequest(name=name, envelope=envelope))
        emit(output, answer.role_grant, [f"{answer.role_grant.name} revoked"])


def _role(role: identity_pb2.Role) -> str:
    return identity_pb2.Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-")
