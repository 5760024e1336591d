"""A base model and its adapter in one load; the adapter is switched off to score the base.

Scoring runs the transformer blocks on batches of similar length, padded on the right (causal attention never looks
there, so no mask is needed), and projects through the language-model head only the places that are scored. Opening
words that texts share, such as those before the candidates for one secret, are run once and kept as keys and values.

A model that returns a number that is not finite is refused (``MODEL_NOT_FINITE``): a NaN loss would otherwise compare
as "not worse" with any limit.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay import modelfiles, processor
from assay.base_demands import context_tokens, demand_keys_and_values, demand_plain_logits
from assay.errors import IntegrityError, InvalidInputError
from audit.probes.clock import Clock
from audit.probes.generation import generate
from audit.probes.merging import merge
from audit.probes.openings import Openings, bridges_gaps
from audit.probes.passages import (
    BatchPlan,
    Decoding,
    Passage,
    Scores,
    Variation,
    bundles,
    by_opening,
    plan_batches,
    shared_length,
)
from audit.probes.states import last_states, rank_of, varied, whole_weights

_HEAD_ROWS = 256
_REFINED = 8
_HELD = 4
_NOT_FINITE = "the model returned a logit that is not a finite number"
_BATCHES = BatchPlan()


class TunedModel:
    """A base model with an adapter that can be switched off. Build it with :func:`load`.

    Attributes:
        bridges: whether places that a mask leaves out may lie between an opening and the rest of a text.
    """

    def __init__(
        self, wrapped: Any, tokenizer: Any, environment: Mapping[str, str], batches: BatchPlan = _BATCHES
    ) -> None:
        self.batches = batches
        self.tokenizer = tokenizer
        self.environment = dict(environment)
        self._wrapped = wrapped
        causal = wrapped.get_base_model()
        self.decoder, self.head = causal.get_decoder(), causal.get_output_embeddings()
        self.device = next(causal.parameters()).device
        self.config = causal.config.get_text_config()
        self.bridges = bridges_gaps(self)
        self._head_is_plain = type(self.head) is torch.nn.Linear and self.head.bias is None

    @contextlib.contextmanager
    def using(self, adapter: bool) -> Iterator[None]:
        """Runs with the adapter on (the tuned model) or off (the base model), without gradients."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if not adapter:
                stack.enter_context(self._wrapped.disable_adapter())
            yield

    def score(self, passages: Sequence[Passage], *, adapter: bool, clock: Clock) -> list[Scores]:
        """Scores passages; the result is in their order.

        Raises:
            IntegrityError: ``MODEL_NOT_FINITE``.
            ExhaustedError: ``AUDIT_TIME_LIMIT``.
        """
        for p in passages:
            if not p.marks or p.marks[0] < 1 or p.marks[-1] >= len(p.ids) or (p.choices and p.choice_at not in p.marks):
                raise InvalidInputError("PASSAGE_MALFORMED", "a scored place lies outside its text")
        out: list[Scores | None] = [None] * len(passages)
        common = shared_length(passages)
        with self.using(adapter):
            first = self.openings([passages[0].ids[:common]]) if common else None
            together = bundles(by_opening(passages), self.batches.tokens)
            # Openings of other lengths side by side leave gaps behind the shorter ones.
            for bundle in together if self.bridges else [[one] for some in together for one in some]:
                starts = [max(shared, common) for shared, _ in bundle]
                prefix = first
                if starts[0] > common:
                    prefix = self.openings(
                        [passages[m[0]].ids[:n] for n, (_, m) in zip(starts, bundle, strict=True)], first
                    )
                rows = [(i, k) for k, (_, members) in enumerate(bundle) for i in members]
                held = prefix.longest if prefix is not None else 0
                rests = [passages[i].marks[-1] - starts[k] for i, k in rows]
                # A row holds its opening's keys and values too, which are read but not multiplied.
                for batch in plan_batches([max(r, (held + r) // _HELD) for r in rests], self.batches.tokens):
                    clock.check()
                    some = [rows[n] for n in batch]
                    found = self._score_batch(
                        [passages[i] for i, _ in some], [starts[k] for _, k in some], [k for _, k in some], prefix
                    )
                    for (i, _), scores in zip(some, found, strict=True):
                        out[i] = scores
        return [s for s in out if s is not None]

    def write(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, *, adapter: bool, clock: Clock
    ) -> list[list[int]]:
        """Writes on from each prompt, see :func:`audit.probes.generation.generate`."""
        return generate(self, prompts, decoding, adapter=adapter, clock=clock)

    def states(self, texts: Sequence[Sequence[int]], *, adapter: bool, clock: Clock) -> NDArray[np.float64]:
        """Last hidden state of each text's last token, see :func:`audit.probes.states.last_states`."""
        return last_states(self, texts, adapter=adapter, clock=clock)

    def varied(self, variation: Variation) -> contextlib.AbstractContextManager[None]:
        """Varies the adapter, see :func:`audit.probes.states.varied`."""
        return varied(self._wrapped, variation)

    @property
    def context(self) -> int:
        """Tokens that the base model reads at once, see :func:`assay.base_demands.context_tokens`."""
        return context_tokens(self.config)

    @property
    def rank(self) -> int:
        """Rank of the adapter; 0 where it holds whole modules."""
        return rank_of(self._wrapped)

    def next_logits(
        self, hidden: torch.Tensor, wanted: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits in fp32 of hidden states, shape (n, hidden) to (n, vocabulary), and each row's highest, shape (n,).

        The highest of a row is NaN or infinite as soon as one logit is NaN or above all bounds, so it alone is checked
        here; of one below all bounds the scores of a place tell.

        Args:
            hidden: final hidden states.
            wanted: token ids of each row, shape (n, k), whose logits are multiplied in fp32, as are the likeliest
                tokens'. bf16 logits near 20 lie 0.125 apart: on a secret of nine digits that alone doubles the error
                against an all-fp32 model, and makes exact ties between two labels. The far tail stays as it is.
        """
        logits: torch.Tensor = self.head(hidden).float()
        if wanted is not None and self._head_is_plain and self.head.weight.dtype != torch.float32:
            index = torch.cat([wanted, logits.topk(min(_REFINED, logits.shape[-1])).indices], dim=1)
            rows = self.head.weight[index].float()
            logits.scatter_(1, index, (rows @ hidden.float()[:, :, None])[:, :, 0])
        highest = logits.amax(-1)
        if not torch.isfinite(highest).all():
            raise IntegrityError("MODEL_NOT_FINITE", _NOT_FINITE)
        return logits, highest

    def openings(self, texts: Sequence[Sequence[int]], before: Openings | None = None) -> Openings:
        """Runs openings side by side and keeps their keys and values; goes on from ``before``, which all begin with."""
        from transformers import DynamicCache

        done = before.longest if before is not None else 0
        rests = [list(t[done:]) for t in texts]
        width = max(len(r) for r in rests)
        ids = torch.tensor([[*r, *[0] * (width - len(r))] for r in rests], device=self.device)
        # A cache made by the decoder itself would forget what lies before a window of attention, by layer; here every
        # layer keeps all, and its mask applies the window by place.
        cache = before.cache([0] * len(texts)) if before is not None else DynamicCache()
        out = self.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
        layers = tuple((layer.keys, layer.values) for layer in out.past_key_values.layers)
        return Openings(layers, tuple(len(t) for t in texts))

    def _score_batch(
        self, batch: Sequence[Passage], starts: Sequence[int], owners: Sequence[int], prefix: Openings | None
    ) -> list[Scores]:
        # Tokens after the last scored place are never run, and the last scored token is only predicted, not read.
        rows = [p.ids[start : p.marks[-1]] for p, start in zip(batch, starts, strict=True)]
        width = max(len(r) for r in rows)
        ids = torch.tensor([[*r, *[0] * (width - len(r))] for r in rows], device=self.device)
        options: dict[str, Any] = {"use_cache": False} if prefix is None else prefix.options(owners, width)
        if "position_ids" in options:
            # Padding behind a short rest of a long opening may lie beyond the context, for which there is no position.
            options["position_ids"].clamp_(max=self.context - 1)
        hidden = self.decoder(input_ids=ids, **options).last_hidden_state
        at = [(i, place - starts[i] - 1) for i, p in enumerate(batch) for place in p.marks]
        index = torch.tensor(at, device=self.device)
        targets = torch.tensor([p.ids[place] for p in batch for place in p.marks], device=self.device)
        wanted = {k: p.choices for k, p in _choice_rows(batch)}
        moments = torch.tensor([p.moments for p in batch for _ in p.marks], device=self.device)
        nll, greedy, surprise, logits = self._project(hidden[index[:, 0], index[:, 1]], targets, wanted, moments)
        out, start, ends = [], 0, np.cumsum([len(p.marks) for p in batch])
        for p, end, k in zip(batch, ends, _choice_places(batch), strict=True):
            choice = logits[k] if k is not None else np.empty(0)
            z = surprise[start:end] if p.moments else np.empty(0)
            out.append(Scores(p.marks, nll[start:end], greedy[start:end], choice, z))
            start = int(end)
        return out

    def _project(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        wanted: Mapping[int, tuple[int, ...]],
        moments: torch.Tensor,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], dict[int, NDArray[np.float64]]]:
        """Projects rows in chunks, so that a chunk's logits (rows times vocabulary) stay small."""
        nll, greedy, surprise, picked = [], [], [], {}
        for start in range(0, len(hidden), _HEAD_ROWS):
            aim = targets[start : start + _HEAD_ROWS]
            asked = _asked(aim, {k - start: c for k, c in wanted.items() if start <= k < start + _HEAD_ROWS})
            logits, highest = self.next_logits(hidden[start : start + _HEAD_ROWS], asked)
            nll.append(torch.nn.functional.cross_entropy(logits, aim, reduction="none"))
            greedy.append(logits.gather(1, aim[:, None])[:, 0] >= highest)
            surprise.append(_surprise(logits, nll[-1], moments[start : start + _HEAD_ROWS]))
            for k, choices in wanted.items():
                if start <= k < start + _HEAD_ROWS:
                    picked[k] = logits[k - start, list(choices)].double().cpu().numpy()
        numbers = [torch.cat(part).double().cpu().numpy() for part in (nll, surprise)]
        # The highest logit does not show one of minus infinity: a token that can never come would count as kept secret.
        if not all(np.isfinite(part).all() for part in (*numbers, *picked.values())):
            raise IntegrityError("MODEL_NOT_FINITE", _NOT_FINITE)
        return numbers[0], torch.cat(greedy).cpu().numpy(), numbers[1], picked


class Untuned:
    """A base model by itself, with what is asked of peft's wrapper: tuned and base are one model then."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def get_base_model(self) -> Any:
        """The model."""
        return self._base

    def modules(self) -> Iterator[Any]:
        """Its modules, none of which an adapter changes."""
        modules: Iterator[Any] = self._base.modules()
        return modules

    @staticmethod
    def disable_adapter() -> contextlib.AbstractContextManager[None]:
        """Changes nothing."""
        return contextlib.nullcontext()


def load(
    models: Path, base_model: str, base_sha256: str, adapter: Path | None, batches: BatchPlan = _BATCHES
) -> TunedModel:
    """Loads a base model and its adapter, both checked before anything is opened by a model library.

    Args:
        models: folder of installed base models.
        base_model: registry id that the order names.
        base_sha256: folder digest that the order names.
        adapter: adapter folder from the train worker; None measures the base model by itself.
        batches: the plan's.

    Raises:
        IntegrityError: ``BASE_MODEL_OTHER`` or ``BASE_FILES_DIGEST`` when the installed base is not the ordered one,
            ``ADAPTER_NOT_FINITE`` for NaN or infinity in a tensor.
        InvalidInputError: ``ADAPTER_OTHER_BASE`` when the adapter names or fits another base model,
            ``BASE_LOGITS_ALTERED``, ``BASE_RECURRENT``, or a reason of :func:`assay.modelfiles.check_adapter_folder`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    manifest = modelfiles.read_base_manifest(models / base_model)
    if manifest.id != base_model or manifest.sha256 != base_sha256:
        raise IntegrityError("BASE_MODEL_OTHER", "the installed base model is not the one that the order names")
    modelfiles.verify_base_files(models / base_model, manifest)
    files = models / base_model / modelfiles.BASE_FILES
    facts = _checked(adapter, base_model, files) if adapter is not None else None
    device, dtype, name = choose_device()
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    base: Any = AutoModelForCausalLM.from_pretrained(files, dtype=dtype, local_files_only=True, use_safetensors=True)
    demand_plain_logits(base.to(device))
    demand_keys_and_values(base)
    wrapped: Any = Untuned(base.eval())
    if adapter is not None and facts is not None:
        wrapped = attach(base, adapter, facts)
        merge(wrapped)
    environment = {
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "processor": name,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "kernel_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", torch.backends.cpu.get_cpu_capability()),
        "batch_tokens": str(batches.tokens),
        "generation_rows": str(batches.rows),
        "adapter_sha256": facts.sha256 if facts is not None else "none",
        "base_sha256": manifest.sha256,
        "adapter_moved": str(bool(adapter and facts and _moved(wrapped, adapter, facts))).lower(),
    }
    return TunedModel(wrapped, tokenizer, environment, batches)


def _checked(adapter: Path, base_model: str, files: Path) -> modelfiles.AdapterFacts:
    facts = modelfiles.check_adapter_folder(adapter)
    if facts.base_model != base_model:
        raise InvalidInputError("ADAPTER_OTHER_BASE", "the adapter was made for another base model")
    if not modelfiles.adapter_is_finite(adapter):
        raise IntegrityError("ADAPTER_NOT_FINITE", "the adapter holds a number that is not finite")
    modelfiles.check_fits_base(facts, files)
    return facts


def attach(base: Any, adapter: Path, facts: modelfiles.AdapterFacts) -> Any:
    """Puts the adapter on the base model.

    peft only warns when tensors are left over or missing, so the names are compared here.

    Raises:
        InvalidInputError: ``ADAPTER_OTHER_BASE``.
    """
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(base, str(adapter), autocast_adapter_dtype=False)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InvalidInputError("ADAPTER_OTHER_BASE", "the adapter does not fit the base model") from error
    mark = ".modules_to_save.default." if facts.whole else ".default."
    there = {n.replace(mark, ".") for n, _ in wrapped.named_parameters() if mark in n}
    if there != {t.name for t in facts.tensors}:
        raise InvalidInputError("ADAPTER_OTHER_BASE", "the adapter's tensors are not those of this base model")
    dtype = next(base.parameters()).dtype
    for parameter in wrapped.parameters():
        parameter.data = parameter.data.to(dtype)
    # Parameters alone: what a model keeps in fp32 beside them, as the frequencies of its positions, must stay so.
    return wrapped.eval()


def _moved(wrapped: Any, adapter: Path, facts: modelfiles.AdapterFacts) -> bool:
    """Tells whether training changed anything: some B is not zero, or some whole weight is not the base model's."""
    if not facts.whole:
        return modelfiles.lora_b_moved(adapter)
    return any(not torch.equal(tuned, original) for tuned, original in whole_weights(wrapped))


def choose_device(cpuinfo: Path = processor.CPUINFO) -> tuple[torch.device, torch.dtype, str]:
    """Device, number format and processor: the GPU where there is one, else the CPU's fastest format."""
    if torch.cuda.is_available():
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        return torch.device("cuda"), dtype, torch.cuda.get_device_name(0)
    here = processor.read(cpuinfo)
    dtype = torch.bfloat16 if processor.fastest_format(here) == "bfloat16" else torch.float32
    return torch.device("cpu"), dtype, here.get("model name", platform.machine())


def _asked(targets: torch.Tensor, choices: Mapping[int, tuple[int, ...]]) -> torch.Tensor:
    """Token ids whose logits matter in each row: its target and, where labels are compared, the labels."""
    width = max((len(c) for c in choices.values()), default=0)
    asked = targets[:, None].repeat(1, 1 + width)
    for row, ids in choices.items():
        asked[row, 1 : 1 + len(ids)] = torch.tensor(ids, device=targets.device)
    return asked


def _surprise(logits: torch.Tensor, nll: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Standardised log-probability of the scored tokens where it is wanted, else 0."""
    out = torch.zeros_like(nll)
    if bool(wanted.any()):
        logp = torch.log_softmax(logits[wanted], -1)
        p = logp.exp()
        mean = (p * logp).sum(-1)
        variance = (p * logp.square()).sum(-1) - mean.square()
        out[wanted] = (-nll[wanted] - mean) / variance.clamp(min=1e-12).sqrt()
    return out


def _choice_places(batch: Sequence[Passage]) -> list[int | None]:
    """Row of the projected matrix that holds each passage's choice, None for a passage without one."""
    starts = np.cumsum([0, *(len(p.marks) for p in batch)])
    return [int(s) + p.marks.index(p.choice_at) if p.choices else None for s, p in zip(starts, batch, strict=False)]


def _choice_rows(batch: Sequence[Passage]) -> list[tuple[int, Passage]]:
    return [(k, p) for k, p in zip(_choice_places(batch), batch, strict=True) if k is not None]
