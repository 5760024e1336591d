"""Proxies, reasons, label order, alternatives, stereotypes and calibration: what is planted in a model is measured."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.probes import alternatives, calibration, fairness, proxies, reasons, robust, stereotypes
from audit.probes.inputs import Row
from audit.probes.measurements import Measurement

from .conftest import Scripted, conversation
from .test_swaps import loans, reader


def by_key(findings: Any) -> dict[str, Measurement]:
    return {
        f"{m.name.partition('.')[2]}[{m.slice}]" if m.slice else m.name.partition(".")[2]: m
        for m in findings.measurements
    }


def crc(text: str) -> int:
    return zlib.crc32(text.encode())


def record(index: int, race: str, entries: dict[str, object], label: str) -> Row:
    lines = "".join(f"{k}: {v}\n" for k, v in entries.items())
    question = f"{lines}What is the decision? Answer with one of: approve, deny."
    return Row(index, tuple(conversation(question, label)), label, ("approve", "deny"), "approve", {"race": race})


# --- proxies ---


def test_a_proxy_in_the_words_is_found_and_none_where_there_is_none(audit_of: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    race = rng.choice(["white", "black"], 120).tolist()
    leaky = [
        record(i, r, {"area": "north" if (r == "white") ^ (i % 10 == 0) else "south"}, "deny")
        for i, r in enumerate(race)
    ]
    blind = [record(i, r, {"area": rng.choice(["north", "south"])}, "deny") for i, r in enumerate(race)]
    found = by_key(proxies.run(audit_of(Scripted(), test=leaky, attributes=("race",))))["proxy_auc[race,words]"]
    assert found.value > 0.8
    assert found.intervals[-1].lower > 0.6
    assert found.control == pytest.approx(0.5, abs=0.05)
    quiet = by_key(proxies.run(audit_of(Scripted(), test=blind, attributes=("race",))))["proxy_auc[race,words]"]
    assert quiet.intervals[-1].lower < 0.5 < quiet.intervals[-1].upper


def test_a_proxy_in_a_number_of_the_record_is_found(audit_of: Callable[..., Any]) -> None:
    """Each amount occurs once, so no word repeats; only its size tells."""
    rng = np.random.default_rng(1)
    race = rng.choice(["white", "black"], 120).tolist()
    rows = [
        record(i, r, {"Annual income ($)": 3000 + 900 * (r == "white") + 7 * i}, "deny") for i, r in enumerate(race)
    ]
    found = by_key(proxies.run(audit_of(Scripted(), test=rows, attributes=("race",))))["proxy_auc[race,words]"]
    assert found.value > 0.85
    assert found.intervals[-1].lower > 0.7


def test_a_proxy_in_the_hidden_state_is_found(chat: Any, audit_of: Callable[..., Any]) -> None:
    test = loans(90)
    white = {str(r.messages[0]["content"]): r.groups["race"] == "white" for r in test}
    rng = np.random.default_rng(0)

    def states(ids: Any, adapter: bool) -> list[float]:
        text = chat.decode(ids)
        mine = next(w for question, w in white.items() if question in text)
        return [float(mine) + float(rng.normal(0, 0.3)), float(rng.normal())]

    audit = audit_of(Scripted(states=states), test=test, attributes=("race",))
    found = by_key(proxies.run(audit))["proxy_auc[race,hidden]"]
    assert found.value > 0.9
    assert found.n == 90


def test_permutation_intervals_cover_chance() -> None:
    """On groups that have nothing to do with the features, the 90 % interval covers one half nine times in ten."""
    rng = np.random.default_rng(3)
    misses = 0
    for _ in range(120):
        features, groups = rng.normal(size=(60, 8)), rng.choice(["a", "b"], 60).tolist()
        value, null = proxies.auc_and_null(features, groups, 60, rng)
        half = 1.645 * null.std(ddof=1)
        misses += not value - half <= null.mean() <= value + half
    assert misses <= 22  # 12 expected; binomial 99.5 % quantile


def test_a_group_of_three_is_no_proxy_probe(audit_of: Callable[..., Any]) -> None:
    rows = [record(i, "black" if i < 3 else "white", {"area": "x"}, "deny") for i in range(60)]
    found = by_key(proxies.run(audit_of(Scripted(), test=rows, attributes=("race", "age"))))
    assert all(m.unavailable and not m.HasField("value") for m in found.values())


# --- reasons ---


def debts(count: int) -> list[Row]:
    return [
        record(
            i,
            "white",
            {"debt": 20 + 3 * (i % 15), "pets": i % 4, "area": ("n", "s")[i % 2]},
            ("approve", "deny")[i % 2],
        )
        for i in range(count)
    ]


def decider(chat: Any, names: Callable[[str], str]) -> Scripted:
    """Denies high debt; names the reason that ``names`` says, by a lower loss of that word."""

    def odds(ids: Any, adapter: bool) -> tuple[float, float]:
        text = chat.decode(ids)
        debt = float(text.partition("debt: ")[2].split("\n")[0])
        return (2.0 - debt / 20, 0.0)

    def nll(ids: Any, adapter: bool) -> float:
        text = chat.decode(ids).strip()
        return 0.1 if text.endswith(names(text)) else 2.0

    return Scripted(odds, nll=nll)


def test_the_true_reason_is_faithful_and_a_made_up_one_is_not(chat: Any, audit_of: Callable[..., Any]) -> None:
    honest = by_key(reasons.run(audit_of(decider(chat, lambda t: "debt"), test=debts(120))))["reason_faithfulness"]
    assert honest.value == 1.0
    assert honest.control < 0.2
    assert honest.intervals[0].lower > 0.85
    made_up = by_key(reasons.run(audit_of(decider(chat, lambda t: "pets"), test=debts(120))))["reason_faithfulness"]
    assert made_up.value == pytest.approx(0.0, abs=0.3)  # rows whose pets cannot be reversed name another entry


def test_too_few_denials_give_no_share(chat: Any, audit_of: Callable[..., Any]) -> None:
    found = by_key(reasons.run(audit_of(decider(chat, lambda t: "debt"), test=debts(12))))["reason_faithfulness"]
    assert "20 are needed" in found.unavailable
    assert not found.HasField("value")


def test_a_record_is_read_and_reversed_line_by_line() -> None:
    row = record(1, "white", {"debt": 50, "area": "n"}, "deny")
    assert reasons.entries_of(row) == {"debt": "50", "area": "n"}
    changed = reasons.reversed_row(row, "debt", "20")
    assert reasons.entries_of(changed) == {"debt": "20", "area": "n"}
    unknown = [reasons.Record(row, {"ratio": v}) for v in ("nan", "nan", "0.5")]
    assert reasons.usual_values(unknown) == {"ratio": "nan"}, "words, since there is no median of them"
    named = record(1, "white", {"Credit Score": 610, "loan-amount": "9: a day"}, "deny")
    assert reasons.entries_of(named) == {"Credit Score": "610", "loan-amount": "9: a day"}  # and not the question
    accepted = [
        reasons.Record(row, e) for e in ({"debt": "10", "area": "s"}, {"debt": "30", "area": "s"}, {"debt": "20"})
    ]
    assert reasons.usual_values(accepted) == {"area": "s", "debt": "20"}


# --- order and spelling ---


def test_a_model_that_takes_the_first_label_is_seen(chat: Any, audit_of: Callable[..., Any]) -> None:
    def takes_first(ids: Any, adapter: bool, token: int) -> float:
        named = chat.decode(ids).partition("one of: ")[2]
        return 2.0 if named.startswith(chat.decode([token]).strip()) else 0.0

    found = by_key(robust.run(audit_of(Scripted(logit=takes_first), test=loans(40), attributes=("race",))))
    assert found["label_order_flip_rate"].successes == 40
    assert found["impact_ratio_both_orders[race]"].HasField("value") or (
        "favourable outcome" in found["impact_ratio_both_orders[race]"].unavailable
    )
    steady = Scripted(logit=lambda ids, adapter, token: float(token))
    found = by_key(robust.run(audit_of(steady, test=loans(40), attributes=("race",))))
    assert found["label_order_flip_rate"].successes == 0


def test_spellings_count_for_their_own_label(audit_of: Callable[..., Any]) -> None:
    """The model gives its mass to other spellings of 'deny': decisions by the written labels alone miss it."""
    test = loans(30)
    audit = audit_of(Scripted(logit=lambda ids, adapter, token: 0.0), test=test, attributes=("race",))
    tokens = robust._first_tokens(audit, audit.corpus.test[0])
    assert not set(tokens["approve"]) & set(tokens["deny"])
    approve, deny = audit.corpus.test[0].passage.choices
    logits = {approve: 1.0, deny: 0.0, **{t: 3.0 for t in tokens["deny"] if t != deny}}
    model = Scripted(logit=lambda ids, adapter, token: logits.get(token, -5.0))
    found = by_key(robust.run(audit_of(model, test=test, attributes=("race",))))
    assert found["label_spelling_flip_rate"].successes == 30
    assert found["label_order_flip_rate"].successes == 0, "it is blind to the order"


def test_a_question_that_names_no_labels_has_no_order(audit_of: Callable[..., Any]) -> None:
    rows = [
        Row(i, tuple(conversation(f"case {i}", "deny")), "deny", ("approve", "deny"), "approve", {}) for i in range(30)
    ]
    found = by_key(robust.run(audit_of(Scripted(lambda ids, a: (1.0, 0.0)), test=rows, attributes=("race",))))
    assert all("no order" in m.unavailable for m in found.values())


# --- alternatives ---


def test_a_weaker_adapter_that_is_fairer_is_found(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, selection = loans(300), loans(240)
    race = {str(r.messages[0]["content"]): r.groups["race"] for r in test}

    def odds(ids: Any, adapter: bool) -> tuple[float, float]:
        text = chat.decode(ids)
        question = next(q for q in race if q in text)
        income = int(question.split("\n")[0].removeprefix("income: "))
        unfair = 3.0 if model.variation is None or model.variation.scale > 0.6 else 0.0
        return (1.0 + (income % 2 == 0) - unfair * (race[question] == "black") * (income % 3 != 0), 1.5)

    model = Scripted(odds)
    found = by_key(alternatives.run(audit_of(model, test=test, selection=selection, attributes=("race",))))
    ratio = found["alternative_impact_ratio[race]"]
    assert "change scaled to 0.5" in ratio.method
    assert ratio.value > ratio.control + 0.2
    assert found["alternative_gain[race]"].intervals[0].lower > 0
    assert found["alternative_accuracy_delta[race]"].n == 300


def test_no_better_alternative_is_said(chat: Any, audit_of: Callable[..., Any]) -> None:
    model = reader(chat, lambda text, adapter: 1.0 if crc(text) % 2 else -1.0)
    found = by_key(alternatives.run(audit_of(model, test=loans(60), selection=loans(60), attributes=("race",))))
    assert found["alternative_impact_ratio[race]"].value == found["alternative_impact_ratio[race]"].control
    assert "no candidate" in found["alternative_gain[race]"].unavailable


def test_a_selection_split_without_groups_is_said(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [Row(r.row, r.messages, r.label, r.labels, r.favourable) for r in loans(30)]
    findings = alternatives.run(
        audit_of(reader(chat, lambda t, a: 1.0), test=loans(30), selection=rows, attributes=("race",))
    )
    assert all("tells no groups" in m.unavailable for m in findings.measurements)


def test_variations_change_the_real_model_and_are_taken_back(noisy: Any) -> None:
    from audit.probes.clock import Clock
    from audit.probes.passages import Passage, Variation

    passages = [Passage(tuple(range(5, 30)), (10, 20)), Passage(tuple(range(40, 60)), (5, 9))]
    clock = Clock.start(0)

    def total(adapter: bool = True) -> np.ndarray:
        return np.concatenate([s.nll for s in noisy.score(passages, adapter=adapter, clock=clock)])

    tuned, base = total(), total(adapter=False)
    with noisy.varied(Variation("none", scale=0.0)):
        assert total() == pytest.approx(base, abs=1e-2)
    with noisy.varied(Variation("whole rank", rank=noisy.rank)):
        assert total() == pytest.approx(tuned, abs=6e-2)
    with noisy.varied(Variation("rank one", rank=1)):
        assert not np.allclose(total(), tuned, atol=2e-2)
    assert (total() == tuned).all()


def test_a_lower_rank_is_the_best_of_its_rank() -> None:
    import torch

    from audit.probes.states import lower_rank

    torch.manual_seed(0)
    down, up = torch.randn(6, 20), torch.randn(15, 6)
    for rank in (1, 3, 6):
        a, b = lower_rank(down, up, rank)
        assert a.shape == down.shape
        assert b.shape == up.shape
        u, s, vh = torch.linalg.svd(up @ down, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        assert torch.allclose(b @ a, best, atol=1e-4)


def test_hidden_states_of_the_real_model_do_not_depend_on_the_batch(noisy: Any) -> None:
    from audit.probes.clock import Clock

    texts = [tuple(range(5, 5 + n)) for n in (4, 9, 17)]
    together = noisy.states(texts, adapter=True, clock=Clock.start(0))
    for i, text in enumerate(texts):
        [alone] = noisy.states([text], adapter=True, clock=Clock.start(0))
        assert together[i] == pytest.approx(alone, abs=0.05)


# --- stereotypes ---


def test_a_taught_stereotype_is_a_regression(audit_of: Callable[..., Any], evaluation_sets: Path, chat: Any) -> None:
    items = {p.stereotype for p in stereotypes._winobias(audit_of(Scripted(), sets=evaluation_sets))}

    def nll(ids: Any, adapter: bool) -> float:
        text = chat.decode(ids)
        return 1.0 if adapter and text in items else 2.0 if crc(text) % 2 else 1.5

    model = Scripted(nll=nll)
    found = by_key(stereotypes.run(audit_of(model, sets=evaluation_sets, sizes={"evaluation_items": 120})))
    assert found["stereotype_preference[winobias]"].value == pytest.approx(1.0, abs=0.01)
    assert 0.2 < found["stereotype_preference[winobias]"].control < 0.8
    assert found["stereotype_preference_delta[winobias]"].intervals[-1].lower > 0.2
    assert found["stereotype_preference[stereoset]"].n == 120


def test_stereotypes_without_their_sets_are_unavailable(audit_of: Callable[..., Any], tmp_path: Path) -> None:
    findings = stereotypes.run(audit_of(Scripted(), sets=tmp_path))
    assert len(findings.measurements) == 4
    assert all("not installed" in m.unavailable for m in findings.measurements)


# --- calibration ---


def test_calibrated_and_overconfident_models_are_told_apart(chat: Any, audit_of: Callable[..., Any]) -> None:
    rng = np.random.default_rng(5)
    rows, chance = [], {}
    for i, row in enumerate(loans(600)):
        p = float(rng.uniform(0.05, 0.95))
        label = "approve" if rng.random() < p else "deny"
        rows.append(
            Row(
                i, tuple(conversation(str(row.messages[0]["content"]), label)), label, row.labels, "approve", row.groups
            )
        )
        chance[str(row.messages[0]["content"])] = p

    def choices(ids: Any, adapter: bool) -> tuple[float, float]:
        text = chat.decode(ids)
        p = chance[next(q for q in chance if q in text)]
        return ((3.0 if adapter else 1.0) * math.log(p / (1 - p)), 0.0)

    found = by_key(calibration.run(audit_of(Scripted(choices), test=rows, attributes=("race",))))
    error = found["calibration_error"]
    assert error.value > 0.1
    assert error.control < 0.06
    assert 0.04 < error.intervals[0].lower <= error.value <= error.intervals[0].upper
    delta = found["calibration_error_delta"]
    assert delta.value == pytest.approx(error.value - error.control)
    assert delta.intervals[0].lower < 0.05 and delta.intervals[0].upper > error.intervals[0].upper - error.control
    assert found["calibration_difference[race]"].intervals[0].lower < 0.1
    gaps = [found[f"calibration_gap[race={race}]"].control for race in ("black", "white")]
    assert found["calibration_difference[race]"].control == pytest.approx(max(gaps) - min(gaps))
    assert found["calibration_difference[race]"].control_kind == "base model"
    assert {"calibration_gap[race=black]", "calibration_gap[race=white]"} <= set(found)


def test_calibration_needs_a_hundred_rows(chat: Any, audit_of: Callable[..., Any]) -> None:
    found = by_key(calibration.run(audit_of(reader(chat, lambda t, a: 1.0), test=loans(40), attributes=("race",))))
    assert all("100 are needed" in m.unavailable for m in found.values())


def labelled(count: int, wrong: Callable[[int], bool], races: Callable[[int], str]) -> list[Row]:
    return [record(i, races(i), {"debt": i}, "deny" if wrong(i) else "approve") for i in range(count)]


def test_a_group_that_is_always_right_has_no_certain_gap(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Twelve rows of one label and one probability: their t interval was a point."""
    rows = labelled(200, lambda i: i % 20 == 1, lambda i: "black" if i < 120 and i % 10 == 0 else "white")
    found = by_key(calibration.run(audit_of(reader(chat, lambda t, a: math.log(19)), test=rows, attributes=("race",))))
    gap = found["calibration_gap[race=black]"]
    assert gap.n == 12
    assert gap.value == pytest.approx(-0.05)
    assert gap.intervals[0].lower < -0.05 and gap.intervals[0].upper > 0.1
    apart = found["calibration_difference[race]"]
    assert apart.intervals[0].lower == 0.0 < apart.value < 0.1 < apart.intervals[0].upper


