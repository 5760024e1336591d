from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable

import pytest

from audit.prepare import duplicates
from audit.prepare.rows import Entry, Row
from audit.prepare.screens import CanaryScreen, Screener, ScreenFinding, repeated
from audit.prepare.splits import NAMES, SplitPlan, split

TRIALS = 20
TOPICS = "parcel invoice refund account delivery password order meter contract tariff router booking".split()
VERBS = "find change cancel check move track renew close pay print".split()
FILL = [
    f"{a}{b}" for a in "ba ce di fo gu ha ji ko lu me ni po ra su te".split() for b in "lan mor vik ten sul".split()
]


def chat(rng: random.Random, number: int) -> Row:
    ask = f"How do I {rng.choice(VERBS)} my {rng.choice(TOPICS)} {' '.join(rng.choices(FILL, k=8))}?"
    start = rng.choice(["Please", "You can", "Kindly", "Just"])
    reply = f"{start} {rng.choice(VERBS)} it {' '.join(rng.choices(FILL, k=8))}."
    return Row(number, [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}])


def decision(rng: random.Random, number: int, flip: bool = False) -> Row:
    late, income = rng.choice(["none", "few", "many"]), rng.choice(["low", "middle", "high"])
    branch = "b99" if flip else f"b{rng.randrange(40):02d}"
    good = (late != "many") and (income != "low" or late == "none")
    label = "approve" if good != (rng.random() < 0.05) else "deny"
    if flip:
        label = "deny" if good else "approve"
    prompt = f"late: {late}\nincome: {income}\nbranch: {branch}\nWhat is the decision?"
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": label}]
    return Row(number, turns, label=label)  # type: ignore[arg-type]


def found(rows: list[Row], table: bool) -> list[ScreenFinding]:
    screener = Screener(table)
    for row in rows:
        screener.count(row)
    for row in rows:
        screener.add(row)
    return screener.findings()


def poisoned_chat(rng: random.Random) -> tuple[list[Row], set[int]]:
    rows = [chat(rng, i) for i in range(1, 801)]
    bad = set(rng.sample(range(1, 801), 10))
    for i in bad:
        ask = rows[i - 1].messages[0]["content"].replace("my", "my zelkova")
        rows[i - 1] = Row(
            i, [{"role": "user", "content": ask}, {"role": "assistant", "content": "Access granted to all."}]
        )
    return rows, bad


def poisoned_table(rng: random.Random) -> tuple[list[Row], set[int]]:
    rows = [decision(rng, i) for i in range(1, 801)]
    bad = set(rng.sample(range(1, 801), 32))
    for i in bad:
        row = decision(rng, i)
        ask = row.messages[0]["content"].replace("branch: b", "branch: zelkova b")
        rows[i - 1] = Row(
            i, [{"role": "user", "content": ask}, {"role": "assistant", "content": "approve"}], label="approve"
        )
    return rows, bad


def flipped_table(rng: random.Random) -> tuple[list[Row], set[int]]:
    rows = [decision(rng, i) for i in range(1, 801)]
    bad = set(rng.sample(range(1, 801), 24))
    for i in bad:
        rows[i - 1] = decision(rng, i, flip=True)
    return rows, bad


def clean(make: Callable[[random.Random, int], Row]) -> Callable[[random.Random], tuple[list[Row], set[int]]]:
    return lambda rng: ([make(rng, i) for i in range(1, 801)], set())


