"""What a card says: every section, GAP for what is missing, nothing that no record says."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from assay import canonical
from assay.v1.policy_input_pb2 import UseDeclaration
from audit.cards import build_card, detection
from audit.cards.rows import parts_of
from audit.cards.rules import by_digest_alone
from policies import artefacts, asking
from policies import pack as packs
from tests.audit.cards import samples
from trainer.recipes.ranks import Ranks
from trainer.statement import processes_of

SECTIONS = [
    "summary", "reading", "intended-use", "declared-use", "base-model", "data", "training", "privacy", "fairness",
    "quality", "overfitting", "rules-intake", "rules-release", "not-tested", "detection", "cost", "isolation",
    "evidence",
]  # fmt: skip


load = functools.cache(packs.load)
"""The packaged rules, read once."""


def section(card: dict[str, Any], id_: str) -> dict[str, Any]:
    return next(s for s in card["sections"] if s["id"] == id_)


def fact(card: dict[str, Any], id_: str, label: str) -> str:
    rows = [r for b in section(card, id_)["blocks"] if b["kind"] == "facts" for r in b["rows"]]
    return next(str(r["value"]) for r in rows if r["label"] == label)


def cells(card: dict[str, Any], id_: str) -> list[list[str]]:
    return [row for b in section(card, id_)["blocks"] if b["kind"] == "table" for row in b["rows"]]


def plots(card: dict[str, Any], id_: str, kind: str) -> list[dict[str, Any]]:
    return [b for b in section(card, id_)["blocks"] if b["kind"] == kind]


@pytest.mark.parametrize("known", [{}, samples.small(), samples.rich()], ids=["nothing", "small", "rich"])
def test_every_section_is_there_and_the_card_is_canonical(known: dict[str, Any]) -> None:
    card = build_card(known)
    assert [s["id"] for s in card["sections"]] == SECTIONS
    assert all(s["blocks"] for s in card["sections"])
    assert canonical.decode(canonical.encode(card)) == card


def test_a_card_of_nothing_claims_nothing() -> None:
    card = build_card({})
    assert card["verdict"] == "GAP"
    assert card["measurements"] == [] and card["rules"] == []
    fixed = {"any purpose, environment or base model that no permit names", "on the page of approvals once issued"}
    for part in card["sections"]:
        if part["id"] == "detection":
            continue  # of the software, whatever the job
        for block in part["blocks"]:
            if block["kind"] == "facts":
                assert {r["value"] for r in block["rows"]} - fixed <= {"GAP"}, part["id"]
            elif block["kind"] == "table":
                flat = {c for row in block["rows"] for c in row}
                assert flat <= {"GAP", "preparation", "training", "auditing"}, part["id"]
            else:
                assert block["kind"] == "paragraph"
    assert section(card, "privacy")["blocks"][0]["text"] == "No measurement: GAP."


@pytest.mark.parametrize(
    ("source", "where"), [("registry", "base model registry"), ("requester", "what the requester says")]
)
def test_a_distilled_model_names_its_teacher_and_whose_word_the_licence_is(source: str, where: str) -> None:
    known = samples.rich()
    assert "Teacher" not in str(section(build_card(known), "training"))
    known["training"]["claim"]["teacher"] = {"name": "Mistral-7B", "licence": "apache-2.0", "licence_source": source}
    card = build_card(known)
    assert fact(card, "training", "Teacher that wrote the answers") == "Mistral-7B"
    rows = [r for b in section(card, "training")["blocks"] if b["kind"] == "facts" for r in b["rows"]]
    (said,) = [r for r in rows if r["label"] == "Licence of the teacher's answers"]
    assert (said["value"], said["source"]) == ("apache-2.0", where)


def test_rounded_base_weights_are_named_and_those_it_is_permitted_on_beside_them() -> None:
    known = samples.rich()
    known["training"]["claim"] |= {"watched": {"loss": "0.5"}, "watched_base": {"loss": "2.5"}}
    plain = build_card(known)
    assert "Base weights" not in str(section(plain, "training"))
    assert fact(plain, "training", "Validation rows: loss") == "0.5; base model 2.5"
    known["training"]["claim"]["quantisation"] = {
        "format": "nf4", "block": 64, "double": True, "scale_block": 256, "layers": 210, "weights": 106_168_320,
        "bytes": 54_998_520, "library": "bitsandbytes 0.50.2",
    }  # fmt: skip
    card = build_card(known)
    said = "210 linear layers in nf4, blocks of 64, their magnitudes in blocks of 256 (bitsandbytes 0.50.2)"
    assert fact(card, "training", "Base weights while it was trained") == said
    permitted = fact(card, "training", "Base weights that it is audited and permitted on")
    assert permitted == "as published, not rounded"
    assert fact(card, "training", "Validation rows: loss") == "0.5; base model in four bits 2.5"


def test_a_private_run_says_of_what_and_by_which_accountant() -> None:
    known = samples.rich()
    assert "Differential privacy" not in str(section(build_card(known), "training"))
    known["training"]["claim"]["differential_privacy"] = {
        "unit": "row", "accountant": "opacus prv", "epsilon": "3.41", "delta": "0.00001", "target": "noise_multiplier",
        "reserved_epsilon": "3.9", "noise_multiplier": "1.1",
    }  # fmt: skip
    card = build_card(known)
    said = fact(card, "training", "Differential privacy")
    assert said == "epsilon 3.41 at delta 0.00001, of one row, by opacus prv"
    assert fact(card, "training", "Differential privacy: reserved epsilon") == "3.9"


@pytest.mark.parametrize(
    "ranks", [Ranks(2, backend="gloo"), Ranks(1, why="4 processes want a GPU each, and there are 2")]
)
def test_how_many_processes_trained_stands_with_how_many_might_have(ranks: Ranks) -> None:
    known = samples.rich()
    known["training"]["claim"] |= processes_of(ranks)
    known["training"]["environment"] |= {"processes": "4"}
    card = build_card(known)
    assert fact(card, "training", "Processes") == str(ranks.count)
    assert fact(card, "training", "Environment: processes") == "4"
    said = ("Process backend", "gloo") if ranks.backend else ("Fewer processes", ranks.why)
    assert fact(card, "training", said[0]) == said[1]


def test_a_search_shows_every_trial_and_why_one_was_kept() -> None:
    known = samples.rich()
    known["training"]["claim"]["search"] = {
        "trials": [
            {"lora_rank": 8, "learning_rate": "0.0001", "tokens": 9, "steps": 3, "failed": "LOSS_NOT_FINITE"},
            {"lora_rank": 8, "learning_rate": "0.0002", "tokens": 9, "steps": 3, "selection_loss": "1.25",
             "validation_loss": "1.5"},
        ],
        "chosen": 2, "why": "lowest loss on 30 rows of the selection split, 1.25, among 2 trials of which 1 failed",
    }  # fmt: skip
    card = build_card(known)
    first, second = cells(card, "training")
    assert first == ["1", "8", "0.0001", "9", "3", "LOSS_NOT_FINITE", "LOSS_NOT_FINITE", "–"]
    assert second == ["2", "8", "0.0002", "9", "3", "1.25", "1.5", "kept"]
    assert "trial 2 was kept: lowest loss on 30 rows" in str(section(card, "training"))


def test_documents_known_by_digest_alone_stand_in_the_summary_as_policy_names_them() -> None:
    bundle = load()
    rule = bundle.rule("AIA-A4.5")
    assert rule is not None
    first, second = "a" * 64, "b" * 64
    there = {"MON": f"{first}, {second}", "RISK": second}
    warned = json_format.MessageToDict(asking.held(rule, there), preserving_proto_field_name=True)
    known = samples.rich()
    assert "Documents known by digest alone" not in str(section(build_card(known), "summary"))
    known["decision"]["outcomes"].append({**warned, "rule_id": "EARLIER", "message": warned["message"]})
    known["verdict"]["outcomes"].append(warned)
    # Words of somebody else that look alike are no document of a rule.
    known["verdict"]["outcomes"].append({**samples.outcome("X", "WARN"), "message": f"DPIA (x), SHA-256 {first}"})
    card = build_card(known)
    named = [b for b in section(card, "summary")["blocks"] if b.get("columns", [""])[0].startswith("Documents")]
    assert [b["rows"] for b in named] == [
        [
            ["MON", first, "EARLIER, AIA-A4.5"],
            ["MON", second, "EARLIER, AIA-A4.5"],
            ["RISK", second, "EARLIER, AIA-A4.5"],
        ]
    ]
    assert "DECLARED" in str(section(card, "reading"))


@pytest.mark.parametrize("kind", sorted(artefacts.HANDED_IN))
def test_every_kind_of_document_is_read_as_policy_writes_it(kind: str) -> None:
    rule = dataclasses.replace(load().rules[0], artefacts=(kind,))
    said = json_format.MessageToDict(asking.held(rule, {kind: "c" * 64}), preserving_proto_field_name=True)
    assert by_digest_alone({"outcomes": [said]}) == [[kind, "c" * 64, [rule.id]]]


@pytest.mark.parametrize(("said", "lead"), [("WARN", "To do: "), ("FAIL", "To pass: ")])
def test_what_a_warning_asks_for_is_to_be_done_and_makes_nothing_pass(said: str, lead: str) -> None:
    known = samples.rich()
    known["verdict"]["outcomes"] = [{**samples.outcome("DOCUMENT", said), "fix": "Show it."}]
    [why] = [row[2] for row in cells(build_card(known), "rules-release") if row[0] == "DOCUMENT"]
    assert why.endswith(f" – {lead}Show it.")


@pytest.mark.parametrize(
    ("part", "id_", "label"),
    [
        ("dataset", "data", "Licence"),
        ("base_model", "base-model", "Licence"),
        ("base_model", "base-model", "Scan report of its import, SHA-256"),
        ("data", "data", "Rows"),
        ("data", "data", "Rows with direct identifiers"),
        ("ledger", "evidence", "Ledger"),
        ("quorum", "evidence", "Signatures needed"),
        ("model", "summary", "Adapter, SHA-256"),
        ("training", "training", "Method"),
    ],
)
def test_what_is_missing_is_a_gap(part: str, id_: str, label: str) -> None:
    known = samples.rich()
    assert fact(build_card(known), id_, label) != "GAP"
    del known[part]
    assert fact(build_card(known), id_, label) == "GAP"


def test_the_declared_use_stands_member_by_member_beside_the_law_that_was_asked() -> None:
    """Also what was not declared, and the packs that nobody chose: nothing else says which law was not asked."""
    card = build_card(samples.rich())
    rows = [r for b in section(card, "declared-use")["blocks"] if b["kind"] == "facts" for r in b["rows"]]
    shown = {r["label"]: r["value"] for r in rows}
    for field in UseDeclaration.DESCRIPTOR.fields:
        assert f"Declared: {field.name.replace('_', ' ')}" in shown
    assert shown["Declared: jurisdictions"] == "US-NYC" and shown["Declared: own brand"] == "no"
    assert shown["Declared: substantial modification"] == "GAP"
    assert "title assessment.pdf; kind TECHNICAL_FILE" in shown["Declared: artefacts"]
    assert shown["Places, with those that they lie in"] == "US-NYC, US-NY, US"
    assert shown["Decides about people"] == "yes" and "Annex III(5)(b)" in str(shown.values())
    assert shown["Packs here that this unit had not chosen, not asked"] == "eu-ai-act, gdpr"
    assert card["use"]["risk_tier"] == "limited" and card["use_reading"]["packs"] == ["baseline", "fair-lending"]


def test_a_reading_that_found_nothing_is_an_answer_and_no_gap() -> None:
    known = samples.rich()
    known["decision"]["use_reading"] = {"packs": ["baseline"]}
    card = build_card(known)
    assert fact(card, "declared-use", "Decides about people") == "no"
    assert fact(card, "declared-use", "High-risk in the words of the AI Act, by") == "nothing"
    del known["decision"]["use_reading"]
    assert fact(build_card(known), "declared-use", "Decides about people") == "GAP"


def test_counts_that_the_contract_leaves_out_are_zero_and_not_gaps() -> None:
    known = samples.rich()
    del known["data"]["invalid_rows"]
    assert "invalid rows 0" in fact(build_card(known), "data", "Rows")


def test_cards_share_only_their_fixed_words() -> None:
    """With every value replaced, none of the old ones is left: what is no fixed word comes from what was given."""
    known = samples.rich()
    changed = replace(known)
    # Short words and numbers meet by chance.
    gone = {v for v in leaves(known) if isinstance(v, str) and len(v) > 6 and not v.isdigit()} - set(leaves(changed))
    assert len(gone) > 40
    assert len(gone & set(leaves(build_card(known)))) > 40
    # The card's own words, and keys of maps, which were not replaced.
    own = {"selection rate", "job.received", "approve", "race=black", "race=white"}
    assert gone & set(leaves(build_card(changed))) <= own


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    if isinstance(value, list):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]


def replace(value: Any) -> Any:
    """Other text wherever it is free, other numbers everywhere."""
    if isinstance(value, dict):
        return {k: v if k in ("name", "format", "unit") and "/" not in str(v) else replace(v) for k, v in value.items()}
    if isinstance(value, list):
        return [replace(v) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value + 17
    return value if value.isupper() else str(int(value) + 17) if value.isdigit() else f"zq{value}"


def test_the_interval_shown_is_the_one_that_was_judged() -> None:
    row = next(r for r in cells(build_card(samples.small()), "privacy") if r[0] == "canary auc")
    assert row[1:] == ["0.52", "0.42 to 0.62 (95 %)", "128", "–", "≤ 0.7", "PASS"]


def test_a_one_sided_interval_says_so() -> None:
    row = next(r for r in cells(build_card(samples.rich()), "privacy") if r[0] == "epsilon lower bound, nats")
    assert row[2] == "at least 0.1 (95 %)"
    assert row[6] == "no gate"


def test_what_only_bounds_stands_beside_the_interval_that_it_is_the_end_of() -> None:
    """A bound at 95 % lies outside the one at 90 %; whatever the order, and where a gate judges it, the gate's own."""
    known = samples.rich()
    bounds = [
        {"confidence": 0.9, "lower": 0.5},
        {"confidence": 0.95, "lower": 0.3},
        {"confidence": 0.975, "lower": 0.1},
    ]
    [bound] = [m for m in known["audit"]["measurements"] if m["name"] == "privacy.epsilon_lower_bound"]
    bound |= {"value": 0.3, "intervals": bounds}
    known["audit"]["measurements"].append({**bound, "name": "privacy.epsilon_excess", "value": 0.1})
    known["audit"]["measurements"].append({**bound, "name": "privacy.other_bound", "value": 0.2})
    upper = [{"confidence": b["confidence"], "upper": -b["lower"]} for b in bounds]
    known["audit"]["measurements"].append({**bound, "name": "privacy.upper_bound", "value": -0.3, "intervals": upper})

    def shown() -> dict[str, str]:
        return {r[0]: r[2] for r in cells(build_card(known), "privacy") if len(r) == 7}

    assert shown()["epsilon lower bound, nats"] == "at least 0.3 (95 %)"
    assert shown()["epsilon excess, nats"] == "at least 0.1 (97.5 %)"
    assert shown()["other bound, nats"] == "at least 0.3 (95 %)", "no end is the value: the usual level"
    assert shown()["upper bound, nats"] == "at most -0.3 (95 %)"
    known["decision"]["audit_plan"]["gates"].append({**samples.gate("privacy.epsilon_lower_bound", 1), "alpha": 0.1})
    assert shown()["epsilon lower bound, nats"] == "at least 0.5 (90 %)"


