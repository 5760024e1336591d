"""``assay job``: create, get, list, watch, cancel, pause, resume, appeal; :mod:`gateway.cli.replay` has replay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.progress import BarColumn, Progress, TextColumn

from assay.digests import sha256_file
from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2, tuning_job_pb2
from assay.v1.tuning_job_pb2_grpc import TuningJobServiceStub
from gateway.cli import replay
from gateway.cli.errors import EXIT_FAILED, EXIT_REFUSED, exit_on_error
from gateway.cli.files import field_names, parse_fault
from gateway.cli.job_text import describe, detail
from gateway.cli.output import Output, OutputOption, emit, micros, more, progress_console, state_name, table
from gateway.cli.session import AddressOption, IdentityOption, Session, open_session

app = typer.Typer()
State = tuning_job_pb2.TuningJob.State
JobArgument = Annotated[str, typer.Argument(help="units/UNIT/tuningJobs/ID")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is recorded.")]
EtagOption = Annotated[
    str, typer.Option(help="Only if the job is still this version, as `assay job get` shows it.", show_default=False)
]
REFUSED_STATES = frozenset(
    {State.STATE_DENIED, State.STATE_QUARANTINED, State.STATE_REJECTED, State.STATE_REVOKED, State.STATE_EXPIRED}
)


@app.command()
def create(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    job_id: Annotated[str, typer.Argument(help="Last part of the resource name.")],
    dataset: Annotated[str, typer.Option(help="units/UNIT/datasets/ID or just ID.")],
    purpose: Annotated[str, typer.Option(help="What the tuned model is for.")],
    base_model: Annotated[str, typer.Option(help="Registry id.")] = "smollm2-135m-instruct",
    profile: Annotated[str, typer.Option(help="Audit profile: quick, default or strict.")] = "quick",
    method: Annotated[
        str,
        typer.Option(
            help="lora, qlora (on base weights in four bits, where the train worker has bitsandbytes), full (whole "
            "matrices instead of low-rank ones), distillation (answers of a teacher), classification (decision "
            "tables), dpo, dpo-hinge or dpo-ipo (preference pairs)."
        ),
    ] = "lora",
    teacher: Annotated[
        str, typer.Option(help="Who wrote the answers: a base model's id, units/UNIT/models/ID, or any other name.")
    ] = "",
    teacher_licence: Annotated[
        str, typer.Option(help="SPDX id or name of the licence of a teacher that is not known here.")
    ] = "",
    parent_model: Annotated[str, typer.Option(help="units/UNIT/models/ID whose adapter is tuned further.")] = "",
    epochs: Annotated[float | None, typer.Option(help="Passes over the train split.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in a step.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="LoRA rank.")] = None,
    lora_alpha: Annotated[int | None, typer.Option(help="LoRA scale numerator.")] = None,
    lora_dropout: Annotated[
        float | None, typer.Option(help="Share of an adapter's inputs dropped in training.")
    ] = None,
    max_row_tokens: Annotated[
        int | None, typer.Option(help="Longest row in tokens; a request with a longer row is denied.")
    ] = None,
    search_rank: Annotated[
        list[int] | None, typer.Option(help="LoRA rank to try, repeat for more; the selection split decides.")
    ] = None,
    search_rate: Annotated[
        list[float] | None, typer.Option(help="Learning rate to try, repeat for more; every pair is one trial.")
    ] = None,
    early_stopping: Annotated[
        bool | None, typer.Option(help="Keep the adapter of the lowest validation loss, stop when it rises.")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Let documented rules choose what is not given.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of data order and dropout.")] = None,
    max_usd: Annotated[float, typer.Option(help="Upper bound on money.")] = 10.0,
    max_train_tokens: Annotated[int, typer.Option(help="Upper bound on trained tokens.")] = 1_000_000,
    epsilon: Annotated[float | None, typer.Option(help="Target epsilon of differential privacy.")] = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise over clipping norm, instead of --epsilon; what it spends is worked out.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Delta of differential privacy, beside either.")] = None,
    privacy_unit: Annotated[
        str, typer.Option(help="What is protected: row (the default) or user, all rows of one value of group_field.")
    ] = "",
    use: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Declaration of use, JSON: jurisdictions, domain, risk_tier and what else docs/datasheet.md lists.",
        ),
    ] = None,
    artefact: Annotated[
        list[str] | None, typer.Option(help="KIND=FILE, repeat for more; the file's digest is handed in.")
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="UUID; repeat it to retry safely.")] = None,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Ask policy, store nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it rests.")] = False,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask for a tuning job.

    Example: assay job create units/support replies --dataset replies-2026 --purpose support-replies --watch
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = tuning_job_pb2.CreateTuningJobRequest(
            parent=parent, tuning_job_id=job_id, dataset=dataset if "/" in dataset else f"{parent}/datasets/{dataset}",
            base_model=base_model, purpose=purpose, method=method, audit_profile=profile, parent_model=parent_model,
            hyperparameters=tuning_job_pb2.Hyperparameters(
                epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, lora_rank=lora_rank,
                lora_alpha=lora_alpha, lora_dropout=lora_dropout, max_row_tokens=max_row_tokens, seed=seed,
                early_stopping=early_stopping, auto=auto,
            ),
            budget=tuning_job_pb2.Budget(max_usd_micros=micros(max_usd), max_train_tokens=max_train_tokens),
            request_id=request_id or str(uuid.uuid4()), validate_only=validate_only,
        )  # fmt: skip
        if teacher or teacher_licence:
            request.teacher.CopyFrom(tuning_job_pb2.Teacher(name=teacher, licence=teacher_licence))
        if search_rank or search_rate:
            request.search.lora_ranks.extend(search_rank or ())
            request.search.learning_rates.extend(search_rate or ())
        privacy = policy_input_pb2.DifferentialPrivacy(
            epsilon=epsilon, noise_multiplier=noise_multiplier, delta=delta, unit=privacy_unit
        )
        if privacy.ByteSize():
            request.differential_privacy.CopyFrom(privacy)
        declare(request.use, use, artefact or ())
        job = session.jobs.CreateTuningJob(request).tuning_job
        if watch and not validate_only:
            job = follow(session, job.name, quiet=output is Output.JSON)
        emit(output, job, describe(job))
    if validate_only and job.HasField("decision") and not job.decision.allowed:
        raise typer.Exit(EXIT_REFUSED)
    exit_with(job)


def declare(target: policy_input_pb2.UseDeclaration, file: Path | None, artefacts: Sequence[str]) -> None:
    """Fills a declaration from a file, and adds documents named ``KIND=FILE`` by their digest.

    Raises:
        InvalidInputError: ``BAD_USE`` or ``BAD_ARTEFACT``.
        typer.BadParameter: a document is not there.
    """
    if file is not None:
        try:
            json_format.Parse(file.read_text("utf-8"), target)
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                "BAD_USE",
                f"{file.name} is no use declaration: {parse_fault(error)}",
                remedy=f"its members are {field_names(target)}; docs/datasheet.md says of each what may stand there",
            ) from error
    for item in artefacts:
        kind, _, path = item.partition("=")
        try:
            digest = sha256_file(Path(path))
        except OSError as error:
            if path:  # as typer says it of a file that has an option to itself
                raise typer.BadParameter(f"--artefact {item}: {path} cannot be read: {error.strerror}") from error
            remedy = "such as DPIA=assessment.pdf"
            raise InvalidInputError("BAD_ARTEFACT", f"{item!r} is not KIND=FILE", remedy=remedy) from error
        target.artefacts.add(kind=kind, sha256=digest, title=Path(path).name)


@app.command()
def get(
    name: JobArgument,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a job with its decision, measurements and verdict.

    Example: assay job get units/support/tuningJobs/replies --output json
    """
    with exit_on_error(), open_session(identity, address) as session:
        job = session.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job
        emit(output, job, describe(job))


