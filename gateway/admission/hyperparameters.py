"""Every number that training needs: as asked for, by rule where the request says ``auto``, else the recipe's default.

The rules are those that users of other services know, each with its source; the decision records what was chosen and
why. They see counts only: rows, tokens, the base model's size, the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from assay.dp_sgd import USER
from assay.errors import FieldViolation, InvalidInputError
from assay.v1 import policy_input_pb2, tuning_job_pb2

DEFAULTS = tuning_job_pb2.Hyperparameters(
    epochs=2.0,
    learning_rate=2e-4,
    batch_size=8,
    lora_rank=16,
    lora_alpha=32,
    lora_dropout=0.0,
    seed=0,
    max_row_tokens=1024,
    early_stopping=False,
)
"""The recipe's defaults; a work order states every number, so that nothing is left to the worker."""

MOST_ROW_TOKENS = 8192
"""The most that a request may ask for of any row."""
WHOLE = ("full",)
"""Methods that train whole weight matrices, for which nothing has a rank."""
_OF_SHAPE = ("lora_rank", "lora_alpha")
_OF_LORA = (*_OF_SHAPE, "lora_dropout")
_LORA_RATES_PER_FULL = 10
_TARGET_EPOCHS, _LEAST_SEEN, _MOST_SEEN, _MOST_EPOCHS = 3, 100, 25_000, 25
_BATCH_SHARE, _LEAST_BATCH, _MOST_BATCH = 0.002, 8, 256
_LARGE = 33_000_000_000


SEARCHED: Mapping[str, str] = {"lora_rank": "lora_ranks", "learning_rate": "learning_rates"}
"""Hyperparameters that a search may try several values of, with its field for each."""


def demand(request: tuning_job_pb2.CreateTuningJobRequest) -> None:
    """Refuses numbers that the method has no use for, or that the adapter to go on from decides.

    Raises:
        InvalidInputError: ``HYPERPARAMETERS`` naming the fields.
    """
    if request.method in WHOLE:
        words = "a hyperparameter does not belong to the method"
        why = f"is a number of LoRA, and method {request.method} trains whole matrices"
        instead = "use the method lora"
    else:
        words = "the adapter that the run goes on from has its shape already"
        why = "is the parent model's"
        instead = "start from the base model"
    given = [name for name in _unused(request) if request.hyperparameters.HasField(name)]
    if given:
        raise InvalidInputError(
            "HYPERPARAMETERS",
            words,
            violations=[FieldViolation(f"hyperparameters.{name}", why) for name in given],
            remedy=f"leave out {', '.join(given)}, or {instead}",
        )


def _unused(request: tuning_job_pb2.CreateTuningJobRequest) -> tuple[str, ...]:
    """Numbers of LoRA that the run does not take from its order."""
    if request.method in WHOLE:
        return _OF_LORA
    return _OF_SHAPE if request.parent_model else ()


def defaults_of(request: tuning_job_pb2.CreateTuningJobRequest) -> tuning_job_pb2.Hyperparameters:
    """The recipe's defaults: full tuning has no rank and a tenth of LoRA's rate, a run with a parent takes its rank."""
    values = tuning_job_pb2.Hyperparameters()
    values.CopyFrom(DEFAULTS)
    if request.method in WHOLE:
        values.learning_rate = DEFAULTS.learning_rate / _LORA_RATES_PER_FULL
    for name in _unused(request):
        values.ClearField(name)
    return values


@dataclass(frozen=True)
class Chosen:
    """The values, and for each that a rule chose the reason in words."""

    values: tuning_job_pb2.Hyperparameters
    reasons: Mapping[str, str]


