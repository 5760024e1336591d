"""``assay ledger``: migrate, fsck, backup, restore, freeze; for whoever runs the installation, on its own machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from assay.errors import InvalidInputError, PreconditionError
from assay.identity import Layout
from audit.ledger import dialect
from audit.ledger.anchor import FileAnchor
from audit.ledger.backup import backup as take_backup
from audit.ledger.backup import marker
from audit.ledger.note import Verifier
from audit.ledger.restore import open_source
from audit.ledger.restore import restore as put_back
from audit.ledger.upkeep import examine, record_count
from audit.verify.trust import TrustFile
from gateway import database_file
from gateway.cli.errors import EXIT_CODES, exit_on_error
from gateway.cli.files import write_json, written, written_if
from gateway.cli.output import Output, OutputOption, emit, progress_console, table
from gateway.cli.session import IdentityOption, typed_identity
from gateway.cli.signing import read_order
from gateway.settings import Settings
from gateway.store.migrations import migrate as migrate_tables

app = typer.Typer()
DirectoryArgument = Annotated[Path, typer.Argument(help="Directory of the installation.")]
TrustOption = Annotated[
    Path | None, typer.Option(help="Trust file with the log's key; default: the installation's.", show_default=False)
]


@app.command()
def migrate(
    directory: DirectoryArgument,
    login: Annotated[
        str, typer.Option("--as", help="URL of a login that may become assay_owner; never the gateway's.")
    ],
    output: OutputOption = Output.TEXT,
) -> None:
    """Make or change the tables of a PostgreSQL installation. On SQLite the gateway does so itself, at start.

    Example: assay ledger migrate ./bank --as 'postgresql+psycopg://migrator@db.example/assay?sslmode=verify-full'
    """
    with exit_on_error():
        if not Settings.load(directory).postgres_url:
            raise PreconditionError(
                "NOT_POSTGRES",
                "this installation keeps its rows in SQLite, which needs no command to migrate",
                remedy="set postgres_url in assay.toml, or make the installation with assay init --postgres-url",
            )
        engine = dialect.connect_for_migration(login)
        try:
            revision = migrate_tables(engine)
        finally:
            engine.dispose()
        emit(output, {"revision": revision}, [f"the database is at revision {revision}"])


@app.command()
def fsck(
    directory: DirectoryArgument,
    trust: TrustOption = None,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Leaves, tiles and newest root only; several times faster.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Read every record, tile and checkpoint, chains, guards and the anchor. Exit 10 on damage. The log may run.

    Example: assay ledger fsck ./bank --output json
    """
    with exit_on_error():
        settings, log = _open(directory, trust)
        engine = dialect.connect(settings.database_url)
        try:
            total = record_count(engine)
            with Progress(console=progress_console, transient=True) as bar:
                task = bar.add_task("records", total=total)
                anchor = FileAnchor(settings.layout.anchor)
                report = lambda done: bar.update(task, completed=done)  # noqa: E731
                faults = list(examine(engine, log, anchor, report, hashes_only=hashes_only))
        finally:
            engine.dispose()
        rows = [(f.index if f.index >= 0 else "", f.reason, f.message) for f in faults]
        data = {
            "origin": log.name,
            "records": total,
            "ok": not faults,
            "first": dataclasses.asdict(faults[0]) if faults else None,
            "faults": [dataclasses.asdict(f) for f in faults],
        }
        lines: list[Any] = [f"{log.name}: {total} records, {len(faults)} faults"]
        emit(output, data, [*lines, *([table(("index", "reason", "fault"), rows)] if rows else [])])
    if faults:
        raise typer.Exit(EXIT_CODES["DATA_LOSS"])


