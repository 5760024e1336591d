"""``assay job replay``: a training run done again, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from assay.v1 import tuning_job_pb2 as pb
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit, progress_console
from gateway.cli.session import AddressOption, IdentityOption, Session, open_session

# As everywhere here: 10 for bytes that do not agree, 6 for what its state does not allow.
_EXITS = {pb.Replay.VERDICT_REPRODUCED: 0, pb.Replay.VERDICT_DIFFERS: 10, pb.Replay.VERDICT_NOT_REPLAYABLE: 6}


def replay(
    name: Annotated[str, typer.Argument(help="units/UNIT/tuningJobs/ID")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Train a job again from its sealed rows and compare adapters. Exit 0 reproduced, 10 differs, 6 not replayable.

    Example: assay job replay units/support/tuningJobs/replies
    """
    with exit_on_error(), open_session(identity, address) as session:
        found = follow(session, name, quiet=output is Output.JSON)
        emit(output, found, describe(found))
    raise typer.Exit(_EXITS[found.verdict])


def follow(session: Session, name: str, *, quiet: bool = False) -> pb.Replay:
    """Follows a replay to its end, drawing a bar."""
    columns = (TextColumn("replay"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f}%"))
    replayed = pb.Replay()
    with Progress(*columns, console=progress_console, transient=True, disable=quiet) as progress:
        bar = progress.add_task("replay", total=None)
        for event in session.jobs.ReplayTuningJob(pb.ReplayTuningJobRequest(name=name)):
            progress.update(bar, completed=event.progress.step, total=event.progress.steps or None)
            if event.HasField("replay"):
                replayed = event.replay
    return replayed


def describe(found: pb.Replay) -> Iterator[Any]:
    """A replay for people."""
    word = pb.Replay.Verdict.Name(found.verdict).removeprefix("VERDICT_").replace("_", " ")
    yield f"{word}  {found.tuning_job}  replay {found.number}, record {found.record_index}"
    if found.reason:
        yield f"  {found.reason}"
    yield f"  adapter   {found.adapter_sha256}"
    if found.replayed_sha256:
        yield f"  replayed  {found.replayed_sha256}"
    if found.validation_loss and found.replayed_validation_loss:
        yield f"  validation loss {found.validation_loss}, replayed {found.replayed_validation_loss}"
    if found.verdict == pb.Replay.VERDICT_DIFFERS and found.differences:
        word = "within" if found.within_tolerance else "beyond"
        yield f"  {word} the tolerance declared for another environment, {found.tolerance} nats a token"
    for item in found.differences:
        yield f"  {item.name}: {item.recorded} → {item.now}"


def add_to(app: typer.Typer) -> None:
    """Puts the command under ``assay job``."""
    app.command("replay")(replay)
