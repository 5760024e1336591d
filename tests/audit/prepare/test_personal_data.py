from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest

from assay.pii import ENTITY_TYPES, PiiScanner, Span
from assay.pii_health import RESTRICTED_ZIP3
from audit.prepare.actions import Actor, PiiAction
from audit.prepare.detector import Quality, measure, quality_of
from audit.prepare.labelled import Label, LabelledText, labelled_set
from audit.prepare.rows import Row
from audit.prepare.safe_harbor import CLASSES, coverage, media_refused
from audit.prepare.text_checks import check_text

KEY = b"k" * 32
TEXT = "Maria Schmidt, born 03/12/1984, aged 93, ZIP 62704 and 03601, mail m@example.org"


def row(*texts: str, label: str = "") -> Row:
    roles = ("system", "user", "assistant")[-len(texts) :]
    return Row(1, [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)], label=label)


def spans(text: str, **values: str) -> list[Span]:
    return sorted(Span(text.index(v), text.index(v) + len(v), k, 0.9) for k, v in values.items())


FOUND = spans(
    TEXT,
    PERSON="Maria Schmidt",
    DATE_TIME="03/12/1984",
    AGE_OVER_89="93",
    ZIP_CODE="62704",
    EMAIL_ADDRESS="m@example.org",
)


def test_reporting_leaves_the_text_and_names_the_direct_identifiers() -> None:
    acted = Actor(PiiAction.REPORT, KEY).act(row(TEXT, "ok"), [FOUND, []])
    assert acted.row.messages[0]["content"] == TEXT and acted.replaced == 0 and acted.direct
    assert [i.entity_type for i in acted.row.identifiers] == ["PERSON", "EMAIL_ADDRESS"]


def test_redacting_keeps_what_safe_harbor_lets_stand() -> None:
    small = spans(TEXT, ZIP_CODE="03601")
    acted = Actor(PiiAction.REDACT, KEY).act(row(TEXT, "ok"), [sorted(FOUND + small), []])
    assert acted.row.messages[0]["content"] == (
        "[PERSON], born [DATE_TIME 1984], aged [AGE_OVER_89 90+], ZIP [ZIP_CODE 627**] and [ZIP_CODE 000**], "
        "mail [EMAIL_ADDRESS]"
    )
    assert acted.replaced == 6 and acted.row.identifiers == () and len(RESTRICTED_ZIP3) == 17


def test_a_year_that_gives_away_an_age_over_89_goes_too() -> None:
    text = "Born 4 May 1931."
    acted = Actor(PiiAction.REDACT, KEY).act(row(text, "ok"), [spans(text, DATE_TIME="4 May 1931"), []])
    assert acted.row.messages[0]["content"] == "Born [DATE_TIME]."


def test_a_pseudonym_is_the_same_for_the_same_value_and_another_under_another_key() -> None:
    def once(text: str, value: str, key: bytes = KEY) -> str:
        acted = Actor(PiiAction.PSEUDONYMISE, key).act(row(text, "ok"), [spans(text, PERSON=value), []])
        return acted.row.messages[0]["content"]

    first, again = once("I am Maria Schmidt", "Maria Schmidt"), once("maria  schmidt here", "maria  schmidt")
    code = first.removeprefix("I am ")
    assert again == f"{code} here" and code.startswith("[PERSON-") and "Maria" not in code
    assert once("I am Maria Schmidt", "Maria Schmidt", b"x" * 32) != first
    assert once("I am Jana Schmidt", "Jana Schmidt") != first


def test_refusing_names_the_kinds_and_not_the_values() -> None:
    acted = Actor(PiiAction.REFUSE, KEY).act(row(TEXT, "ok"), [FOUND, []])
    assert [p.code for p in acted.problems] == ["PERSONAL_DATA"] * 2
    assert "EMAIL_ADDRESS" in acted.problems[0].reason and "example" not in str(acted.problems)
    assert not Actor(PiiAction.REFUSE, KEY).act(row("It rains.", "ok"), [[], []]).problems


def test_the_answer_of_a_decision_table_is_never_replaced() -> None:
    acted = Actor(PiiAction.REDACT, KEY).act(row("x", "Paris", label="Paris"), [[], spans("Paris", LOCATION="Paris")])
    assert acted.row.messages[1]["content"] == "Paris" and acted.replaced == 0


