"""What the trainer claims to have done; the supervisor signs it beside its own clock."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from assay import canonical
from trainer.recipes import memory
from trainer.recipes.loop import TuneJob, TuneResult
from trainer.recipes.ranks import Ranks
from trainer.recipes.rows import EncodedRows
from trainer.recipes.search import Found, Trial

MAX_POINTS = 200
MAX_NUMBERS = 100


def claim(job: TuneJob, result: TuneResult, found: Found | None = None) -> dict[str, Any]:
    """What the run claims, float-free; of a search the best trial's curve and numbers, and tokens and seconds of all.

    ``flop`` is the usual estimate 6·N·D for N parameters and D trained tokens (Kaplan et al. 2020, arXiv 2001.08361),
    an upper bound for LoRA, since a frozen base needs no weight gradients. ``watched_base`` is of the weights that the
    run saw: with ``quantisation``, of the base model in four bits.
    """
    state, train, quantisation = result.state, job.train, result.model.quantisation
    tokens = state.tokens if found is None else found.tokens
    seconds = state.seconds if found is None else sum(trial.seconds for trial in found.trials)
    environments = state.environments if found is None else [e for trial in found.trials for e in trial.environments]
    damaged = state.damaged if found is None else sum(trial.damaged for trial in found.trials)
    return dict(
        canonical.float_free(
            {
                "method": job.method,
                "adapter": _adapter(job, result),
                **({"quantisation": quantisation.claim()} if quantisation is not None else {}),
                "continued": job.parent is not None,
                "device": job.device.kind,
                "device_name": job.device.name,
                "dtype": job.device.dtype,
                **processes_of(job.ranks),
                "seed": job.settings.seed,
                "hyperparameters": _hyperparameters(job, result),
                "rows": len(train.rows),
                "row_tokens": job.row_tokens,
                "cut_rows": len(train.cut),
                "rows_without_target": len(train.without_target),
                "validation_cut_rows": len(job.validation.cut),
                # Which rows are long, or whether one is: a fact that the guarantee of a private run does not cover.
                **({} if job.privacy else _which(train) | _passes(state.micro_batch_tokens)),
                "steps": state.step,
                "trained_tokens": tokens,
                "train_seconds": seconds,
                "flop": f"{6 * result.model.parameters * tokens:.4e}",
                "train_loss": result.final_train_loss,
                "validation_loss": state.watched.get("loss"),
                "watched": state.watched,
                "watched_base": result.watched_base,
                "losses": _thinned(state.curve),
                "validation_losses": _thinned(state.validation),
                "fingerprint": job.fingerprint,
                "checkpoint_sha256": state.tensors_sha256,
                "damaged_checkpoints": damaged,
                "environments": list(dict.fromkeys(environments)),
                **({"teacher": dict(job.teacher)} if job.teacher else {}),
                **({"search": _searched(found)} if found is not None else {}),
                **({"differential_privacy": result.privacy} if result.privacy else {}),
            }
        )
    )


def processes_of(ranks: Ranks) -> dict[str, Any]:
    """How many processes shared out the rows, how they talked, and why they were fewer than configured."""
    told = {"process_backend": ranks.backend, "fewer_processes": ranks.why}
    return {"processes": ranks.count, **{name: word for name, word in told.items() if word}}


def _adapter(job: TuneJob, result: TuneResult) -> str:
    """What was trained, in words."""
    if result.model.whole:
        trained = sum(master.numel() for master in result.model.masters.values())
        return (
            f"every weight of the blocks ({trained} of {result.model.parameters} parameters), kept whole; embedding, "
            "head and last norm are the base model's"
        )
    adapter = f"LoRA of rank {job.settings.lora_rank} on every linear layer of the blocks"
    quantisation = result.model.quantisation
    if quantisation is None:
        return adapter
    return f"{adapter}, trained while those were in {quantisation.words()}; it belongs to the base model as published"


def _hyperparameters(job: TuneJob, result: TuneResult) -> dict[str, Any]:
    """Those that the run had: of whole modules nothing has a rank."""
    every = job.settings.as_dict()
    return {name: value for name, value in every.items() if not (result.model.whole and name.startswith("lora_"))}


def _which(rows: EncodedRows) -> dict[str, list[int]]:
    """Rows by their number in the split, at most :data:`MAX_NUMBERS` of each: a record has a size limit."""
    named = {"cut_row_numbers": rows.cut, "row_numbers_without_target": rows.without_target}
    return {name: list(numbers[:MAX_NUMBERS]) for name, numbers in named.items()}


def _passes(tokens: int) -> dict[str, Any]:
    """How many tokens of rows a pass held, and by which rule; the longest row is among what decides it."""
    return {"micro_batch_tokens": tokens, "micro_batch_why": memory.why(tokens)}


def _searched(found: Found) -> dict[str, Any]:
    """Every trial, and why one was chosen; ``chosen`` counts from 1."""
    best = found.trials[found.chosen - 1]
    failed = sum(bool(trial.failed) for trial in found.trials)
    return {
        "trials": [_trial(trial) for trial in found.trials],
        "chosen": found.chosen,
        "why": f"lowest loss on {found.selection_rows} rows of the selection split, {best.selection_loss:.6g}, among "
        f"{len(found.trials)} trials" + (f" of which {failed} failed" if failed else ""),
        "selection_rows": found.selection_rows,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    """A trial's numbers, losses to six digits; what it has none of is left out."""
    known = {
        name: value
        for name, value in asdict(trial).items()
        if value not in (None, "") and name not in ("damaged", "environments")
    }
    return {name: round(value, 6) if name.endswith("loss") else value for name, value in known.items()}


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    """At most :data:`MAX_POINTS` points, the last always among them: a record has a size limit."""
    step = max(1, -(-len(points) // MAX_POINTS))
    kept = points[::step]
    if points and kept[-1] != points[-1]:
        kept = [*kept, points[-1]]
    return [[s, round(v, 6)] for s, v in kept]