@app.command()
def backup(
    directory: DirectoryArgument,
    out: Annotated[Path, typer.Option(help="Folder to make; a backup is never replaced.")],
    trust: TrustOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Copy the database, whole and checked, and what was published of it. The log may run. No key lies in it.

    Example: assay ledger backup ./bank --out /mnt/backup/2026-11-27
    """
    with exit_on_error():
        settings, log = _open(directory, trust)
        _demand_file(settings)
        manifest = take_backup(settings.database, log, out, published=settings.published)
        lines = [f"{out}: {manifest.size} records, root {manifest.root}"]
        if manifest.rows_behind:
            lines.append("the gateway's own rows in it are older than its log: restored, it is not served either")
        emit(output, dataclasses.asdict(manifest), lines)


@app.command()
def restore(
    directory: DirectoryArgument,
    backup: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder that `assay ledger backup` made.")],
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", exists=True, help="Newer backup, evidence bundle or dump with the missing records."),
    ] = None,
    trust: TrustOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a backup in the place of a lost database, brought up to the anchor's tree; refused when it cannot be.

    Example: assay ledger restore ./bank --backup /mnt/backup/2026-11-27 --from evidence.bundle.zip
    """
    with exit_on_error():
        settings, log = _open(directory, trust, must_exist=False)
        _demand_file(settings)
        anchor = FileAnchor(settings.layout.anchor)
        sources = [open_source(s, log) for s in source or ()]
        found = put_back(settings.database, anchor, log, backup, sources, settings.published)
        lines = [
            f"{found.from_backup} records from the backup, {found.appended} re-appended; the anchor's root is reached"
        ]
        if found.rows_behind:
            lines.append(
                f"the gateway's own rows are older than the log ({marker(settings.database).name}): it will not serve, "
                "only fsck and backup read it"
            )
        emit(output, dataclasses.asdict(found), [*lines, *[f"  {job}" for job in found.jobs]])


@app.command()
def freeze(
    context: typer.Context,
    directory: DirectoryArgument,
    reason_code: Annotated[
        str,
        typer.Option(help="key-compromised, fork, anchor-lost, clock-ahead or retired (default); --order has its own."),
    ] = "",
    identity: IdentityOption = None,
    order: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An order signed elsewhere, instead of --as.")
    ] = None,
    write_order: Annotated[
        Path | None, typer.Option(help="Only sign, where DIRECTORY holds trust.txt: write the order here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the final checkpoint, which a successor cites.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """End a log for good, by an operator's order: its last record. Stop the gateway first.

    A log that has forked, or lost its anchor, takes no record more. With that reason the newest checkpoint that is
    known of it goes to --out, and nothing is signed. With clock-ahead, where the newest record lies in the future, the
    order is recorded under that record's time.

    Example: assay ledger freeze ./bank --reason-code retired --as ./bank/people/oscar --out final.checkpoint
    """
    from gateway.freezing import freeze as end
    from gateway.freezing import sign_order

    with exit_on_error():
        identity = typed_identity(context, identity, order)
        if (identity is None) == (order is None):
            raise InvalidInputError("NO_IDENTITY", "an order has one source", remedy="pass --as FOLDER or --order FILE")
        code = reason_code or "retired"
        if write_order is not None:
            if identity is None:
                raise InvalidInputError("NO_IDENTITY", "--order is signed already", remedy="leave out --write-order")
            origin = TrustFile.load(Layout(directory).trust).origin
            with written(write_order) as stream:
                write_json(stream, sign_order(identity, origin, code))
            said = f"signed: {origin} ends for good, reason {code}; hand over {write_order}, for --order"
            emit(output, {"order": str(write_order), "log": origin, "reason_code": code}, [said])
            return
        settings, _ = _open(directory, None, must_exist=False)
        envelope = read_order(order) if order else sign_order(identity or Path(), settings.origin, code)
        with written_if(out) as stream:
            done = end(settings, envelope, reason_code)
            stream.write(done.checkpoint.encode())
        if done.recorded:
            lines = [f"{done.origin} is frozen at {done.size} records, root {done.root}"]
        else:
            lines = [
                f"{done.origin} takes no record more: the order is not in it, and nothing was signed",
                f"its newest known checkpoint is of {done.size} records, root {done.root}",
            ]
        if not done.witnessed:
            lines.append("the witnesses have not cosigned this checkpoint")
        if done.recorded and not done.witnessed:
            lines.append(f"they are asked again by assay serve {directory}; then: assay audit checkpoint")
        emit(output, dataclasses.asdict(done), lines)


def _open(directory: Path, trust: Path | None, *, must_exist: bool = True) -> tuple[Settings, Verifier]:
    """Settings and the log's key.

    Raises:
        InvalidInputError: ``SETTINGS_MISSING``, ``SETTINGS``, ``TRUST_MISSING`` or ``TRUST_MALFORMED``.
        PreconditionError: ``LEDGER_NOT_A_FILE`` or ``DATABASE_LOST`` when there is no database to look at.
    """
    settings = Settings.load(directory)
    path = trust or settings.layout.trust
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError("TRUST_MISSING", f"cannot read {path}", remedy="pass --trust") from error
    if must_exist:
        database_file.demand(settings)
    return settings, TrustFile.parse(text).log


def _demand_file(settings: Settings) -> None:
    if settings.postgres_url:
        raise PreconditionError(
            "LEDGER_NOT_A_FILE",
            "this ledger lies in PostgreSQL, which has its own means",
            remedy="copy it with pg_basebackup and put it back whole (docs/ledger.md); then assay ledger fsck",
        )
