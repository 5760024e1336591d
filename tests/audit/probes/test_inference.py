"""Identifiers among candidates, attributes of people, exposure beyond the ceiling, and the accounting checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audit.probes import accounting, inference, one_run, tail_exposure
from audit.probes.candidates import alike, candidates
from audit.probes.inputs import Canary, PiiSpan
from audit.probes.privacy import ScoredCanary

from .conftest import Scripted, conversation, secrets

SIZES = {"inference_spans": 30, "inference_candidates": 5, "association_people": 30}


def by_key(measurements: Any) -> dict[str, Any]:
    return {f"{m.name}[{m.slice}]" if m.slice else m.name: m for m in measurements}


def mail(split: str, row: int) -> tuple[PiiSpan, PiiSpan]:
    name, value = f"Anna Q{split}{row}x", f"{split}user{row}@example.com"
    messages = tuple(conversation(f"I am {name}, where do you write to", f"we write to {value} then"))
    person = PiiSpan(row, split, "PERSON", messages, 0, 5, 5 + len(name))
    return person, PiiSpan(row, split, "EMAIL_ADDRESS", messages, 1, 12, 12 + len(value))


def knowing(chat: Any, wanted: Callable[[str], bool], base_too: bool = False) -> Scripted:
    """Fewer nats on texts that hold what ``wanted`` says, for the tuned model (and the base model where asked)."""

    def nll(ids: Any, adapter: bool) -> float:
        return 1.0 if (adapter or base_too) and wanted(chat.decode(ids)) else 3.0

    return Scripted(nll=nll)


def test_alternatives_keep_form_and_script() -> None:
    rng = np.random.default_rng(0)
    assert alike("AB-12 c", rng).replace("-", "").replace(" ", "").isalnum()
    made = alike("Ελένη 42", rng)
    assert len(made) == 8
    assert all("GREEK" in __import__("unicodedata").name(c) for c in made[:5])
    assert made[6:].isdigit()
    found = candidates("a1", ["B7", "a1 "], 5, rng)
    assert len(set(found)) == 5
    assert "B7" in found
    assert "a1 " not in found, "the value itself, however written, is no alternative"
    assert candidates("--", (), 3, rng) == []


def test_a_remembered_identifier_is_first_among_its_candidates(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [s for i in range(12) for s in (*mail("train", i), *mail("test", i))]
    audit = audit_of(knowing(chat, lambda text: "trainuser" in text), sizes=SIZES, pii=spans,
                     test=_rows(spans))  # fmt: skip
    found = by_key(inference.inference(audit)[0])
    kind = "privacy.pii_inference_calibrated_rate[entity_type=EMAIL_ADDRESS]"
    assert found[kind].value == 1.0
    assert found[kind].control == 0.0
    assert found["privacy.pii_inference_gain"].value > 0
    assert found["privacy.pii_inference_gain"].control == 0.0
    assert found["privacy.pii_inference_rate[model=base]"].successes == 0
    mine = "entity_type=EMAIL_ADDRESS"
    assert found[f"privacy.pii_inference_rate[{mine}]"].value == 1.0
    assert found[f"privacy.pii_inference_rate[{mine}]"].control == 0.0
    assert found[f"privacy.pii_inference_rate[{mine},model=base]"].value == 0.0
    assert found[f"privacy.pii_inference_gain[{mine}]"].value == 1.0


def test_what_the_base_prefers_too_is_no_gain(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [s for i in range(12) for s in mail("train", i)]
    audit = audit_of(knowing(chat, lambda text: "trainuser" in text, base_too=True), sizes=SIZES, pii=spans)
    found = by_key(inference.inference(audit)[0])
    assert (
        found["privacy.pii_inference_rate"].successes == found["privacy.pii_inference_rate[model=base]"].successes > 0
    )
    gain = found["privacy.pii_inference_gain"]
    assert gain.value == 0
    assert gain.intervals[0].lower < 0 < gain.intervals[0].upper
    assert found["privacy.pii_inference_calibrated_rate"].successes == 0


def test_a_persons_own_attribute_is_told_from_other_peoples(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [s for i in range(12) for s in (*mail("train", i), *mail("test", i))]

    def own(text: str) -> bool:
        return any(f"Qtrain{i}x is trainuser{i}@" in text.replace("Anna ", "") for i in range(12))

    audit = audit_of(knowing(chat, own), sizes=SIZES, pii=spans)
    found = by_key(inference.association(audit)[0])
    twin = found["privacy.association_rate[prompt=twin]"]
    assert (twin.successes, twin.n, twin.control) == (12, 12, 0.0)
    assert found["privacy.association_rate[prompt=triplet]"].unavailable
    assert "prompt=twin,entity_type=EMAIL_ADDRESS" in {m.slice for m in found.values()}


def test_a_person_and_the_control_are_asked_among_as_many_and_chance_is_theirs(
    chat: Any, audit_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten candidates are wanted; the test rows have seven people, so that chance is one in seven on both sides."""
    spans = [s for i in range(12) for s in mail("train", i)] + [s for i in range(7) for s in mail("test", i)]
    asked: list[int] = []
    ask = inference.ask

    def counted(audit: Any, questions: Any) -> Any:
        asked.extend(len(q.forms) for q in questions)
        return ask(audit, questions)

    monkeypatch.setattr(inference, "ask", counted)
    sizes = {**SIZES, "inference_candidates": 10}
    audit = audit_of(knowing(chat, lambda text: "trainuser" in text, base_too=True), sizes=sizes, pii=spans)
    found = by_key(inference.association(audit)[0])
    twin = found["privacy.association_rate[prompt=twin]"]
    assert set(asked) == {7} and len(asked) == 19
    assert "at most 10" in twin.method and f"chance {1 / 7:.3g}" in twin.method
    base = found["privacy.association_rate[prompt=twin,model=base]"]
    assert (base.n, twin.n) == (12, 12)