@app.command("list")
def list_(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    page_size: Annotated[int, typer.Option(help="At most this many.")] = 50,
    page_token: Annotated[str, typer.Option(help="Token of the page before.")] = "",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List a unit's jobs.

    Example: assay job list units/support
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = tuning_job_pb2.ListTuningJobsRequest(parent=parent, page_size=page_size, page_token=page_token)
        answer = session.jobs.ListTuningJobs(request)
        rows = [(j.name, state_name(State.Name(j.state)), j.purpose, j.reason) for j in answer.tuning_jobs]
        emit(output, answer, [table(("name", "state", "purpose", "reason"), rows), *more(answer)])


@app.command()
def watch(
    name: JobArgument,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Follow a job until only a person's act would move it.

    Example: assay job watch units/support/tuningJobs/replies
    """
    with exit_on_error(), open_session(identity, address) as session:
        job = follow(session, name, quiet=output is Output.JSON)
        emit(output, job, describe(job))
    exit_with(job)


def exit_with(job: tuning_job_pb2.TuningJob) -> None:
    """Exits with the documented code of a job that has ended refused or FAILED; of any other it returns."""
    if job.state in REFUSED_STATES:
        raise typer.Exit(EXIT_REFUSED)
    if job.state == State.STATE_FAILED:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def cancel(
    name: JobArgument, reason: ReasonOption,
    identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Cancel a job; a running task is stopped.

    Example: assay job cancel units/support/tuningJobs/replies --reason "wrong file"
    """
    request = tuning_job_pb2.CancelTuningJobRequest(name=name, reason=reason)
    _act(lambda jobs: jobs.CancelTuningJob(request).tuning_job, identity, address, output)


@app.command()
def pause(
    name: JobArgument, reason: ReasonOption, etag: EtagOption = "",
    identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Pause a job at its next checkpoint.

    Example: assay job pause units/support/tuningJobs/replies --reason "device needed"
    """
    request = tuning_job_pb2.PauseTuningJobRequest(name=name, reason=reason, etag=etag)
    _act(lambda jobs: jobs.PauseTuningJob(request).tuning_job, identity, address, output)


@app.command()
def resume(
    name: JobArgument, reason: ReasonOption, etag: EtagOption = "",
    identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Resume a paused job from its checkpoint.

    Example: assay job resume units/support/tuningJobs/replies --reason "device free"
    """
    request = tuning_job_pb2.ResumeTuningJobRequest(name=name, reason=reason, etag=etag)
    _act(lambda jobs: jobs.ResumeTuningJob(request).tuning_job, identity, address, output)


@app.command()
def appeal(
    name: JobArgument, reason: ReasonOption,
    identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT,
) -> None:  # fmt: skip
    """Appeal a denial, a quarantine or a person's refusal; another subject decides.

    Example: assay job appeal units/support/tuningJobs/replies --reason "names are fictional, see provenance"
    """
    request = tuning_job_pb2.AppealTuningJobRequest(name=name, reason=reason)
    _act(lambda jobs: jobs.AppealTuningJob(request).tuning_job, identity, address, output)


def _act(
    act: Callable[[TuningJobServiceStub], tuning_job_pb2.TuningJob],
    identity: Path | None,
    address: str | None,
    output: Output,
) -> None:
    with exit_on_error(), open_session(identity, address) as session:
        job = act(session.jobs)
        emit(output, job, describe(job))


def follow(session: Session, name: str, *, quiet: bool = False) -> tuning_job_pb2.TuningJob:
    """Follows a job, drawing a bar for each stage; returns the whole job once it rests."""
    columns = (
        TextColumn("{task.fields[stage]:<22}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[detail]}"),
    )  # fmt: skip
    with Progress(*columns, console=progress_console, transient=True, disable=quiet) as progress:
        bar = progress.add_task("job", total=None, stage="", detail="")
        shown = None
        for event in session.jobs.WatchTuningJob(tuning_job_pb2.WatchTuningJobRequest(name=name)):
            job = event.tuning_job
            if job.state != shown and not quiet:
                progress_console.print(f"{job.name}  {state_name(State.Name(job.state))}  {job.reason}", markup=False)
                progress.reset(bar, stage=state_name(State.Name(job.state)), detail="")
                shown = job.state
            now = job.progress
            progress.update(
                bar, stage=f"{state_name(State.Name(job.state))} {now.stage}", completed=now.step,
                total=now.steps or None, detail=detail(now), refresh=True,
            )  # fmt: skip
            if event.resting:
                break
    return session.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job  # type: ignore[no-any-return]


replay.add_to(app)
