"""Tuning with differential privacy: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) on the adapter, through Opacus.

What is protected is one unit of the train split, a row or everything of a user: whether it was there changes the
distribution of the adapter by at most epsilon and delta. Each step draws every unit by itself with one probability
(Poisson sampling, which the accountant assumes; an empty draw is a step of noise alone), clips each unit's gradient,
and adds Gaussian noise to their sum. A row's loss is a mean over its own tokens, so no gradient holds another row.

A user is drawn whole, as in McMahan et al. 2018 (arXiv 1710.06963); its gradient is the mean over its rows, at most
:data:`~assay.dp_sgd.MOST_ROWS_OF_A_USER` of them and drawn anew where it has more, and is clipped as one: user-level
sampling in Charles et al. 2024 (arXiv 2407.07737). A mean, since one clipping norm then fits users of few rows and of
many, and a user of one row weighs as much as any.

Noise and draws come from 32 bytes of the operating system, stretched by HMAC-SHA256 a step. They stand in the
encrypted checkpoint and nowhere else: who knew the noise could subtract it, and who knew the draws would lose the
sampling's share of the guarantee. So a private run is never repeated bit by bit, but goes on exactly after a pause.
Within a step the noise is the key stream of a cipher, see :mod:`trainer.recipes.secret_noise`. How much of it there is
stands in the checkpoint too: worked out anew, by another accountant, it would not be what was added before the pause.

Losses and lengths of drawn rows are no part of the guarantee, so a private run neither records nor reports them.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

from assay.dp_sgd import MOST_ROWS_OF_A_USER, ROW, USER, Sampling
from assay.errors import FieldViolation, InvalidInputError, PreconditionError
from trainer.recipes.loop import Control, Run, TuneJob, not_finite
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.plan import BatchPlan, in_parts, learning_rate
from trainer.recipes.rows import EncodedRows, Row

if TYPE_CHECKING:
    import torch

METHODS = ("lora",)
ACCOUNTANT = "prv"
TOLERANCE = 0.01
"""Epsilon that a search for the noise may leave unspent."""
MOST_NOISE = 1e6
_MOST_ASKED = 60
_LEAST_SPENT = 1e-6
"""Under much noise, or a large delta, the accountant states 0 or less, of which there is no logarithm."""
_MICRO_BATCH = MOST_ROWS_OF_A_USER
_SECRET = "private.secret"  # noqa: S105  (a name)
_NOISE = "private.noise"


@dataclass(frozen=True)
class Target:
    """What the order asks for.

    Attributes:
        epsilon: the most that the run may spend at ``delta``; so much is reserved on the dataset.
        delta: of the guarantee.
        noise_multiplier: standard deviation of the noise over the clipping norm; None for what ``epsilon`` allows.
        unit: what is protected, ``row`` or ``user``.
    """

    epsilon: float
    delta: float
    noise_multiplier: float | None = None
    unit: str = ROW

    @classmethod
    def from_order(cls, order: Mapping[str, Any], method: str) -> Target | None:
        """Reads ``differential_privacy`` of an order; None where it asks for none.

        Raises:
            InvalidInputError: ``PRIVACY_TARGET`` naming the field, ``PRIVACY_METHOD`` for a method whose steps the
                accountant does not describe.
        """
        asked = order.get("differential_privacy")
        if asked is None:
            return None
        if method not in METHODS:
            raise InvalidInputError(
                "PRIVACY_METHOD",
                f"method {method} trains without differential privacy",
                remedy=f"one of {', '.join(METHODS)}",
            )
        found = {}
        noise = (("noise_multiplier", 1000.0),) if "noise_multiplier" in asked else ()
        for name, most in (("epsilon", 100.0), ("delta", 1.0), *noise):
            try:
                found[name] = float(asked[name])
            except (KeyError, TypeError, ValueError):
                found[name] = math.nan
            if not 0 < found[name] < most:
                violation = FieldViolation(f"differential_privacy.{name}", f"must lie between 0 and {most:g}")
                raise InvalidInputError("PRIVACY_TARGET", "no such guarantee can be kept", violations=[violation])
        unit = str(asked.get("unit", ROW))
        if unit not in (ROW, USER):
            violation = FieldViolation("differential_privacy.unit", f"must be {ROW} or {USER}")
            raise InvalidInputError("PRIVACY_TARGET", "no such unit can be protected", violations=[violation])
        return cls(**found, unit=unit)


class PrivateRun(Run):
    """A run whose adapter is differentially private in the units of its target.

    Attributes:
        units: rows of each unit that can be trained on, in file order.
        count: units in the train split, also those without such a row.
        noise: noise multiplier of every step; where the order states none, not a number until :meth:`settle`.
    """

    def __init__(self, job: TuneJob, control: Control, target: Target) -> None:
        from opacus import GradSampleModule

        from trainer.recipes.secret_noise import SecretNoiseOptimizer

        self.target = target
        self.units, self.count = units_of(job.train, target.unit)
        self.sampling = Sampling.of(self.count, job.settings.batch_size, job.settings.epochs)
        super().__init__(job, control)
        self.noise = target.noise_multiplier or math.nan
        self._secret = token_bytes(32)
        # Its hooks leave every row's own gradient beside each trainable tensor.
        self._hooked = GradSampleModule(self.model.backbone, loss_reduction="sum")
        self._private = SecretNoiseOptimizer(
            self.optimizer,
            noise_multiplier=self.noise,
            max_grad_norm=job.settings.max_gradient_norm,
            expected_batch_size=self.sampling.rate * self.count,
        )

    def settle(self) -> None:
        """Works the noise out for an epsilon when a run begins; one that goes on has its checkpoint's.

        Raises:
            InvalidInputError: ``PRIVACY_TARGET``, ``PRIVACY_OVERSPENT``.
        """
        if math.isnan(self.noise):
            self.noise = noise_for(self.target.epsilon, self.target.delta, self.sampling)
        self._private.noise_multiplier = self.noise
        if self.spent(self.sampling.steps) > self.target.epsilon:
            raise InvalidInputError(
                "PRIVACY_OVERSPENT",
                f"noise of {self.noise:g} over {self.sampling.steps} steps spends more than the reserved epsilon",
                remedy="ask for a new job; the gateway and the trainer count rows or steps differently, or the "
                "accountant has changed since the run began",
            )

    def make_plan(self) -> BatchPlan:
        """As many steps as the epochs would have; which rows each draws is not planned."""
        return BatchPlan(((),) * self.sampling.steps, self.sampling.steps_per_epoch)

    def make_model(self, longest: int) -> TunedModel:
        """Without the fused layer, behind which Opacus could not see."""
        return load(self.job.base_files, self.job.settings, self.job.device, longest, fused=False)

    def next_tokens(self) -> int:
        """What the next step trains on average: how many tokens were drawn is not for the record.

        Rounded as a sum over the steps, so that what rounding adds never passes what intake planned.
        """
        shares = (sum(r.length for r in unit) * min(1, MOST_ROWS_OF_A_USER / len(unit)) for unit in self.units)
        mean = self.sampling.rate * sum(shares)
        return math.floor(mean * (self.state.step + 1)) - math.floor(mean * self.state.step)

    def draw(self) -> list[list[Row]]:
        """The units of this step, each drawn by itself, with the rows by which each takes part."""
        pick = random.Random(self._stream("draw"))
        drawn = [unit for unit in self.units if pick.random() < self.sampling.rate]
        return [u if len(u) <= MOST_ROWS_OF_A_USER else pick.sample(u, MOST_ROWS_OF_A_USER) for u in drawn]

    def step(self) -> None:
        """One step of DP-SGD; an empty draw adds its noise all the same."""
        state, settings = self.state, self.job.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, self.plan.steps, settings)
        self._private.noise_key = self._stream("noise")
        self.model.backbone.train()
        parts = in_parts(self.draw(), _sizes, (_MICRO_BATCH, state.micro_batch_tokens)) or [[]]
        for number, part in enumerate(parts):
            self._unit_gradients(part)
            self._private.signal_skip_step(do_skip=number + 1 < len(parts))
            self._private.step()
            self._private.zero_grad(set_to_none=True)
        self.model.publish_masters()
        state.tokens += self.next_tokens()
        state.step += 1
        self.report({})

    def spent(self, steps: int) -> float:
        """Epsilon of so many steps, by the accountant."""
        return epsilon_of(self.noise, self.sampling.rate, steps, self.target.delta)

    def account(self) -> dict[str, Any]:
        """What was done and what it cost, for the statement; an auditor can compute epsilon from it by other means."""
        of_user = self.target.unit == USER
        return {
            "mechanism": "DP-SGD: Poisson sampling of users, clipped means of a user's rows, Gaussian noise"
            if of_user
            else "DP-SGD: Poisson sampling, clipped rows, Gaussian noise",
            "unit": self.target.unit,
            **({"most_rows_of_a_user": MOST_ROWS_OF_A_USER} if of_user else {}),
            "accountant": f"opacus {ACCOUNTANT}",
            "epsilon": self.spent(self.state.step),
            "delta": self.target.delta,
            "target": "epsilon" if self.target.noise_multiplier is None else "noise_multiplier",
            "reserved_epsilon": self.target.epsilon,
            "noise_multiplier": self.noise,
            "sampling_rate": self.sampling.rate,
            "steps": self.state.step,
            "max_gradient_norm": self.job.settings.max_gradient_norm,
        }

    def secrets(self) -> dict[str, torch.Tensor]:
        """What goes on a private run, for the encrypted checkpoint alone."""
        import torch

        secret = torch.tensor(list(self._secret), dtype=torch.uint8)
        return {_SECRET: secret, _NOISE: torch.tensor(self.noise, dtype=torch.float64)}

    def take_secrets(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Goes on with the noise and the draws of the run that was interrupted.

        Raises:
            PreconditionError: ``CHECKPOINT_NOISE``.
        """
        self._secret = bytes(tensors[_SECRET].tolist())
        if _NOISE in tensors:
            self.noise = float(tensors[_NOISE])
        elif self.target.noise_multiplier is None:
            # Nothing says which accountant worked it out, so no epsilon could be stated for the steps that are done.
            raise PreconditionError(
                "CHECKPOINT_NOISE",
                "the checkpoint is of an earlier release, which did not keep how much noise its steps had",
                remedy="let the release that began the job end it, or cancel the job and ask for a new one",
            )

    def _stream(self, purpose: str) -> bytes:
        return hmac.new(self._secret, f"{purpose}/{self.state.step}".encode(), hashlib.sha256).digest()

    def _unit_gradients(self, units: Sequence[Sequence[Row]]) -> None:
        """Leaves each unit's gradient at the masters, fp32: shape ``(units, *shape of the tensor)``."""
        import torch

        rows, sizes = [row for unit in units for row in unit], [len(unit) for unit in units]
        if rows:
            losses = self.objective.losses(self.model, rows, self.job.device)
            loss = (losses * torch.tensor([r.weight for r in rows], device=losses.device)).sum()
            if not math.isfinite(float(loss.detach())):
                raise not_finite(f"the loss of step {self.state.step + 1}")
            loss.backward()
        for name, parameter in self.model.adapter.items():
            found: Any = getattr(parameter, "grad_sample", None)
            master: Any = self.model.masters[name]
            if rows and found is not None:
                own = found.float()
                # Sums by split and not by index: the order of additions is then the same in every run.
                each = own if len(rows) == len(units) else torch.stack([part.mean(0) for part in own.split(sizes)])
            else:
                each = torch.zeros((0, *master.shape), device=master.device)
            master.grad_sample = each
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.grad = None


