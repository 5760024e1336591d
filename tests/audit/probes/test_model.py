"""Scoring and generation agree with the plain way of doing them, and a wrong or broken model is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError
from audit.probes import generation
from audit.probes.clock import Clock
from audit.probes.kept_scores import KeptScores
from audit.probes.merging import merge, refresh
from audit.probes.passages import (
    BatchPlan,
    Board,
    Decoding,
    Passage,
    Scores,
    Variation,
    by_opening,
    plan_batches,
    shared_length,
)

from .conftest import BASE, base_digest, write_adapter

CLOCK = Clock.start(0)


def passages(count: int, shared: int = 0) -> list[Passage]:
    rng = np.random.default_rng(4)
    head = [int(i) for i in rng.integers(3, 300, shared)]
    out = []
    for k in range(count):
        tail = [int(i) for i in rng.integers(3, 300, 6 + 5 * (k % 7))]
        ids = (*head, *tail)
        out.append(Passage(ids, tuple(range(len(head) + 2, len(ids)))))
    return out


def plain_scores(model: Any, passage: Passage, adapter: bool) -> tuple[Any, Any]:
    """One text at a time, full logits, no cache: what scoring means."""
    import torch

    with model.using(adapter):
        ids = torch.tensor([passage.ids], device=model.device)
        logits = model.head(model.decoder(input_ids=ids).last_hidden_state)[0].float()
    logp = torch.log_softmax(logits, -1)
    nll = [-float(logp[p - 1, passage.ids[p]]) for p in passage.marks]
    return np.array(nll), [int(logits[p - 1].argmax()) == passage.ids[p] for p in passage.marks]


@pytest.mark.parametrize("shared", [0, 30])
@pytest.mark.parametrize("adapter", [True, False])
def test_batched_scores_equal_plain_ones(
    noisy: Any, shared: int, adapter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerance = 1e-4 if noisy.environment["dtype"] == "float32" else 0.35
    texts = passages(17, shared)
    assert (shared_length(texts) >= 30) is (shared > 0)
    monkeypatch.setattr(noisy, "batches", BatchPlan(tokens=90))
    found = noisy.score(texts, adapter=adapter, clock=CLOCK)
    for text, scores in zip(texts, found, strict=True):
        nll, _ = plain_scores(noisy, text, adapter)
        assert scores.places == text.marks
        np.testing.assert_allclose(scores.nll, nll, atol=tolerance)


def test_fp32_scores_are_exact_whatever_the_batch(exact: Any) -> None:
    """In fp32 the batch plan, the shared prefix and the padding change nothing that can be seen."""
    texts = passages(9, 20)
    together = exact.score(texts, adapter=True, clock=CLOCK)
    for text, scores in zip(texts, together, strict=True):
        nll, greedy = plain_scores(exact, text, True)
        np.testing.assert_allclose(scores.nll, nll, atol=2e-4)
        assert scores.greedy.tolist() == greedy
        alone = exact.score([text], adapter=True, clock=CLOCK)[0]
        np.testing.assert_allclose(scores.nll, alone.nll, atol=2e-4)


def test_what_a_base_model_keeps_in_fp32_stays_so_under_an_adapter(
    load_model: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16 the frequencies of positions would be off by up to 0.4 %, and every score with them."""
    import torch

    monkeypatch.setattr("audit.probes.model.choose_device", lambda: (torch.device("cpu"), torch.bfloat16, "any"))
    model = load_model(write_adapter(tmp_path / "adapter", spread=0.05))
    assert {p.dtype for p in model._wrapped.parameters()} == {torch.bfloat16}
    kept = {name: b.dtype for name, b in model._wrapped.named_buffers() if "inv_freq" in name}
    assert kept and set(kept.values()) == {torch.float32}


