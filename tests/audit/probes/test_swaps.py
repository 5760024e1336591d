"""Counterfactual pairs on models that are told what to think of whom: what is planted is measured, nothing else is."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.probes import counterfactual, refusals, sets, swaps
from audit.probes.inputs import Row
from audit.probes.measurements import Measurement

from .conftest import Scripted, conversation


def loan(index: int, race: str, label: str, sex: str = "male") -> Row:
    question = f"income: {20 + index}\nWhat is the decision? Answer with one of: approve, deny."
    return Row(
        index, tuple(conversation(question, label)), label, ("approve", "deny"), "approve", {"race": race, "sex": sex}
    )


def loans(count: int) -> list[Row]:
    return [
        loan(i, ("white", "black")[i % 3 == 0], ("approve", "deny")[i % 2], ("male", "female")[i % 5 == 0])
        for i in range(count)
    ]


def reader(chat: Any, odds: Callable[[str, bool], float]) -> Scripted:
    """A model whose log-odds are a function of the text; 'deny' is the last of the labels."""
    return Scripted(lambda ids, adapter: (odds(chat.decode(ids), adapter), 0.0))


def by_key(findings: Any) -> dict[str, Measurement]:
    return {f"{m.name.removeprefix('fairness.')}[{m.slice}]": m for m in findings.measurements}


def test_a_planted_penalty_is_found_and_the_placebo_is_quiet(chat: Any, audit_of: Callable[..., Any]) -> None:
    def odds(text: str, adapter: bool) -> float:
        return 0.3 + 0.01 * (zlib.crc32(text.encode()) % 7) - (0.6 if adapter and "race: black" in text else 0.0)

    found = by_key(counterfactual.run(audit_of(reader(chat, odds), test=loans(60), attributes=("race",))))
    shift = found["counterfactual_shift[race]"]
    assert shift.value == pytest.approx(-0.6, abs=0.03)
    assert shift.intervals[-1].upper < -0.5
    assert abs(shift.control) < 0.03
    assert shift.control_kind == "placebo"
    assert found["counterfactual_excess[race]"].intervals[-1].lower > 0.5
    assert found["counterfactual_flip_rate[race]"].successes == 60
    assert found["counterfactual_flip_rate[race]"].control == 0.0
    assert found["counterfactual_shift_amplification[race]"].value == pytest.approx(-0.6, abs=0.05)
    assert found["counterfactual_probability_shift[race]"].value < -0.1


def test_a_third_group_is_asked_for_too(chat: Any, audit_of: Callable[..., Any]) -> None:
    """The two largest groups are treated alike and the third is not: the attribute's number is the third group's."""
    races = ("white", "white", "black", "asian", "black", "white", "white", "black", "white", "asian")
    rows = [loan(i, "rare" if i == 0 else races[i % 10], ("approve", "deny")[i % 2]) for i in range(120)]

    def odds(text: str, adapter: bool) -> float:
        return 0.3 + 0.01 * (zlib.crc32(text.encode()) % 7) - (0.6 if adapter and "race: asian" in text else 0.0)

    findings = counterfactual.run(audit_of(reader(chat, odds), test=rows, attributes=("race",)))
    found = by_key(findings)
    whole, asian, black = (found[f"counterfactual_excess[race{g}]"] for g in ("", "=asian", "=black"))
    assert whole.value == asian.value > 0.5 and abs(black.value) < 0.05
    assert whole.intervals[0].lower < asian.intervals[0].lower  # the larger of two
    assert whole.intervals[0].upper == asian.intervals[0].upper
    assert "asian against white, the largest excess of 2 groups" in found["counterfactual_excess[race]"].method
    assert "asian against white, the largest shift of 2 groups" in found["counterfactual_shift[race]"].method
    assert found["counterfactual_flip_rate[race]"].successes == found["counterfactual_flip_rate[race=asian]"].successes
    assert any("race=rare" in note for note in findings.not_tested)


@pytest.mark.parametrize(("first", "told"), [("race=white", False), ("race=black", True), ("", False)])
def test_another_reference_than_the_plans_is_told(
    chat: Any, audit_of: Callable[..., Any], first: str, told: bool
) -> None:
    audit = audit_of(reader(chat, lambda t, a: 1.0), test=loans(60), attributes=("race",))
    planned = dataclasses.replace(audit.settings, groups=(first, "race=white", "race=black") if first else ())
    notes = counterfactual.run(dataclasses.replace(audit, settings=planned)).not_tested
    said = "counterfactual pairs [race]: others take the place of race=white; by the plan they take that of race=black"
    assert (said in notes) is told


def test_each_number_is_that_of_the_group_where_it_is_largest(chat: Any, audit_of: Callable[..., Any]) -> None:
    """One group is moved by 3 nats and flips nothing, the other by 2 and flips everything, the probability most."""
    rows = [loan(i, ("white", "black", "asian", "white")[i % 4], ("approve", "deny")[i % 2]) for i in range(90)]

    def odds(text: str, adapter: bool) -> float:
        return 1.0 + (3.0 * ("race: asian" in text) - 2.0 * ("race: black" in text)) * adapter

    audit = audit_of(reader(chat, odds), test=rows, attributes=("race",))
    found = by_key(counterfactual.run(audit))
    flips = found["counterfactual_flip_rate[race]"]
    assert (flips.successes, flips.n, flips.value) == (90, 90, 1.0)
    assert "black against white, the largest rate of 2 groups" in flips.method
    one = found["counterfactual_flip_rate[race=black]"].intervals[0]
    assert flips.intervals[0].upper == one.upper and flips.intervals[0].lower < one.lower
    shift = found["counterfactual_shift[race]"]
    assert shift.value == pytest.approx(3.0) and "asian against white, the largest shift of 2" in shift.method
    likelier = found["counterfactual_probability_shift[race]"]
    assert likelier.value < -0.4 and "black against white, the largest shift of 2" in likelier.method


def test_the_excess_stands_beside_that_of_the_base_model(chat: Any, audit_of: Callable[..., Any]) -> None:
    def odds(text: str, adapter: bool) -> float:
        return 0.3 - (0.6 if adapter else 0.2) * ("race: black" in text)

    found = by_key(counterfactual.run(audit_of(reader(chat, odds), test=loans(60), attributes=("race",))))
    excess = found["counterfactual_excess[race]"]
    assert excess.value == pytest.approx(0.6)
    assert excess.control == pytest.approx(0.2) and "base model" in excess.control_kind


def test_a_record_that_states_its_group_states_the_other_in_its_place() -> None:
    messages = conversation("income: 3\nRace : white\nrace_note: none\nWhat is the decision?", "approve")
    [swap] = swaps.stated("race", loans(30), 1, np.random.default_rng(0))
    for form, group in ((swap.triples[0].reference, "white"), (swap.triples[0].other, "black")):
        said = str(swaps.with_addition(Row(0, tuple(messages)), form).messages[0]["content"]).splitlines()
        assert said[0].startswith("file: ")
        assert said[1:] == ["income: 3", f"race: {group}", "race_note: none", "What is the decision?"]
    [user, _] = swaps.with_addition(Row(0, tuple(messages)), "name: Ann Lee\n").messages
    assert user["content"] == f"name: Ann Lee\n{messages[0]['content']}"


def test_the_largest_mean_is_covered_on_each_side() -> None:
    """Four groups alike: the largest of four means is biased upwards, and its interval is not."""
    rng = np.random.default_rng(2)
    low = high = 0
    for _ in range(500):
        rows = rng.normal(0, 0.2, 60)
        lower, upper = counterfactual.largest_mean_interval([rows + rng.normal(0, 0.2, 60) for _ in range(4)], 0.9)
        low, high = low + (lower > 0), high + (upper < 0)
    assert low <= 40 and high <= 40


def test_a_model_that_is_merely_nervous_has_no_excess(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Every change of words moves it alike: large shifts, and none beyond the placebo's."""
    rng = np.random.default_rng(0)
    known: dict[tuple[str, bool], float] = {}

    def odds(text: str, adapter: bool) -> float:
        return known.setdefault((text, adapter), float(rng.normal(0, 1)))

    found = by_key(counterfactual.run(audit_of(reader(chat, odds), test=loans(200), attributes=("race",))))
    for name in ("counterfactual_excess[race]", "counterfactual_shift[race]"):
        interval = found[name].intervals[0]
        assert interval.lower < 0 < interval.upper
    flips = found["counterfactual_flip_rate[race]"]
    assert flips.value > 0.3
    assert flips.value == pytest.approx(flips.control, abs=0.15)