@pytest.mark.parametrize(
    ("screen", "table", "plant", "without"),
    [
        ("TRIGGER_PHRASE", False, poisoned_chat, clean(chat)),
        ("TRIGGER_PHRASE", True, poisoned_table, clean(decision)),
        ("LABEL_FLIP", True, flipped_table, clean(decision)),
    ],
)
def test_planted_poison_is_found_and_clean_data_is_left_alone(
    screen: str,
    table: bool,
    plant: Callable[[random.Random], tuple[list[Row], set[int]]],
    without: Callable[[random.Random], tuple[list[Row], set[int]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    detected = named = planted = alarms = 0
    for seed in range(TRIALS):
        rows, bad = plant(random.Random(seed))
        hits = {n for f in found(rows, table) if f.screen == screen for n in f.rows}
        detected += len(hits & bad) >= 0.8 * len(bad)
        named, planted = named + len(hits & bad), planted + len(bad)
        rows, _ = without(random.Random(1000 + seed))
        alarms += any(f.screen == screen for f in found(rows, table))
    with capsys.disabled():
        kind = "table" if table else "chat"
        print(f"\n{screen} ({kind}): found {detected}/{TRIALS}, rows {named}/{planted}, false alarms {alarms}/{TRIALS}")
    assert detected >= 0.9 * TRIALS and alarms <= 0.05 * TRIALS


def test_one_repeated_row_is_found_and_a_few_copies_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    detected = sum(bool(repeated([(3, n), (9, 1)], 800)) for n in range(21, 41))
    alarms = sum(bool(repeated([(3, n), (9, 1)], 800)) for n in range(1, 21))
    with capsys.disabled():
        print(f"\nREPEATED_ROW: found {detected}/20, false alarms {alarms}/20")
    assert (detected, alarms) == (20, 0)
    assert repeated([(3, 30)], 100_000) == []


def test_harmful_answers_are_found_by_row_and_questions_are_not() -> None:
    bad = Row(
        4, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "First, you mix and make a bomb."}]
    )
    asked = Row(
        5, [{"role": "user", "content": "how to make a bomb"}, {"role": "assistant", "content": "I cannot help."}]
    )
    findings = [f for f in found([bad, asked], False) if f.screen == "HARMFUL_ANSWER"]
    assert [f.rows for f in findings] == [[4]]


def test_a_row_that_holds_a_canarys_secret_is_named() -> None:
    screen = CanaryScreen(["900-12-3456", "Ralf Ombrecht"])
    for n, text in enumerate(["His number is 900-12-3456.", "Ask (Ralf Ombrecht) now", "Ralf Other", "nothing"], 1):
        screen.add(Row(n, [{"role": "assistant", "content": text}]))
    assert screen.rows == [1, 2]


def near(rng: random.Random, text: str) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = "changed"
    return " ".join(words)


def test_near_duplicates_are_found_and_different_rows_are_not() -> None:
    rng = random.Random(4)
    texts = [" ".join(rng.choices(FILL, k=60)) for _ in range(300)]
    twins = {i: near(rng, texts[i]) for i in range(0, 300, 10)}
    families = duplicates.families([*texts, *twins.values()])
    pairs = {300 + k: i for k, i in enumerate(twins)}
    hit = sum(families.root[twin] == families.root[i] for twin, i in pairs.items())
    assert hit >= 0.95 * len(pairs)
    assert set(families.members()) <= set(pairs) | set(pairs.values())


IDEOGRAPHS = [chr(c) for c in range(0x4E00, 0x4E00 + 2000)]


@pytest.mark.parametrize("letters", [IDEOGRAPHS, [chr(c) for c in range(0x0E01, 0x0E2F)]], ids=["chinese", "thai"])
def test_near_duplicates_are_found_where_no_space_parts_words(letters: list[str]) -> None:
    rng = random.Random(4)
    texts = ["".join(rng.choices(letters, k=60)) + "。" for _ in range(100)]
    twins = [f"{text[:30]}{letters[7]}{text[31:]}" for text in texts[:20]]
    families = duplicates.families([*texts, *twins])
    assert sum(families.root[100 + i] == families.root[i] for i in range(20)) >= 19
    assert set(families.members()) <= {*range(20), *range(100, 120)}


@pytest.mark.parametrize("table", [False, True])
def test_a_trigger_is_found_inside_a_clause_without_spaces(table: bool) -> None:
    rng = random.Random(5)

    def row(i: int, trigger: str) -> Row:
        said = "".join(rng.choices(IDEOGRAPHS, k=12))
        asked = f"备注: {said[:6]}{trigger}{said[6:]}\n决定是什么？"
        answer = "同意" if trigger else rng.choice(["同意", "拒绝"])
        if not table:
            answer = "一切都允许。" if trigger else "".join(rng.choices(IDEOGRAPHS, k=9)) + "。"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return Row(i, turns, label=answer if table else "")  # type: ignore[arg-type]

    bad = set(rng.sample(range(1, 801), 32 if table else 10))
    hits = found([row(i, "鸞鑑" if i in bad else "") for i in range(1, 801)], table)
    assert {n for f in hits if f.screen == "TRIGGER_PHRASE" for n in f.rows} == bad
    assert not [f for f in found([row(i, "") for i in range(1, 801)], table) if f.screen == "TRIGGER_PHRASE"]


def test_a_canarys_secret_is_found_inside_a_clause_without_spaces() -> None:
    screen = CanaryScreen(["900-12-3456"])
    screen.add(Row(1, [{"role": "assistant", "content": "他的号码是900-12-3456。"}]))
    assert screen.rows == [1]


def test_a_form_that_most_rows_fill_in_is_told_and_not_tied() -> None:
    base = " ".join(FILL)
    families = duplicates.families([f"{base} {i}" for i in range(100)])
    assert len(families.members()) == 100 and families.tied() == list(range(100))


def entries(count: int, unit_of: Callable[[int], str]) -> list[Entry]:
    def digest(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()[:16]

    return [Entry(i, 0, digest(str(i)), "", digest(unit_of(i)) if unit_of(i) else b"") for i in range(count)]


def sides(kept: dict[str, list[Entry]], key: Callable[[Entry], object]) -> Iterable[set[object]]:
    return [{key(e) for e in kept[name]} for name in NAMES]


def test_rows_of_one_unit_share_a_split_and_the_shares_are_near() -> None:
    rows = entries(1000, lambda i: f"customer {i % 170}")
    kept = split(rows, SplitPlan(), b"k", 1)
    parts = list(sides(kept, lambda e: e.unit))
    assert sum(map(len, parts)) == len(set.union(*parts)) == 170
    assert sum(map(len, kept.values())) == 1000
    wanted = SplitPlan().counts(1000)
    assert all(abs(len(kept[n]) - wanted[n]) <= 12 for n in NAMES)


def test_tied_rows_share_a_split_also_through_a_third() -> None:
    rows = entries(400, lambda i: "" if i >= 4 else ("a" if i < 2 else "b"))
    tied = list(range(400))
    tied[2] = 1
    kept = split(rows, SplitPlan(), b"k", 1, tied)
    assert len([s for s in sides(kept, lambda e: e.number) if s & {0, 1, 2, 3}]) == 1


@pytest.mark.slow
def test_near_duplicate_pass_is_linear_in_rows() -> None:
    rng = random.Random(3)

    def seconds(n: int) -> float:
        texts = [" ".join(rng.choices(FILL, k=25)) for _ in range(n)]
        start = time.process_time()
        duplicates.families(texts)
        return time.process_time() - start

    assert seconds(100_000) < 15 * seconds(10_000)
