from __future__ import annotations

import random
import socket
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import IntegrityError, InvalidInputError, UnavailableError
from assay.pii import (
    RULES_VERSION,
    PiiConfig,
    PiiScanner,
    Span,
    is_direct_identifier,
    resolve_overlaps,
    spaced,
    windows,
)
from assay.pii_health import luhn_valid
from assay.pii_names import Gazetteer
from assay.pii_pool import ScannerPool

PLANTED = {
    "EMAIL_ADDRESS": ("Write to maria.schmidt@example.org today.", "maria.schmidt@example.org"),
    "PHONE_NUMBER": ("You can call me at (212) 555-0142 after six.", "(212) 555-0142"),
    "CREDIT_CARD": ("My card is 4111 1111 1111 1111, please charge it.", "4111 1111 1111 1111"),
    "IBAN_CODE": ("Pay to DE89 3704 0044 0532 0130 00 by Friday.", "DE89 3704 0044 0532 0130 00"),
    "US_SSN": ("His social security number is 219-09-9999.", "219-09-9999"),
    "PERSON": ("Yesterday Maria Schmidt visited the branch.", "Maria Schmidt"),
    "IP_ADDRESS": ("The request came from 192.168.10.4.", "192.168.10.4"),
}


@pytest.fixture(scope="module")
def scanner() -> PiiScanner:
    return PiiScanner()


def scan_one(scanner: PiiScanner, text: str) -> list[Span]:
    return next(scanner.scan([text]))


@pytest.mark.parametrize("entity_type", sorted(PLANTED))
def test_planted_identifier_is_found_at_its_place(scanner: PiiScanner, entity_type: str) -> None:
    text, value = PLANTED[entity_type]
    found = [(s.entity_type, text[s.start : s.end]) for s in scan_one(scanner, text)]
    assert (entity_type, value) in found
    assert any(is_direct_identifier(s, text) for s in scan_one(scanner, text))


@pytest.mark.parametrize(
    "card",
    ["2223003122003222", "5555555555554444", "378282246310005", "6304000000000000", "6011000990139424", "501800000009"],
)
def test_cards_of_networks_that_presidio_lacks(scanner: PiiScanner, card: str) -> None:
    text = f"Paid with {card} at the till."
    assert [s.entity_type for s in scan_one(scanner, text)] == ["CREDIT_CARD"]


@pytest.mark.parametrize("length", range(11, 21))
def test_cards_of_12_to_19_digits_are_found_and_no_others(scanner: PiiScanner, length: int) -> None:
    body = ("6304" + "271828182845904523")[: length - 1]
    right, *wrong = sorted((body + d for d in "0123456789"), key=lambda n: not luhn_valid(n))
    for number in (right, wrong[0]):
        text = f"Paid with {number} at the till."
        found = [text[s.start : s.end] for s in scan_one(scanner, text) if s.entity_type == "CREDIT_CARD"]
        assert found == ([number] if number == right and 12 <= length <= 19 else [])


@pytest.mark.parametrize(
    "text",
    [
        "Paid with 4111111111111112 at the till.",  # Luhn fails
        "The vote was 3 to 2.",
        "reach us @ the fair, or a@b, or x@y.1",
        "",
        "P = 0.032, n=1234",
    ],
)
def test_what_identifies_nobody_is_no_direct_identifier(scanner: PiiScanner, text: str) -> None:
    kinds = {s.entity_type for s in scan_one(scanner, text) if is_direct_identifier(s, text)}
    assert not kinds & {"CREDIT_CARD", "EMAIL_ADDRESS", "PERSON", "IBAN_CODE", "US_SSN"}


def test_intranet_address_counts_with_a_lower_score(scanner: PiiScanner) -> None:
    text = "Ask anna.b@mail.corp for the key, or bob@example.com."
    found = {text[s.start : s.end]: s.score for s in scan_one(scanner, text) if s.entity_type == "EMAIL_ADDRESS"}
    assert found == {"anna.b@mail.corp": 0.5, "bob@example.com": 1.0}


def test_batch_equals_single(scanner: PiiScanner) -> None:
    rng = random.Random(3)
    texts = [
        rng.choice(list(PLANTED.values()))[0] + " " + rng.choice(["Thanks, Bob.", "", "x" * rng.randrange(90)])
        for _ in range(40)
    ]
    small = PiiScanner(PiiConfig(batch_size=7))
    single = [scan_one(scanner, t) for t in texts]
    assert list(scanner.scan(texts)) == single
    assert list(small.scan(iter(texts))) == single