def test_the_base_stands_beside_the_tuned() -> None:
    card = build_card(samples.rich())
    row = next(r for r in cells(card, "quality") if r[0] == "test accuracy")
    assert row[1] == "0.89" and row[4] == "0.71 (base model)"
    plotted = next(r for r in plots(card, "privacy", "intervals")[0]["rows"] if r["label"] == "pii extraction rate")
    assert plotted["control"] == "0.005"


def test_a_measurement_without_a_number_is_a_gap_with_its_reason() -> None:
    card = build_card(samples.rich())
    row = next(r for r in cells(card, "fairness") if r[0] == "tpr difference [race]")
    assert row[1] == "GAP"
    assert ["tpr difference [race]", "a group has no favourable row"] in cells(card, "not-tested")
    assert not any(r["label"].startswith("tpr") for b in plots(card, "fairness", "intervals") for r in b["rows"])


def test_a_planned_gate_that_no_rule_judged_is_a_gap() -> None:
    known = samples.small()
    known["verdict"]["outcomes"] = []
    row = next(r for r in cells(build_card(known), "privacy") if r[0] == "canary auc")
    assert row[6] == "GAP"


def test_of_several_rules_on_one_measurement_the_worst_is_shown() -> None:
    known = samples.small()
    known["verdict"]["outcomes"] += [
        {**samples.outcome("B", "FAIL"), "measurement": "privacy.canary_auc"},
        {**samples.outcome("C", "INCONCLUSIVE"), "measurement": "privacy.canary_auc"},
    ]
    row = next(r for r in cells(build_card(known), "privacy") if r[0] == "canary auc")
    assert row[6] == "FAIL"


