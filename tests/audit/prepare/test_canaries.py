from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from assay import canonical
from assay.errors import InvalidInputError, PreconditionError
from assay.pii_health import luhn_valid
from audit.prepare.canaries import CanaryNumbers, Carrier, Weights, coin, derive, manifest
from audit.prepare.code_shapes import GENERAL, CodeShapes, shape
from audit.prepare.rows import Row
from audit.prepare.secrets_of_nobody import RESERVED, KeyedChoices, code_in

KEY = bytes(range(32))
NUMBERS = CanaryNumbers(200, 60, 4)

SHAPES = {
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
    planted = [c for c in derive(KEY, CanaryNumbers(4000, 0, 1), Carrier()) if c.included]
    # Five standard deviations again: of the forms among the planted, and of the kinds among the reserved.
    assert abs(sum(c.form == "own" for c in planted) - 1000) < 5 * 22.4
    kinds = [c.kind for c in planted if c.form == "reserved"]
    assert all(abs(kinds.count(k.name) - len(kinds) / 4) < 5 * 13.7 for k in RESERVED)


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
    for kind in RESERVED:
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


def test_many_rows_of_next_to_no_weight_make_no_canary_light() -> None:
    weights = [Weights(1e-9)] * 5000 + [Weights(10)] * 100
    drawn = derive(KEY, CanaryNumbers(200, 0, 1), Carrier(weights=weights))
    assert all(c.weight == 10 for c in drawn)


def test_weights_are_drawn_as_the_train_rows_have_them_and_change_nothing_else() -> None:
    numbers = CanaryNumbers(4000, 0, 1)
    plain = derive(KEY, numbers, Carrier())
    drawn = derive(KEY, numbers, Carrier(weights=[Weights(10, 1)] + [Weights(0.5)] * 2 + [Weights()]))
    heavy = [c for c in drawn if c.weight == 10]
    # Five standard deviations: of ten parts in twelve, and of the coins among them, which the weight must not know.
    assert abs(len(heavy) - 4000 * 10 / 12) < 5 * 23.6
    assert abs(sum(c.included for c in heavy) - len(heavy) / 2) < 5 * 28.9
    assert abs(sum(c.weight is None for c in drawn) - 4000 / 12) < 5 * 17.5
    assert all((c.messages[-1].get("weight") == 1) == (c.weight == 10) for c in drawn)
    assert [(c.included, c.secret) for c in drawn] == [(c.included, c.secret) for c in plain]
    assert all("weight" not in c.manifest_entry() and "weight" not in c.messages[-1] for c in plain)


def test_a_canary_is_a_target_also_where_a_rows_last_answer_is_none() -> None:
    turns = [("assistant", 1), ("user", None), ("assistant", 0)]
    row = Row(1, [{"role": r, "content": "x"} | ({} if w is None else {"weight": w}) for r, w in turns], 3)  # type: ignore[misc]
    assert Weights.of(row) == Weights(3, 1)


@pytest.mark.parametrize(("rows", "most"), [(40, 40), (1000, 220), (0, 0), (3, 3)])
def test_numbers_shrink_and_those_that_no_gate_is_of_go_first(rows: int, most: int) -> None:
    shrunk = NUMBERS.within(rows)
    assert (shrunk.a + shrunk.b * shrunk.b_repeats + 1) // 2 <= most, "rows that half of the canaries make"
    assert shrunk.a == min(NUMBERS.a, 2 * rows)
    if rows == 1000:
        assert shrunk == NUMBERS


def test_short_key_and_absurd_numbers_are_refused() -> None:
    with pytest.raises(PreconditionError) as caught:
        derive(b"short", NUMBERS, Carrier())
    assert caught.value.reason == "CANARY_KEY_MISSING"
    for bad in ((-1, 0, 1), (5000, 0, 1), (1, 1, 0), (1, 1, 65)):
        with pytest.raises(InvalidInputError):
            CanaryNumbers(*bad)


def test_half_carry_codes_in_the_datas_own_shapes_and_the_key_picks_which() -> None:
    carrier = Carrier(shapes=("AA-9999", "A99"))
    canaries = derive(KEY, NUMBERS, carrier)
    own = [c for c in canaries if c.form == "own"]
    assert len(own) == len(canaries) // 2
    assert all({a.form, b.form} == {"own", "reserved"} for a, b in zip(canaries[::2], canaries[1::2], strict=True))
    assert 30 < sum(c.form == "own" for c in canaries[::2]) < 100, "parity alone must not tell the forms apart"
    assert {shape(c.secret) for c in own} == {"AA-9999-9999", "A99-9999-9999"}
    assert {c.kind for c in own} == {"code"}
    assert all(c.kind != "code" for c in canaries if c.form == "reserved")


@pytest.mark.parametrize("form", ["AA-9999", "A99", "99/A", "AA9999"])
def test_a_code_is_longer_than_the_datas_own_and_carries_thirty_bits(form: str) -> None:
    kind = code_in(form)
    assert kind.bits >= 30
    drawn = {kind.draw(KeyedChoices(KEY, f"{i}")) for i in range(300)}
    assert len(drawn) == 300
    assert all(shape(s).startswith(form + "-9999") for s in drawn), "one block more than any code of the institution"


@pytest.mark.parametrize(
    ("form", "drawn"),
    [
        ("99999999A", "99999-A999-999A"),  # Spain's DNI
        ("A9999999A", "A9999-A999-999A"),  # Spain's NIE, Singapore's NRIC
        ("AA999999A", "AA999-A999-999A"),  # United Kingdom's NINO
        ("AAA999999", "AAA99-A999-9999"),  # Poland's identity card
        ("AAAAA9999A", "AAAAA-A999-9999A"),  # India's PAN
        ("A99999999", "A9999-A999-9999"),  # passport of the United States
        ("A9999999", "A999-A999-9999"),  # Californian driving licence
        ("9AA9AA9AA99", "9AA9AA-A999-9AA99"),  # Medicare's MBI
        ("AAAAAA99A99A999A", "AAAAAA-A999-99A99A-A999-999A"),  # Italy's codice fiscale
        ("999999-999A", "999999-A999-999A"),  # Finland's HETU
        ("AAA-999999999", "AAA-A999-99999-A999-9999"),  # passport number behind letters
        ("AAA-999-99-9999", "AAA-999-A999-99-9999"),  # social security number behind letters
        ("AA-999999-9999", "AA-A999-999999-A999-9999"),  # Sweden's and Denmark's person numbers behind letters
        ("A/99999999", "A/9999-A999-9999"),
        ("9999-AA-99", "9999-AA-A999-99"),
    ],
)
def test_no_identity_number_can_be_read_off_a_code_of_its_shape(form: str, drawn: str) -> None:
    kind = code_in(form)
    assert kind.bits >= 30
    secrets = {kind.draw(KeyedChoices(KEY, f"{i}")) for i in range(300)}
    assert {shape(s) for s in secrets} == {drawn} and len(secrets) == 300
    between = re.split(r"-A999(?=[-/]|$)", drawn)
    assert len(between) > 1 and all(sum(c.isalnum() for c in part) <= 6 for part in between)
    assert "".join(between) == form or form.replace("-", "") == "".join(between).replace("-", "")


def test_shapes_come_from_many_rows_and_hold_no_value() -> None:
    shapes = CodeShapes()
    for i in range(5):
        shapes.note([f"Your case KX-{4820 + i} is open, call 020 7946 000{i} or write to ab12{i}@example.com."])
        shapes.note(["COVID-19 rules apply."])
        shapes.note([f"IBAN GB29NWBK6016133192681{i}"])
    shapes.note(["ticket Q-77"])
    assert shapes.common() == ["AA-9999"]
    assert "KX" not in repr(vars(shapes))
    assert "482" not in repr({k: v for k, v in vars(shapes).items() if k == "_rows"})
    assert CodeShapes().common() == GENERAL