def test_long_text_is_scanned_to_its_end_and_no_span_counts_twice(scanner: PiiScanner) -> None:
    filler = "All is quiet in the valley today. "
    text = ""
    for i in range(12):
        text += filler * 17 + f"Write to person{i}@example.org now. "
    found = [text[s.start : s.end] for s in scan_one(scanner, text) if s.entity_type == "EMAIL_ADDRESS"]
    assert found == [f"person{i}@example.org" for i in range(12)]


def test_identity_names_versions_and_the_checked_digest(scanner: PiiScanner) -> None:
    assert "presidio-analyzer 2." in scanner.identity
    assert PiiConfig().ner_sha256 in scanner.identity
    assert scanner.identity == PiiScanner().identity


def test_nothing_reaches_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fresh = PiiScanner()
    text = "Write to maria.schmidt@unknown.example or to bob@example.co.uk."
    assert len(scan_one(fresh, text)) >= 2


def test_other_weights_are_refused_before_loading() -> None:
    with pytest.raises(IntegrityError) as caught:
        scan_one(PiiScanner(PiiConfig(ner_sha256="0" * 64)), "x")
    assert caught.value.reason == "PII_MODEL_DIGEST"


def test_missing_model_says_how_to_get_it() -> None:
    with pytest.raises(UnavailableError) as caught:
        scan_one(PiiScanner(PiiConfig(model="no_such_model_package")), "x")
    assert caught.value.reason == "PII_MODEL_MISSING"
    assert caught.value.remedy


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"overlap": 1000}, {"score_threshold": 2.0}])
def test_bad_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        PiiConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "direct"),
    [
        ("Maria Schmidt", True),
        ("Ludwig van Beethoven", True),
        ("Anne-Marie O'Neill", True),
        ("Maria", False),
        ("a Viber Account", False),
        ("n=1234", False),
        ("Room 12", False),
        ("王小明", True),
        ("李娜", True),
        ("山田 太郎", True),
        ("ジョン・スミス", True),
        ("김철수", True),
        ("สมชาย ใจดี", True),
        ("明", False),
        ("さくら", False),
        ("王小明,", False),
        ("คุณสมชาย ใจดี อยู่ที่กรุงเทพ", False),
    ],
)
def test_person_counts_as_direct_only_as_a_full_name(text: str, direct: bool) -> None:
    assert is_direct_identifier(Span(0, len(text), "PERSON", 0.85), text) is direct


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café, at 9\u2009o’clock", ["Café,", "at", "9", "o’clock"]),
        ("第3章 GPT", ["第", "3", "章", "GPT"]),
        ("カードです", list("カードです")),
        ("ขอบ", list("ขอบ")),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_only_scripts_without_spaces_are_set_apart_by_character(text: str, words: list[str]) -> None:
    assert spaced(text).split() == words
    assert spaced("plain, naïve") == "plain, naïve"


def test_rules_that_count_names_without_spaces_are_not_told_as_those_before() -> None:
    """Figures of two scans are compared only where their rules are the same; version 2 knew no such name."""
    assert RULES_VERSION >= 3


def test_date_and_place_are_reported_but_not_direct() -> None:
    assert not any(is_direct_identifier(Span(0, 4, t, 1.0), "York") for t in ("DATE_TIME", "LOCATION", "NRP"))


spans = st.builds(
    lambda a, n, t, s: Span(a, a + n, t, s),
    st.integers(0, 40),
    st.integers(1, 12),
    st.sampled_from(["PERSON", "DATE_TIME", "EMAIL_ADDRESS"]),
    st.sampled_from([0.4, 0.85, 1.0]),
)


@given(st.lists(spans, max_size=12))
def test_resolved_spans_never_overlap_and_every_loser_met_a_winner(candidates: list[Span]) -> None:
    kept = resolve_overlaps(candidates)
    assert kept == sorted(kept)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    for span in candidates:
        assert any(span.start < k.end and k.start < span.end for k in kept)


@given(st.integers(0, 3000), st.integers(50, 400), st.integers(0, 24))
def test_windows_own_the_whole_text_once(length: int, window: int, overlap: int) -> None:
    pieces = windows("x" * length, window, overlap)
    owned = [(a, b) for _, _, a, b in pieces]
    assert owned[0][0] == 0 and owned[-1][1] == length
    assert all(a[1] == b[0] for a, b in pairwise(owned))
    assert all(s <= a <= b <= e and e - s <= window for s, e, a, b in pieces)


