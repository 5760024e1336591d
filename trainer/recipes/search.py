"""A small search over rank and learning rate: every trial a run of its own, judged by its loss on the selection split.

Trials differ in nothing else: same rows, same seed, same plan of batches. The validation split keeps its part within a
trial (which epoch is kept); the selection split decides between trials; the sealed test is nowhere near. The trial of
the lowest loss is kept, of equal ones the first. One that leaves the finite numbers has failed and the next goes on.

What is finished stands in one sealed file; each trial has its own folder of checkpoints, and the best one's stays. A
search that was stopped goes on in the trial that it was in. A file that is damaged costs time and nothing else: a
trial that is done again gives the same bits.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from assay import digests
from assay.errors import IntegrityError, InvalidInputError, PreconditionError
from trainer.recipes import checkpoints
from trainer.recipes.loop import Control, Run, TuneJob, TuneResult, follow, not_finite, run_of
from trainer.recipes.rows import Row

SELECTION_ROWS = 512
_FILE = "trials"
_NOT_FINITE = "LOSS_NOT_FINITE"


@dataclass(frozen=True)
class Trial:
    """How one trial ended.

    Attributes:
        lora_rank: of its adapter; None where it has none, as of whole modules.
        lora_alpha: of its adapter, as the rank.
        learning_rate: its peak.
        tokens: that it trained.
        steps: that it took.
        seconds: of training.
        damaged: checkpoints that were passed over.
        environments: digests of the environments that it was computed in.
        selection_loss: mean of the objective on the selection rows; None for a trial that failed.
        validation_loss: of the adapter that the trial kept; None where there are no validation rows.
        failed: code of the fault; empty for a trial that reached its end.
    """

    lora_rank: int | None
    lora_alpha: int | None
    learning_rate: float
    tokens: int
    steps: int
    seconds: float
    damaged: int
    environments: Sequence[str] = ()
    selection_loss: float | None = None
    validation_loss: float | None = None
    failed: str = ""


@dataclass(frozen=True)
class Found:
    """What a search leaves: the best trial's job and result, and every trial; ``chosen`` counts from 1."""

    job: TuneJob
    result: TuneResult
    trials: tuple[Trial, ...]
    chosen: int
    selection_rows: int

    @property
    def tokens(self) -> int:
        """Trained in all trials."""
        return sum(trial.tokens for trial in self.trials)


def search(job: TuneJob, control: Control) -> Found:
    """Runs or resumes every trial, and gives back the best.

    Args:
        job: a run with trials; its ``max_tokens`` is for all of them together.
        control: sees the trials as one run.

    Raises:
        InvalidInputError: ``NO_SELECTION_ROWS``.
        PreconditionError: ``LOSS_NOT_FINITE`` when every trial failed.
        Exception: what :func:`trainer.recipes.loop.tune` raises, of one trial.
    """
    if not job.selection.rows:
        raise InvalidInputError(
            "NO_SELECTION_ROWS", "no row can judge between trials", remedy="give more rows, or ask for no search"
        )
    # The first one takes away what is damaged.
    with job.ranks.first_before_the_others():
        done = _read(job)
    last: TuneResult | None = None
    for number in range(len(done) + 1, len(job.trials) + 1):
        # Nothing may hold the model of one trial when that of another is loaded.
        last = None
        gc.collect()
        trial, last = _attempt(job, done, number, control)
        done.append(trial)
        if job.ranks.first:
            _keep(job, done)
    chosen = _best(done)
    if not chosen:
        raise not_finite("the loss of every trial")
    one = _trial_job(job, done[: chosen - 1], chosen)
    if last is None or chosen != len(done):
        last = None
        gc.collect()
        last = follow(run_of(one, _Seen(control, len(job.trials), done[: chosen - 1], one)))
    damaged = last.state.damaged + checkpoints.set_aside_in(job.checkpoints)
    done[chosen - 1] = replace(done[chosen - 1], damaged=damaged)
    return Found(one, last, tuple(done), chosen, len(_selection(job)))


def _attempt(job: TuneJob, done: Sequence[Trial], number: int, control: Control) -> tuple[Trial, TuneResult | None]:
    """Runs one trial to its end and judges it; the result is None where it failed."""
    one = _trial_job(job, done, number)
    run = run_of(one, _Seen(control, len(job.trials), done, one))
    result, loss = None, math.nan
    try:
        result = follow(run)
        loss = _judge(run)
    except PreconditionError as error:
        if error.reason != _NOT_FINITE:
            raise
        run.state.seconds = run.seconds()
    state, settings = run.state, one.settings
    finite = math.isfinite(loss)
    ranked = not run.model.whole
    trial = Trial(
        settings.lora_rank if ranked else None, settings.lora_alpha if ranked else None, settings.learning_rate,
        state.tokens, state.step, state.seconds, state.damaged, tuple(state.environments),
        *((loss, state.watched.get("loss"), "") if finite else (None, None, _NOT_FINITE)),
    )  # fmt: skip
    return trial, result if finite else None