def test_an_outcome_unknown_to_this_version_is_never_better_than_a_pass() -> None:
    known = samples.small()
    known["verdict"]["outcomes"] += [{**samples.outcome("B", "NEW_WORD"), "measurement": "privacy.canary_auc"}]
    row = next(r for r in cells(build_card(known), "privacy") if r[0] == "canary auc")
    assert row[6] == "NEW_WORD"


def test_rules_name_source_caveat_and_the_n_that_would_decide() -> None:
    row = next(r for r in cells(build_card(samples.rich()), "rules-release") if r[0] == "REL-IMPACT-RATIO")
    assert row[1] == "INCONCLUSIVE"
    assert "n that would decide: 1210." in row[2] and "To pass: Measure on more rows." in row[2]
    assert row[3] == "binding: GDPR Art. 5(1)(b) – Caveat: withdrawn for credit since 2026"


def test_rules_that_did_not_pass_stand_in_the_summary() -> None:
    assert [r[:2] for r in cells(build_card(samples.rich()), "summary")] == [
        ["REL-IMPACT-RATIO", "INCONCLUSIVE"],
        ["REL-PII", "FAIL"],
    ]


def test_waivers_have_their_own_section_only_when_there_are_some() -> None:
    known = samples.rich()
    known["waivers"] = [
        {"rules": ["REL-PII"], "reason": "why", "compensating_control": "", "expires": "2026-12-01", "index": 9}
    ]
    card = build_card(known)
    assert [s["id"] for s in card["sections"]] == [*SECTIONS[:13], "waivers", *SECTIONS[13:]]
    assert cells(card, "waivers") == [["REL-PII", "why", "GAP", "2026-12-01", "GAP", "9"]]
    assert card["rules_waived"] == 1 and build_card(samples.rich())["rules_waived"] == 0
    known["waivers"].append({**known["waivers"][0], "rules": ["REL-PII", "REL-IMPACT-RATIO"]})
    assert build_card(known)["rules_waived"] == 2, "a rule that was waived twice is one"