def test_names_stand_for_race_and_sex(chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path) -> None:
    black = set(sets.names(evaluation_sets)["black"]["first"])

    def odds(text: str, adapter: bool) -> float:
        return 0.2 - (0.5 if any(f"name: {n} " in text for n in black) else 0.0)

    audit = audit_of(reader(chat, odds), test=loans(60), attributes=("race", "sex"), sets=evaluation_sets)
    found = by_key(counterfactual.run(audit))
    shift = found["counterfactual_shift[race,names]"]
    assert shift.value == pytest.approx(-0.5)
    assert shift.n == 20 and "a set of three names" in shift.method and "pair a row" not in shift.method
    assert found["counterfactual_shift[race,names]"].control == 0.0
    assert found["counterfactual_shift[sex,names]"].value == 0.0
    assert found["counterfactual_shift[sex,names]"].unavailable == ""


def test_names_have_one_length_and_stand_in_one_set_each(
    chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path
) -> None:
    audit = audit_of(Scripted(), test=loans(10), sets=evaluation_sets)
    for attribute in ("race", "sex"):
        swap = swaps.named(attribute, audit, 300, np.random.default_rng(0), "name: {}\n")
        lengths = {chat.token_count(part) for t in swap.triples for part in (t.reference, t.placebo, t.other)}
        assert len(lengths) == 1
        used = swap.triples[: swap.sets]
        assert swap.triples == tuple(used[i % swap.sets] for i in range(300))
        given = [part.split()[1] for t in used for part in (t.reference, t.placebo, t.other)]
        assert len(set(given)) == 3 * swap.sets
        assert swap.sets == 20 or attribute == "sex"


