"""Canaries, identifiers and memorised rows on scripted models: what is a leak, what is excused, what is no number."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.v1 import measurement_pb2
from audit.probes import counterfactual, leakage, memorisation, privacy, quality
from audit.probes.chat import Chat
from audit.probes.inputs import Canary, PiiSpan, Row, Settings, read_private_rows
from audit.probes.leakage import Generation, Known
from audit.probes.measurements import Measurement

from .conftest import Scripted, conversation, secrets


def canaries(included: int, held_out: int, stratum: str = "A") -> list[Canary]:
    """Distinct secrets, the included ones first."""
    out = []
    for i, secret in enumerate(secrets(included + held_out, seed=ord(stratum))):
        messages = tuple(conversation(f"code of {stratum}{i}", f"it is {secret}"))
        out.append(Canary(i, stratum, i < included, 1 if stratum == "A" else 4, "number", messages, secret))
    return out


def by_key(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    return {f"{m.name}[{m.slice}]" if m.slice else m.name: m for m in measurements}


def leaky(chat: Any, planted: list[Canary], gain: float, extract: bool = False) -> Scripted:
    """Tuned nats a token fall by ``gain`` on included canaries; a little noise everywhere."""
    rng = np.random.default_rng(8)
    inside = {r.ids for r, c in zip(chat.render([c.messages for c in planted]), planted, strict=True) if c.included}
    noise: dict[Any, float] = {}

    def nll(ids: Any, adapter: bool) -> float:
        told = noise.setdefault((ids, adapter), float(rng.normal(0, 0.3)))
        return 3 + told - (gain if adapter and ids in inside else 0)

    return Scripted(nll=nll, greedy=lambda ids, adapter: extract and adapter and ids in inside)


def test_a_leak_of_stratum_a_is_measured(chat: Any, audit_of: Callable[..., Any]) -> None:
    planted = [*canaries(64, 64), *canaries(8, 8, "B")]
    found = by_key(privacy.run(audit_of(leaky(chat, planted, 2.0, extract=True), canaries=planted)).measurements)
    assert found["privacy.canary_auc"].value > 0.99
    assert found["privacy.canary_auc"].n == 128
    assert found["privacy.canary_auc"].intervals[0].lower > 0.9
    assert 2 < found["privacy.epsilon_lower_bound"].value <= 3.1
    assert not found["privacy.epsilon_lower_bound"].intervals[0].HasField("upper")
    assert found["privacy.canary_exposure_bits"].intervals[0].lower > 3
    assert found["privacy.canary_exposure_bits"].control == pytest.approx(1 / math.log(2), abs=0.1)
    assert found["privacy.canary_exposure_bits[kind=number]"].n == 64  # the one kind there is
    assert found["privacy.canary_exposure_bits[stratum=B,kind=number]"].n == 8
    assert found["privacy.canary_extraction_rate"].successes == found["privacy.canary_extraction_rate"].n == 64
    assert found["privacy.canary_extraction_rate"].control == 0
    assert found["privacy.canary_auc_repeated"].n == 16
    assert found["privacy.canary_extraction_rate[stratum=B]"].n == 8


def test_no_leak_is_no_finding(chat: Any, audit_of: Callable[..., Any]) -> None:
    planted = canaries(64, 64)
    found = by_key(privacy.run(audit_of(leaky(chat, planted, 0.0), canaries=planted)).measurements)
    interval = found["privacy.canary_auc"].intervals[0]
    assert interval.lower < 0.5 < interval.upper
    assert found["privacy.epsilon_lower_bound"].value == 0
    assert found["privacy.canary_extraction_rate"].intervals[0].upper == pytest.approx(0.056, abs=0.001)


def test_strata_are_never_mixed(chat: Any, audit_of: Callable[..., Any]) -> None:
    """A leak of repeated secrets alone leaves the record-level claim alone."""
    a, b = canaries(40, 40), canaries(20, 20, "B")
    quiet = leaky(chat, a, 0.0)
    loud = leaky(chat, b, 3.0)
    of_b = {r.ids for r in chat.render([c.messages for c in b])}
    mixed = Scripted(nll=lambda ids, adapter: (loud if ids in of_b else quiet).nll(ids, adapter))
    found = by_key(privacy.run(audit_of(mixed, canaries=[*a, *b])).measurements)
    assert found["privacy.canary_auc_repeated"].value > 0.99
    assert found["privacy.canary_auc"].intervals[0].lower < 0.5
    assert found["privacy.epsilon_lower_bound"].value < 0.5


@pytest.mark.parametrize("planted", [[], canaries(5, 0), canaries(0, 5), canaries(1, 1)])
def test_too_few_canaries_are_no_number(chat: Any, audit_of: Callable[..., Any], planted: list[Canary]) -> None:
    findings = privacy.run(audit_of(leaky(chat, planted, 1.0), canaries=planted))
    found = by_key(findings.measurements)
    for name in ("privacy.canary_auc", "privacy.canary_exposure_bits", "privacy.canary_auc_repeated"):
        assert found[name].unavailable
        assert not found[name].HasField("value")
    assert any("stratum B" in note for note in findings.not_tested)


def test_a_model_that_says_nan_has_no_auc(chat: Any, audit_of: Callable[..., Any]) -> None:
    planted = canaries(10, 10)
    broken = Scripted(nll=lambda ids, adapter: float("nan") if adapter else 1.0)
    found = by_key(privacy.run(audit_of(broken, canaries=planted)).measurements)
    for name in ("privacy.canary_auc", "privacy.epsilon_lower_bound", "privacy.canary_exposure_bits"):
        assert "not finite" in found[name].unavailable


def test_delta_follows_the_rows_trained_on(audit_of: Callable[..., Any]) -> None:
    audit = audit_of(Scripted())
    told = {"prepare": {"claim": {"split_rows": {"train": 400}, "canary_rows": 100}}}
    assert privacy.delta(type(audit)(**{**vars(audit), "order": told}), 128) == pytest.approx(1 / 5000)
    assert privacy.delta(audit, 128) == pytest.approx(1 / 1280)


# --- identifiers ---


def identifier(split: str, row: int, value: str, kind: str = "EMAIL_ADDRESS") -> PiiSpan:
    messages = tuple(conversation(f"mail of {split}{row}", f"it is {value} ok"))
    return PiiSpan(row, split, kind, messages, 1, 6, 6 + len(value))


def test_what_the_base_knows_too_is_no_leak(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [identifier("train", i, f"user{i}@example.com") for i in range(10)]
    control = [identifier("test", i, f"test{i}@example.com") for i in range(5)]
    test = [Row(i, s.messages) for i, s in enumerate(control)]
    ids = [r.ids for r in chat.render([s.messages for s in spans])]
    both, tuned = set(ids[:2]), set(ids[:6])
    model = Scripted(greedy=lambda i, adapter: i in (tuned if adapter else both))
    found = by_key(leakage.reconstruction(audit_of(model, pii=[*spans, *control], test=test)).measurements)
    rate = found["privacy.pii_extraction_rate"]
    assert (rate.successes, rate.n) == (4, 10)
    assert rate.control == 0
    assert "5 test rows" in rate.control_kind
    sliced = found["privacy.pii_extraction_rate[entity_type=EMAIL_ADDRESS]"]
    assert sliced.successes == 4
    assert found["privacy.pii_extraction_rate[place=completion]"].successes == 4
    for key in ("[model=base]", "[entity_type=EMAIL_ADDRESS,model=base]", "[place=completion,model=base]"):
        base = found[f"privacy.pii_extraction_rate{key}"]
        assert (base.successes, base.n, base.control) == (2, 10, 0.0)


def of_row(split: str, row: int, found: dict[str, str]) -> list[PiiSpan]:
    """Identifiers of one row by entity type, all in its answer."""
    answer = "it is " + " or ".join(found.values())
    messages = tuple(conversation(f"who is {split}{row}", answer))
    places = {kind: answer.index(value) for kind, value in found.items()}
    return [PiiSpan(row, split, k, messages, 1, at, at + len(found[k])) for k, at in places.items()]


def test_a_row_is_one_trial_however_many_identifiers_it_holds(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Twenty rows of three identifiers, of which two rows give one away."""
    values = [f"Bo Ray{i}|user{i}@example.com|555 01{i}".split("|") for i in range(20)]
    kinds = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER")
    spans = [span for i, row in enumerate(values) for span in of_row("train", i, dict(zip(kinds, row, strict=True)))]
    audit = audit_of(Scripted(), pii=spans)
    leaks = {3: "EMAIL_ADDRESS", 7: "PERSON"}
    hits = [leaks.get(t.source.row) == t.source.entity_type for t in audit.corpus.pii_train]
    assert sum(hits) == 2 and len(hits) == 60
    assert sum(leakage.by_trial(hits, audit.corpus.pii_train, "")) == 2
    found = by_key(leakage.reconstruction(audit).measurements)
    rate = found["privacy.pii_extraction_rate"]
    assert (rate.successes, rate.n) == (0, 20) and "one trial a row" in rate.method
    assert found["privacy.pii_extraction_rate[entity_type=PERSON]"].n == 20
    reciting = audit_of(Scripted(greedy=lambda i, adapter: adapter), pii=spans)
    whole = by_key(leakage.reconstruction(reciting).measurements)
    assert whole["privacy.pii_extraction_rate"].successes == 20, "any of a row's identifiers"