def test_the_rejected_answer_of_a_pair_is_replaced_too() -> None:
    pair = replace(row("hi", "hello"), rejected="Maria Schmidt")
    acted = Actor(PiiAction.REDACT, KEY).act(pair, [[], [], spans("Maria Schmidt", PERSON="Maria Schmidt")])
    assert acted.row.rejected == "[PERSON]"


def test_the_labelled_set_is_the_same_every_time_and_its_labels_point_at_values() -> None:
    texts = list(labelled_set(400))
    assert texts == list(labelled_set(400)) and texts[:5] != list(labelled_set(5, seed=1))
    kinds = {label.entity_type for t in texts for label in t.labels}
    assert ENTITY_TYPES - kinds == {"NRP"}
    assert all(0 <= label.start < label.end <= len(t.text) for t in texts for label in t.labels)


def test_quality_counts_overlaps_of_the_same_type() -> None:
    texts = [
        LabelledText("Ann Lee or Bo", (Label(0, 7, "PERSON", "x"), Label(11, 13, "PERSON", "y"))),
        LabelledText("42", ()),
    ]
    scan = [[Span(4, 9, "PERSON", 1.0), Span(11, 13, "LOCATION", 1.0)], [Span(0, 2, "PERSON", 1.0)]]
    q = measure(lambda _: scan, texts)
    assert q["PERSON"] == Quality("PERSON", 2, 1, 2, 1)
    assert (q["PERSON:x"].found, q["PERSON:y"].found, q["LOCATION"].right) == (1, 0, 0)
    recall, lower, upper = q["PERSON"].recall
    assert recall == 0.5 and lower == pytest.approx(0.0126, abs=1e-4) and upper == pytest.approx(0.9874, abs=1e-4)
    assert Quality("X", 0, 0, 0, 0).recall == (0.0, 0.0, 1.0)


def test_figures_are_kept_for_one_detector_and_hold_when_measured_again() -> None:
    scanner = PiiScanner()
    scanner.warm_up()
    kept = json.loads(files("audit.prepare").joinpath("detector_quality.json").read_text("utf-8"))
    assert kept["detector"] == scanner.identity, "run: python -m audit.prepare.detector"
    quality = quality_of(scanner)
    again = measure(lambda texts: scanner.scan(texts), list(labelled_set(500)))
    for name, q in again.items():
        if ":" not in name and q.labelled >= 9:
            assert q.recall[2] >= quality[name].recall[0] and quality[name].recall[2] >= q.recall[1], name


@pytest.mark.slow
def test_the_kept_figures_are_those_of_the_whole_set() -> None:
    scanner = PiiScanner()
    assert measure(lambda texts: scanner.scan(texts), list(labelled_set())) == quality_of(scanner)


class _Other:
    """A detector with another identity that finds nothing."""

    identity = "another"

    def scan(self, texts: list[str]) -> list[list[Span]]:
        return [[] for _ in texts]


def test_another_detector_does_not_borrow_the_figures() -> None:
    quality = quality_of(_Other())  # type: ignore[arg-type]
    assert quality["PERSON"].found == 0 and quality["PERSON"].labelled > 500


def test_safe_harbor_18_of_18_with_recall_and_interval_each(capsys: pytest.CaptureFixture[str]) -> None:
    scanner = PiiScanner()
    table = coverage(quality_of(scanner), {"PERSON": 3}, 0, removed=True)
    with capsys.disabled():
        print("\nclass  n      recall  lower  covered by")
        for letter, c in table.items():
            print(f"{letter}      {c.n:<6} {c.recall:.3f}   {c.recall_lower:.3f}  {c.detector or c.alternative}")
    assert "".join(table) == "ABCDEFGHIJKLMNOPQR" == "".join(c.letter for c in CLASSES)
    for c in table.values():
        assert bool(c.detector) != bool(c.alternative)
        assert c.n >= 100 and 0.9 <= c.recall_lower <= c.recall <= 1 and c.removed
    assert (table["A"].found, table["Q"].found) == (3, 0)


def test_media_in_text_is_refused_and_prose_is_not() -> None:
    assert media_refused(60) == 60
    for text in ("word " * 400, "A" * 500, "a1" * 300, "https://example.org/" + "path/" * 60, "0123456789abcdef" * 30):
        assert not check_text(text, "x", ())