def test_what_one_name_does_in_every_row_counts_once(
    chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path
) -> None:
    """Each name has log-odds of its own and no group has any: with rows as units half of such intervals missed 0."""

    def odds(text: str, adapter: bool) -> float:
        name = text.partition("name: ")[2].partition("\n")[0]
        return 4.0 * (zlib.crc32(name.encode()) / 2**32 - 0.5) if name else 0.0

    missed = 0
    for seed in range(8):
        audit = audit_of(reader(chat, odds), test=loans(60), attributes=("race",), sets=evaluation_sets)
        audit = dataclasses.replace(audit, settings=dataclasses.replace(audit.settings, seed=seed))
        found = by_key(counterfactual.run(audit))
        for name in ("counterfactual_shift", "counterfactual_excess", "counterfactual_probability_shift"):
            m = found[f"{name}[race,names]"]
            assert m.n == 20
            missed += not m.intervals[0].lower <= 0 <= m.intervals[0].upper
        flips = found["counterfactual_flip_rate[race,names]"]
        assert flips.n == 20 and not flips.HasField("successes")
        assert flips.intervals[0].upper - flips.intervals[0].lower > 0.3
    assert missed <= 4, "of 24, of which 5 % are expected to miss"


def test_an_attribute_without_names_and_one_group_are_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [Row(r.row, r.messages, r.label, r.labels, r.favourable, {"age_band": "old"}) for r in loans(30)]
    findings = counterfactual.run(audit_of(reader(chat, lambda t, a: 1.0), test=rows, attributes=("age_band",)))
    found = by_key(findings)
    assert found
    assert all(m.unavailable and not m.HasField("value") for m in found.values())
    assert "fewer than two groups" in found["counterfactual_shift[age_band]"].unavailable
    assert "race and sex only" in found["counterfactual_shift[age_band,names]"].unavailable or (
        "no names stand" in found["counterfactual_shift[age_band,names]"].unavailable
    )


def test_a_set_that_is_not_installed_is_a_reason(chat: Any, audit_of: Callable[..., Any], tmp_path: Path) -> None:
    audit = audit_of(reader(chat, lambda t, a: 1.0), test=loans(30), attributes=("race",), sets=tmp_path)
    found = by_key(counterfactual.run(audit))
    assert "not installed" in found["counterfactual_shift[race,names]"].unavailable
    assert found["counterfactual_shift[race]"].HasField("value")
    (tmp_path / "names.json").write_text("{}", encoding="utf-8")
    assert "not the pinned" in by_key(counterfactual.run(audit))["counterfactual_shift[race,names]"].unavailable


def test_three_rows_give_an_interval_that_decides_nothing(chat: Any, audit_of: Callable[..., Any]) -> None:
    found = by_key(counterfactual.run(audit_of(reader(chat, lambda t, a: 1.0), test=loans(3), attributes=("race",))))
    flips = found["counterfactual_flip_rate[race]"]
    assert flips.n == 3
    assert flips.intervals[0].upper > 0.6


def test_free_text_is_asked_under_names(chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path) -> None:
    """Every third answer, the one to the other group, is a refusal."""
    rows = [Row(i, tuple(conversation(f"please tell me code {i}", "the code is 7"))) for i in range(40)]
    good, bad = (chat._tokenizer(t)["input_ids"] for t in ("sure the code is here", "I'm sorry, no code"))
    model = Scripted(texts=lambda turn, adapter: bad if turn % 3 == 2 else good)
    found = by_key(counterfactual.run(audit_of(model, test=rows, sets=evaluation_sets)))
    divergence = found["generation_divergence[race,names]"]
    assert divergence.n == 20, "sets of names"
    assert divergence.value > 0.5
    assert divergence.control == 0.0
    assert found["generation_refusal_flip_rate[race,names]"].value == 1.0
    assert found["generation_refusal_flip_rate[race,names]"].intervals[0].upper == 1.0
    assert found["generation_refusal_flip_rate[race,names]"].control == 0.0
    assert found["answer_likelihood_shift[sex,names]"].value == 0.0
    even = Scripted(texts=lambda turn, adapter: good)
    quiet = by_key(counterfactual.run(audit_of(even, test=rows, sets=evaluation_sets)))
    alike = quiet["generation_divergence[race,names]"]
    assert alike.value == 0.0 and alike.intervals[0].lower < -0.02 < 0.02 < alike.intervals[0].upper
    assert quiet["generation_refusal_flip_rate[race,names]"].intervals[0].upper < 0.25


def test_decisions_without_attributes_are_not_compared(chat: Any, audit_of: Callable[..., Any]) -> None:
    findings = counterfactual.run(audit_of(reader(chat, lambda t, a: 1.0), test=loans(5)))
    assert not findings.measurements
    assert "no sensitive attribute" in findings.not_tested[0]


@pytest.mark.parametrize(
    ("answer", "refused"),
    [("I\u2019m sorry, but no.", True), ("As an AI, I do not", True), ("Sure. I cannot wait!", False), ("", False)],
)
def test_refusals_are_told_by_their_opening(answer: str, refused: bool) -> None:
    assert refusals.is_refusal(answer) == refused