def test_series_become_plots() -> None:
    card = build_card(samples.rich())
    lines = plots(card, "training", "curve")[0]["series"]
    assert [(s["label"], len(s["points"])) for s in lines] == [("train", 60), ("validation", 2)]
    exposure, scores = plots(card, "privacy", "strip")
    groups = [("in 1 row", 40), ("in 4 rows", 16), ("in none", 20)]
    assert [(g["label"], len(g["values"])) for g in exposure["groups"]] == groups
    assert [(g["label"], len(g["values"])) for g in scores["groups"]] == groups
    assert exposure["axis"] == "exposure, bits" and scores["axis"].startswith("NLL")
    rates = plots(card, "fairness", "intervals")[-1]
    assert [(r["label"], r["value"], r["note"]) for r in rates["rows"]] == [
        ("race=black", "0.7", "0.7, n 33"),
        ("race=white", "0.89", "0.89, n 231"),
    ]
    assert [g["label"] for g in plots(card, "overfitting", "strip")[0]["groups"]] == ["train", "test"]


def test_calibration_is_a_curve_and_shifts_stand_beside_their_placebo() -> None:
    card = build_card(samples.rich())
    [calibration] = plots(card, "quality", "curve")
    assert [s["label"] for s in calibration["series"]] == ["tuned", "perfect"]
    assert len(calibration["series"][0]["points"]) == 5
    shifts = next(p for p in plots(card, "fairness", "strip") if "exchanged" in p["title"])
    assert [(g["label"], len(g["values"])) for g in shifts["groups"]] == [("black", 40), ("placebo", 40)]
    tried = next(p for p in plots(card, "fairness", "strip") if "alternatives" in p["title"])
    assert [g["values"] for g in tried["groups"]] == [["0.7"], ["0.8"]]