def test_the_adapter_is_really_switched(noisy: Any) -> None:
    texts = passages(5)
    tuned = noisy.score(texts, adapter=True, clock=CLOCK)
    base = noisy.score(texts, adapter=False, clock=CLOCK)
    again = noisy.score(texts, adapter=True, clock=CLOCK)
    assert max(abs(a.nll - b.nll).max() for a, b in zip(tuned, base, strict=True)) > 0.01
    assert all((a.nll == b.nll).all() for a, b in zip(tuned, again, strict=True))


def test_a_merged_adapter_says_what_pefts_own_layers_say_and_bf16_is_left_to_them(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    ids = torch.arange(3, 20)[None]
    for dtype, layers in ((torch.float32, 4), (torch.bfloat16, 0)):
        torch.manual_seed(0)
        plain: Any = AutoModelForCausalLM.from_config(LlamaConfig(**shape, num_attention_heads=4), dtype=dtype)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        wrapped: Any = get_peft_model(plain, config, autocast_adapter_dtype=False).eval()
        with torch.inference_mode():
            tuned = wrapped(ids).logits
            with wrapped.disable_adapter():
                base = wrapped(ids).logits
        assert merge(wrapped) == layers
        with torch.inference_mode():
            assert torch.allclose(wrapped(ids).logits, tuned, atol=1e-5)
            assert not torch.allclose(tuned, base, atol=1e-2)
            with wrapped.disable_adapter():
                assert torch.equal(wrapped(ids).logits, base), "the base model's own bits"
            for name, parameter in wrapped.named_parameters():
                if ".lora_B." in name:
                    parameter.zero_()
            refresh(wrapped)
            assert torch.equal(wrapped(ids).logits, base)


def test_an_adapter_that_learned_nothing_scores_like_its_base(
    load_model: Callable[[Path], Any], tmp_path: Path
) -> None:
    model = load_model(write_adapter(tmp_path / "adapter", spread=0.0))
    texts = passages(4)
    tuned, base = (model.score(texts, adapter=a, clock=CLOCK) for a in (True, False))
    assert all((a.nll == b.nll).all() for a, b in zip(tuned, base, strict=True))
    assert model.environment["adapter_moved"] == "false"


def test_choices_are_the_logits_at_their_place(noisy: Any) -> None:
    text = passages(1)[0]
    place = text.marks[2]
    asked = Passage(text.ids, text.marks, place, (7, 11, text.ids[place]))
    [scores] = noisy.score([asked], adapter=True, clock=CLOCK)
    own = -scores.nll[2]
    gaps = scores.choice_logits - scores.choice_logits[2]
    assert scores.choice_logits.shape == (3,)
    assert (own + gaps <= 1e-6).all()  # log-probabilities
    [plain] = noisy.score([text], adapter=True, clock=CLOCK)
    assert plain.choice_logits.size == 0


@pytest.mark.parametrize(
    "bad",
    [Passage((1, 2, 3), (0,)), Passage((1, 2, 3), (3,)), Passage((1, 2, 3), ()), Passage((1, 2, 3), (1,), 2, (5, 6))],
)
def test_places_outside_the_text_are_refused(noisy: Any, bad: Passage) -> None:
    with pytest.raises(InvalidInputError) as error:
        noisy.score([bad], adapter=True, clock=CLOCK)
    assert error.value.reason == "PASSAGE_MALFORMED"


def test_greedy_generation_equals_teacher_forcing(exact: Any) -> None:
    """What the leak probes rely on: greedy decoding writes a text exactly when each of its tokens is greedy."""
    prompts = [p.ids[:9] for p in passages(12)]
    written = exact.write(prompts, Decoding(6, frozenset()), adapter=True, clock=CLOCK)
    both = list(zip(prompts, written, strict=True))
    texts = [Passage((*p, *w), tuple(range(len(p), len(p) + len(w)))) for p, w in both]
    assert [len(w) for w in written] == [6] * 12
    assert all(s.greedy.all() for s in exact.score(texts, adapter=True, clock=CLOCK))
    wrong = [Passage((*t.ids[:-1], (t.ids[-1] + 1) % 300), t.marks) for t in texts]
    assert not any(s.greedy[-1] for s in exact.score(wrong, adapter=True, clock=CLOCK))


def test_long_and_short_answers_share_a_call(noisy: Any) -> None:
    """Texts of any length come back in their own place."""
    long = Passage(tuple(range(3, 120)), tuple(range(20, 117)))
    short = passages(5)
    found = noisy.score([short[0], long, *short[1:]], adapter=True, clock=CLOCK)
    assert [s.places for s in found] == [short[0].marks, long.marks, *(p.marks for p in short[1:])]
    nll, _ = plain_scores(noisy, long, True)
    np.testing.assert_allclose(found[1].nll, nll, atol=0.35)


def test_left_padding_does_not_change_what_is_written(noisy: Any) -> None:
    prompts = [p.ids for p in passages(8)]
    together = noisy.write(prompts, Decoding(5, frozenset()), adapter=True, clock=CLOCK)
    alone = [noisy.write([p], Decoding(5, frozenset()), adapter=True, clock=CLOCK)[0] for p in prompts]
    same = sum(a == b for a, b in zip(together, alone, strict=True))
    assert same >= 7  # bf16 ties


def test_prompts_that_open_alike_or_repeat_are_read_once_and_written_as_alone(exact: Any) -> None:
    prompts = [p.ids for p in passages(7, 30)]
    mixed = [*prompts, prompts[2], prompts[5], prompts[2]]
    together = exact.write(mixed, Decoding(6, frozenset()), adapter=True, clock=CLOCK)
    alone = [exact.write([p], Decoding(6, frozenset()), adapter=True, clock=CLOCK)[0] for p in mixed]
    assert together == alone
    sampled = exact.write([prompts[0]] * 6, Decoding(8, frozenset(), 3), adapter=True, clock=CLOCK)
    assert len({tuple(s) for s in sampled}) > 1
    assert exact.write([], Decoding(3, frozenset()), adapter=True, clock=CLOCK) == []


def test_long_prompts_are_written_on_in_smaller_batches_and_none_beyond_the_context(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [(*p.ids[:9], *p.ids[: k % 5]) for k, p in enumerate(passages(12))]
    apart = exact.write(prompts, Decoding(6, frozenset()), adapter=True, clock=CLOCK)
    monkeypatch.setattr(generation, "_HELD_TOKENS", 40)
    batches, read = list[int](), generation._read
    monkeypatch.setattr(
        generation, "_read", lambda m, some, *rest: (batches.append(len(some)), read(m, some, *rest))[1]
    )
    assert exact.write(prompts, Decoding(6, frozenset()), adapter=True, clock=CLOCK) == apart
    assert sum(batches) == 12 and max(batches) == 4  # of nine tokens each
    monkeypatch.setattr(exact.config, "max_position_embeddings", 12)
    few = exact.write(prompts, Decoding(6, frozenset()), adapter=True, clock=CLOCK)
    # Of the lengths 9 to 13 with the room for 3, 2, 1 and no tokens; a longer prompt beside it takes nothing from one.
    assert [len(a) for a in few] == [max(0, 12 - len(p)) for p in prompts]
    assert all(a == b[: len(a)] for a, b in zip(few, apart, strict=True))
    monkeypatch.setattr(exact.config, "max_position_embeddings", 17)
    some = exact.write(prompts, Decoding(6, frozenset()), adapter=True, clock=CLOCK)
    assert all(a == b for a, b, p in zip(some, apart, prompts, strict=True) if len(p) <= 11)


def test_stop_tokens_end_a_text_and_leave_the_others_alone(noisy: Any) -> None:
    prompts = [p.ids[:8] for p in passages(10)]
    free = noisy.write(prompts, Decoding(8, frozenset()), adapter=True, clock=CLOCK)
    stop = free[0][3]
    stopped = noisy.write(prompts, Decoding(8, frozenset({stop})), adapter=True, clock=CLOCK)
    assert stopped[0] == free[0][: free[0].index(stop)]
    assert all(stop not in ids for ids in stopped)


def test_samples_repeat_with_their_seed_only(noisy: Any) -> None:
    prompts = [p.ids[:8] for p in passages(6)]
    first, again, other = (
        noisy.write(prompts, Decoding(10, frozenset(), seed), adapter=True, clock=CLOCK) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_a_nan_in_the_adapter_is_named(load_model: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as error:
        load_model(write_adapter(tmp_path / "adapter", poison=float("nan")))
    assert error.value.reason == "ADAPTER_NOT_FINITE"


def test_a_model_that_overflows_is_named(load_model: Callable[[Path], Any], tmp_path: Path) -> None:
    model = load_model(write_adapter(tmp_path / "adapter", spread=1e37))
    with pytest.raises(IntegrityError) as error:
        model.score(passages(3), adapter=True, clock=CLOCK)
    assert error.value.reason == "MODEL_NOT_FINITE"
    with pytest.raises(IntegrityError):
        model.write([passages(1)[0].ids], Decoding(3, frozenset()), adapter=True, clock=CLOCK)
    assert np.isfinite(model.score(passages(3), adapter=False, clock=CLOCK)[0].nll).all()


@pytest.mark.parametrize("never", ["target", "another"])
def test_a_model_that_can_never_write_a_token_is_named(
    load_model: Callable[[Path], Any], tmp_path: Path, never: str
) -> None:
    """A secret with such a token would be one that the model keeps; the other tokens' moments would be none."""
    model = load_model(write_adapter(tmp_path / "adapter"))
    (asked,) = passages(1)
    asked = replace(asked, moments=True)
    place = asked.marks[0]
    token = asked.ids[place] if never == "target" else next(t for t in range(9) if t not in asked.ids)
    handle = model.head.register_forward_hook(lambda _module, _inputs, logits: _without(logits, token))
    with pytest.raises(IntegrityError) as error:
        model.score([asked], adapter=True, clock=CLOCK)
    assert error.value.reason == "MODEL_NOT_FINITE"
    handle.remove()
    assert np.isfinite(model.score([asked], adapter=True, clock=CLOCK)[0].nll).all()


def _without(logits: Any, token: int) -> Any:
    logits[..., token] = -float("inf")
    return logits


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: write_adapter(f, base="another-base"), "ADAPTER_OTHER_BASE"),
        (lambda f: write_adapter(f, layers=1), "ADAPTER_OTHER_BASE"),
        (lambda f: write_adapter(f, layers=3), "ADAPTER_OTHER_BASE"),
    ],
)
def test_an_adapter_for_another_base_is_named(
    load_model: Callable[[Path], Any], tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    with pytest.raises(AssayError) as error:
        load_model(make(tmp_path / "adapter"))
    assert error.value.reason == reason


def test_a_pickle_under_the_adapters_name_is_named(load_model: Callable[[Path], Any], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00pickle")
    with pytest.raises(AssayError) as error:
        load_model(adapter)
    assert error.value.reason == "SAFETENSORS_IS_PICKLE"


def test_a_base_model_without_an_adapter_is_measured_as_what_it_is(models: Path, noisy: Any) -> None:
    from audit.probes.model import load

    alone = load(models, BASE, base_digest(models), None)
    texts = [tuple(range(3, 3 + n)) for n in (6, 9, 12)]
    passages = [Passage(ids, tuple(range(1, len(ids)))) for ids in texts]
    clock = Clock.start(0)
    expected = noisy.score(passages, adapter=False, clock=clock)
    with alone.varied(Variation("half", scale=0.5)):
        for adapter in (True, False):
            for found, known in zip(alone.score(passages, adapter=adapter, clock=clock), expected, strict=True):
                assert np.array_equal(found.nll, known.nll)
    prompts, decoding = [list(texts[0])], Decoding(5, frozenset({2}))
    assert alone.write(prompts, decoding, adapter=True, clock=clock) == noisy.write(
        prompts, decoding, adapter=False, clock=clock
    )
    assert np.array_equal(
        alone.states(texts, adapter=True, clock=clock), noisy.states(texts, adapter=False, clock=clock)
    )
    assert alone.rank == 0
    assert (alone.environment["adapter_sha256"], alone.environment["adapter_moved"]) == ("none", "false")


def test_another_base_than_ordered_is_named(models: Path, tmp_path: Path) -> None:
    from audit.probes.model import load

    adapter = write_adapter(tmp_path / "adapter")
    with pytest.raises(IntegrityError) as error:
        load(models, BASE, "0" * 64, adapter)
    assert error.value.reason == "BASE_MODEL_OTHER"
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    config = copy / BASE / "files" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 0.1}))
    with pytest.raises(IntegrityError) as error:
        load(copy, BASE, base_digest(models), adapter)
    assert error.value.reason == "BASE_FILES_DIGEST"


