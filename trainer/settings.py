"""What a work order asks of the trainer, read once and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from assay.errors import FieldViolation, InvalidInputError


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one run; every field has a value, so a statement can repeat exactly what was done.

    Full tuning has no low-rank matrices and reads none of the ``lora_`` fields.

    Attributes:
        epochs: passes over the train split; a fraction ends inside an epoch.
        learning_rate: peak of the schedule.
        batch_size: rows in one optimiser step.
        lora_rank: rank of the update.
        lora_alpha: numerator of the LoRA scale ``alpha / rank``.
        lora_dropout: dropout before A.
        seed: of data order, dropout and the initial A.
        max_row_tokens: longer rows lose tokens at the front, so that the answer stays.
        early_stopping: keep the adapter with the lowest validation loss, and stop when an epoch has not lowered it.
        warmup_share: share of the steps over which the rate rises linearly; it then falls linearly to zero.
        weight_decay: AdamW's decoupled decay.
        max_gradient_norm: gradients are scaled down to this norm.
    """

    epochs: float = 2.0
    learning_rate: float = 2e-4
    batch_size: int = 8
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    seed: int = 0
    max_row_tokens: int = 1024
    early_stopping: bool = False
    warmup_share: float = 0.06
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "epochs": (0.0, 50.0, False),
            "learning_rate": (0.0, 0.1, False),
            "batch_size": (1, 256, True),
            "lora_rank": (1, 256, True),
            "lora_alpha": (1, 1024, True),
            "lora_dropout": (0.0, 0.99, True),
            "seed": (0, 2**31 - 1, True),
            "max_row_tokens": (16, 8192, True),
        }
        wrong = [
            FieldViolation(f"hyperparameters.{name}", f"must lie between {low} and {high}")
            for name, (low, high, closed) in limits.items()
            if not _within(getattr(self, name), low, high, closed)
        ]
        if wrong:
            raise InvalidInputError("HYPERPARAMETERS", "hyperparameters are out of range", violations=wrong)

    @classmethod
    def from_order(cls, hyperparameters: Mapping[str, Any]) -> Settings:
        """Reads the order's hyperparameters; absent ones take the defaults, numbers may be written as text.

        Args:
            hyperparameters: ``assay.v1.Hyperparameters`` as JSON with proto field names.

        Raises:
            InvalidInputError: ``HYPERPARAMETERS`` naming the field.
        """
        kinds: dict[str, type[float] | type[int] | type[bool]] = {
            **dict.fromkeys(("epochs", "learning_rate", "lora_dropout"), float),
            "early_stopping": bool,
        }
        whole = ("batch_size", "lora_rank", "lora_alpha", "seed", "max_row_tokens")
        kinds.update(dict.fromkeys(whole, int))
        unknown = sorted(set(hyperparameters) - set(kinds))
        if unknown:
            raise InvalidInputError("HYPERPARAMETERS", f"unknown hyperparameters {', '.join(unknown)}")
        values: dict[str, Any] = {}
        for name, value in hyperparameters.items():
            try:
                values[name] = kinds[name](value)
            except (TypeError, ValueError, OverflowError) as error:
                violation = FieldViolation(f"hyperparameters.{name}", f"must be a {kinds[name].__name__}")
                raise InvalidInputError(
                    "HYPERPARAMETERS", "a hyperparameter is malformed", violations=[violation]
                ) from error
        if "lora_rank" in values and "lora_alpha" not in values:
            values["lora_alpha"] = min(2 * values["lora_rank"], 1024)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def _within(value: float, low: float, high: float, closed: bool) -> bool:
    return math.isfinite(value) and value <= high and (value >= low if closed else value > low)
