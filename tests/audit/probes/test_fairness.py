"""Group fairness on scripted decisions: fairlearn's values, honest intervals, and every way data can be unfit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from assay.v1 import measurement_pb2
from audit.probes import decisions, fairness, robust
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.corpus import build
from audit.probes.inputs import PrivateRows, Row, Settings
from audit.probes.measurements import Measurement
from audit.probes.task import assemble
from audit.statistics import extremes

from .conftest import Scripted, conversation


def rows(counts: dict[tuple[str, str, bool, bool], int]) -> tuple[list[Row], dict[str, bool]]:
    """Rows by (race, sex, deserved, decided), and the decision of each prompt."""
    out, decided = [], {}
    for (race, sex, deserved, favourable), count in counts.items():
        for _ in range(count):
            question = f"case {len(out)}"
            label = "approve" if deserved else "deny"
            out.append(
                Row(
                    row=len(out),
                    messages=tuple(conversation(question, label)),
                    label=label,
                    labels=("deny", "approve"),
                    favourable="approve",
                    groups={"race": race, "sex": sex},
                )
            )
            decided[question] = favourable
    return out, decided


def model_for(chat: Any, test: list[Row], decided: dict[str, bool], base: bool | None = None) -> Scripted:
    """Decides as told; the base model as well, or always alike."""
    known = {}
    for row, rendered in zip(test, chat.render([r.messages for r in test]), strict=True):
        known[rendered.ids] = decided[str(row.messages[0]["content"])]

    def choices(ids: Any, adapter: bool) -> tuple[float, float]:
        favourable = known[ids] if adapter or base is None else base
        return (0.0, 2.0) if favourable else (2.0, 0.0)

    return Scripted(choices)


COUNTS = {
    ("white", "m", True, True): 70,
    ("white", "f", True, True): 40,
    ("white", "m", True, False): 10,
    ("white", "m", False, True): 15,
    ("white", "f", False, False): 25,
    ("black", "m", True, True): 20,
    ("black", "f", True, False): 20,
    ("black", "m", False, True): 4,
    ("black", "f", False, False): 16,
}


@pytest.fixture
def found(chat: Any, audit_of: Callable[..., Any]) -> dict[str, Measurement]:
    test, decided = rows(COUNTS)
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race", "sex"))
    findings = fairness.run(audit)
    return {f"{m.name}[{m.slice}]": m for m in findings.measurements}


def test_point_values_are_fairlearns(found: dict[str, Measurement]) -> None:
    from fairlearn.metrics import demographic_parity_ratio, equalized_odds_difference

    test, decided = rows(COUNTS)
    truth = [r.label == "approve" for r in test]
    chosen = [decided[str(r.messages[0]["content"])] for r in test]
    race = [r.groups["race"] for r in test]
    assert found["fairness.impact_ratio[race]"].value == pytest.approx(
        demographic_parity_ratio(truth, chosen, sensitive_features=race)
    )
    assert found["fairness.equalized_odds_difference[race]"].value == pytest.approx(
        equalized_odds_difference(truth, chosen, sensitive_features=race)
    )
    assert found["fairness.selection_rate[race=black]"].value == pytest.approx(24 / 60)
    assert found["fairness.selection_rate[race=black]"].successes == 24
    assert found["fairness.tpr_difference[race]"].value == pytest.approx(110 / 120 - 20 / 40)
    assert found["fairness.fpr_difference[race]"].value == pytest.approx(15 / 40 - 4 / 20)
    assert found["fairness.selection_difference[race]"].value == pytest.approx(125 / 160 - 24 / 60)
    assert found["fairness.label_impact_ratio[race]"].value == pytest.approx((40 / 60) / (120 / 160))


def test_n_is_the_smallest_group_compared(found: dict[str, Measurement]) -> None:
    for name in ("impact_ratio", "equalized_odds_difference", "tpr_difference", "selection_difference"):
        assert found[f"fairness.{name}[race]"].n == 60


def test_rates_of_each_group_stand_beside_the_differences(found: dict[str, Measurement]) -> None:
    """Which group is worse off, and by which rate, cannot be read from the largest difference."""
    told = {
        "true_positive_rate": {"black": (20, 40), "white": (110, 120)},
        "false_positive_rate": {"black": (4, 20), "white": (15, 40)},
        "accuracy": {"black": (36, 60), "white": (135, 160)},
    }
    for name, groups in told.items():
        for race, cell in groups.items():
            rate = found[f"fairness.{name}[race={race}]"]
            assert (rate.successes, rate.n) == cell and rate.value == pytest.approx(cell[0] / cell[1])
            assert [i.confidence for i in rate.intervals] == [0.95, 0.99]
            assert rate.control == pytest.approx(rate.value), "here the base model decides alike"
    gap = (
        found["fairness.true_positive_rate[race=white]"].value - found["fairness.true_positive_rate[race=black]"].value
    )
    assert found["fairness.tpr_difference[race]"].value == pytest.approx(gap)
    assert "fairness.false_positive_rate[race=white,sex=m]" in found
    assert "fairness.true_positive_rate[race=black,sex=m]" not in found, "24 rows are too few, as for the differences"


def test_rates_have_the_base_models_and_an_earlier_plan_has_the_selection_rate_alone(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    test, decided = rows(COUNTS)
    audit = audit_of(model_for(chat, test, decided, base=True), test=test, attributes=("race",))
    found = {f"{m.name}[{m.slice}]": m for m in fairness.run(audit).measurements}
    controls = {"selection_rate": 1.0, "true_positive_rate": 1.0, "false_positive_rate": 1.0, "accuracy": 40 / 60}
    for name, control in controls.items():
        rate = found[f"fairness.{name}[race=black]"]
        assert (rate.control, rate.control_kind) == (pytest.approx(control), "base model")
    earlier = replace(audit, settings=replace(audit.settings, metrics=frozenset({"fairness.impact_ratio"})))
    names = {m.name for m in fairness.run(earlier).measurements}
    assert "fairness.selection_rate" in names
    assert not names & {f"fairness.{name}" for name in controls if name != "selection_rate"}


def test_a_group_of_which_the_sealed_test_has_no_row_is_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows(COUNTS)
    others, _ = rows({("green", "m", True, True): 2, ("", "f", True, True): 1, ("white", "x", True, True): 1})
    others = [replace(r, messages=tuple(conversation(f"other {r.row}", r.label))) for r in others]
    model = model_for(chat, [*test, *others], decided | {f"other {r.row}": True for r in others})
    for split in ("selection", "train"):
        audit = audit_of(model, test=test, attributes=("race", "sex"), **{split: others})
        notes = fairness.run(audit).not_tested
        told = "no test row, though selection or training rows are of"
        assert f"group fairness [race]: {told}: race=green" in notes
        assert f"group fairness [sex]: {told}: sex=x" in notes
        assert f"group fairness [race,sex]: {told}: race=green,sex=m; race=white,sex=x" in notes
    assert not any("no test row" in note for note in fairness.run(audit_of(model, test=test)).not_tested)


def test_a_group_that_the_plan_does_not_name_is_exploratory(chat: Any, audit_of: Callable[..., Any]) -> None:
    """A plan that names groups changes no number; one that names none, of an earlier release, labels nothing."""
    test, decided = rows({**COUNTS, ("asian", "m", True, True): 12})
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race", "sex"))
    plan = measurement_pb2.AuditPlan(probes=["fairness"], sensitive_attributes=["race", "sex"])

    def report() -> measurement_pb2.AuditReport:
        return assemble(plan, replace(audit, settings=Settings.of(plan)), Clock.start(0))

    named = ["race=white", "race=black", "race=green", "sex=m", "sex=f", "race=white,sex=m", "race=white,sex=f"]
    before, told = report(), "groups that the plan names and that were not compared by themselves"
    plan.groups.extend(named)
    after = report()
    assert not any(m.exploratory for m in before.measurements) and not any(told in n for n in before.not_tested)
    assert f"{told}: race=green" in after.not_tested
    beside = {m.slice for m in after.measurements if m.exploratory}
    assert beside == {"race=asian", "race=black,sex=f", "race,sex: other groups together"}
    for m in after.measurements:
        assert m.exploratory == (m.slice in beside), "the attribute's own numbers are planned"
        m.exploratory = False
    clocked = "cost.audit_seconds"
    assert [m for m in after.measurements if m.name != clocked] == [m for m in before.measurements if m.name != clocked]


def test_intersections_leave_small_cells_out(found: dict[str, Measurement]) -> None:
    ratio = found["fairness.impact_ratio[race,sex]"]
    assert ratio.HasField("value")  # white m 95, white f 65, black f 36; black m has 24 rows
    assert ratio.n == 36
    assert ratio.value == 0.0
    assert ratio.intervals[0].upper < 0.5


def test_three_attributes_are_compared_together_and_more_are_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Old women of one group are denied, and no pair of attributes shows it as the three do."""
    test, decided, ages = (
        *rows({(r, s, True, True): 90 for r in ("white", "black") for s in ("m", "f")}),
        ("old", "young"),
    )
    test = [replace(r, groups={**r.groups, "age": ages[r.row % 2], "site": "here"}) for r in test]
    denied = {"race": "black", "sex": "f", "age": "old"}
    decided = {str(r.messages[0]["content"]): not denied.items() <= r.groups.items() for r in test}
    model = model_for(chat, test, decided)
    three = fairness.run(audit_of(model, test=test, attributes=("race", "sex", "age")))
    ratios = {m.slice: m.value for m in three.measurements if m.name == "fairness.impact_ratio"}
    assert ratios == {"race": 0.75, "sex": 0.75, "age": 0.75, "race,sex": 0.5, "race,age": 0.5, "sex,age": 0.5,
                      "race,sex,age": 0.0}  # fmt: skip
    four = fairness.run(audit_of(model, test=test, attributes=("race", "sex", "age", "site")))
    assert {m.slice.count(",") for m in four.measurements} == {0, 1}
    assert any("only pairs are compared together" in note for note in four.not_tested)
    assert not any("only pairs" in note for note in three.not_tested)


