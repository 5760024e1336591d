"""``assay init``, ``assay serve`` and ``assay doctor``.

What they stand on, the gateway's own libraries, is imported when they run, so that other commands need not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from assay import installation
from assay.errors import InvalidInputError
from assay.identity import SERVERS
from assay.installation import DEFAULT_PEOPLE, Person, Plan
from audit.verify.trust import TrustFile
from gateway.cli.audit import read_note
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit, table
from gateway.statements import role_name

DirectoryArgument = Annotated[Path, typer.Argument(help="Directory of the installation.")]


def init(
    directory: DirectoryArgument,
    person: Annotated[
        list[str] | None,
        typer.Option(help="NAME:ROLE[:UNIT], repeat for more people or roles; default: one person for each role."),
    ] = None,
    operator: Annotated[str, typer.Option(help="Person who signs the first grants.")] = "oscar",
    unit: Annotated[list[str] | None, typer.Option(help="Business units.")] = None,
    port: Annotated[
        int, typer.Option(help="Port of the gateway; then two workers, metrics, the log over HTTP, the witness.")
    ] = 7443,
    models: Annotated[Path | None, typer.Option(help="Folder of base models; default: the user's cache.")] = None,
    post_quantum: Annotated[
        bool, typer.Option("--post-quantum", help="Give the log an ML-DSA-44 key beside its Ed25519 key.")
    ] = False,
    postgres_url: Annotated[
        str, typer.Option(help="Rows and ledger in PostgreSQL, as this login; default: a SQLite file.")
    ] = "",
    origin: Annotated[str, typer.Option(help="Name of the log.")] = "assay.local/log",
    trust_domain: Annotated[str, typer.Option(help="Domain of every subject, spiffe://DOMAIN/...; it stays.")] = (
        "assay.local"
    ),
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="SERVICE=HOST, repeat for more: where gateway, train-worker, audit-worker or witness is reached, on "
            "another machine; default: 127.0.0.1."
        ),
    ] = None,
    continues: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Final checkpoint of a frozen log that this one continues."),
    ] = None,
    continues_trust: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Trust file of that log, with its key.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an installation: both roots, service identities, named people, first grants, trust file, settings.

    Example: assay init ./bank --unit support --unit credit --host gateway=gw.bank.example
    """
    from gateway.install import install

    with exit_on_error():
        people_plan = [_person(p) for p in person] if person else DEFAULT_PEOPLE
        if (continues is None) != (continues_trust is None):
            raise InvalidInputError("CONTINUES", "--continues and --continues-trust belong together")
        hosts = _hosts(host or [])
        plan = Plan(
            people=people_plan,
            operator=operator,
            trust_domain=trust_domain,
            origin=origin,
            post_quantum=post_quantum,
            hosts=hosts,
        )
        old = (read_note(continues), TrustFile.load(continues_trust)) if continues and continues_trust else None
        units = unit or ["support", "credit", "clinical"]
        layout = install(
            directory, plan, units=units, port=port, models=models, postgres_url=postgres_url, continues=old
        )
        people = [
            (p.name, p.role.removeprefix("ROLE_").lower(), p.unit, str(layout.person(p.name))) for p in plan.people
        ]
        data = {
            "directory": str(directory),
            "trust": str(layout.trust),
            "people": [dict(zip(("name", "role", "unit", "folder"), p, strict=True)) for p in people],
        }
        emit(output, data, [
            f"installation in {directory}",
            table(("person", "role", "unit", "folder"), people),
            f"give verifiers {layout.trust}; move {layout.authority} and people/ away from the services in production",
            f"one witness, {layout.witness}, must cosign; let another party run it in production",
            *([f"next: assay ledger migrate {directory} --as URL, the login that owns tables"] if postgres_url else []),
            f"next: assay serve {directory}",
        ])  # fmt: skip


def serve(
    directory: DirectoryArgument,
    only_gateway: Annotated[bool, typer.Option("--only-gateway", help="Workers and witness run elsewhere.")] = False,
) -> None:
    """Start the gateway, both workers and the witness; stop with Ctrl-C.

    Example: assay serve ./bank
    """
    from gateway.serve import run

    with exit_on_error():
        sys.exit(run(directory, workers=not only_gateway))


def doctor(
    directory: Annotated[Path | None, typer.Argument(help="An installation to check too.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check this machine, and an installation, and say how to mend what is missing.

    Example: assay doctor ./bank
    """
    from gateway import doctor as checks

    with exit_on_error():
        findings = checks.run(directory)
        rows = [("ok" if f.ok else "MISSING" if f.required else "note", f.name, f.detail, f.remedy) for f in findings]
        emit(output, [vars(f) for f in findings], [table(("", "check", "found", "remedy"), rows)])
    if any(f.required and not f.ok for f in findings):
        raise typer.Exit(1)


def _hosts(texts: Sequence[str]) -> dict[str, str]:
    hosts: dict[str, str] = {}
    for text in texts:
        service, _, host = text.partition("=")
        if service not in SERVERS or not host:
            raise InvalidInputError(
                "BAD_HOST",
                f"--host: {text[:100]!r} is not SERVICE=HOST",
                remedy=f"SERVICE is one of {', '.join(SERVERS)}; for example gateway=gw.bank.example",
            )
        if service in hosts:
            raise InvalidInputError(
                "BAD_HOST",
                f"--host: {service} is named twice, but listens and is asked at one host",
                remedy=f"later, assay identity renew DIR {service} --host A --host B gives its certificate more",
            )
        hosts[service] = host
    return hosts


def _person(text: str) -> Person:
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise InvalidInputError(
            "BAD_PERSON", f"{text!r} is not NAME:ROLE[:UNIT]", remedy="for example rita:requester:support"
        )
    role = role_name(parts[1].replace("-", "_"))
    return installation.Person(parts[0], role, parts[2] if len(parts) == 3 else "-")