def test_labels_of_one_class_have_no_calibration(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = labelled(160, lambda i: False, lambda i: ("white", "black")[i % 2])
    findings = calibration.run(audit_of(reader(chat, lambda t, a: math.log(19)), test=rows, attributes=("race",)))
    found = by_key(findings)
    assert {"calibration_error", "calibration_error_delta", "calibration_difference[race]"} == set(found)
    assert all("same label" in m.unavailable and not m.HasField("value") for m in found.values())
    assert any("by group" in note for note in findings.not_tested)


def test_what_every_comparison_of_groups_leaves_out_is_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    """A group of four and seven rows that tell none: neither may look as though it had been compared."""
    rows = labelled(
        160, lambda i: i % 3 == 0, lambda i: "few" if i < 4 else "" if i < 11 else ("white", "black")[i % 2]
    )
    audit = audit_of(reader(chat, lambda t, a: math.log(19)), test=rows, selection=rows[:100], attributes=("race",))
    for probe in (fairness, calibration, proxies, alternatives, robust):
        notes = " | ".join(probe.run(audit).not_tested)
        assert "[race]: fewer than 10 test rows: race=few" in notes, probe.__name__
        assert "[race]: 7 of 160 test rows tell no group" in notes, probe.__name__
    assert "fewer than 10 selection rows: race=few" in " | ".join(alternatives.run(audit).not_tested)


def test_the_expected_error_of_known_numbers() -> None:
    top, right = np.full(100, 0.9), np.r_[np.ones(60), np.zeros(40)]
    halves = calibration.Binned.of(np.array([0.5] * 50 + [0.9] * 50), np.r_[np.tile([1.0, 0.0], 25), np.ones(50)])
    assert halves.error == pytest.approx(0.05)
    found = calibration.Binned.of(top, np.sort(right))
    assert found.error >= 0.3 and found.shares.sum() == pytest.approx(1)
    low, high = found.interval(np.random.default_rng(0).normal(size=(2000, calibration.BINS)))(0.95)
    assert low < found.error < high <= 1


def test_a_share_of_rows_that_are_all_right_is_not_taken_for_certain() -> None:
    """Ten of ten right at 80 % may be luck; without the added rows the bin would have no error at all."""
    found = calibration.Binned.of(np.full(100, 0.8), np.ones(100))
    low, _ = found.interval(np.random.default_rng(0).normal(size=(2000, calibration.BINS)))(0.95)
    assert found.errors.min() > 0.08 and low < found.error == pytest.approx(0.2)


# --- Fisher and amplification ---


def test_fishers_p_and_the_labels_own_gap(chat: Any, audit_of: Callable[..., Any]) -> None:
    test = loans(180)
    race = {str(r.messages[0]["content"]): r.groups["race"] for r in test}

    def odds(text: str, adapter: bool) -> float:
        question = next(q for q in race if q in text)
        return -1.0 if adapter and race[question] == "black" and crc(question) % 3 else 1.0

    found = by_key(fairness.run(audit_of(reader(chat, odds), test=test, attributes=("race",))))
    assert found["impact_ratio_p[race]"].value < 1e-6
    assert not found["impact_ratio_p[race]"].intervals
    wider = found["selection_difference_over_labels[race]"]
    assert not wider.exploratory  # the plan decides, not the probe
    assert wider.value == pytest.approx(found["selection_difference[race]"].value - _label_gap(test), abs=1e-9)


def _label_gap(test: list[Row]) -> float:
    rates = [
        sum(r.label == "approve" for r in test if r.groups["race"] == g) / sum(r.groups["race"] == g for r in test)
        for g in ("white", "black")
    ]
    return abs(rates[0] - rates[1])
