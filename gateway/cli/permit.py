"""``assay permit``: issue, check, revoke."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Annotated

import typer

from assay.v1 import permit_pb2
from audit.verify.permit import check_permit
from audit.verify.trust import TrustFile
from gateway.cli.errors import EXIT_REFUSED, exit_on_error
from gateway.cli.files import read_object, write_json, written_if
from gateway.cli.output import Output, OutputOption, as_dict, emit
from gateway.cli.session import AddressOption, IdentityOption, open_session
from gateway.statements import REVOCATION_REASONS

app = typer.Typer()


@app.command()
def issue(
    model: Annotated[str, typer.Argument(help="units/UNIT/models/ID")],
    purpose: Annotated[str, typer.Option(help="What the model will do.")],
    environment: Annotated[str, typer.Option(help="Where, such as production-eu.")],
    valid_seconds: Annotated[int, typer.Option(help="At most 86400; 0 means as long as it may.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the permit here, for offline checks.")] = None,
    request_id: Annotated[str | None, typer.Option(help="UUID; repeat it to retry safely.")] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Issue a permit for an approved model.

    Example: assay permit issue units/support/models/x --purpose support-replies --environment staging --out permit.json
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = permit_pb2.IssuePermitRequest(
            model=model, purpose=purpose, environment=environment, valid_seconds=valid_seconds,
            request_id=request_id or str(uuid.uuid4()),
        )  # fmt: skip
        with written_if(out) as stream:
            permit = session.permits.IssuePermit(request).permit
            write_json(stream, as_dict(permit))
        emit(
            output,
            permit,
            [f"{permit.name}  until {permit.not_after.ToJsonString()}", f"  adapter {permit.adapter_sha256}"],
        )


@app.command()
def check(
    permit: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Permit file.")],
    adapter: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the adapter that would run.")],
    base: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the base model that would run.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file, from outside.")],
    purpose: Annotated[str, typer.Option(help="What the model does there.")],
    environment: Annotated[str, typer.Option(help="Where it runs.")],
    place: Annotated[
        str,
        typer.Option(help="Where it is used, as the declaration of use names places: EU, US-NY. Left out: not asked."),
    ] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Check offline: hash the files, verify permit, approvals and proofs. Exit 0 allowed, 6 refused.

    Example: assay permit check permit.json --adapter ./adapter --base ./base --trust trust.txt
    --purpose support-replies --environment staging
    """
    with exit_on_error():
        verdict = check_permit(
            read_object(permit, "PERMIT_MALFORMED"), adapter, base, purpose, environment,
            dt.datetime.now(dt.UTC), TrustFile.load(trust), place,
        )  # fmt: skip
        word = "allowed" if verdict.allowed else f"refused: {verdict.reason}"
        facts = {"allowed": verdict.allowed, "reason": verdict.reason, "not_checked": list(verdict.not_checked)}
        emit(output, facts, [word, *(f"  not checked: {line}" for line in verdict.not_checked)])
    if not verdict.allowed:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="units/UNIT/permits/ID")],
    reason: Annotated[str, typer.Option(help=f"One of: {', '.join(REVOCATION_REASONS)}.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Revoke a permit at once.

    Example: assay permit revoke units/support/permits/abc --reason incident
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = session.permits.RevokePermit(permit_pb2.RevokePermitRequest(name=name, reason=reason))
        emit(output, answer.permit, [f"{answer.permit.name} revoked"])