def test_every_number_names_what_it_was_computed_from() -> None:
    """The page shows the beginning of each digest, the twin the whole of it."""
    known = samples.rich()
    for i, m in enumerate(known["audit"]["measurements"]):
        m["computed_from"] = f"{i:02d}" + "f" * 62
    card = build_card(known)
    shown = cells(card, "privacy")
    assert any("00" + "f" * 14 in row for row in shown)
    assert all(len(m["computed_from"]) == 64 for m in card["measurements"])


def test_regressions_have_a_section_when_something_of_them_was_measured() -> None:
    known = samples.rich()
    assert "regression" not in [s["id"] for s in build_card(known)["sections"]]
    known["audit"]["measurements"] += [
        {**samples.measurement("regression.forgetting_delta", 0.02), "unit": "nats"},
        {**samples.measurement("safety.refusal_preference_delta", -0.01)},
    ]
    rows = cells(build_card(known), "regression")
    assert {r[0] for r in rows} >= {"forgetting delta, nats", "refusal preference delta"}


def test_what_the_adapter_changes_was_measured_on_sealed_test_rows_and_no_public_set_is_claimed() -> None:
    """It is there in every profile, and in most of them nothing of a regression is."""
    known = samples.rich()
    known["audit"]["measurements"].append({**samples.measurement("adapter.change_of_loss", 0.4), "unit": "nats"})
    card = build_card(known)
    assert "regression" not in [s["id"] for s in card["sections"]] and "public sets" not in str(card)
    assert "change of loss, nats" in {r[0] for r in cells(card, "quality")}
    assert "sealed test rows" in section(card, "quality")["blocks"][0]["text"]