@lru_cache(maxsize=64)
def epsilon_of(noise: float, rate: float, steps: int, delta: float) -> float:
    """Upper end of the epsilon of so many steps, by Opacus's PRV accountant; kept, since a call takes half a second."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, delta: float, sampling: Sampling) -> float:
    """A noise multiplier that spends at most ``epsilon``, and less by at most :data:`TOLERANCE`.

    Opacus's own search halves from 20 and asks the accountant a dozen times. Log epsilon over log noise is nearly a
    line, of slope -1 at first, so that following it asks three to nine times; every third step halves, so that no
    shape of it can hold the search up.

    Raises:
        InvalidInputError: ``PRIVACY_TARGET`` where even a noise of :data:`MOST_NOISE` spends more.
    """
    aim = max(epsilon - TOLERANCE / 2, epsilon / 2)
    noise, low, high = 1.0, (0.0, math.inf), (math.inf, 0.0)
    for asked in range(1, _MOST_ASKED + 1):
        spent = max(epsilon_of(noise, sampling.rate, sampling.steps, delta), _LEAST_SPENT)
        if spent > epsilon:
            low = (noise, spent)
        elif epsilon - spent <= TOLERANCE:
            return noise
        else:
            high = (noise, spent)
        if low[0] and math.isfinite(high[0]):
            share = 0.5 if asked % 3 == 0 else math.log(low[1] / aim) / math.log(low[1] / high[1])
            noise = low[0] * (high[0] / low[0]) ** min(max(share, 0.02), 0.98)
        else:
            # Under little noise epsilon rises more steeply, and costs the accountant far more: down in small steps.
            noise *= min(max(spent / aim, 0.6), 8)
        if noise > MOST_NOISE:
            violation = FieldViolation("differential_privacy.epsilon", "ask for more, or for fewer epochs")
            raise InvalidInputError("PRIVACY_TARGET", "no noise keeps so small an epsilon", violations=[violation])
    return high[0]


def units_of(train: EncodedRows, unit: str) -> tuple[list[list[Row]], int]:
    """The rows of every unit that has some to train on, and how many units there are.

    Raises:
        InvalidInputError: ``NO_USERS`` where users are to be protected and the rows do not say whose they are.
    """
    if unit == ROW:
        return [[row] for row in train.rows], train.read
    if not train.users:
        raise InvalidInputError(
            "NO_USERS",
            "the rows do not say whose they are, so no user can be protected",
            remedy="name the group_field in the datasheet, or protect rows",
        )
    users: dict[int, list[Row]] = {}
    for user, row in zip(train.users, train.rows, strict=True):
        users.setdefault(user, []).append(row)
    return list(users.values()), train.all_users


def _sizes(unit: Sequence[Row]) -> tuple[int, int]:
    """Rows and tokens of a unit, which is never divided."""
    return len(unit), sum(row.length for row in unit)
