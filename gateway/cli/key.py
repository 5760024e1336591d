"""``assay key``: list, rotate, compromised, on the installation's machine; sign, on that of whoever signs."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.errors import InvalidInputError
from assay.key_events import COMPROMISED, ROTATED, Rotation
from audit.verify.trust import TrustFile
from gateway import key_list, key_rotation
from gateway.cli.errors import exit_on_error
from gateway.cli.files import read_object, write_json, written
from gateway.cli.output import Output, OutputOption, emit, table
from gateway.cli.session import IdentityOption, identity_folder, typed_identity
from gateway.cli.signing import read_order
from gateway.key_files import SECRETS
from gateway.settings import Settings

app = typer.Typer()
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="permit, pdf, train-worker, audit-worker or people/PERSON.")
]
DirectoryArgument = Annotated[Path, typer.Argument(help="Directory of the installation.")]
OrderOption = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="An order signed elsewhere, instead of --as.")
]
DraftOption = Annotated[
    Path | None, typer.Option(help="Only draft, instead of --as: write here what `assay key sign` signs elsewhere.")
]


@app.command("list")
def list_(directory: DirectoryArgument, output: OutputOption = Output.TEXT) -> None:
    """Every key: purpose, key id, since and until when, state. The gateway may run.

    Example: assay key list ./bank
    """
    with exit_on_error():
        found = key_list.listed(Settings.load(directory))
        rows = [(k.name, k.purpose, k.keyid[:16], k.since, k.until, k.state) for k in found]
        columns = ("key", "for", "key id", "since", "until", "state")
        emit(output, {"keys": [dataclasses.asdict(k) for k in found]}, [table(columns, rows)])


@app.command()
def rotate(
    context: typer.Context,
    name: NameArgument,
    directory: DirectoryArgument,
    identity: IdentityOption = None,
    order: OrderOption = None,
    write_draft: DraftOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let a new key follow a service's or a person's, by an operator's order. Stop the gateway first.

    Sealing keys (gateway-seal, train-worker-seal, audit-worker-seal) and the canary master (canary) sign nothing: they
    are replaced without an order, and no record speaks of it.

    Example: assay key rotate permit ./bank --as ./bank/people/oscar
    """
    with exit_on_error():
        settings = Settings.load(directory)
        if name in SECRETS:
            key_rotation.replace_secret(settings, name)
            emit(output, {"key": name}, [f"{name} is another from the next start on"])
            return
        full = key_rotation.full_name(settings, name)
        draft = lambda person: key_rotation.draft_rotation(settings, full, person)  # noqa: E731
        meant = key_rotation.Meant(ROTATED, full)
        identity = typed_identity(context, identity, order, write_draft)
        _order(settings, draft, meant, identity, order, write_draft, output, staged=full)


@app.command()
def compromised(
    context: typer.Context,
    name: NameArgument,
    directory: DirectoryArgument,
    since: Annotated[
        str,
        typer.Option(
            help="First record in doubt: its index, or a time such as 2026-11-27T09:30:00Z. With --order, the order's."
        ),
    ] = "",
    key: Annotated[
        str, typer.Option(help="Beginning of the key id; default: the newest key of this name, or the order's.")
    ] = "",
    identity: IdentityOption = None,
    order: OrderOption = None,
    write_draft: DraftOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say that a key may have been in other hands, by an operator's order. Stop the gateway first.

    It signs nothing more, what it signed since then is listed as suspect, and permits that a thief may have signed end.
    Live grants that a thief may have made are listed: they carry no permit. Grant anew what was meant, and revoke them.

    Example: assay key compromised permit ./bank --since 2026-11-27T09:30:00Z --as ./bank/people/oscar
    """
    with exit_on_error():
        settings = Settings.load(directory)
        full = key_rotation.full_name(settings, name)
        draft = lambda person: key_rotation.draft_compromise(settings, full, since, key, person)  # noqa: E731
        if order is None and not since:
            raise InvalidInputError("KEY_SINCE", "no first record in doubt was named", remedy="pass --since")
        meant = key_rotation.Meant(COMPROMISED, full, since, key)
        identity = typed_identity(context, identity, order, write_draft)
        _order(settings, draft, meant, identity, order, write_draft, output)


@app.command()
def sign(
    draft: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What --write-draft wrote.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file of the log.")],
    write_order: Annotated[Path, typer.Option(help="File for the order, for --order beside the gateway.")],
    identity: IdentityOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Sign a rotation or a compromise that was drafted beside the gateway, on your own machine; says what it is.

    Example: assay key sign draft.json --trust ./bank/trust.txt --as ./bank/people/oscar --write-order order.json
    """
    with exit_on_error():
        person = identity_folder(identity)
        said, trusted = read_object(draft, "DRAFT_MALFORMED"), TrustFile.load(trust)
        with written(write_order) as stream:
            event, envelope = key_rotation.sign_draft(said, trusted, person, dt.datetime.now(dt.UTC))
            write_json(stream, envelope)
        words = key_rotation.words(event)
        data = {"order": str(write_order), "log": trusted.origin, "key": event.name, "says": words}
        emit(output, data, [f"signed for {trusted.origin}: {words}", f"if you mean that, hand over {write_order}"])


def _order(
    settings: Settings,
    draft: Callable[[Path | None], Mapping[str, Any]],
    meant: key_rotation.Meant,
    identity: Path | None,
    order: Path | None,
    write_draft: Path | None,
    output: Output,
    staged: str = "",
) -> None:
    """Drafts; or signs, or reads what was signed, and has it recorded."""
    if [identity, order, write_draft].count(None) != 2:
        raise InvalidInputError(
            "NO_IDENTITY",
            "an order has one source",
            remedy="pass --as FOLDER; or --write-draft FILE, then assay key sign elsewhere, then --order FILE",
        )
    if write_draft is not None:
        with written(write_draft) as stream:
            write_json(stream, draft(None))
        then = f"assay key sign {write_draft} --trust {settings.layout.trust} --as FOLDER --write-order FILE"
        emit(output, {"draft": str(write_draft)}, [f"nobody has signed it yet; next, on the signer's machine: {then}"])
        return
    envelope = read_order(order) if order else draft(identity)
    done = key_rotation.order(settings, envelope, meant, "" if order else staged)
    event = done.event
    data: dict[str, Any] = {"key": event.name, "event_id": event.event_id, "record_index": done.index}
    if isinstance(event, Rotation):
        data |= {"old": event.old.keyid, "new": event.new.keyid}
        line = f"record {done.index}: {event.new.keyid} follows {event.old.keyid} as {event.name}"
    else:
        data |= {"keyid": event.public.keyid, "since_index": event.since_index, "permits_revoked": list(done.voided)}
        data |= {"grants_in_doubt": list(done.doubtful), "grants_not_listed": done.unlisted}
        line = f"record {done.index}: {event.public.keyid} of {event.name} signs no more; in doubt since record "
        line += str(event.since_index)
    lines = [*(f"  revoked {permit}" for permit in done.voided), *(f"  in doubt {grant}" for grant in done.doubtful)]
    if done.unlisted:
        lines.append(f"  recorded; grants in doubt cannot be listed: {done.unlisted}; then `assay verify` lists them")
    if done.doubtful:
        lines.append("grants in doubt carry no permit: grant anew what was meant, then revoke them (assay role)")
    emit(output, data, [line, *lines])