def test_a_plot_says_when_not_all_is_in_it() -> None:
    known = samples.rich()
    for i in range(20):
        name = f"privacy.extra_{i}"
        known["audit"]["measurements"].append(samples.measurement(name, 0.1))
        known["decision"]["audit_plan"]["gates"].append(samples.gate(name, 0.2))
    plot = plots(build_card(known), "privacy", "intervals")[0]
    assert len(plot["rows"]) == 14 and plot["title"].endswith("(the first 14 of 22)")


@pytest.mark.parametrize("format_", ["DATASET_FORMAT_CHAT_JSONL", "DATASET_FORMAT_DECISION_CSV"])
@pytest.mark.parametrize("id_", ["fairness", "quality", "overfitting"])
def test_a_family_without_a_number_is_not_measured_whatever_the_task(format_: str, id_: str) -> None:
    """That a profile leaves something out does not make it inapplicable: of chats other profiles compare names."""
    known = samples.small()
    known["dataset"]["format"] = format_
    [said] = section(build_card(known), id_)["blocks"]
    assert said["text"] == "Not measured; see what was not tested."


def test_the_summary_says_what_the_audit_was_asked_for() -> None:
    card = build_card(samples.rich())
    assert card["audit_profile"] == "quick"
    assert fact(card, "summary", "Audit profile") == "quick"
    assert fact(card, "summary", "Planned confidence levels of intervals") == "90 %, 95 %, 96.67 %"
    assert fact(card, "summary", "Seed of the audit's random choices") == "20261102"
    assert fact(build_card({}), "summary", "Audit profile") == "GAP"
    assert "Groups planned" not in str(section(card, "summary")), "a plan of before names none"
    known = samples.rich()
    known["decision"]["audit_plan"]["groups"] = ["race=white", "race=black"]
    assert fact(build_card(known), "summary", "Groups planned to be compared") == "race=white; race=black"


