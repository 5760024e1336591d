"""``assay identity``: list, enrol, renew; for whoever holds the roots' keys, where ``authority/`` lies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.identity import Layout
from gateway import identity_files
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit, table
from gateway.identity_files import VALID, Held
from gateway.settings import Settings

app = typer.Typer()
DirectoryArgument = Annotated[Path, typer.Argument(help="Directory of the installation, with authority/.")]


@app.command("list")
def list_(
    directory: Annotated[Path, typer.Argument(help="Directory of the installation.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Every certificate here: what it names, until when, state. The gateway may run.

    Example: assay identity list ./bank
    """
    with exit_on_error():
        _show(directory, identity_files.held(Layout(directory)), output)


@app.command()
def enrol(
    directory: DirectoryArgument,
    name: Annotated[str, typer.Argument(help="Of the person: a-z, 0-9 and -.")],
    address: Annotated[
        str, typer.Option(help="host:port by which the person reaches the gateway; default: where it listens.")
    ] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a person's folder, with a key and a certificate. Roles come by `assay role grant`. The gateway may run.

    Example: assay identity enrol ./bank vera --address gw.bank.example:7443
    """
    with exit_on_error():
        made = identity_files.enrol(Settings.load(directory), name, address)
        data = {**_told(made, directory), "folder": str(made.path.parent)}
        emit(output, data, [
            f"{made.subject}, until {made.until:%Y-%m-%d}: {made.path.parent}",
            f"give {name} the folder, whose key nobody else may keep; leave {made.path.name} here for its renewal",
            f"next: assay role grant {made.subject} ROLE --unit UNIT",
        ])  # fmt: skip


@app.command()
def renew(
    directory: DirectoryArgument,
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="gateway, train-worker, audit-worker, witness or people/NAME; default: all that end within 30 days.",
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host by which a named service is reached; repeat for more. They replace its old ones."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """New certificates: with a new TLS key for a service, for the same key of a person. The gateway may run.

    A service reads its own when it starts. The old certificate stays valid until its end.

    Example: assay identity renew ./bank gateway --host gw.bank.example
    """
    with exit_on_error():
        made = identity_files.renew(Layout(directory), name or [], host or [])
        restart = [one.name for one in made if not one.name.startswith("people/")]
        carry = [str(path) for one in made for path in (one.path, *([one.key] if one.name in restart else []))]
        data = {"identities": [_told(one, directory) for one in made], "restart": restart, "files": carry}
        if not made:
            emit(output, data, ["nothing ends within 30 days"])
            return
        emit(output, data, [
            _table(made),
            *([f"start again: {', '.join(restart)}"] if restart else []),
            f"where a folder lies on another machine, carry over: {', '.join(carry)}",
        ])  # fmt: skip


def _show(directory: Path, found: Sequence[Held], output: Output) -> None:
    told = [_told(one, directory) for one in found]
    remedies = [f"{one['name']} {one['state']}: {one['remedy']}" for one in told if one["remedy"]]
    emit(output, {"identities": told}, [_table(found), *remedies])


def _told(one: Held, directory: Path) -> dict[str, Any]:
    state = one.state(dt.datetime.now(dt.UTC))
    return {
        "name": one.name,
        "subject": one.subject,
        "hosts": list(one.hosts),
        "until": one.until.isoformat(),
        "state": state,
        "remedy": "" if state == VALID else one.remedy(directory),
    }


def _table(found: Sequence[Held]) -> Any:
    now = dt.datetime.now(dt.UTC)
    rows = [(h.name, h.subject, ", ".join(h.hosts), f"{h.until:%Y-%m-%d}", h.state(now)) for h in found]
    return table(("identity", "names", "hosts", "until", "state"), rows)