def choose(
    request: tuning_job_pb2.CreateTuningJobRequest,
    data: policy_input_pb2.DataFacts,
    parameters: int,
    tokens_of_pass: int,
) -> Chosen:
    """Fills in what the request leaves open.

    Args:
        request: what was asked; given values always stand.
        data: counted facts; without rows, which is before preparation, nothing is chosen by rule.
        parameters: of the base model.
        tokens_of_pass: that the method reads in one pass over the train split, in all trials of a search together.
    """
    asked = request.hyperparameters
    values = defaults_of(request)
    # By default no row is cut that an order can name the length of: what is tuned is what its owner sent.
    values.max_row_tokens = max(values.max_row_tokens, min(MOST_ROW_TOKENS, data.longest_row_tokens))
    reasons: dict[str, str] = {}
    if asked.auto and data.train_rows:
        ruled, why = _ruled(request, data, parameters, tokens_of_pass)
        values.MergeFrom(ruled)
        searched = {name for name, field in SEARCHED.items() if getattr(request.search, field)}
        reasons = {name: words for name, words in why.items() if not asked.HasField(name) and name not in searched}
    values.MergeFrom(asked)
    values.ClearField("auto")
    if values.HasField("lora_rank") and (asked.HasField("lora_rank") or reasons):
        values.lora_alpha = asked.lora_alpha if asked.HasField("lora_alpha") else min(2 * values.lora_rank, 1024)
    return Chosen(values, reasons)


def _ruled(
    request: tuning_job_pb2.CreateTuningJobRequest,
    data: policy_input_pb2.DataFacts,
    parameters: int,
    tokens_of_pass: int,
) -> tuple[tuning_job_pb2.Hyperparameters, dict[str, str]]:
    epochs, why_epochs = _epochs(data.train_rows, tokens_of_pass, request.budget.max_train_tokens)
    rate, why_rate = _rate(request.method, parameters)
    drawn, units = data.train_rows, "rows"
    if request.differential_privacy.unit == USER and data.train_users:
        drawn, units = data.train_users, "users"
    batch = min(_MOST_BATCH, max(_LEAST_BATCH, round(_BATCH_SHARE * drawn)))
    longest = min(MOST_ROW_TOKENS, max(16, data.longest_row_tokens))
    ruled = tuning_job_pb2.Hyperparameters(
        epochs=epochs,
        learning_rate=rate,
        batch_size=batch,
        max_row_tokens=longest,
        early_stopping=data.validation_rows > 0,
    )
    why = {
        "epochs": why_epochs,
        "learning_rate": why_rate,
        "batch_size": f"0.2 % of {drawn} {units}, from {_LEAST_BATCH} to {_MOST_BATCH} (OpenAI's default)",
        "max_row_tokens": f"the longest row has {data.longest_row_tokens} tokens",
        "early_stopping": f"there are {data.validation_rows} validation rows to stop by",
    }
    if "lora_rank" not in _unused(request):
        ruled.lora_rank = DEFAULTS.lora_rank
        why["lora_rank"] = (
            "with every linear layer adapted the rank matters little (Dettmers et al. 2023, arXiv 2305.14314)"
        )
    return ruled, why


def _epochs(rows: int, tokens_of_pass: int, cap: int) -> tuple[float, str]:
    """Three passes, more for few rows and fewer for many: the rule that OpenAI's cookbook gives for its service."""
    epochs = _TARGET_EPOCHS
    if rows * _TARGET_EPOCHS < _LEAST_SEEN:
        epochs = min(_MOST_EPOCHS, math.ceil(_LEAST_SEEN / rows))
    elif rows * _TARGET_EPOCHS > _MOST_SEEN:
        epochs = max(1, _MOST_SEEN // rows)
    why = (
        f"three passes over {rows} rows, up to {_MOST_EPOCHS} where fewer than {_LEAST_SEEN} would be seen, fewer "
        f"where more than {_MOST_SEEN} would, but at least one (OpenAI's cookbook)"
    )
    affordable = cap // tokens_of_pass if tokens_of_pass else epochs
    if affordable < epochs:
        # Where not one fits, policy refuses with the number of tokens that it would take.
        return float(max(1, affordable)), f"{why}; {affordable} fit into {cap} tokens"
    return float(epochs), why


def _rate(method: str, parameters: int) -> tuple[float, str]:
    if method.startswith("dpo"):
        return 5e-5, "a quarter of supervised tuning's, our own choice: the reference holds the model near its start"
    rate = 1e-4 if parameters >= _LARGE else 2e-4
    if method in WHOLE:
        return rate / _LORA_RATES_PER_FULL, (
            f"a tenth of LoRA's on {parameters} parameters (Schulman et al. 2025, LoRA Without Regret; Biderman et al. "
            "2024, arXiv 2405.09673)"
        )
    return rate, f"LoRA on {parameters} parameters (Dettmers et al. 2023, arXiv 2305.14314, table 9)"