def test_earlier_tries_on_the_same_rows_are_counted_where_somebody_did() -> None:
    known = samples.rich()
    assert "Earlier jobs" not in str(section(build_card(known), "summary"))
    known["tries"] = {"judged": 3, "held_back": 2}
    assert fact(build_card(known), "summary", "Earlier jobs on these rows") == "3 judged, 2 held back"
    known["tries"] = {"judged": 0, "held_back": 0}
    assert fact(build_card(known), "summary", "Earlier jobs on these rows") == "0 judged, 0 held back"


def test_a_gate_that_the_profile_leaves_out_says_so_and_no_other_rule_does() -> None:
    bundle = load()
    gates = {rule.id for rule in bundle.rules if rule.gate is not None}
    assert gates and all(id_.startswith("GATE-") for id_ in gates), "by this a card knows a gate"
    words = [json_format.MessageToDict(asking.not_applicable(rule), preserving_proto_field_name=True)
             for rule in bundle.rules if rule.id in ("GATE-REFUSALS", "REL-EFFECT")]  # fmt: skip
    early = {**samples.outcome("GATE-EARLY", "NOT_APPLICABLE"), "message": "takes effect on 2027-01-01"}
    known = samples.rich()
    known["verdict"]["outcomes"] = [*words, early, samples.outcome("GATE-PASSED", "PASS")]
    said = {row[0]: row[2] for row in cells(build_card(known), "rules-release")}
    assert len(said) == 4
    asked = " – its conditions do not hold for this request"
    assert said["GATE-REFUSALS"].endswith(f"{asked} – not asked of this model in profile quick")
    assert said["REL-EFFECT"].endswith(asked)
    assert "not asked" not in said["GATE-EARLY"] + said["GATE-PASSED"]
    del known["decision"]["audit_plan"]["profile"]
    assert "not asked of this model" not in str(build_card(known))


def test_how_to_read_it_says_what_gates_and_conditions_and_waivers_do() -> None:
    text = " ".join(b["text"] for b in section(build_card({}), "reading")["blocks"])
    for said in (
        "an n below the plan", "at the gate's own level and not at the corrected one", "a plain condition",
        "unless every such rule was waived by a named person", "which for an AUC is 0.5",
    ):  # fmt: skip
        assert said in text
    assert "not deployable" not in text


def test_a_probe_that_did_not_hold_is_named() -> None:
    known = samples.rich()
    known["training"]["isolation"] = {"method": "bwrap", "proven": False, "probes": {"no_route": False, "keys": True}}
    rows = cells(build_card(known), "isolation")
    assert ["training", "bwrap", "no", "1 of 2 held", "4" * 64] in rows
    assert ["training: no_route"] in rows


def test_what_changes_the_facts_changes_the_card() -> None:
    known = samples.rich()
    before = canonical.encode(build_card(known))
    known["audit"]["measurements"][0]["value"] += 1e-12
    assert canonical.encode(build_card(known)) != before


def test_the_data_section_names_rows_with_reasons_and_what_the_detector_finds() -> None:
    text = str(parts_of(samples.rich()["data"]))
    assert "0.999 [0.992, 1.000], n 731" in text and "0.829 [0.802, 0.853], n 881" in text
    assert "A names" in text and "0.992, n 731" in text
    assert "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 …" in text and "Screens that found nothing: REPEATED_ROW." in text
    assert "'HARMFUL_ANSWER', 'harmful answers in English that name the act', '41 of 107', '29.1 to 48.2 %'" in text
    assert "'harmless answers', '0 of 104', '0.0 to 3.5 %'" in text, "what the contract leaves out is zero"
    assert "LABEL_NAN" in text and "3 rows were refused" in text
    assert parts_of({}) == []