def _judge(run: Run) -> float:
    """The objective's mean loss on the selection rows, of the adapter that the trial kept; the first rank measures.

    A pause ends it at the trial's last checkpoint; not where other ranks wait for the loss and could not be told.
    """
    if not run.ranks.first:
        return run.ranks.decided(math.nan)
    rows = _selection(run.job)

    def before(done: int, count: int) -> None:
        run.control.progress(run.state.step, run.plan.steps, f"judging the trial: {done} of {count} selection rows")
        if run.ranks.count == 1:
            run.stop_where(run.control.should_pause(), "REQUESTED")

    run.model.backbone.eval()
    device, most = run.job.device, run.state.micro_batch_tokens
    run.objective.prepare(run.model, rows, device, most, before)
    return run.ranks.decided(run.objective.watch(run.model, rows, device, most, before)["loss"])


def _selection(job: TuneJob) -> tuple[Row, ...]:
    return job.selection.rows[:SELECTION_ROWS]


def _trial_job(job: TuneJob, before: Sequence[Trial], number: int) -> TuneJob:
    """The run of one trial, with what the trials before it left of the token cap."""
    settings = job.trials[number - 1]
    decides = json.dumps([job.fingerprint, settings.as_dict()], sort_keys=True)
    return replace(
        job,
        settings=settings,
        checkpoints=_folder(job, number),
        fingerprint=digests.sha256_bytes(decides.encode()),
        max_tokens=job.max_tokens - sum(trial.tokens for trial in before),
    )


def _folder(job: TuneJob, number: int) -> Path:
    return job.checkpoints / f"trial-{number:02d}"


def _best(done: Sequence[Trial]) -> int:
    """Number of the trial with the lowest loss on the selection rows, the first among equals; 0 where all failed."""
    judged = [(trial.selection_loss, n) for n, trial in enumerate(done, 1) if trial.selection_loss is not None]
    return min(judged)[1] if judged else 0


def _keep(job: TuneJob, done: Sequence[Trial]) -> None:
    """Stores what is finished; then, and not before, lets go of every finished trial's checkpoints but the best's."""
    trials = [asdict(trial) for trial in done]
    known = {"fingerprint": job.fingerprint, "processes": job.ranks.count, "trials": trials}
    checkpoints.put(job.checkpoints / _FILE, json.dumps(known).encode(), b"", job.key, "the trials so far")
    best = _best(done)
    for number in range(1, len(done) + 1):
        if number != best:
            shutil.rmtree(_folder(job, number), ignore_errors=True)


def _read(job: TuneJob) -> list[Trial]:
    """The trials that are finished; none where a damaged file hides them, which is then set aside.

    Raises:
        IntegrityError: ``CHECKPOINT_FOREIGN``.
        PreconditionError: ``CHECKPOINT_PROCESSES``.
        UnavailableError: ``CHECKPOINT_UNREADABLE``.
    """
    path = job.checkpoints / _FILE
    if not path.exists():
        return []
    try:
        head, _ = checkpoints.opened(path, job.key)
    except IntegrityError:
        checkpoints.set_aside(path)
        return []
    known = json.loads(head)
    if known["fingerprint"] != job.fingerprint:
        raise IntegrityError("CHECKPOINT_FOREIGN", "the trials so far belong to another search")
    job.ranks.demand_same_count(known.get("processes", 1))
    return [Trial(**trial) for trial in known["trials"]]


class _Seen:
    """Shows one trial's steps as a part of the whole."""

    def __init__(self, control: Control, count: int, before: Sequence[Trial], one: TuneJob) -> None:
        self._control, self._before, self._count = control, before, count
        self._pass = one.settings.epochs * one.train.tokens

    def progress(
        self, step: int, steps: int, message: str = "", seconds_left: float | None = None, **metrics: float
    ) -> None:
        """Adds the trials before, and the time of those to come."""
        number = len(self._before) + 1
        if "tokens" in metrics:
            metrics["tokens"] += sum(trial.tokens for trial in self._before)
        if seconds_left is not None and metrics.get("tokens_per_s"):
            seconds_left += (self._count - number) * self._pass / metrics["tokens_per_s"]
        done = (number - 1) * steps + step
        words = f"trial {number} of {self._count}: {message}"
        self._control.progress(done, self._count * steps, words, seconds_left, **metrics)

    def should_pause(self) -> bool:
        """As the whole run is asked to."""
        return self._control.should_pause()