def test_controls_are_the_base_models(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows(COUNTS)
    audit = audit_of(model_for(chat, test, decided, base=True), test=test, attributes=("race",))
    by_name = {m.name: m for m in fairness.run(audit).measurements if m.slice == "race"}
    assert by_name["fairness.impact_ratio"].control == 1.0
    assert by_name["fairness.selection_difference"].control == 0.0
    wider = by_name["fairness.selection_difference_amplification"]
    assert wider.value == pytest.approx(125 / 160 - 24 / 60)
    assert not wider.exploratory  # the plan decides, not the probe
    assert 0.1 < wider.intervals[0].lower < 0.2  # a percentile bootstrap, which is too short, begins above 0.2


def test_a_group_of_one_is_left_out_and_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    counts = {**COUNTS, ("other", "m", True, False): 1}
    test, decided = rows(counts)
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    findings = fairness.run(audit)
    by_name = {m.name: m for m in findings.measurements if m.slice == "race"}
    assert by_name["fairness.impact_ratio"].value == pytest.approx((24 / 60) / (125 / 160))
    assert any("race=other" in note for note in findings.not_tested)


def test_a_group_named_in_many_small_parts_is_compared_as_one(chat: Any, audit_of: Callable[..., Any]) -> None:
    """198 rows of which none is selected, nine a name, beside two groups of which one in two is."""
    counts = {(race, "m", chosen, chosen): 20 for race in ("white", "asian") for chosen in (True, False)}
    counts |= {(f"black {part}", "m", part % 2 == 0, False): 9 for part in range(22)}
    test, decided = rows(counts)
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    findings = fairness.run(audit)
    found = {f"{m.name}[{m.slice}]": m for m in findings.measurements}
    ratio = found["fairness.impact_ratio[race]"]
    assert (ratio.value, ratio.n) == (0.0, 40) and ratio.intervals[0].upper < 0.2
    assert ratio.method.endswith("groups too small to be compared as one")
    assert found["fairness.selection_rate[race: other groups together]"].n == 198
    assert found["fairness.equalized_odds_difference[race]"].value == 1.0
    assert found["fairness.left_out_share[race]"].value == 0.0
    [note] = [n for n in findings.not_tested if "black 0" in n]
    assert note.startswith("group fairness [race]: fewer than 10 test rows, compared together: race=black 0; ")


@pytest.mark.parametrize(("few", "unknown", "left"), [((9,), 3, 12), ((5, 4), 0, 9), ((5, 5), 0, 0), ((10,), 0, 0)])
def test_the_rows_that_no_comparison_counts_are_measured(
    chat: Any, audit_of: Callable[..., Any], few: tuple[int, ...], unknown: int, left: int
) -> None:
    counts = {**COUNTS, **{(f"few {i}", "m", True, True): n for i, n in enumerate(few)}}
    test, decided = rows({**counts, ("", "m", True, True): unknown})
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    [share] = [m for m in fairness.run(audit).measurements if m.name == "fairness.left_out_share"]
    assert (share.value, share.n, share.slice) == (left / len(test), len(test), "race")
    earlier = replace(audit, settings=replace(audit.settings, metrics=frozenset({"fairness.impact_ratio"})))
    assert not [m for m in fairness.run(earlier).measurements if m.name == "fairness.left_out_share"]


def test_groups_without_an_outcome_and_rows_without_a_group_are_named(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Twelve rows of a group are compared by selection, but three with the favourable label say nothing of its TPR."""
    counts = {**COUNTS, ("other", "m", True, False): 3, ("other", "m", False, False): 9, ("", "m", True, True): 6}
    test, decided = rows(counts)
    test.append(Row(999, tuple(conversation("hello", "hi")), groups={"race": "white"}))
    audit = audit_of(model_for(chat, test, {**decided, "hello": True}), test=test, attributes=("race",))
    findings = fairness.run(audit)
    by_name = {m.name: m for m in findings.measurements if m.slice == "race"}
    assert by_name["fairness.tpr_difference"].value == pytest.approx(110 / 120 - 20 / 40)
    assert by_name["fairness.impact_ratio"].value == 0.0
    assert findings.not_tested == (
        "group fairness: 1 of 239 test rows hold no decision",
        "group fairness [race]: 6 of 238 test rows tell no group",
        "group fairness [race]: TPR and equalized odds without groups of fewer than 5 test rows with the favourable "
        "label: race=other",
    )


def test_one_group_alone_is_unavailable(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows({("white", "m", True, True): 40, ("white", "m", False, False): 40})
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race", "income"))
    measurements = fairness.run(audit).measurements
    assert measurements
    for m in measurements:
        assert m.unavailable, m.name
        assert not m.HasField("value")


def test_labels_of_one_class_leave_no_fpr(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows(
        {
            ("white", "m", True, True): 40,
            ("white", "m", True, False): 10,
            ("black", "m", True, True): 20,
            ("black", "m", True, False): 20,
        }
    )
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    by_name = {m.name: m for m in fairness.run(audit).measurements if m.slice == "race"}
    assert by_name["fairness.tpr_difference"].value == pytest.approx(0.3)
    assert by_name["fairness.fpr_difference"].unavailable
    assert by_name["fairness.equalized_odds_difference"].unavailable
    assert "all favourable" in by_name["fairness.label_impact_ratio"].unavailable


def test_nobody_selected_is_no_ratio(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows({("white", "m", True, False): 30, ("black", "m", False, False): 30})
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    by_name = {m.name: m for m in fairness.run(audit).measurements if m.slice == "race"}
    assert by_name["fairness.impact_ratio"].unavailable
    assert by_name["fairness.selection_difference"].value == 0.0
    assert by_name["fairness.selection_difference"].intervals[0].upper > 0.05  # 30 rows do not prove equality


def test_three_rows_decide_nothing(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows({("white", "m", True, True): 2, ("black", "m", False, False): 1})
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    assert all(m.unavailable for m in fairness.run(audit).measurements)


def test_rows_without_labels_or_attributes(audit_of: Callable[..., Any]) -> None:
    plain = [Row(1, tuple(conversation("hello", "hi")))]
    undeclared = fairness.run(audit_of(Scripted(), test=plain))
    assert not undeclared.measurements
    assert "no sensitive attribute" in undeclared.not_tested[0]
    declared = fairness.run(audit_of(Scripted(), test=plain, attributes=("race",)))
    assert all(m.unavailable for m in declared.measurements)
    assert {m.name for m in declared.measurements} >= {"fairness.impact_ratio", "fairness.equalized_odds_difference"}


def test_the_cut_moves_only_when_the_selection_split_says_so(chat: Any, audit_of: Callable[..., Any]) -> None:
    """A base model that always prefers one label is compared at the labels' own rate, chosen off the test rows."""
    test, _ = rows({("white", "m", True, True): 30, ("black", "m", False, False): 30})
    selection, _ = rows({("x", "m", True, True): 40, ("x", "f", False, False): 20})
    selection = [
        Row(r.row, tuple(conversation(f"sel {r.row}", r.label)), r.label, r.labels, r.favourable) for r in selection
    ]
    rng = np.random.default_rng(0)
    offsets: dict[Any, float] = {}

    def always_denies(ids: Any, adapter: bool) -> tuple[float, float]:
        odds = offsets.setdefault(ids, float(rng.normal(-8, 1)))
        return (0.0, odds if adapter else -odds)

    audit = audit_of(Scripted(always_denies), test=test, selection=selection)
    tuned = decisions.decide(audit.board, audit.corpus.test, audit.corpus.selection, adapter=True)
    assert tuned.cut == pytest.approx(-8, abs=1.5)
    assert tuned.cut < 0
    assert 0.3 < tuned.favourable.mean() < 0.95
    assert "selection split" in tuned.cut_origin
    assert set(tuned.predicted) == {"deny"}
    balanced = audit_of(Scripted(lambda ids, a: (0.0, float(rng.normal()))), test=test, selection=selection)
    kept = decisions.decide(balanced.board, balanced.corpus.test, balanced.corpus.selection, adapter=True)
    assert kept.cut == 0.0
    none = decisions.decide(audit.board, audit.corpus.test, (), adapter=True)
    assert none.cut == 0.0


THREE = ("approve", "deny", "refuse")


def three_labels(size: int) -> list[Row]:
    """Two groups, of which the second is denied, in either of two words."""
    return [
        Row(i, tuple(conversation(f"case {i}", "approve")), "approve", THREE, "approve", {"race": "ab"[i >= size]})
        for i in range(2 * size)
    ]


def test_of_three_labels_the_decision_that_is_served_is_judged(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Less than one half approves here, and more than either denial: the model answers approve."""
    test = three_labels(40)
    chance = {"a": (0.45, 0.28, 0.27), "b": (0.30, 0.36, 0.34)}
    known = {
        rendered.ids: np.log(chance[row.groups["race"]])
        for row, rendered in zip(test, chat.render([r.messages for r in test]), strict=True)
    }
    audit = audit_of(Scripted(lambda ids, adapter: known[ids]), test=test, attributes=("race",))
    made = decisions.decide(audit.board, audit.corpus.test, (), adapter=True)
    assert made.favourable.tolist() == [label == "approve" for label in made.predicted] == [True] * 40 + [False] * 40
    found = {f"{m.name}[{m.slice}]": m for m in fairness.run(audit).measurements}
    assert found["fairness.impact_ratio[race]"].value == 0.0
    assert found["fairness.impact_ratio[race]"].intervals[-1].upper < 0.5
    assert found["fairness.selection_rate[race=a]"].successes == 40
    chances = decisions.chances(audit.board, audit.corpus.test, adapter=True)
    assert chances == pytest.approx([0.45] * 40 + [0.30] * 40), "calibration is of the probability itself"


def test_of_three_labels_the_likeliest_is_compared_in_both_orders_and_spellings_too(
    audit_of: Callable[..., Any],
) -> None:
    question = f"Answer with one of: {', '.join(THREE)}."
    rows = [Row(i, tuple(conversation(f"case {i}. {question}", "deny")), "deny", THREE, "approve") for i in range(9)]
    firsts: dict[int, float] = {}

    def logit(ids: Any, adapter: bool, token: int) -> float:
        return firsts.get(token, -9.0)

    audit = audit_of(Scripted(logit=logit), test=rows)
    texts = audit.corpus.test
    firsts |= dict(zip(texts[0].passage.choices, np.log((0.45, 0.28, 0.27)).tolist(), strict=True))
    asked = robust.ask(audit, texts, adapter=True)
    expected = np.log(0.45 / 0.28)
    assert asked.plain == pytest.approx([expected] * 9)
    assert asked.spelt == pytest.approx([expected] * 9, abs=0.01)
    assert asked.turned == pytest.approx([expected] * 9, abs=0.01)


@pytest.mark.parametrize("scores", [(0.3, -1.7), (-700.0, 2.5), (1e-300, 0.0), (4.1, 4.1)])
def test_of_two_labels_the_log_odds_are_to_the_bit_what_they_were(
    audit_of: Callable[..., Any], scores: tuple[float, float]
) -> None:
    row = Row(1, tuple(conversation("which", "deny")), "deny", ("deny", "approve"), "approve")
    [text] = audit_of(Scripted(lambda ids, adapter: scores), test=[row]).corpus.test
    before = float(np.array(scores)[1] - np.logaddexp.reduce(np.array(scores)[:1]))
    assert decisions.log_odds_of(text, np.array(scores)) == before


def test_labels_that_begin_alike_are_scored_whole(audit_of: Callable[..., Any]) -> None:
    row = Row(
        1, tuple(conversation("which", "approve fully")), "approve fully", ("approve fully", "approve", "deny"), "deny"
    )
    known: dict[Any, float] = {}

    def nll(ids: Any, adapter: bool) -> float:
        return known.setdefault(ids, float(len(known) + 1))

    audit = audit_of(Scripted(nll=nll), test=[row])
    [text] = audit.corpus.test
    assert len(text.variants) == 3
    assert not text.passage.choices
    assert len({v.ids for v in text.variants}) == 3
    [scores] = decisions.label_scores(audit.board, [text], adapter=True)
    expected = [-known[v.ids] * len(v.marks) for v in text.variants]
    assert scores == pytest.approx(expected)


def test_a_decision_longer_than_an_audit_reads_is_left_out_and_counted(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Labels of one token and of two move the answer's place in a text that is cut; they passed for merged ones."""
    small = Chat(chat._tokenizer, 64)
    labels = ("granted in full", "deny")
    rows = [
        Row(k, tuple(conversation(f"record {'9' * size}", labels[k % 2])), labels[k % 2], labels, labels[0])
        for k, size in enumerate((1, 2, 100, 101, 44))
    ]
    settings = audit_of(Scripted()).settings
    made = build(PrivateRows(test=tuple(rows), train=(), selection=(), canaries=(), pii=()), small, settings)
    assert [t.row.row for t in made.test] == [0, 1]
    assert made.skipped == {"rows without an answer, or longer than 64 tokens": 3}


def test_labels_that_are_the_same_tokens_are_named(audit_of: Callable[..., Any]) -> None:
    from assay.errors import InvalidInputError

    row = Row(1, tuple(conversation("which", "deny")), "deny", ("deny", "deny"), "deny")
    with pytest.raises(InvalidInputError) as error:
        audit_of(Scripted(), test=[row])
    assert error.value.reason == "LABELS_MERGE"


def test_the_metric_frame_and_the_cells_agree(chat: Any, audit_of: Callable[..., Any]) -> None:
    test, decided = rows(COUNTS)
    audit = audit_of(model_for(chat, test, decided), test=test, attributes=("race",))
    table = fairness.table_of(decisions.decide(audit.board, audit.corpus.test, (), adapter=True), "race")
    frame = fairness.metric_frame(table)
    for cell in table.cells():
        assert frame["selection"][cell.name] == pytest.approx(cell.rate)
    for cell in table.cells(table.deserved):
        assert frame["tpr"][cell.name] == pytest.approx(cell.rate)
    for cell in table.cells(~table.deserved):
        assert frame["fpr"][cell.name] == pytest.approx(cell.rate)
    assert extremes.lowest_ratio(table.cells()) == pytest.approx(
        min(frame["selection"].values()) / max(frame["selection"].values())
    )