HEALTH = {
    "MEDICAL_RECORD_NUMBER": ("Seen today, MRN 00482913, no allergies.", "00482913"),
    "HEALTH_PLAN_NUMBER": ("Medicare beneficiary 1EG4-TE5-MK73 was billed.", "1EG4-TE5-MK73"),
    "VEHICLE_ID": ("The car 1HGCM82633A004352 was recalled.", "1HGCM82633A004352"),
    "DEVICE_SERIAL": ("Pacemaker serial no. SN-882713-X failed.", "SN-882713-X"),
    "FAX_NUMBER": ("Phone (212) 555-0142, fax (212) 555-0143.", "(212) 555-0143"),
    "AGE_OVER_89": ("A 93-year-old man fell.", "93"),
    "ZIP_CODE": ("We deliver to Salem, OR 97301 on Fridays.", "97301"),
    "STREET_ADDRESS": ("Ship it to 42 Old Mill Lane, Apt 3, please.", "42 Old Mill Lane, Apt 3"),
    "LICENCE_NUMBER": ("NPI number 1234567893 referred her.", "1234567893"),
    "US_BANK_NUMBER": ("Debit my checking account 0012345678.", "0012345678"),
    "UNIQUE_CODE": ("Employee ID KX-204418 opened it.", "KX-204418"),
    "URL": ("See https://example.org/u/4411 for more.", "https://example.org/u/4411"),
}


@pytest.mark.parametrize("entity_type", sorted(HEALTH))
def test_identifier_that_presidio_lacks_is_found_at_its_place(scanner: PiiScanner, entity_type: str) -> None:
    text, value = HEALTH[entity_type]
    assert (entity_type, value) in [(s.entity_type, text[s.start : s.end]) for s in scan_one(scanner, text)]


@pytest.mark.parametrize(
    "text",
    [
        "She is 34 years old and weighs 93 kilograms.",
        "The part 1HGCM82633A0O4352 does not exist.",  # no vehicle number holds an O
        "Take 2 tablets twice a day for 10 days.",
        "Serial entrepreneurs met in the plan room.",
        "Fax machines are rare in 2024.",
    ],
)
def test_words_that_name_an_identifier_are_none_without_a_value(scanner: PiiScanner, text: str) -> None:
    kinds = {s.entity_type for s in scan_one(scanner, text)}
    assert not kinds & (set(HEALTH) - {"STREET_ADDRESS"})


def test_names_that_the_network_misses_are_found_by_the_list(scanner: PiiScanner) -> None:
    text = "Ask Morgan King, Eliza, or Dr Vanterpool about it."
    names = [text[s.start : s.end] for s in scan_one(scanner, text) if s.entity_type == "PERSON"]
    assert names == ["Morgan King", "Eliza", "Vanterpool"]


@pytest.mark.parametrize("text", ["Will grant programmes end in May?", "The Rose Garden is closed.", "Jordan River"])
def test_words_that_are_also_names_are_no_persons(text: str) -> None:
    assert Gazetteer().find(text) == []


def test_a_street_identifies_only_with_its_number() -> None:
    assert is_direct_identifier(Span(0, 12, "STREET_ADDRESS", 0.9), "42 Mill Lane")
    assert not is_direct_identifier(Span(0, 9, "STREET_ADDRESS", 0.9), "Mill Lane")


def test_several_processes_find_what_one_finds(scanner: PiiScanner) -> None:
    texts = [t for t, _ in [*PLANTED.values(), *HEALTH.values()]] * 5
    with ScannerPool(scanner, 3) as pool:
        assert list(pool.scan(texts)) == list(scanner.scan(texts))
        assert list(pool.scan([])) == []


def test_a_dead_process_of_the_pool_is_named(scanner: PiiScanner) -> None:
    with ScannerPool(scanner, 2) as pool:
        pool._forks[0][0].kill()
        pool._forks[0][0].join()
        with pytest.raises(UnavailableError) as caught:
            list(pool.scan(["a", "b", "c", "d"]))
    assert caught.value.reason == "PII_WORKER_DIED"


@pytest.mark.parametrize(
    "unit", ["1 ", "A1-", "1 Main ", "(212) ", "a@", "Jean ", "12/", "1:", "member ID ", "www.", "rue de "]
)
def test_a_hostile_text_buys_no_quadratic_time(scanner: PiiScanner, unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        start = time.process_time()
        list(scanner.scan([text]))
        return time.process_time() - start

    seconds(2000)
    assert seconds(16_000) < 12 * max(seconds(4_000), 0.05)
