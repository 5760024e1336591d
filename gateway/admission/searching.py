"""A search's trials: every pair of a rank and a learning rate, as the order states them and a claim must list them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from assay import canonical
from assay.errors import FieldViolation, IntegrityError, InvalidInputError
from assay.v1 import tuning_job_pb2
from gateway.admission.hyperparameters import SEARCHED, WHOLE
from policies import inputs


def demand(request: tuning_job_pb2.CreateTuningJobRequest) -> None:
    """Refuses a search that is none, and one for a number that is given.

    Raises:
        InvalidInputError: ``SEARCH`` naming the field.
    """
    if not request.HasField("search"):
        return
    wrong = [
        FieldViolation(f"hyperparameters.{name}", f"is given, and search.{field} asks for others")
        for name, field in SEARCHED.items()
        if getattr(request.search, field) and request.hyperparameters.HasField(name)
    ]
    if inputs.trials(request.search) < 2:
        wrong.append(FieldViolation("search", "has fewer than two pairs of a rank and a learning rate"))
    if wrong:
        remedy = "give at least two ranks or learning rates to try, and none of them as a hyperparameter"
        raise InvalidInputError("SEARCH", "there is nothing to choose between", violations=wrong, remedy=remedy)


def ordered(
    request: tuning_job_pb2.CreateTuningJobRequest, chosen: tuning_job_pb2.Hyperparameters
) -> list[dict[str, Any]]:
    """The trials as the work order states them, ranks in the outer loop; alpha is twice the rank where none is given.

    A job that goes on from another model keeps that adapter's rank and alpha, and full tuning has none, so that their
    trials state neither.
    """
    asked = request.search
    out: list[dict[str, Any]] = []
    for rank in asked.lora_ranks or [chosen.lora_rank]:
        twice = min(2 * rank, 1024) if asked.lora_ranks else chosen.lora_alpha
        alpha = request.hyperparameters.lora_alpha or twice
        ranked = not request.parent_model and request.method not in WHOLE
        adapter = {"lora_rank": rank, "lora_alpha": alpha} if ranked else {}
        for rate in asked.learning_rates or [chosen.learning_rate]:
            out.append({**adapter, "learning_rate": canonical.decimal(rate)})
    return out


def demand_every_trial(order: Mapping[str, Any], claim: Mapping[str, Any]) -> None:
    """The claim must list what was ordered, trial by trial in finite numbers, and have chosen one that reached its end.

    Raises:
        IntegrityError: ``TRIALS``.
    """
    wanted = order.get("search", {}).get("trials", [])
    try:
        trials = read(claim)
        found = claim["search"]["trials"] if trials else []
        same = all(
            str(done[name]) == str(value)
            for trial, done in zip(wanted, found, strict=True)
            for name, value in trial.items()
        )
        numbers = [n for t in trials for n in (t.learning_rate, t.selection_loss, t.validation_loss)]
        kept = [trial for trial in trials if trial.chosen and not trial.failed and trial.HasField("selection_loss")]
        holds = same and all(map(math.isfinite, numbers)) and len(kept) == (1 if wanted else 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError("TRIALS", "the training statement's trials cannot be read") from error
    if not holds:
        raise IntegrityError("TRIALS", "the training statement lists other trials than the work order")


def shape_of(order: Mapping[str, Any], claim: Mapping[str, Any]) -> tuple[int, int]:
    """LoRA rank and alpha that the work order's adapter has: those of the trial that was chosen, where some were."""
    asked = dict(order["hyperparameters"])
    if trials := order.get("search", {}).get("trials", []):
        asked |= trials[int(claim["search"]["chosen"]) - 1]
    return int(asked.get("lora_rank", 0)), int(asked.get("lora_alpha", 0))


def read(claim: Mapping[str, Any]) -> Sequence[tuning_job_pb2.Trial]:
    """The trials of a claim as messages; none where nothing was searched for."""
    searched = claim.get("search", {})
    return [
        tuning_job_pb2.Trial(
            lora_rank=int(trial.get("lora_rank", 0)),
            learning_rate=float(trial["learning_rate"]),
            tokens=int(trial["tokens"]),
            steps=int(trial["steps"]),
            **{name: float(trial[name]) for name in ("selection_loss", "validation_loss") if name in trial},
            chosen=number == int(searched["chosen"]),
            failed=str(trial.get("failed", ""))[:64],
        )
        for number, trial in enumerate(searched.get("trials", ()), 1)
    ]
