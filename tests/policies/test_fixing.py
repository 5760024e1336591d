"""The minimal fix: applied to a corpus of deliberately bad requests it makes them pass, and no part of it is idle."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest

from assay.v1 import dataset_pb2, policy_input_pb2, policy_pb2
from policies import fixing, testing
from policies.engine import PolicyEngine
from policies.pack import load
from policies.rule import GOOD, Pack
from policies.testing import _put

Question = policy_input_pb2.IntakeInput
WELL_KNOWN = {"smollm2-135m-instruct": ("Apache-2.0", "0b" * 32)}
FAULTS: dict[str, tuple[dict[str, object], ...]] = {
    "both": (
        {"request.purpose": "marketing-profiles"},
        {"datasheet.purposes": []},
        {"base_model.id": "other-7b", "base_model.licence": "LicenseRef-research-only"},
        {"request.method": "full"},
        {"request.method": "distillation"},
        {"request.method": "distillation", "request.teacher": {"name": "x", "licence_source": "requester"}},
        {"request.teacher": {"name": "x", "licence": "mit", "licence_source": "requester"}},
        {"request.search": {"lora_ranks": [1, 2, 3, 4], "learning_rates": [1e-5, 1e-4, 1e-3]}},
        {"request.search": {"lora_ranks": [1, 2]}, "request.differential_privacy": {"epsilon": 4, "delta": 0.000001}},
        {"request.search": {"lora_ranks": [1, 2]}, "data.selection_rows": 3},
        {"request.audit_profile": "none"},
        {"datasheet.legal_basis": None},
        {"datasheet.licence": ""},
        {"datasheet.classification": None},
        {"datasheet.retention_days": 7300},
        {"datasheet.retention_days": None},
        {"datasheet.provenance": "tickets"},
        {"datasheet.residency": "us"},
        {"datasheet.classification": "CLASSIFICATION_CONFIDENTIAL", "datasheet.residency": "any"},
        {"data.invalid_rows": 700, "data.rows": 9000},
        {"data.longest_row_tokens": 9000},
        {"data.pii_row_share": 0.93},
        {"datasheet.legal_basis": "LEGAL_BASIS_NO_PERSONAL_DATA", "data.pii_row_share": 0.15},
        {"datasheet.classification": "CLASSIFICATION_RESTRICTED"},
        {"request.differential_privacy": {"epsilon": 4, "delta": 0.000001}},
        {"datasheet.classification": "CLASSIFICATION_RESTRICTED", "request.differential_privacy": {"epsilon": 9}},
        {"request.budget_usd_micros": 1000},
        {"request.budget_usd_micros": 0},
        {"request.max_train_tokens": 900},
        {"request.epochs": 40.0, "request.planned_train_tokens": 24_000_000},
        {"account.unit_usd_micros": 999_950_000},
    ),
    "chat": ({"data.duplicate_rows": 540}, {"data.test_rows": 30}, {"data.test_rows": 85}),
    "table": (
        {"datasheet.sensitive_attributes": []},
        {"datasheet.sensitive_attributes": ["ethnicity"], "datasheet.hidden_columns": ["ethnicity"]},
        {"datasheet.hidden_columns": []},
        {"datasheet.favourable_label": "granted"},
    ),
}


OWNERS = {"BASE-CLASSIFICATION", "BASE-RESIDENCY", "BASE-RESIDENCY-NAMED"}
"""What only the owner of the data can say."""


def derive(question: Question) -> None:
    """What the gateway works out again; an unknown base model stays unknown."""
    if question.base_model.id in WELL_KNOWN:
        question.base_model.licence, question.base_model.sha256 = WELL_KNOWN[question.base_model.id]
    fixing.planned_tokens(question)


def corpus(clean: dict[str, Question]) -> list[tuple[str, Question]]:
    """Every fault alone, and three hundred drawn sets of two to four."""
    draw = random.Random(7)
    out = []
    for name, question in clean.items():
        faults = FAULTS["both"] + FAULTS[name]
        chosen = [(fault,) for fault in faults]
        chosen += [tuple(draw.sample(faults, draw.choice((2, 2, 3, 4)))) for _ in range(150)]
        for combined in chosen:
            changed = testing.json_format.MessageToDict(question, preserving_proto_field_name=True)
            for path, value in itertools.chain.from_iterable(fault.items() for fault in combined):
                _put(changed, path, value)
            out.append((name, testing.json_format.ParseDict(changed, Question())))
    return out


@pytest.fixture
def clean(chat: Question, table: Question) -> dict[str, Question]:
    return {"chat": chat, "table": table}


def fired(engine: PolicyEngine, question: Question) -> set[str]:
    return {o.rule_id for o in engine.decide(question).outcomes if o.outcome not in GOOD}


def test_the_fix_makes_bad_requests_pass(engine: PolicyEngine, clean: dict[str, Question]) -> None:
    bad = [(name, question) for name, question in corpus(clean) if not engine.decide(question).allowed]
    assert len(bad) > 300
    passed = owners = 0
    for _, question in bad:
        stated = fired(engine, question) & OWNERS
        search = fixing._Search(engine, question, derive)
        fix = search.run()
        after = fixing.apply(question, search.steps, derive)
        allowed = engine.decide(after).allowed
        passed += allowed
        owners += bool(stated)
        assert allowed == (not fix.left), "what is said to pass, passes; and what is not, is named"
        assert stated <= set(fix.left), "how sensitive the rows are and where they must stay is never put into a mouth"
        assert all(step.words and step.rule_ids for step in fix.steps) and (fix.steps or stated)
    asked = len(bad) - owners
    print(
        f"minimal fix: {passed} of {asked} bad requests pass after it, {100 * passed / asked:.1f} %; {owners} owners'"
    )
    assert owners > 50 and passed / asked >= 0.95
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
    assert f"On {asked} deliberately bad requests of one to four faults, applying the fix passes in {passed}" in page


def test_restricted_data_is_offered_differential_privacy_and_no_other_word(
    engine: PolicyEngine, chat: Question
) -> None:
    chat.datasheet.classification = dataset_pb2.CLASSIFICATION_RESTRICTED
    (step,) = fixing.minimal_fix(engine, chat, derive).steps
    assert (step.field, step.before) == ("request.differential_privacy", "nothing")
    assert step.words == "Set request.differential_privacy: nothing now, epsilon 8, delta 1e-05 would pass."
    # A method without it is changed for one that has it.
    chat.request.method = "qlora"
    steps = {step.field: step.after for step in fixing.minimal_fix(engine, chat, derive).steps}
    assert steps == {"request.differential_privacy": "epsilon 8, delta 1e-05", "request.method": "lora"}


def test_a_step_that_declares_says_that_it_must_be_true(engine: PolicyEngine, chat: Question) -> None:
    chat.datasheet.ClearField("legal_basis")
    chat.request.purpose = "marketing-profiles"
    chat.request.audit_profile = "none"
    words = {step.field: step.words for step in fixing.minimal_fix(engine, chat, derive).steps}
    assert words["datasheet.legal_basis"].endswith(
        "would pass, where it is true; the owner of the data answers for it."
    )
    assert words["request.purpose"].endswith("would pass, where it is true; whoever asks answers for it.")
    assert words["request.audit_profile"] == "Set request.audit_profile: none now, quick would pass."


def test_no_pack_has_a_move_for_how_sensitive_data_is_or_where_it_must_stay() -> None:
    moved = {repair.field for rule in load().rules for repair in rule.repairs}
    assert moved & {"datasheet.classification", "datasheet.residency"} == set()


def test_no_step_is_idle_and_no_number_moves_further_than_it_must(
    engine: PolicyEngine, clean: dict[str, Question]
) -> None:
    draw = random.Random(11)
    for _, question in draw.sample(corpus(clean), 40):
        search = fixing._Search(engine, question, derive)
        if search.run().left:
            continue
        for step in search.steps:
            rest = [other for other in search.steps if other is not step]
            assert not engine.decide(fixing.apply(question, rest, derive)).allowed
            less = None
            if step.repair.move in fixing._ROW_MOVES and step.amount > 1:
                less = fixing.Step(step.rule, step.repair, step.amount - 1)
            elif step.repair.move == "lower" and isinstance(step.amount, float):
                less = fixing.Step(step.rule, step.repair, step.amount * 1.02)
            if less is not None:
                nearer = [less if other is step else other for other in search.steps]
                assert not engine.decide(fixing.apply(question, nearer, derive)).allowed, step


def test_rows_to_redact_are_named(engine: PolicyEngine, chat: Question) -> None:
    chat.data.pii_row_share = 0.35
    (step,) = fixing.minimal_fix(engine, chat, derive).steps
    assert step.kind == policy_pb2.FixStep.KIND_REDACT_SPANS and step.after == "90" and list(step.rows) == [3, 8, 21]
    assert list(step.rule_ids) == ["BASE-PII-CEILING"]
    # By hand: 210 of 600 rows are flagged, and 20 % of 600 are 120.
    assert int(step.after) == 210 - math.floor(0.20 * 600)


def test_a_number_is_lowered_to_what_fits(engine: PolicyEngine, chat: Question) -> None:
    chat.request.epochs, chat.request.max_train_tokens = 2.0, 20_000
    (step,) = fixing.minimal_fix(engine, chat, derive).steps
    assert (step.kind, step.field) == (policy_pb2.FixStep.KIND_LOWER_NUMBER, "request.epochs")
    assert float(step.after) == pytest.approx(20_000 / chat.data.train_tokens, rel=0.01)


def test_a_protected_column_that_nobody_declared_is_hidden_at_least(engine: PolicyEngine, table: Question) -> None:
    table.data.columns.append("Gender")
    assert fired(engine, table) == {"BASE-UNDECLARED-GROUPS"}
    (step,) = fixing.minimal_fix(engine, table, derive).steps
    assert (step.field, step.after) == ("datasheet.hidden_columns", "race, Gender")


def test_an_artefact_is_asked_for_by_its_kind() -> None:
    bundle: Pack = load()
    engine = testing.engine_of(bundle, "gdpr")
    cases = {case.name: case for case in testing.read_cases(bundle)}
    fix = fixing.minimal_fix(engine, cases["no lineage"].intake, derive)
    (step,) = fix.steps
    assert (step.kind, step.field) == (policy_pb2.FixStep.KIND_ADD_ARTEFACT, "LIN") and "lineage" in step.words


def test_a_chain_above_a_third_of_the_original_compute_passes_with_the_documents_or_with_fewer_tokens() -> None:
    bundle: Pack = load()
    engine = testing.engine_of(bundle, "eu-ai-act")
    cases = {case.name: case for case in testing.read_cases(bundle)}
    question = cases["a chain of models above a third together, without them"].intake
    question.as_of = "2026-08-02"
    assert fired(engine, question) == {"AIA-53"}
    (step,) = fixing.minimal_fix(engine, question).steps
    assert (step.kind, step.field) == (policy_pb2.FixStep.KIND_ADD_ARTEFACT, "COPYRIGHT, INSTRUCTIONS")
    rule = next(rule for rule in bundle.rules if rule.id == "AIA-53")
    lower = next(repair for repair in rule.repairs if repair.move == "lower")
    sized = fixing._Search(engine, question, fixing.planned_tokens)._sized(rule, lower)
    assert sized is not None and 0.99 <= sized.amount < 1, "the chain is one token over"
    after = fixing.apply(question, [sized])
    assert engine.decide(after).allowed
    total = after.request.planned_train_tokens + after.request.parent.train_tokens
    assert total <= 6e14 / (6 * question.base_model.parameters)


def test_what_the_house_must_mend_is_left(engine: PolicyEngine, chat: Question) -> None:
    chat.data.canaries_inserted = 3
    chat.request.purpose = "marketing"
    fix = fixing.minimal_fix(engine, chat, derive)
    assert list(fix.left) == ["BASE-CANARIES"] and [step.field for step in fix.steps] == ["request.purpose"]


def test_an_allowed_request_needs_nothing_and_a_hostile_one_ends(engine: PolicyEngine, chat: Question) -> None:
    assert fixing.minimal_fix(engine, chat, derive).steps == []
    nothing = fixing.minimal_fix(engine, Question(format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL), derive)
    assert nothing.left and nothing.questions <= fixing.MAX_QUESTIONS