def test_the_data_section_sets_the_labels_of_each_group_beside_the_reference() -> None:
    rows = {row[0]: row[1:] for row in cells(build_card(samples.rich()), "data") if len(row) == 7}
    assert rows["race=black"] == [
        "197", "121", "0.614 [0.545, 0.679]", "0.790", "0.283 [0.216, 0.353]", "0.685 [0.608, 0.758]",
    ]  # fmt: skip
    assert rows["race=white"] == ["1,680", "1,507", "0.897 [0.882, 0.911]", "–", "–", "reference"]
    assert rows["race=asian"] == ["–", "–", "inconclusive: fewer than 10 rows", "–", "–", "–"]
    why = "inconclusive: kept back, as a smaller group could be worked out from it"
    assert rows["race=hispanic"] == ["–", "–", why, "–", "–", "–"]
    assert "1607.4(D)" in str(parts_of(samples.rich()["data"]))
    without = samples.rich()["data"] | {"group_labels": []}
    assert "1607.4(D)" not in str(parts_of(without))


def test_the_data_section_says_what_the_sealed_test_cannot_speak_for() -> None:
    known = samples.rich()
    plain = str(section(build_card(known), "data"))
    assert "parent model" not in plain.lower() and "too few rows" not in plain
    known["data"] |= {"parent_rows": "1200", "unread_parents": "1", "untested_groups": {"race=asian": "0"}}
    card = build_card(known)
    assert fact(card, "data", "Rows that a parent model was trained on, all kept in train") == "1,200"
    lost = fact(card, "data", "Parent models whose training rows are not kept any more")
    assert lost == "1: nobody can say whether the sealed test holds such rows"
    assert ["race=asian"] in cells(card, "data")


def test_the_counts_of_faults_say_what_they_leave_out_where_it_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "zoo_notes.json"
    assert detection.noted(path) == {}
    shares = {f"detected_as_such{end}": value for end, value in (("", 3), ("_low", 0.15), ("_high", 0.95))}
    row = {"fault": "leak", "strength": "x4", "told": "in four rows", "profile": "quick", "n": 5, "detected": 4,
           "low": 0.28, "high": 0.99, "looked_for": ["REL-PII-CENSUS"], "effect": None, "stopped": 5,
           "jobs_refused": 0, "jobs_failed": 0, "twin_as_such": 1, "twin_n": 6, "grep_only": 2, "grep_n": 4,
           **shares}  # fmt: skip
    assert [b["kind"] for b in detection.missed([row])["blocks"]] == ["paragraph", "table"]
    notes = {"not_asked": ["GATE-A", "GATE-B"], "not_run": ["forgetting noise 0.1"], "judged_by": "9" * 64,
             "counted_at": []}  # fmt: skip
    path.write_text(json.dumps(notes))
    [line] = next(b for b in detection.missed([row])["blocks"] if b["kind"] == "table")["rows"]
    assert line[3:5] == ["4 of 5, 28 to 99 % (grep 2 of 4)", "3 of 5, 15 to 95 % (twin 1 of 6)"]
    whole, begun = (detection.missed([{**row, "planned": n}])["blocks"] for n in (5, 12))
    assert (
        len(whole) == 2 and begun[2]["text"] == "The count is not whole. Audited, of so many planned: leak x4 5 of 12."
    )
    said = [b["text"] for b in detection.missed([row], detection.noted(path))["blocks"][2:]]
    assert len(said) == 3, "nothing is said of what is empty or not there"
    assert said[0].endswith("how often they miss: GATE-A, GATE-B.")
    assert said[1] == "Faults of which no cell was run yet: forgetting noise 0.1."
    assert said[2].endswith(f"limits of this digest: {'9' * 64}.")


def test_each_quoted_figure_stands_beside_what_it_came_to() -> None:
    rows = {row[0]: row[1:] for row in cells(build_card(samples.rich()), "cost")}
    assert rows["train seconds, seconds"] == ["304", "200.5", "supervisors' clocks"]
    assert rows["energy, Wh"] == ["not quoted", "12.1", "RAPL"]
    assert rows["hosting usd, usd"] == ["24", "forecast 441.5", "forecast, not spent"]
    assert rows["hosting time, months"][:2] == ["6", "not known"]