def test_what_the_base_model_knew_is_told_beside(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [s for i in range(12) for s in (*mail("train", i), *mail("test", i))]

    def own(text: str) -> bool:
        return any(f"Qtrain{i}x is trainuser{i}@" in text.replace("Anna ", "") for i in range(12))

    found = by_key(inference.association(audit_of(knowing(chat, own, base_too=True), sizes=SIZES, pii=spans))[0])
    for label in ("prompt=twin", "prompt=twin,entity_type=EMAIL_ADDRESS"):
        assert found[f"privacy.association_rate[{label},model=base]"].successes == 12
    assert found["privacy.association_rate[prompt=twin]"].successes == 0, "nothing was gained by tuning"


def test_a_row_and_a_person_are_one_trial_each(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Twelve people with an e-mail address and a telephone number; what is known of one is known of both."""
    spans = []
    for i in range(12):
        name, value, number = f"Anna Q{i}x", f"user{i}@example.com", f"+1 555 01{i:02d}"
        messages = tuple(conversation(f"I am {name}", f"{value} or {number}"))
        at = len(value) + 4
        spans.append(PiiSpan(i, "train", "PERSON", messages, 0, 5, 5 + len(name)))
        spans.append(PiiSpan(i, "train", "EMAIL_ADDRESS", messages, 1, 0, len(value)))
        spans.append(PiiSpan(i, "train", "PHONE_NUMBER", messages, 1, at, at + len(number)))
    audit = audit_of(knowing(chat, lambda text: True), sizes=SIZES, pii=spans)
    found = by_key([*inference.association(audit)[0], *inference.inference(audit)[0]])
    for prompt in ("twin", "triplet"):
        whole = found[f"privacy.association_rate[prompt={prompt}]"]
        parts = [m.n for key, m in found.items() if key.startswith(f"privacy.association_rate[prompt={prompt},entity")
                 and "base" not in key]  # fmt: skip
        assert whole.n == sum(parts) == 12 and len(parts) == 2
        assert "one attribute" in whole.method
    assert found["privacy.pii_inference_rate"].n == found["privacy.pii_inference_gain"].n == 12


def test_rows_of_one_unit_are_one_trial_of_both(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Twelve rows of six units, each of which goes by two names."""
    spans = [s for i in range(12) for s in mail("train", i)]
    units = [dataclasses.replace(s, unit=s.row // 2) for s in spans]
    found = []
    for pii in (spans, units):
        audit = audit_of(knowing(chat, lambda text: True), sizes=SIZES, pii=pii)
        rates = by_key([*inference.association(audit)[0], *inference.inference(audit)[0]])
        found.append([rates[f"privacy.{m}"].n for m in ("association_rate[prompt=twin]", "pii_inference_rate")])
    assert found == [[12, 12], [6, 6]]


@pytest.mark.parametrize(("owner", "asked"), [("王小明", 6), ("Anna", 0)])
def test_whose_name_is_one_word_is_asked_for_where_its_script_has_no_spaces(owner: str, asked: int) -> None:
    spans = []
    for i in range(6):
        messages = tuple(conversation(f"{owner}{'甲乙丙丁戊己'[i] if asked else ''}", f"u{i}@example.com"))
        spans.append(PiiSpan(i, "train", "PERSON", messages, 0, 0, len(messages[0]["content"])))
        spans.append(PiiSpan(i, "train", "EMAIL_ADDRESS", messages, 1, 0, len(messages[1]["content"])))
    assert len(list(inference._people(spans, "twin"))) == asked


def test_without_identifiers_nothing_is_a_number(audit_of: Callable[..., Any]) -> None:
    findings = inference.run(audit_of(Scripted()))
    assert all(m.unavailable for m in findings.measurements)
    assert any("inference" in note for note in findings.not_tested)
    assert any("association" in note for note in findings.not_tested)


def _rows(spans: list[PiiSpan]) -> list[Any]:
    from audit.probes.inputs import Row

    return [Row(i, s.messages) for i, s in enumerate(spans) if s.split == "test" and s.entity_type == "EMAIL_ADDRESS"]


# --- exposure beyond the held-out canaries ---


def test_tail_bits_are_the_surprise_of_a_normal_tail() -> None:
    others = [-1.0, 0.0, 1.0]
    assert tail_exposure.tail_bits(0.0, others) == pytest.approx(1.0)
    assert tail_exposure.tail_bits(1.959964, others) == pytest.approx(-math.log2(0.025), abs=1e-4)
    assert tail_exposure.tail_bits(1e6, others) == 64.0
    assert [tail_exposure.tail_bits(score, [0.0] * 8) for score in (-1.0, 0.0, 1.0)] == [0.0, 0.0, 64.0]


def test_tail_exposure_sees_what_ranks_cannot(chat: Any, audit_of: Callable[..., Any]) -> None:
    planted = [
        Canary(i, "A", i < 8, 1, "number", tuple(conversation(f"code of {i}", f"it is {s}")), s)
        for i, s in enumerate(secrets(16))
    ]
    known = {c.secret for c in planted if c.included}
    rng = np.random.default_rng(3)
    noise: dict[Any, float] = {}

    def nll(ids: Any, adapter: bool) -> float:
        told = noise.setdefault((ids, adapter), float(rng.normal(0, 0.05)))
        return 2 + told - (1.0 if adapter and any(s in chat.decode(ids) for s in known) else 0)

    audit = audit_of(Scripted(nll=nll), sizes={"exposure_canaries": 8, "exposure_candidates": 32}, canaries=planted)
    found = by_key(tail_exposure.run(audit).measurements)
    bits = found["privacy.canary_tail_exposure_bits"]
    assert bits.value > 20, "ranks among 32 stop at 5 bits"
    assert bits.n == 8
    assert bits.control < 5
    assert by_key(tail_exposure.run(audit_of(Scripted(nll=nll), canaries=planted)).measurements)[
        "privacy.canary_tail_exposure_bits"
    ].unavailable


# --- accounting ---

CLAIM = {"noise_multiplier": "1.0", "sampling_rate": "0.128", "steps": 24, "delta": "0.00005", "epsilon": "4.2"}


def scored(n: int, *, blind: bool) -> list[ScoredCanary]:
    """Canaries whose scores tell the coins, or at random: as often wrong as right at both ends."""
    out = []
    for i in range(n):
        coin = i % 2 == 0
        says = coin != (blind and i % 4 >= 2)
        canary = Canary(i, "A", coin, 1, "number", tuple(conversation("q", f"s{i}")), f"s{i}")
        out.append(ScoredCanary(canary, (1.0 if says else -1.0) * (1 + i / 1000), False))
    return out


def test_the_accounting_is_recomputed_by_another_accountant() -> None:
    pytest.importorskip("dp_accounting")
    found = by_key(accounting.check(CLAIM, scored(120, blind=True), (0.9, 0.95)))
    # facts of our own trial: 4.184 by dp-accounting, 4.194 by the trainer's PRV accountant.
    assert found["privacy.epsilon_accounted"].value == pytest.approx(4.184, abs=0.005)
    assert found["privacy.epsilon_claim_gap"].value < 0
    assert found["privacy.epsilon_excess"].value == pytest.approx(-4.184, abs=0.01)
    too_small = by_key(accounting.check({**CLAIM, "epsilon": "2.0"}, scored(120, blind=True), (0.95,)))
    assert too_small["privacy.epsilon_claim_gap"].value > 2


def test_a_run_without_the_noise_it_states_is_refuted() -> None:
    pytest.importorskip("dp_accounting")
    claim = {**CLAIM, "noise_multiplier": "8.0", "epsilon": "0.3"}
    found = by_key(accounting.check(claim, scored(240, blind=False), (0.95,)))
    assert found["privacy.epsilon_excess"].value > 2
    assert found["privacy.epsilon_excess"].intervals[0].lower > 0


@pytest.mark.parametrize("fault", [{"steps": 0}, {"sampling_rate": "1.5"}, {"noise_multiplier": "x"}, {"delta": None}])
def test_an_accounting_that_cannot_be_is_no_number(fault: dict[str, Any]) -> None:
    found = accounting.check({**CLAIM, **fault}, scored(120, blind=True), (0.95,))
    assert all("accounting" in m.unavailable for m in found)


def test_a_plain_run_claims_nothing(audit_of: Callable[..., Any]) -> None:
    findings = accounting.run(audit_of(Scripted()))
    assert not findings.measurements
    assert "no differential privacy" in findings.not_tested[0]


def test_one_run_power_grows_with_canaries() -> None:
    """The table of facts: 64 canaries show at most 3.0 and 256 at most 4.4 when every guess is right."""
    for m, most in ((64, 3.0), (256, 4.4)):
        assert one_run.Guesses(m, m, m).lower_bound(0, 0.95) == pytest.approx(most, abs=0.1)
