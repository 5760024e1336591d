"""``assay policy`` without a gateway: lint and test packs, compare them, decide past questions again."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.errors import AlreadyExistsError, InvalidInputError
from gateway import history
from gateway.cli.errors import EXIT_CODES, EXIT_REFUSED, exit_on_error
from gateway.cli.output import Output, OutputOption, emit, table
from policies.authorization import ACCESS
from policies.bundle import BUNDLE
from policies.diffing import diff as differences
from policies.engine import PolicyEngine
from policies.lint import lint_pack
from policies.pack import PACKS, load
from policies.replay import replay as decide_again
from policies.testing import test_pack

PackArgument = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="A bundle or a pack; default: what is packaged.")
]
PackOption = Annotated[Path, typer.Option(exists=True, file_okay=False, help="Bundle or pack to decide by.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (copy, lint, test, diff, replay):
        app.command()(command)


def copy(
    folder: Annotated[Path, typer.Argument(help="Folder to make: DIR/policies, where an installation has its own.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Copy the packaged bundle into a folder, to be edited there; two people sign what comes of it.

    Example: assay policy copy ./bank/policies
    """
    with exit_on_error():
        if folder.exists():
            raise AlreadyExistsError("FOLDER_EXISTS", f"{folder} is there", remedy="name a folder to be made")
        # Who may call what is the release's own and no part of a bundle.
        shutil.copytree(PACKS, folder, ignore=shutil.ignore_patterns(ACCESS.name))
        emit(output, {"folder": str(folder)}, [f"{folder}: edit {BUNDLE} and limits.yaml of the packs, then lint it"])


def lint(folder: PackArgument = PACKS, output: OutputOption = Output.TEXT) -> None:
    """Check a pack's files: every fault with file, line, column and rule. Exit 3 when there is one.

    Example: assay policy lint policies/packs
    """
    report = lint_pack(folder)
    rows = [(f"{f.file}:{f.line}:{f.column}", f.rule, f.reason, f.message) for f in report.findings]
    lines: list[Any] = [f"{report.folder}: {report.rules} rules, {len(rows)} faults"]
    shown = [table(("where", "rule", "reason", "fault"), rows)] if rows else []
    emit(output, dataclasses.asdict(report), [*lines, *shown])
    if not report.ok:
        raise typer.Exit(EXIT_CODES["INVALID_ARGUMENT"])


def test(folder: PackArgument = PACKS, output: OutputOption = Output.TEXT) -> None:
    """Run the packs' own cases, with rule coverage and the mutation check. Exit 6 when one does not hold.

    Example: assay policy test policies/packs
    """
    with exit_on_error():
        report = test_pack(folder)
        covered = len(report.coverage) - len(report.uncovered)
        lines = [
            f"{report.cases} cases, {len(report.failures)} failed",
            f"rule coverage: {100 * covered / len(report.coverage):.4g} % ({covered} of {len(report.coverage)} rules)",
            *([f"not covered: {', '.join(report.uncovered)}"] if report.uncovered else []),
            f"mutation survivors: {len(report.survivors)}",
            *([f"survived: {', '.join(report.survivors)}"] if report.survivors else []),
            *[str(f) for f in report.failures],
        ]
        emit(output, dataclasses.asdict(report), lines)
    if not report.ok:
        raise typer.Exit(EXIT_REFUSED)


def diff(
    old: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Bundle or pack.")],
    new: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Bundle or pack.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Say what differs between two bundles: rules, limits, what units chose.

    Example: assay policy diff ./bank/policies policies/packs
    """
    with exit_on_error():
        found = differences(load(old), load(new))
        rows = [(d.kind, d.name, d.what, d.before, d.after) for d in found]
        shown = [table(("", "name", "what", "before", "after"), rows)] if rows else []
        emit(output, [dataclasses.asdict(d) for d in found], [f"{len(found)} differences", *shown])


def replay(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The installation.")],
    pack: PackOption = PACKS,
    as_of: Annotated[str, typer.Option(help="Day whose rules apply, ISO 8601; default: each question's own.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Decide an installation's past questions again and list the answers that change. Nothing is written.

    Example: assay policy replay ./bank --pack policies/packs --as-of 2026-07-21
    """
    with exit_on_error():
        day = _day(as_of)
        done = decide_again(PolicyEngine(load(pack)), history.decided(directory), day)
        rows = [
            (c.name, c.moment, _word(c.before), _word(c.after), ", ".join(c.started), ", ".join(c.stopped))
            for c in done.changes
        ]
        head = f"{done.questions} questions, {len(done.flips)} answers change, {len(done.changes)} with their reasons"
        shown = [table(("job", "moment", "before", "after", "fires now", "fires no more"), rows)] if rows else []
        emit(output, dataclasses.asdict(done), [head, *shown])


def _word(passed: bool) -> str:
    return "pass" if passed else "refuse"


def _day(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidInputError("AS_OF", f"{text!r} is no day", remedy="write it as 2026-07-21") from error