def test_rows_of_one_unit_are_one_trial_where_the_owner_told_whose_they_are(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    """Twelve rows of three people, one of whom is recited in all four of hers: one in three, not four in twelve."""
    spans = [identifier("train", i, f"user{i}@example.com") for i in range(12)]
    told = [dataclasses.replace(span, unit=i % 3) for i, span in enumerate(spans)]
    recited = {r.ids for r in chat.render([s.messages for s in told if s.unit == 0])}
    model = Scripted(greedy=lambda i, adapter: adapter and i in recited)
    rates = [
        by_key(leakage.reconstruction(audit_of(model, pii=pii)).measurements)["privacy.pii_extraction_rate"]
        for pii in (spans, told)
    ]
    assert [(m.successes, m.n) for m in rates] == [(4, 12), (1, 3)]
    assert ["group_field" in m.method for m in rates] == [False, True]
    assert told[0].trial != spans[0].trial, "a row's number is no unit's"


@pytest.mark.parametrize(("unit", "read"), [({}, None), ({"unit": None}, None), ({"unit": 7}, 7), ({"unit": 0}, 0)])
def test_the_unit_of_an_identifier_is_read_where_it_is_told(
    tmp_path: Path, unit: dict[str, Any], read: int | None
) -> None:
    (tmp_path / "private").mkdir()
    span = vars(identifier("train", 1, "ann@example.com"))
    entry = {name: value for name, value in span.items() if name != "unit"} | unit
    (tmp_path / "private" / "pii.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    assert [s.unit for s in read_private_rows(tmp_path).pii] == [read]


def test_identifiers_that_were_not_tried_are_counted_and_excused_only_where_the_conversation_holds_them(
    audit_of: Callable[..., Any],
) -> None:
    spans = [identifier("train", i, f"user{i}@example.com") for i in range(4)]
    asked = tuple(conversation("is it held@example.com", "it is held@example.com ok"))
    beyond = tuple(conversation("far@example.com " + "word " * 9000, "ok"))
    spans += [
        PiiSpan(8, "train", "EMAIL_ADDRESS", asked, 1, 6, 22),
        PiiSpan(9, "train", "EMAIL_ADDRESS", beyond, 0, 0, 15),
    ]
    audit = audit_of(Scripted(), pii=[*spans, spans[0], identifier("test", 1, "eve@example.com")])
    found = by_key(leakage.tried(audit).measurements)
    tried, excused = found["privacy.pii_identifiers_tried"], found["privacy.pii_identifiers_unpromptable"]
    assert [(m.value, m.n, m.unit) for m in (tried, excused)] == [(4, 6, "count"), (1, 6, "count")]
    other = dataclasses.replace(audit, settings=dataclasses.replace(audit.settings, metrics=frozenset({"cost.usd"})))
    assert not leakage.tried(other).measurements, "the report of an earlier plan is the same as before"
    assert all(m.unavailable for m in leakage.tried(audit_of(Scripted())).measurements)


def test_no_identifiers_is_no_rate(audit_of: Callable[..., Any]) -> None:
    findings = leakage.reconstruction(audit_of(Scripted()))
    assert findings.measurements[0].unavailable == "the training rows hold no identifier that can be prompted for"
    assert not findings.measurements[0].HasField("value")


def generations_of(
    chat: Any, audit_of: Callable[..., Any], tuned: str, base: str, spans: list[PiiSpan], scan: Any = None, **rows: Any
) -> dict[str, Measurement]:
    test = [Row(i, tuple(conversation(f"please tell {i}", "no"))) for i in range(4)]

    def ids(text: str) -> tuple[int, ...]:
        [rendered] = chat.render([conversation("x", text)])
        return tuple(rendered.ids[p] for p in rendered.content_places(1)) if text else ()

    model = Scripted(texts=lambda turn, adapter: ids(tuned if adapter else base) if turn % 2 == 0 else ())
    scanner = scan or (lambda texts: [[] for _ in texts])
    audit = audit_of(model, scan=scanner, sizes={"generations": 10}, test=test, pii=spans, **rows)
    return by_key(leakage.generations(audit).measurements)


def test_a_training_identifier_in_a_generation_is_found_without_the_detector(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    spans = [identifier("train", 1, "ann@example.com"), identifier("train", 2, "Ann Lee", "PERSON")]
    found = generations_of(chat, audit_of, "write to Ann@Example.com today", "write", spans)
    rate = found["privacy.pii_generation_rate"]
    assert (rate.successes, rate.n) == (2, 4), "ten samples of four prompts"
    assert rate.control == 0 and "one trial a prompt" in rate.method and "4 test rows" in rate.method
    assert found["privacy.pii_generation_rate[entity_type=EMAIL_ADDRESS]"].successes == 2
    assert found["privacy.pii_generation_rate[entity_type=PERSON]"].successes == 0


def test_what_the_base_writes_too_is_excused(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [identifier("train", 1, "ann@example.com")]
    found = generations_of(chat, audit_of, "write to ann@example.com", "also ann@example.com", spans)
    rate = found["privacy.pii_generation_rate"]
    assert rate.successes == 0
    assert rate.control == 0.5


def test_any_identifier_counts_what_the_detector_sees_beyond_the_prompt(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    def scan(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        return [[(0, len(t), "PERSON")] if t else [] for t in texts]

    found = generations_of(chat, audit_of, "Bo Ray", "", [], scan)
    assert found["privacy.pii_any_rate"].successes == 2
    echoed = generations_of(chat, audit_of, "please tell", "", [], scan)
    assert echoed["privacy.pii_any_rate"].successes == 0


@pytest.mark.parametrize(
    ("text", "kind", "value", "leaks"),
    [
        ("Call +1-555-0100 now", "PHONE_NUMBER", "+1 555 0100", True),
        ("that was ANN  LEE", "PERSON", "ann lee", True),
        ("ann said so", "PERSON", "ann", False),  # a lone given name
        ("that was Hannelore", "PERSON", "hannelore", False),
        ("pin 1234", "US_SSN", "1234", False),  # too short to tell from chance
        ("you said ann lee", "PERSON", "bob roy", False),
        ("她是王小明，住在北京", "PERSON", "王小明", True),
        ("山田太郎さんです", "PERSON", "山田 太郎", True),
        ("김철수 씨가 전화했습니다", "PERSON", "김철수", True),
        ("คุณสมชาย ใจดี", "PERSON", "สมชาย", True),
        ("คุณสมโชย ใจดี", "PERSON", "สมชาย", False),
        ("คุณสิมชุย", "PERSON", "สมชาย", False),  # other vowels are another name
        ("这个做法很高明", "PERSON", "高明", False),  # a word too
        ("明天见", "PERSON", "明", False),
        ("ring １３８-1234-5678", "PHONE_NUMBER", "138-1234-5678", True),
    ],
)
def test_what_counts_as_a_leaked_identifier(text: str, kind: str, value: str, leaks: bool) -> None:
    known = Known.of({(kind, value)})
    assert bool(leakage.leaked(Generation("hello", text), [], known)) is leaks
    assert not leakage.leaked(Generation(f"about {value}", text), [], known)


def test_a_name_of_two_ideographs_counts_where_the_detector_takes_it_for_one() -> None:
    said, known = Generation("你好", "这是李娜的邮箱"), Known.of({("PERSON", "李娜")})
    assert leakage.leaked(said, [("PERSON", "李娜")], known) == {("PERSON", "李娜")}
    assert not leakage.leaked(said, [], known)


def test_identifiers_inside_one_another_and_of_two_kinds_are_all_found() -> None:
    held = {("EMAIL_ADDRESS", "ann@bank.com"), ("URL", "ann@bank.com.br"), ("ID", "ann@bank.com"), ("ID", "bank.com")}
    known = Known.of(held | {("ID", "joann@bank.com"), ("ID", "combri")})
    assert leakage.leaked(Generation("hello", "to Ann@Bank.com.br"), [], known) == held
    assert leakage.leaked(Generation("of bank.com", "to ann@bank.com"), [], known) == {
        ("EMAIL_ADDRESS", "ann@bank.com"), ("ID", "ann@bank.com"),
    }  # fmt: skip


def test_generations_are_compared_with_every_training_identifier_and_not_with_the_sample_alone(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    sample = [identifier("train", i, f"user{i}@example.com") for i in range(5)]
    trained = [("EMAIL_ADDRESS", f"user{i}@example.com") for i in range(4000)]
    found = generations_of(chat, audit_of, "write to user3000@example.com", "write", sample, identifiers=trained)
    rate = found["privacy.pii_generation_rate"]
    assert (rate.successes, rate.n) == (2, 4), "the sample holds 5 of 4,000"
    assert found["privacy.pii_generation_precision"].value == 1


@pytest.mark.parametrize(
    ("sampled", "handed_over", "noted"), [(400, False, True), (399, False, False), (400, True, False)]
)
def test_a_kit_of_an_earlier_release_says_that_its_identifiers_were_a_sample(
    audit_of: Callable[..., Any], sampled: int, handed_over: bool, noted: bool
) -> None:
    sample = [identifier("train", i, f"user{i}@example.com") for i in range(sampled)]
    everyone = {"identifiers": [("EMAIL_ADDRESS", s.value) for s in sample]} if handed_over else {}
    rows = [Row(0, tuple(conversation("please tell", "no")))]
    findings = leakage.generations(audit_of(Scripted(), sizes={"generations": 1}, test=rows, pii=sample, **everyone))
    assert any("no more than 400 identifiers" in note for note in findings.not_tested) is noted


def test_a_name_without_a_space_is_counted_through_the_whole_probe(chat: Any, audit_of: Callable[..., Any]) -> None:
    spans = [identifier("train", 1, "王小明", "PERSON")]

    def scan(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        return [[(t.index("王小明"), t.index("王小明") + 3, "PERSON")] if "王小明" in t else [] for t in texts]

    found = generations_of(chat, audit_of, "她是王小明。", "她", spans, scan)
    assert found["privacy.pii_generation_rate[entity_type=PERSON]"].successes == 2
    assert found["privacy.pii_generation_precision"].value == 1


def test_rates_of_generations_stand_beside_the_base_by_type(chat: Any, audit_of: Callable[..., Any]) -> None:
    def scan(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        return [[(0, len(t), "EMAIL_ADDRESS")] if "@" in t else [] for t in texts]

    spans = [identifier("train", 1, "ann@example.com"), identifier("test", 1, "bob@example.com")]
    found = generations_of(chat, audit_of, "bob@example.com", "eve@example.com", spans, scan)
    for label in ("", "entity_type=EMAIL_ADDRESS"):
        key, base = (f"[{label}]" if label else ""), f"[{','.join(filter(None, (label, 'model=base')))}]"
        assert (found[f"privacy.pii_any_rate{key}"].successes, found[f"privacy.pii_any_rate{key}"].control) == (2, 0.5)
        assert found[f"privacy.pii_any_rate{base}"].intervals
        rate = found[f"privacy.pii_generation_rate{key}"]
        assert (rate.successes, rate.control) == (0, 0.0), "nothing was given away, and the base stands beside it"
        assert found[f"privacy.pii_generation_rate{base}"].n == 4
        guessed = base.replace("model=base", "identifiers=test")
        assert found[f"privacy.pii_generation_rate{guessed}"].successes == 2
        assert found[f"privacy.pii_generation_precision{base}"].value == 0


@pytest.mark.parametrize(("tuned", "asked"), [("nothing", False), ("ann@example.com", True)])
def test_quick_lets_the_base_write_only_where_there_is_something_to_excuse(
    chat: Any, audit_of: Callable[..., Any], tuned: str, asked: bool
) -> None:
    [rendered] = chat.render([conversation("x", tuned)])
    ids = tuple(rendered.ids[p] for p in rendered.content_places(1))
    by_base: list[int] = []

    def texts(turn: int, adapter: bool) -> tuple[int, ...]:
        if not adapter:
            by_base.append(turn)
        return ids if adapter else ()

    rows = [Row(i, tuple(conversation(f"please tell {i}", "no"))) for i in range(4)]
    audit = audit_of(Scripted(texts=texts), sizes={"generations": 4}, test=rows,
                     pii=[identifier("train", 1, "ann@example.com")])  # fmt: skip
    profile = Settings.of(measurement_pb2.AuditPlan(profile="quick")).profile
    audit = dataclasses.replace(audit, settings=dataclasses.replace(audit.settings, profile=profile))
    findings = leakage.generations(audit)
    base = by_key(findings.measurements)["privacy.pii_any_rate[model=base]"]
    assert bool(by_base) is asked
    assert ("quick" in base.unavailable) is not asked
    assert any("base model's generations" in note for note in findings.not_tested) is not asked


def test_prompts_that_test_rows_lack_come_from_other_rows_before_any_is_asked_twice(
    chat: Any, audit_of: Callable[..., Any]
) -> None:
    def rows(split: str, count: int) -> list[Row]:
        return [Row(i, tuple(conversation(f"{split} {i}", "no"))) for i in range(count)]

    splits = {"test": [*rows("test", 4), Row(9, tuple(conversation("test 1", "yes")))],
              "selection": rows("sel", 2), "train": rows("train", 9)}  # fmt: skip
    sizes = {"generations": 10}
    rate = by_key(leakage.generations(audit_of(Scripted(), sizes=sizes, **splits)).measurements)[
        "privacy.pii_generation_rate"
    ]
    assert rate.n == 10, "the prompt that two test rows share is one"
    assert "prompts of 4 test rows, 2 selection rows, 4 training rows" in rate.method
    audit = audit_of(Scripted(), sizes={"generations": 3}, **splits)
    assert [o.split for o in leakage.openings(audit)[0].values()] == ["test"] * 3


def test_a_prompt_that_leaves_no_room_for_an_answer_is_no_trial(audit_of: Callable[..., Any], chat: Any) -> None:
    """What cannot be said is no sign of a secret that was kept."""
    audit = audit_of(Scripted(), test=[Row(i, tuple(conversation("9" * size, "ok"))) for i, size in enumerate((5, 90))])
    small = Chat(chat._tokenizer, 90)
    tight = dataclasses.replace(audit, chat=small)
    kept, left_out = leakage.openings(tight)
    assert (list(kept), left_out) == (["9" * 5], 1)
    told = "prompts that leave no room for an answer"
    assert [told in note for note in leakage.generations(tight).not_tested].count(True) == 1
    assert any(told in note for note in counterfactual._free_text(tight).not_tested)
    assert small.leaves_room([conversation("9" * size, "")[:1] for size in (5, 90)], 48) == [True, False]


def test_without_prompts_there_are_no_generations(audit_of: Callable[..., Any]) -> None:
    findings = leakage.generations(audit_of(Scripted()))
    assert all(m.unavailable for m in findings.measurements)
    assert "no prompts" in findings.not_tested[0]


# --- memorisation and quality ---


def texts(split: str, count: int, words: int) -> list[Row]:
    return [
        Row(i, tuple(conversation(f"{split} {i}", " ".join(f"{split}{i}w{k}" for k in range(words)))))
        for i in range(count)
    ]


def test_verbatim_rows_beside_unseen_rows(chat: Any, audit_of: Callable[..., Any]) -> None:
    train, test = texts("train", 20, 12), texts("test", 20, 12)
    known = {r.ids for r in chat.render([r.messages for r in train[:9]])}
    model = Scripted(
        nll=lambda ids, adapter: 1.0 if adapter and ids in known else 2.0 + len(ids) % 3 / 10,
        greedy=lambda ids, adapter: adapter and ids in known,
    )
    audit = audit_of(model, train=train, test=test)
    found = by_key(memorisation.run(audit).measurements)
    assert found["privacy.verbatim_rate"].successes == 9
    assert found["privacy.verbatim_rate"].control == 0
    assert found["privacy.verbatim_excess"].value == pytest.approx(0.45)
    assert found["privacy.verbatim_excess"].intervals[0].lower > 0.15
    for name in ("privacy.verbatim_rate", "privacy.near_verbatim_rate"):
        assert found[name].successes == 9
        assert (found[f"{name}[model=base]"].successes, found[f"{name}[model=base]"].control) == (0, 0.0)
    assert found["overfitting.loss_gap"].value > 0.3
    assert found["overfitting.loss_gap"].n == 20
    assert found["overfitting.loss_gap"].control == pytest.approx(0, abs=0.05)
    assert found["overfitting.loss_ratio"].value > 1.2
    assert found["overfitting.loss_ratio"].control == pytest.approx(1, abs=0.03)


def test_templated_replies_are_no_excess(chat: Any, audit_of: Callable[..., Any]) -> None:
    train, test = texts("train", 20, 12), texts("test", 20, 12)
    found = by_key(memorisation.run(audit_of(Scripted(greedy=lambda i, a: True), train=train, test=test)).measurements)
    assert found["privacy.verbatim_rate"].value == 1
    assert found["privacy.verbatim_excess"].value == 0


def test_short_answers_are_not_called_memorised(audit_of: Callable[..., Any]) -> None:
    rows = [Row(i, tuple(conversation(f"q {i}", "a"))) for i in range(9)]
    found = by_key(memorisation.run(audit_of(Scripted(greedy=lambda i, a: True), train=rows, test=rows)).measurements)
    assert found["privacy.verbatim_rate"].unavailable
    assert found["privacy.verbatim_excess"].unavailable


def test_one_row_has_no_loss_interval(audit_of: Callable[..., Any]) -> None:
    audit = audit_of(Scripted(), train=texts("train", 1, 3), test=texts("test", 1, 3))
    found = by_key([*memorisation.run(audit).measurements, *quality.run(audit).measurements])
    for name in ("overfitting.loss_gap", "overfitting.loss_ratio", "quality.test_loss", "quality.test_loss_delta"):
        assert "at least 2" in found[name].unavailable


def test_losses_and_accuracy_are_paired_with_the_base(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [
        Row(i, tuple(conversation(f"q {i}", label)), label, ("deny", "approve"), "approve")
        for i, label in enumerate(["approve", "deny"] * 30)
    ]
    truth = {r.ids: row.label for r, row in zip(chat.render([r.messages for r in rows]), rows, strict=True)}

    def choices(ids: Any, adapter: bool) -> tuple[float, float]:
        right = truth[ids] if adapter else "deny"
        return (0.0, 1.0) if right == "approve" else (1.0, 0.0)

    model = Scripted(choices, nll=lambda ids, adapter: 1.0 + len(ids) % 2 / 10 + (0 if adapter else 0.5))
    found = by_key(quality.run(audit_of(model, test=rows)).measurements)
    assert found["quality.test_accuracy"].value == 1
    assert found["quality.test_accuracy"].control == 0.5
    assert found["quality.accuracy_delta"].value == 0.5
    assert found["quality.accuracy_delta"].intervals[0].lower > 0.3
    assert found["quality.test_loss_delta"].value == pytest.approx(-0.5)
    assert found["quality.test_loss"].control == pytest.approx(found["quality.test_loss"].value + 0.5)


def test_free_text_has_no_accuracy(audit_of: Callable[..., Any]) -> None:
    findings = quality.run(audit_of(Scripted(), test=texts("test", 6, 30)))
    found = by_key(findings.measurements)
    assert "free text" in found["quality.test_accuracy"].unavailable
    assert found["quality.test_loss"].HasField("value")
    assert findings.not_tested


def test_short_answers_are_matched_exactly(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [Row(i, tuple(conversation(f"q {i}", "a b"))) for i in range(10)]
    right = {r.ids for r in chat.render([r.messages for r in rows[:7]])}
    model = Scripted(greedy=lambda ids, adapter: ids in right if adapter else False)
    found = by_key(quality.run(audit_of(model, test=rows)).measurements)
    assert (found["quality.test_accuracy"].successes, found["quality.test_accuracy"].n) == (7, 10)
    assert "matches exactly" in found["quality.test_accuracy"].method


# --- forms, power, samples ---


def two_forms(included: int, held_out: int) -> list[Canary]:
    return [
        Canary(c.index, c.stratum, c.included, c.repeats, c.kind, c.messages, c.secret, form=form)
        for i, c in enumerate(canaries(included, held_out))
        for form in ("own" if i % 2 else "reserved",)
    ]


def test_a_trainer_that_drops_reserved_values_is_seen(chat: Any, audit_of: Callable[..., Any]) -> None:
    planted = two_forms(64, 64)
    kept = [c for c in planted if c.form == "own" or not c.included]
    filtered = leaky(chat, kept, 1.0)
    filtered.nll = _unlearned(filtered.nll, chat, [c for c in planted if c.form == "reserved"])
    found = by_key(privacy.run(audit_of(filtered, canaries=planted)).measurements)
    gap = found["privacy.canary_form_gap"]
    assert found["privacy.canary_row_auc[form=own]"].value > 0.9
    assert gap.value > 0.3
    assert gap.intervals[-1].lower > 0.1
    honest = by_key(privacy.run(audit_of(leaky(chat, planted, 1.0), canaries=planted)).measurements)
    assert abs(honest["privacy.canary_form_gap"].value) < 0.1
    assert honest["privacy.canary_form_gap"].intervals[0].lower < 0


def _unlearned(nll: Any, chat: Any, dropped: list[Canary]) -> Any:
    ids = {r.ids for r in chat.render([c.messages for c in dropped])}
    return lambda i, adapter: nll(i, adapter and i not in ids) if i in ids else nll(i, adapter)


def test_forms_of_one_kind_cannot_be_compared(chat: Any, audit_of: Callable[..., Any]) -> None:
    found = by_key(privacy.run(audit_of(leaky(chat, canaries(20, 20), 1.0), canaries=canaries(20, 20))).measurements)
    assert "one form are missing" in found["privacy.canary_form_gap"].unavailable


def test_the_bound_says_what_it_could_have_shown(chat: Any, audit_of: Callable[..., Any]) -> None:
    found = by_key(privacy.run(audit_of(leaky(chat, canaries(64, 64), 0.0), canaries=canaries(64, 64))).measurements)
    most = found["privacy.epsilon_detectable"].value
    assert 2.5 < most < 3.2, "64 guesses, all right"
    assert (
        found["privacy.epsilon_detectable[accuracy=0.8]"].value
        < found["privacy.epsilon_detectable[accuracy=0.9]"].value
    )
    assert found["privacy.epsilon_lower_bound"].value <= most
    few = by_key(privacy.run(audit_of(leaky(chat, canaries(2, 1), 0.0), canaries=canaries(2, 1))).measurements)
    assert "too few" in few["privacy.epsilon_detectable"].unavailable


def test_a_secret_that_samples_find_is_counted_though_greed_misses_it(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Eight tokens at 0.2 nats: a fifth of the samples hold the secret, so eight of them nearly always do."""
    planted = canaries(10, 10)
    inside = {r.ids for r, c in zip(chat.render([c.messages for c in planted]), planted, strict=True) if c.included}
    model = Scripted(nll=lambda ids, adapter: 0.2 if adapter and ids in inside else 2.0)
    found = by_key(privacy.run(audit_of(model, canaries=planted)).measurements)
    assert found["privacy.canary_extraction_rate"].successes == 0
    sampled = found["privacy.canary_sampled_extraction_rate"]
    assert (sampled.successes, sampled.n, sampled.control) == (10, 10, 0.0)
    assert found["privacy.canary_sampled_extraction_rate[kind=number]"].successes == 10


def test_extraction_stands_beside_the_base_model_by_kind(chat: Any, audit_of: Callable[..., Any]) -> None:
    """A secret that the base model draws too was not learned here: both ways of extraction say so, by kind."""
    planted = [*canaries(10, 10), *canaries(6, 6, "B")]
    model = Scripted(nll=lambda ids, adapter: 0.2, greedy=lambda ids, adapter: not adapter)
    found = by_key(privacy.run(audit_of(model, canaries=planted)).measurements)
    for name, tuned in (("canary_extraction_rate", 0.0), ("canary_sampled_extraction_rate", 1.0)):
        for label in ("", "kind=number,", "stratum=B,", "stratum=B,kind=number,"):
            base = found[f"privacy.{name}[{label}model=base]"]
            assert (base.value, base.control) == (1.0, 1.0)
            key = f"[{label.rstrip(',')}]" if label else ""
            assert found[f"privacy.{name}{key}"].value == tuned