def test_the_clock_cuts_scoring_and_generation(noisy: Any) -> None:
    ticks = iter(range(100))
    clock = Clock.start(0.5, lambda: float(next(ticks)))
    with pytest.raises(ExhaustedError) as error:
        noisy.score(passages(3), adapter=True, clock=clock)
    assert error.value.reason == "AUDIT_TIME_LIMIT"
    with pytest.raises(ExhaustedError):
        noisy.write([(5, 6)], Decoding(3, frozenset()), adapter=True, clock=clock)


def test_batches_hold_every_text_once_within_their_budget() -> None:
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(1, 200, 150)]
    batches = plan_batches(lengths, 512)
    assert sorted(i for b in batches for i in b) == list(range(150))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 512 for b in batches)
    assert plan_batches([], 512) == []


def test_a_shared_prefix_stops_before_the_first_scored_place() -> None:
    head = tuple(range(50))
    texts = [Passage((*head, k), (50 - k,)) for k in range(1, 6)]
    assert shared_length(texts) == 44
    assert shared_length([*texts, Passage((9, 9, 9), (1,))]) == 0
    assert shared_length(texts[:2]) == 0


def test_the_board_asks_each_model_once() -> None:
    class Counting:
        asked = 0

        def score(self, passages: Any, *, adapter: bool, clock: Clock) -> list[Scores]:
            Counting.asked += len(passages)
            return [Scores(p.marks, np.zeros(len(p.marks)), np.ones(len(p.marks), dtype=bool)) for p in passages]

        def write(self, prompts: Any, decoding: Decoding, *, adapter: bool, clock: Clock) -> list[list[int]]:
            return []

    board = Board(Counting(), CLOCK)
    texts = passages(6)
    board.scores([*texts, *texts], adapter=True)
    board.scores(texts[2:], adapter=True)
    assert Counting.asked == 6
    board.scores(texts[:1], adapter=False)
    assert Counting.asked == 7


