"""Rows laid out so that what they begin with in common is read once: a system prompt, or the prompt before two answers.

The rows of a batch are put into *packs*, sequences in which every token sees the tokens of its own rows before it and
no others. A token that several rows of a pack share, with everything before it, is there once. Under causal attention
what a model says of a token depends on those before it alone, so the numbers are those of rows beside each other, and
so are the gradients: autograd adds up what each row asks of a shared token. (Trees of token sequences are used for
decoding by Miao et al. 2023, arXiv 2305.09781; here they are trained on.)

This holds for models whose every layer attends to all earlier tokens by their positions; :func:`understands_packs`
asks a model, and what does not is trained on padded rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_STEP = 16
"""Widths are multiples of this: few widths mean few kernels, and on a CPU each new one is compiled on first use."""
_ATTENTION = 1500
"""Width at which attention costs as much as the rest of a block; measured on two cores, only the split hangs on it."""
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""By how much a model's hidden state, in standard deviations, may differ between a pack and rows by themselves."""


@dataclass(frozen=True)
class Packs:
    """Rows in packs.

    Attributes:
        tokens: token ids of each pack; its tokens stand in an order in which each comes after those it sees.
        parents: for each token of each pack, the place of the token before it in its rows; -1 for a first one.
        rows: for each row, its pack and the places of its tokens there, in the row's order.
    """

    tokens: tuple[tuple[int, ...], ...]
    parents: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def width(self) -> int:
        """Tokens of each pack with its padding."""
        return -(-max(len(pack) for pack in self.tokens) // _STEP) * _STEP

    @property
    def cost(self) -> float:
        """What the packs cost to compute, in tokens of rows that attend to nothing."""
        return len(self.tokens) * self.width * (1 + self.width / _ATTENTION)


def pack(rows: Sequence[Sequence[int]]) -> Packs:
    """Puts rows into the number of packs that costs least: shared tokens speak for few, attention for many.

    Args:
        rows: token ids of each row, none empty.
    """
    # Among sorted rows the one before shares the longest beginning.
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    shared = [0, *(_shared(rows[a], rows[b]) for a, b in pairwise(order))]
    new = [len(rows[i]) - s for i, s in zip(order, shared, strict=True)]
    longest = max(len(row) for row in rows)
    choices = {max(longest, -(-sum(new) // parts)) for parts in range(1, len(rows) + 1)}
    packed = (_pack(rows, order, shared, limit) for limit in sorted(choices))
    return min(packed, key=lambda p: p.cost)


def _pack(rows: Sequence[Sequence[int]], order: Sequence[int], shared: Sequence[int], limit: int) -> Packs:
    """Packs of at most ``limit`` tokens, each filled in turn."""
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    places: dict[int, tuple[int, tuple[int, ...]]] = {}
    path: list[int] = []
    for i, known in zip(order, shared, strict=True):
        row = rows[i]
        if not tokens or len(tokens[-1]) + len(row) - known > limit:
            tokens.append([])
            parents.append([])
            known = 0
        path = path[:known]
        for token in row[known:]:
            parents[-1].append(path[-1] if path else -1)
            path.append(len(tokens[-1]))
            tokens[-1].append(token)
        places[i] = (len(tokens) - 1, tuple(path))
    return Packs(tuple(map(tuple, tokens)), tuple(map(tuple, parents)), tuple(places[i] for i in range(len(rows))))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two rows have in common from their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def hidden_states(backbone: torch.nn.Module, packs: Packs, where: torch.device) -> torch.Tensor:
    """Runs the packs: shape ``(packs, width, hidden)``, of which places beyond a pack's own tokens mean nothing.

    Args:
        backbone: blocks of a causal model of transformers.
        packs: the packs.
        where: device of the model.
    """
    import torch

    shape = (len(packs.tokens), packs.width)
    tokens, positions = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
    # Padding sees itself, since a softmax over nothing is not a number.
    sees = torch.eye(packs.width, dtype=torch.bool).repeat(len(packs.tokens), 1, 1)
    for n, (ids, parents) in enumerate(zip(packs.tokens, packs.parents, strict=True)):
        tokens[n, : len(ids)] = torch.tensor(ids)
        depths: list[int] = []
        for place, parent in enumerate(parents):
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
            if parent >= 0:
                sees[n, place] |= sees[n, parent]
        positions[n, : len(ids)] = torch.tensor(depths)
    dtype = next(backbone.parameters()).dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)[:, None]
    output: Any = backbone(
        input_ids=tokens.to(where),
        position_ids=positions.to(where),
        attention_mask=mask.to(where),
        use_cache=False,
    )
    states: torch.Tensor = output.last_hidden_state
    return states


def understands_packs(backbone: torch.nn.Module, where: torch.device) -> bool:
    """Whether a model says the same of rows in a pack as of rows by themselves.

    Windows of attention are longer than a trial's rows, so a model that has them is refused by its configuration.
    """
    import torch

    config: Any = backbone.config
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return False
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return False
    highest = min(int(config.vocab_size), 97)
    rows = [[(7 * i + 3) % highest for i in range(6)] + [(k * i + k) % highest for i in range(5 + k)] for k in (2, 3)]
    with torch.inference_mode():
        try:
            packs = pack(rows)
            together = hidden_states(backbone, packs, where)
        except (TypeError, ValueError, RuntimeError):
            return False
        for row, (n, places) in zip(rows, packs.rows, strict=True):
            output: Any = backbone(input_ids=torch.tensor([row], device=where), use_cache=False)
            alone = output.last_hidden_state[0].float()
            difference = (together[n, list(places)].float() - alone).abs().max() / alone.std()
            if not float(difference) <= _TOLERANCE[str(together.dtype).removeprefix("torch.")]:
                return False
    return True
