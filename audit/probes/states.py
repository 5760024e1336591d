"""A tuned model's inside: hidden states, and its adapter made weaker or cut to a lower rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import IntegrityError
from audit.probes.clock import Clock
from audit.probes.merging import refresh
from audit.probes.passages import Variation, plan_batches

if TYPE_CHECKING:
    from audit.probes.model import TunedModel

_ADAPTER = "default"


def last_states(
    model: TunedModel, texts: Sequence[Sequence[int]], *, adapter: bool, clock: Clock
) -> NDArray[np.float64]:
    """Final hidden state of each text's last token, shape (texts, width), in the texts' order.

    Raises:
        IntegrityError: ``MODEL_NOT_FINITE``.
        ExhaustedError: ``AUDIT_TIME_LIMIT``.
    """
    out: dict[int, NDArray[np.float64]] = {}
    with model.using(adapter):
        for batch in plan_batches([len(t) for t in texts], model.batches.tokens):
            clock.check()
            width = max(len(texts[i]) for i in batch)
            rows = [[*texts[i], *[0] * (width - len(texts[i]))] for i in batch]
            ids = torch.tensor(rows, device=model.device)
            hidden = model.decoder(input_ids=ids, use_cache=False).last_hidden_state
            for k, i in enumerate(batch):
                out[i] = hidden[k, len(texts[i]) - 1].double().cpu().numpy()
    found = np.array([out[i] for i in range(len(texts))])
    if not np.isfinite(found).all():
        raise IntegrityError("MODEL_NOT_FINITE", "the model returned a hidden state that is not a finite number")
    return found


def rank_of(wrapped: Any) -> int:
    """Largest rank of the adapter's matrices; 0 where it holds whole modules."""
    return max((int(m.lora_A[_ADAPTER].weight.shape[0]) for m in _layers(wrapped)), default=0)


@contextlib.contextmanager
def varied(wrapped: Any, variation: Variation) -> Iterator[None]:
    """Scales the adapter's change and cuts it to its largest singular values, and puts it back at the end.

    Of whole modules the change is what they differ from their originals by, so that a scaled one is the model between
    base and tuned (Wortsman et al., CVPR 2022); there is no rank to cut.
    """
    pairs = [(m.lora_A[_ADAPTER].weight, m.lora_B[_ADAPTER].weight) for m in _layers(wrapped)]
    whole = whole_weights(wrapped) if variation.scale != 1 else []
    kept = [(w, w.detach().clone()) for w in (*(w for pair in pairs for w in pair), *(w for w, _ in whole))]
    try:
        with torch.no_grad():
            for a, b in pairs:
                if variation.rank:
                    down, up = lower_rank(a.float(), b.float(), variation.rank)
                    a.copy_(down)
                    b.copy_(up)
                b.mul_(variation.scale)
            for tuned, original in whole:
                tuned.copy_(torch.lerp(original.float(), tuned.float(), variation.scale))
        refresh(wrapped)
        yield
    finally:
        with torch.no_grad():
            for weight, old in kept:
                weight.copy_(old)
        refresh(wrapped)


def whole_weights(wrapped: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every weight that the adapter holds whole, each with the base model's own."""
    from peft.utils import ModulesToSaveWrapper

    held = [m for m in wrapped.modules() if isinstance(m, ModulesToSaveWrapper)]
    return [
        (tuned, original)
        for m in held
        for tuned, original in zip(
            m.modules_to_save[_ADAPTER].parameters(), m.original_module.parameters(), strict=True
        )
    ]


def lower_rank(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best approximation of ``up @ down`` of a rank (Eckart and Young 1936), in matrices of the same shapes.

    Args:
        down: shape (r, inside).
        up: shape (outside, r).
        rank: at most r; the rest is filled with zeros.
    """
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T)
    s = torch.where(torch.arange(len(s), device=s.device) < rank, s, torch.zeros_like(s))
    return vh @ q_down.T, q_up @ (u * s)


def _layers(wrapped: Any) -> list[Any]:
    return [m for m in wrapped.modules() if _ADAPTER in getattr(m, "lora_A", {}) and _ADAPTER in m.lora_B]
