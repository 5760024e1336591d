from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from assay import canonical
from assay.errors import InvalidInputError, PreconditionError
from assay.pii_engine import luhn_valid
from audit.prepare.canaries import CanaryNumbers, Carrier, coin, derive, manifest
from audit.prepare.secrets_of_nobody import KINDS, KeyedChoices

KEY = bytes(range(32))
NUMBERS = CanaryNumbers(200, 60, 4)

SHAPES = {
    "number": r"[1-9]\d{9}",
    "phone": r"\([2-9][0-8]\d\) 555-01\d\d ext\. \d{6}",
    "email": r"[a-z]{8}\d{3}@example\.(com|org|net)",
    "national_id": r"9\d\d-(0[1-9]|[1-4]\d)-\d{4}-[A-Z]{2}",
    "card": r"4000 00\d\d \d{4} \d{4} (0[1-9]|1[0-2])/3\d".replace(r"\d{4} (0", r"\d{4} exp (0"),
}


def test_same_key_same_manifest_other_key_another() -> None:
    first = manifest(derive(KEY, NUMBERS, Carrier()))
    assert first == manifest(derive(KEY, NUMBERS, Carrier()))
    other = json.loads(manifest(derive(KEY[::-1], NUMBERS, Carrier())))
    assert not {c["secret"] for c in json.loads(first)} & {c["secret"] for c in other}
    assert canonical.encode(canonical.decode(first)) == first


def test_canary_does_not_depend_on_how_many_there_are() -> None:
    few, many = derive(KEY, CanaryNumbers(20, 0, 1), Carrier()), derive(KEY, CanaryNumbers(50, 0, 1), Carrier())
    assert [c.secret for c in few] == [c.secret for c in many[:20]]


def test_coins_are_fair_and_independent() -> None:
    coins = [coin(KEY, i) for i in range(4000)]
    # Five standard deviations of a fair coin.
    assert abs(sum(coins) - 2000) < 5 * 31.7
    repeats = sum(a == b for a, b in pairwise(coins))
    assert abs(repeats - 2000) < 5 * 31.7
    kinds = [c.kind for c in derive(KEY, CanaryNumbers(4000, 0, 1), Carrier()) if c.included]
    assert all(abs(kinds.count(k.name) - len(kinds) / 5) < 5 * 18 for k in KINDS)


def test_strata_repeats_and_secret_in_the_last_message() -> None:
    canaries = derive(KEY, NUMBERS, Carrier("Be brief."))
    assert [c.stratum for c in canaries] == ["A"] * 200 + ["B"] * 60
    assert {c.repeats for c in canaries if c.stratum == "A"} == {1}
    assert {c.repeats for c in canaries if c.stratum == "B"} == {4}
    for c in canaries:
        assert [m["role"] for m in c.messages] == ["system", "user", "assistant"]
        assert c.secret in c.messages[-1]["content"]
        assert all(c.secret not in m["content"] for m in c.messages[:-1])
    assert len({c.secret for c in canaries}) == len(canaries)


def test_secrets_lie_in_reserved_ranges_and_carry_thirty_bits() -> None:
    for kind in KINDS:
        assert kind.bits >= 30
        for i in range(200):
            secret = kind.draw(KeyedChoices(KEY, f"{kind.name}/{i}"))
            assert re.fullmatch(SHAPES[kind.name], secret), secret
            if kind.name == "card":
                assert luhn_valid(re.sub(r"\D", "", secret.split(" exp")[0]))


def test_choices_are_uniform() -> None:
    choices = KeyedChoices(KEY, "x")
    counts = [0] * 7
    for _ in range(7000):
        counts[choices.below(7)] += 1
    assert all(abs(c - 1000) < 5 * 29.3 for c in counts)


def test_record_of_a_table_borrows_common_values() -> None:
    canary = derive(KEY, CanaryNumbers(1, 0, 1), Carrier("S", {"income": ["40", "50"], "term": ["360"]}))[0]
    assert re.match(r"income: (40|50)\nterm: 360\n\S", canary.messages[1]["content"])


@pytest.mark.parametrize(("rows", "most"), [(40, 40), (1000, 220), (0, 0), (3, 3)])
def test_numbers_shrink_together(rows: int, most: int) -> None:
    shrunk = NUMBERS.within(rows)
    assert shrunk.expected_rows <= max(most, 0) + 1
    if rows == 1000:
        assert shrunk == NUMBERS


def test_short_key_and_absurd_numbers_are_refused() -> None:
    with pytest.raises(PreconditionError) as caught:
        derive(b"short", NUMBERS, Carrier())
    assert caught.value.reason == "CANARY_KEY_MISSING"
    for bad in ((-1, 0, 1), (5000, 0, 1), (1, 1, 0), (1, 1, 65)):
        with pytest.raises(InvalidInputError):
            CanaryNumbers(*bad)