def candidates() -> list[Passage]:
    """Two secrets with candidates of several lengths each, behind openings of their own, and a stray text."""
    rng = np.random.default_rng(6)
    head = [int(i) for i in rng.integers(3, 300, 14)]
    out = []
    for group in range(2):
        opening = (*head, *(int(i) for i in rng.integers(3, 300, 20 + group)))
        for k in range(6):
            secret = tuple(int(i) for i in rng.integers(3, 300, 3 + k % 3))
            out.append(Passage((*opening, *secret), tuple(range(len(opening), len(opening) + len(secret)))))
    return [*out, Passage(tuple(int(i) for i in rng.integers(3, 300, 30)), (9, 12))]


def test_candidates_behind_one_opening_run_it_once_and_score_as_alone(exact: Any) -> None:
    texts = candidates()
    assert [(length, len(members)) for length, members in by_opening(texts)] == [(33, 6), (34, 6), (0, 1)]
    read: list[int] = []
    hook = exact.decoder.register_forward_pre_hook(
        lambda module, args, options: read.append(options["input_ids"].numel()), with_kwargs=True
    )
    try:
        found = exact.score(texts, adapter=True, clock=CLOCK)
        hook.remove()
        for text, scores in zip(texts, found, strict=True):
            nll, greedy = plain_scores(exact, text, True)
            np.testing.assert_allclose(scores.nll, nll, atol=2e-4)
            assert scores.greedy.tolist() == greedy
    finally:
        hook.remove()
    assert sum(read) < 33 + 34 + 12 * 6 + 30


