"""The loop that every method shares: steps, schedule, caps, checkpoints, early stopping, reports.

What a step minimises is an :mod:`objective <trainer.recipes.objectives>`; which tensors it changes, a
:class:`~trainer.recipes.lora.TunedModel`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from assay.errors import InvalidInputError, PreconditionError
from assay.modelfiles import BaseManifest, verify_base_files
from trainer.device import Device, demand_exactness
from trainer.recipes import checkpoints, four_bit, whole
from trainer.recipes.checkpoints import RunState
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import Objective, objective_of
from trainer.recipes.plan import BatchPlan, in_parts, learning_rate, plan_batches
from trainer.recipes.ranks import ALONE, Ranks
from trainer.recipes.rows import NO_ROWS, EncodedRows, Row
from trainer.settings import Settings

if TYPE_CHECKING:
    import torch

    from trainer.recipes.private import Target

CHECKPOINT_STEPS = 25
WHOLE_CHECKPOINT_STEPS = 100
"""Of full tuning, whose checkpoints hold twelve bytes for every weight of the blocks."""
_VALIDATION_ROWS = 128


class Control(Protocol):
    """How the loop speaks to whoever runs it."""

    def progress(
        self, step: int, steps: int, message: str = "", seconds_left: float | None = None, **metrics: float
    ) -> None:
        """Reports one step."""

    def should_pause(self) -> bool:
        """Tells whether to stop at the next checkpoint."""


@dataclass(frozen=True)
class TuneJob:
    """One run.

    Attributes:
        base: manifest of the base model, whose digest is the ordered one.
        base_files: its ``files/``.
        train: rows to tune on.
        validation: rows to watch; may be empty.
        method: name of the method, see :data:`trainer.recipes.objectives.METHODS`.
        parent: weights of the adapter to go on from; None starts with a fresh one.
        settings: hyperparameters.
        device: where and in which format.
        checkpoints: folder that survives restarts.
        fingerprint: digest of everything above that decides the result.
        max_tokens: tokens that may be trained in all.
        row_tokens: tokens that a row may have; longer ones were cut at the front.
        on_pause: makes the exception that ends a paused run, from a reason word.
        key: 32 bytes that checkpoints are encrypted with.
        privacy: the guarantee that the run must keep, or None.
        teacher: name and licence of who wrote the answers, where they are distilled; for the statement.
        trials: settings to choose among, see :mod:`trainer.recipes.search`; none where there is nothing to choose.
        selection: rows that decide between trials.
        ranks: the processes that share out the rows, as this one sees them.
        environment: digest of what decides bits and stands in no order; empty where nobody says.
        micro_batch_tokens: tokens of rows that one pass may hold, of a run that begins; 0 for no bound.
    """

    base: BaseManifest
    base_files: Path
    train: EncodedRows
    validation: EncodedRows
    method: str
    parent: Path | None
    settings: Settings
    device: Device
    checkpoints: Path
    fingerprint: str
    max_tokens: int
    row_tokens: int
    on_pause: Callable[[str], Exception]
    key: bytes = field(repr=False)
    privacy: Target | None = None
    teacher: Mapping[str, str] = field(default_factory=dict)
    trials: tuple[Settings, ...] = ()
    selection: EncodedRows = NO_ROWS
    ranks: Ranks = ALONE
    environment: str = ""
    micro_batch_tokens: int = 0


@dataclass(frozen=True)
class TuneResult:
    """What a finished run leaves: the model with the adapter to save, its state, and the plan it followed.

    ``watched_base`` is what the objective watches on the validation rows, of the base model; ``privacy`` the account
    of a private run, empty for others.
    """

    model: TunedModel
    state: RunState
    plan: BatchPlan
    final_train_loss: float | None
    watched_base: dict[str, float]
    privacy: dict[str, Any]


def tune(job: TuneJob, control: Control) -> TuneResult:
    """Runs or resumes a job to its end.

    Raises:
        InvalidInputError: ``NO_TRAINABLE_ROWS``.
        PreconditionError: ``LOSS_NOT_FINITE``, ``QUANTISATION_MISSING``; ``CHECKPOINT_PROCESSES`` for a checkpoint of
            another number of processes.
        IntegrityError: for a damaged or foreign checkpoint; ``RANKS_DIVERGED``; ``BASE_FILES_DIGEST`` for a base model
            that was changed before it was loaded.
        Exception: what ``job.on_pause`` makes, after a checkpoint was written: ``REQUESTED`` or ``COST_CAP``.
    """
    return follow(run_of(job, control))


def run_of(job: TuneJob, control: Control) -> Run:
    """The run of a job, its model loaded and nothing done yet.

    Raises:
        InvalidInputError: ``NO_TRAINABLE_ROWS``.
        PreconditionError: ``QUANTISATION_MISSING``.
        IntegrityError: ``BASE_FILES_DIGEST``.
    """
    if not job.train.rows:
        raise InvalidInputError(
            "NO_TRAINABLE_ROWS",
            f"none of {job.train.read} rows has an assistant message to learn from",
            remedy="give rows an assistant message whose weight is not 0",
        )
    control.progress(0, 0, "loading the base model")
    if job.privacy is None:
        return Run(job, control)
    # Deferred: it builds on this module, and its library is wanted by private runs alone.
    from trainer.recipes.private import PrivateRun

    return PrivateRun(job, control, job.privacy)


def follow(run: Run) -> TuneResult:
    """Takes a run up at its newest checkpoint, or at its beginning, and sees it to its end; raises as :func:`tune`."""
    run.restore()
    run.prepare()
    while run.state.step < run.plan.steps and not run.state.finished:
        run.check_may_go_on()
        run.step()
        if run.state.step % run.plan.steps_per_epoch == 0 or run.state.step == run.plan.steps:
            run.validate()
        if run.state.step % (WHOLE_CHECKPOINT_STEPS if run.model.whole else CHECKPOINT_STEPS) == 0:
            run.checkpoint()
    return run.finish()


def not_finite(what: str) -> PreconditionError:
    """The refusal to go on with numbers that are none."""
    remedy = "ask for a new job with a lower learning rate or other row weights"
    return PreconditionError("LOSS_NOT_FINITE", f"{what} is not a finite number", remedy=remedy)


class Run:
    """The moving parts of one run."""

    def __init__(self, job: TuneJob, control: Control) -> None:
        import torch

        self.job, self.control, self.ranks = job, control, job.ranks
        demand_exactness(job.device)
        self.plan = self.make_plan()
        longest = max(row.longest for row in (*job.train.rows, *job.validation.rows))
        self.model = self.make_model(longest)
        # The folder can change while a job waits or searches: what was loaded lies between two equal hashes.
        verify_base_files(job.base_files.parent, job.base)
        if self.model.quantisation is not None:
            control.progress(0, 0, f"the base model's linear layers are in {self.model.quantisation.words()}")
        self.optimizer = torch.optim.AdamW(
            list(self.model.masters.values()),
            lr=job.settings.learning_rate,
            weight_decay=job.settings.weight_decay,
            fused=True,
        )
        self.objective: Objective = objective_of(job.method)
        self.watched_rows = job.validation.rows[:_VALIDATION_ROWS]
        self.state = RunState(job.fingerprint, processes=job.ranks.count, micro_batch_tokens=job.micro_batch_tokens)
        self.best: dict[str, torch.Tensor] = {}
        self._started_at, self._seconds_before = time.monotonic(), 0.0

    def make_plan(self) -> BatchPlan:
        """Which rows go into which step."""
        return plan_batches([row.length for row in self.job.train.rows], self.job.settings)

    def make_model(self, longest: int) -> TunedModel:
        """The base model with a fresh adapter, or a copy of the one to go on from."""
        job = self.job
        full, quantised = job.method in whole.METHODS, job.method in four_bit.METHODS
        return load(
            job.base_files, job.settings, job.device, longest, parent=job.parent, full=full, quantised=quantised
        )

    def secrets(self) -> dict[str, torch.Tensor]:
        """What else a checkpoint must hold."""
        return {}

    def take_secrets(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes it back."""

    def settle(self) -> None:
        """Decides what can only be decided once it is known whether a checkpoint says it; nothing here."""

    def account(self) -> dict[str, Any]:
        """What the run spent of the rows' privacy; nothing is accounted here."""
        return {}

    def restore(self) -> None:
        """Continues from the newest checkpoint, if there is one; else seeds the generators."""
        import torch

        torch.manual_seed(self.job.settings.seed)
        # The first one removes what is damaged.
        with self.ranks.first_before_the_others():
            found = checkpoints.load(self.job.checkpoints, self.job.fingerprint, self.job.key)
        if found is not None:
            self.state, tensors = found
            self.ranks.demand_same_count(self.state.processes)
            self._restore_tensors(tensors)
        self.settle()
        self.state.compute_in(self.job.environment)
        self.ranks.demand_one_adapter(self.state.step, self.model.masters)
        self.model.publish_masters()
        self._started_at, self._seconds_before = time.monotonic(), self.state.seconds

    def prepare(self) -> None:
        """Lets the objective ask the untuned model once; where a pause ends that, a resume asks it again."""
        self.model.backbone.eval()
        rows: tuple[Row, ...] = (*self.job.train.rows, *self.watched_rows)
        most = self.state.micro_batch_tokens
        self.objective.prepare(self.model, rows, self.job.device, most, self._before_a_pass)

    def _before_a_pass(self, done: int, count: int) -> None:
        words = f"scoring with the base model: {done} of {count} rows"
        self.control.progress(self.state.step, self.plan.steps, words)
        self.stop_where(self.control.should_pause(), "REQUESTED")

    def _restore_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, master in self.model.masters.items():
                master.copy_(tensors[f"master.{name}"])
                self.optimizer.state[master] = {
                    "step": tensors["optimizer.step"].to(
                        master.device, copy=True
                    ),  # the fused step counts on the device
                    "exp_avg": tensors[f"exp_avg.{name}"].to(master.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(master.device),
                }
        self.take_secrets(tensors)
        self.best = {k.removeprefix("best."): t for k, t in tensors.items() if k.startswith("best.")}
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])

    def checkpoint(self) -> None:
        """Writes everything a bit-exact resume needs; never of an adapter from which nothing could go on.

        Raises:
            PreconditionError: ``LOSS_NOT_FINITE``: a finite loss may have a gradient that is not.
            IntegrityError: ``RANKS_DIVERGED``.
            ExhaustedError: ``DISK_FULL``.
        """
        import torch

        if self.state.step == 0:
            return
        if not all(bool(torch.isfinite(master).all()) for master in self.model.masters.values()):
            raise not_finite(f"the adapter after step {self.state.step}")
        self.ranks.demand_one_adapter(self.state.step, self.model.masters)
        if not self.ranks.first:
            return
        self.state.seconds = self.seconds()
        tensors: dict[str, torch.Tensor] = {"rng.cpu": torch.get_rng_state()}
        if self.job.device.kind == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for name, master in self.model.masters.items():
            moments = self.optimizer.state[master]
            tensors["optimizer.step"] = moments["step"].cpu()
            tensors[f"master.{name}"] = master
            tensors[f"exp_avg.{name}"] = moments["exp_avg"]
            tensors[f"exp_avg_sq.{name}"] = moments["exp_avg_sq"]
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        checkpoints.save(self.job.checkpoints, self.state, tensors | self.secrets(), self.job.key)

    def check_may_go_on(self) -> None:
        """Stops at a checkpoint when asked to, or before a step that would pass the token cap."""
        over = self.state.tokens + self.next_tokens() > self.job.max_tokens
        self.stop_where(over or self.control.should_pause(), "COST_CAP" if over else "REQUESTED")

    def stop_where(self, asked: bool, reason: str) -> None:
        """Ends all processes of the run at a checkpoint, where the first is asked to; all of them ask."""
        if self.ranks.decided(asked):
            self.checkpoint()
            raise self.job.on_pause(reason)

    def next_tokens(self) -> int:
        """Tokens that the next step trains."""
        return sum(self.job.train.rows[i].length for i in self.plan.batches[self.state.step])

    def step(self) -> None:
        """Does one optimiser step and reports it."""
        import torch

        settings, state = self.job.settings, self.state
        rows = [self.job.train.rows[i] for i in self.plan.batches[state.step]]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, self.plan.steps, settings)
        self.model.backbone.train()
        self.ranks.reseed(settings.seed, state.step)
        value = float(self.ranks.total(self._gradients_of_my_share(rows)))
        if not math.isfinite(value):
            raise not_finite(f"the loss of step {state.step + 1}")
        self.ranks.sum_gradients(self.model.masters.values())
        torch.nn.utils.clip_grad_norm_(self.model.masters.values(), settings.max_gradient_norm)
        self.optimizer.step()
        self.model.publish_masters()
        state.step += 1
        state.tokens += sum(r.length for r in rows)
        state.curve.append((state.step, value))
        self.report({"loss": value})

    def _gradients_of_my_share(self, rows: Sequence[Row]) -> torch.Tensor:
        """Leaves this process's part of the gradient of the mean over all rows of a batch at the masters; its loss.

        Parts of processes and of micro-batches add up to the whole.
        """
        import torch

        device = self.job.device
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device.torch_device())
        whole = torch.tensor([r.weight for r in rows], device=total.device).sum()
        for part in in_parts(rows[self.ranks.mine], lambda row: (row.length,), (self.state.micro_batch_tokens,)):
            losses = self.objective.losses(self.model, part, device)
            loss = (losses * torch.tensor([r.weight for r in part], device=losses.device)).sum() / whole
            loss.backward()
            self.model.collect_gradients()
            total += loss.detach()
        return total

    def validate(self) -> None:
        """Measures the validation loss; with early stopping, keeps the best adapter and ends a run that got worse.

        Raises:
            PreconditionError: ``LOSS_NOT_FINITE``.
        """
        if not self.watched_rows:
            return
        watched = self.watch()
        loss = self.ranks.decided(watched.get("loss", math.nan))
        if not math.isfinite(loss):
            raise not_finite(f"the validation loss after step {self.state.step}")
        best = min((v for _, v in self.state.validation), default=math.inf)
        self.state.validation.append((self.state.step, loss))
        if not self.job.settings.early_stopping:
            self.state.watched = watched
        elif loss < best:
            self.state.watched, self.state.best_step = watched, self.state.step
            self.best = {n: m.detach().clone() for n, m in self.model.masters.items()}
        else:
            self.state.finished = True

    def finish(self) -> TuneResult:
        """Takes the best adapter where one was kept, and measures the final losses."""
        import torch

        if self.best:
            with torch.no_grad():
                for name, master in self.model.masters.items():
                    master.copy_(self.best[name])
            self.model.publish_masters()
        self.checkpoint()
        self.state.seconds = self.seconds()
        last = [v for _, v in self.state.curve[-self.plan.steps_per_epoch :]]
        base = self.watch_base() if self.watched_rows else {}
        final = sum(last) / len(last) if last else None
        return TuneResult(self.model, self.state, self.plan, final, base, self.account())

    def watch(self) -> dict[str, float]:
        """What the objective says of the validation rows, without dropout; of the ranks the first asks it."""
        if not self.ranks.first:
            return {}
        self.model.backbone.eval()
        return self.objective.watch(self.model, self.watched_rows, self.job.device, self.state.micro_batch_tokens)

    def watch_base(self) -> dict[str, float]:
        """The same of the base model."""
        with self.model.untuned():
            return self.watch()

    def seconds(self) -> float:
        """Of training so far, over all attempts."""
        return self._seconds_before + time.monotonic() - self._started_at

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tells how far the run is."""
        state = self.state
        done_here = max(1e-9, self.seconds())
        rate = state.tokens / done_here
        left = self.job.settings.epochs * self.job.train.tokens - state.tokens
        self.control.progress(
            state.step,
            self.plan.steps,
            f"epoch {1 + (state.step - 1) // self.plan.steps_per_epoch}",
            max(0.0, left / rate),
            **metrics,
            tokens_per_s=rate,
            tokens=float(state.tokens),
            learning_rate=learning_rate(state.step - 1, self.plan.steps, self.job.settings),
        )
