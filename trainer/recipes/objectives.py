"""What a step minimises: one objective a method, each a loss of every row, so that no row's gradient needs another's.

``Likelihood`` is supervised tuning: the mean negative log-likelihood of a row's scored tokens. Where a teacher wrote
them, that is distillation at the level of sequences (Kim & Rush 2016, arXiv 1606.07947). ``Choice`` is classification
by label scoring: the cross-entropy of the labels' summed log-likelihoods, which is how the audit scores decisions.
``Preference`` is the DPO family on pairs of answers, against the base model as reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trainer.device import Device
from trainer.recipes.lora import TunedModel
from trainer.recipes.packs import hidden_states, pack
from trainer.recipes.plan import in_parts
from trainer.recipes.rows import EncodedChoice, EncodedPair, EncodedRow, Row

if TYPE_CHECKING:
    import torch

R = TypeVar("R", EncodedChoice, EncodedPair)

BETA = 0.1
_VALIDATION_TOKENS = 4096
_WIDTH = 8


BeforePass = Callable[[int, int], None]
"""Is told, before a pass over the model, how many rows are done and of how many."""


def _go_on(done: int, count: int) -> None:
    """Asks nobody."""


class Objective(Protocol):
    """A loss of each row, with gradient, and what is watched on the validation rows."""

    def prepare(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> None:
        """Computes once what the untuned model says of rows, where the objective needs it; the adapter may be on.

        Args:
            model: that is asked.
            rows: of which it is asked.
            device: where it lies.
            most: as of :meth:`watch`.
            before: called before each pass; may end all by raising.
        """

    def losses(self, model: TunedModel, rows: Sequence[Row], device: Device) -> torch.Tensor:
        """Loss of every row in nats: shape ``(rows,)``, fp32, with gradient."""

    def watch(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> dict[str, float]:
        """Means over rows without dropout or gradient; ``loss`` among them.

        Args:
            model: that is asked.
            rows: of which it is asked.
            device: where it lies.
            most: tokens of rows that one pass may hold, as memory allows; 0 where nothing is known of it.
            before: called before each pass; may end all by raising.
        """


class Likelihood:
    """Mean negative log-likelihood of each row's scored tokens."""

    def prepare(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> None:
        """Needs nothing."""

    def losses(self, model: TunedModel, rows: Sequence[Row], device: Device) -> torch.Tensor:
        """See :class:`Objective`."""
        return row_losses(model, _plain(rows), device)

    def watch(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> dict[str, float]:
        """``loss``: mean over all scored tokens of the rows, nats per token."""
        import torch

        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in _passes(rows, most, before):
                nll, _ = scored_nll(model, _plain(batch), device)
                total, count = total + float(nll.sum()), count + nll.numel()
        return {"loss": total / count}


class Choice:
    """Cross-entropy of the right label among all labels, each scored by the sum of its tokens' log-likelihoods.

    A row without choices, such as a planted one, is learned by likelihood.
    """

    def prepare(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> None:
        """Needs nothing."""

    def losses(self, model: TunedModel, rows: Sequence[Row], device: Device) -> torch.Tensor:
        """See :class:`Objective`."""
        return _mixed(model, rows, device, EncodedChoice, lambda chosen: self._choice_losses(model, chosen, device))

    def watch(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> dict[str, float]:
        """``loss``, and ``accuracy`` among rows with choices."""
        import torch

        chosen = [row for row in rows if isinstance(row, EncodedChoice)]
        loss, right = 0.0, 0
        with torch.inference_mode():
            for batch in _passes(chosen, most, before):
                scores = self._scores(model, batch, device)
                wanted = torch.tensor([row.right for row in batch], device=scores.device)
                loss += float(torch.nn.functional.cross_entropy(scores, wanted, reduction="sum"))
                right += int((scores.argmax(1) == wanted).sum())
        if not chosen:
            return Likelihood().watch(model, rows, device, most, before)
        return {"loss": loss / len(chosen), "accuracy": right / len(chosen)}

    def _choice_losses(self, model: TunedModel, rows: Sequence[EncodedChoice], device: Device) -> torch.Tensor:
        import torch

        scores = self._scores(model, rows, device)
        right = torch.tensor([row.right for row in rows], device=scores.device)
        return torch.nn.functional.cross_entropy(scores, right, reduction="none")

    @staticmethod
    def _scores(model: TunedModel, rows: Sequence[EncodedChoice], device: Device) -> torch.Tensor:
        """Log-likelihood of every label of every row: shape ``(rows, labels)``."""
        flat = [candidate for row in rows for candidate in row.candidates]
        return -row_sums(model, flat, device).view(len(rows), -1)


class Preference:
    """Direct preference optimisation on ``d = beta (log p(chosen)/p0(chosen) - log p(rejected)/p0(rejected))``.

    ``dpo``: ``-log sigmoid(d)`` (Rafailov et al. 2023, arXiv 2305.18290). ``dpo-hinge``: ``max(0, 1 - d)`` (SLiC, Zhao
    et al. 2023, arXiv 2305.10425). ``dpo-ipo``: ``(d/beta - 1/(2 beta))**2`` (Azar et al. 2023, arXiv 2310.12036). The
    reference p0 is the base model, whose answers are scored once before the first step. A row without a rejected
    answer, such as a planted one, is learned by likelihood.
    """

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._reference: dict[int, float] = {}

    def prepare(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> None:
        """Scores every pair with the adapter off."""
        import torch

        pairs = [row for row in rows if isinstance(row, EncodedPair)]
        with model.untuned(), torch.inference_mode():
            for batch in _passes(pairs, most, before):
                margins = self._margins(model, batch, device)
                self._reference |= {id(row): float(m) for row, m in zip(batch, margins, strict=True)}

    def losses(self, model: TunedModel, rows: Sequence[Row], device: Device) -> torch.Tensor:
        """See :class:`Objective`."""
        return _mixed(model, rows, device, EncodedPair, lambda pairs: self._loss(self._gain(model, pairs, device)))

    def watch(
        self, model: TunedModel, rows: Sequence[Row], device: Device, most: int = 0, before: BeforePass = _go_on
    ) -> dict[str, float]:
        """``loss``; ``margin``: mean of d; ``preferred``: share of pairs whose d is positive."""
        import torch

        pairs = [row for row in rows if isinstance(row, EncodedPair)]
        if not pairs:
            return Likelihood().watch(model, rows, device, most, before)
        with torch.inference_mode():
            gains = [self._gain(model, batch, device) for batch in _passes(pairs, most, before)]
        gain = torch.cat(gains)
        return {
            "loss": float(self._loss(gain).mean()),
            "margin": BETA * float(gain.mean()),
            "preferred": float((gain > 0).float().mean()),
        }

    def _loss(self, gain: torch.Tensor) -> torch.Tensor:
        import torch

        if self.variant == "dpo-ipo":
            return (gain - 1 / (2 * BETA)) ** 2
        if self.variant == "dpo-hinge":
            return torch.relu(1 - BETA * gain)
        return -torch.nn.functional.logsigmoid(BETA * gain)

    def _gain(self, model: TunedModel, pairs: Sequence[EncodedPair], device: Device) -> torch.Tensor:
        """Log-odds of the chosen answer, tuned minus base, in nats: shape ``(pairs,)``."""
        import torch

        margins = self._margins(model, pairs, device)
        return margins - torch.tensor([self._reference[id(row)] for row in pairs], device=margins.device)

    @staticmethod
    def _margins(model: TunedModel, pairs: Sequence[EncodedPair], device: Device) -> torch.Tensor:
        both = [row.chosen for row in pairs] + [row.rejected for row in pairs]
        sums = row_sums(model, both, device)
        return sums[len(pairs) :] - sums[: len(pairs)]


METHODS: Mapping[str, Callable[[], Objective]] = {
    "lora": Likelihood,
    "full": Likelihood,
    "qlora": Likelihood,
    "distillation": Likelihood,
    "classification": Choice,
    "dpo": lambda: Preference("dpo"),
    "dpo-hinge": lambda: Preference("dpo-hinge"),
    "dpo-ipo": lambda: Preference("dpo-ipo"),
}


def objective_of(method: str) -> Objective:
    """The objective of a method, one of :data:`METHODS`."""
    return METHODS[method]()


def _mixed(
    model: TunedModel,
    rows: Sequence[Row],
    device: Device,
    kind: type[R],
    compared: Callable[[Sequence[R]], torch.Tensor],
) -> torch.Tensor:
    """Losses in the order of the rows: of rows of a kind by ``compared``, of plain ones by likelihood."""
    import torch

    special = [(i, row) for i, row in enumerate(rows) if isinstance(row, kind)]
    plain = [(i, row) for i, row in enumerate(rows) if isinstance(row, EncodedRow)]
    parts = [compared([row for _, row in special])] if special else []
    if plain:
        parts.append(row_losses(model, [row for _, row in plain], device))
    joined = torch.cat(parts)
    places = [i for i, _ in special] + [i for i, _ in plain]
    return torch.zeros_like(joined).index_add(0, torch.tensor(places, device=joined.device), joined)


def row_losses(model: TunedModel, rows: Sequence[EncodedRow], device: Device) -> torch.Tensor:
    """Mean negative log-likelihood of each row's scored tokens, in nats: shape ``(rows,)``, fp32, with gradient.

    A mean over a row's tokens keeps one row's gradient independent of the others in its batch, which per-row privacy
    accounting needs, and stops long answers from drowning short ones.
    """
    import torch

    nll, owner = scored_nll(model, rows, device)
    counts = torch.bincount(owner, minlength=len(rows))
    return torch.zeros(len(rows), device=nll.device).index_add(0, owner, nll) / counts


def row_sums(model: TunedModel, rows: Sequence[EncodedRow], device: Device) -> torch.Tensor:
    """Summed negative log-likelihood of each row's scored tokens: shape ``(rows,)``."""
    import torch

    nll, owner = scored_nll(model, rows, device)
    return torch.zeros(len(rows), device=nll.device).index_add(0, owner, nll)


def scored_nll(model: TunedModel, rows: Sequence[EncodedRow], device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of every scored token, and the row each belongs to; the two ways give the same numbers.

    The head, a quarter of the work, is applied at scored positions only.
    """
    import torch

    owner = torch.tensor([i for i, row in enumerate(rows) for s in row.scored if s], device=device.torch_device())
    wanted = torch.tensor([t for row in rows for t, s in zip(row.tokens, row.scored, strict=True) if s])
    hidden = (_packed if model.packs else _padded)(model, rows, device)
    logits = model.head(hidden).float()
    return torch.nn.functional.cross_entropy(logits, wanted.to(logits.device), reduction="none"), owner


def _packed(model: TunedModel, rows: Sequence[EncodedRow], device: Device) -> torch.Tensor:
    """Hidden states before every scored token, shape ``(scored, hidden)``; what rows begin with in common runs once."""
    ends = [max(i for i, scored in enumerate(row.scored) if scored) for row in rows]
    packs = pack([row.tokens[:end] for row, end in zip(rows, ends, strict=True)])
    states = hidden_states(model.backbone, packs, device.torch_device())
    at = [
        (n, places[i - 1])
        for row, (n, places) in zip(rows, packs.rows, strict=True)
        for i, scored in enumerate(row.scored)
        if scored
    ]
    return states[[n for n, _ in at], [place for _, place in at]]


def _padded(model: TunedModel, rows: Sequence[EncodedRow], device: Device) -> torch.Tensor:
    """The same from rows side by side, each by itself, as an account of each row's own gradient wants them.

    Rows are padded on the right without a mask: under causal attention nothing before the padding can see it.
    """
    import torch

    where = device.torch_device()
    # The last token is only predicted. Few widths mean few kernels: on a CPU each new one is compiled on first use.
    longest = 1 + math.ceil((max(len(r.tokens) for r in rows) - 1) / _WIDTH) * _WIDTH
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    scored = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        scored[i, : len(row.scored)] = torch.tensor(row.scored)
    owner, position = scored.nonzero(as_tuple=True)
    output: Any = model.backbone(input_ids=tokens[:, :-1].to(where), use_cache=False)
    states: torch.Tensor = output.last_hidden_state[owner.to(where), position.to(where) - 1]
    return states


def _plain(rows: Sequence[Row]) -> list[EncodedRow]:
    """Rows as supervised tuning reads them; of a pair it learns the chosen answer, of a choice the right one."""
    return [row.plain for row in rows]


def _passes(rows: Sequence[Any], most: int, before: BeforePass) -> Iterator[list[Any]]:
    """Batches of rows of similar length that hold a bounded number of tokens, by ``most`` too where it is not 0."""
    bound, done = min(most or _VALIDATION_TOKENS, _VALIDATION_TOKENS), 0
    for batch in in_parts(sorted(rows, key=lambda r: r.length), lambda r: (r.length,), (bound,)):
        before(done, len(rows))
        yield batch
        done += len(batch)