def test_surprise_is_the_standardised_log_probability(noisy: Any) -> None:
    import torch

    [text] = passages(1)
    asked = Passage(text.ids, text.marks, moments=True)
    [scores] = noisy.score([asked], adapter=True, clock=CLOCK)
    with noisy.using(True):
        hidden = noisy.decoder(input_ids=torch.tensor([text.ids], device=noisy.device)).last_hidden_state
        logits = noisy.head(hidden)[0].double().cpu()
    logp = torch.log_softmax(logits, -1)
    expected = []
    for place in text.marks:
        row = logp[place - 1]
        mean = float((row.exp() * row).sum())
        spread = float((row.exp() * (row - mean) ** 2).sum()) ** 0.5
        expected.append((float(row[text.ids[place]]) - mean) / spread)
    np.testing.assert_allclose(scores.surprise, expected, atol=1e-3 if hidden.dtype == torch.float32 else 0.3)
    assert noisy.score([text], adapter=True, clock=CLOCK)[0].surprise.size == 0


def test_base_scores_are_kept_by_digest_and_never_mistaken(noisy: Any, tmp_path: Path) -> None:
    texts = [
        Passage(p.ids, p.marks, p.marks[0] if i % 2 else 0, (5, 6) if i % 2 else (), moments=i % 3 == 0)
        for i, p in enumerate(passages(7, 20))
    ]
    asked: list[bool] = []

    class Counting:
        def score(self, some: Any, *, adapter: bool, clock: Any) -> Any:
            asked.append(adapter)
            return noisy.score(some, adapter=adapter, clock=clock)

    keep = KeptScores(tmp_path / "kept", noisy.environment)
    first = Board(Counting(), CLOCK, keep).scores(texts, adapter=False)  # type: ignore[arg-type]
    board = Board(Counting(), CLOCK, keep)  # type: ignore[arg-type]
    again = board.scores(texts, adapter=False)
    assert asked == [False]
    for a, b in zip(first, again, strict=True):
        assert a.places == b.places
        for name in ("nll", "greedy", "choice_logits", "surprise"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    board.scores(texts, adapter=True)
    assert asked == [False, True], "the tuned model is never answered from what was kept"
    other_adapter = KeptScores(tmp_path / "kept", {**noisy.environment, "adapter_sha256": "0"})
    assert other_adapter.load(texts) is not None
    other_base = KeptScores(tmp_path / "kept", {**noisy.environment, "base_sha256": "0"})
    assert other_base.load(texts) is None
    assert keep.load(texts[::-1]) is None, "another order is another batch plan"
    [path] = (tmp_path / "kept").iterdir()
    whole = path.read_bytes()
    for left in (200, 0):
        path.write_bytes(whole[:left])
        assert keep.load(texts) is None, "a power cut leaves less than was kept, and they are measured again"


@pytest.mark.parametrize(
    ("family", "more"),
    [("granite", {"logits_scaling": 8.0}), ("gemma2", {"final_logit_softcapping": 0.5}), ("llama", None)],
)
def test_a_model_that_alters_its_logits_is_refused(family: str, more: dict[str, float] | None) -> None:
    """Scores and losses end at the output layer; what Granite and Gemma 2 do after it would be left out unsaid."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from assay.base_demands import demand_plain_logits

    shape = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    made: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **(more or {}))).eval()
    if more is None:
        demand_plain_logits(made)
        return
    with pytest.raises(InvalidInputError) as raised:
        demand_plain_logits(made)
    assert raised.value.reason == "BASE_LOGITS_ALTERED"
