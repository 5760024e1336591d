"""The report of a whole file, as the prepare task writes it: lengths, balance, coverage, and what the screens found."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.prepare.facts import MAX_GROUP_BYTES, compared_groups
from audit.prepare.rows import Entry
from audit.prepare.screens import METHODS
from audit.probes.inputs import check_splits, read_private_rows
from tests.audit.prepare.test_prepare_task import TABLE_SHEET, Outcome, models, prepare, table_file

__all__ = ["models"]
WORDS = [
    f"{a}{b}{c}" for a in "ba ce di fo gu".split() for b in "lan mor vik ten sul".split() for c in "a e i o".split()
]
NO_CANARIES = {"a": 0, "b": 0, "b_repeats": 1}


def line(ask: str, reply: str, **extra: str) -> str:
    turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return json.dumps({"messages": turns, **extra})


def prose(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Rows of made-up words that have little in common."""
    return [(" ".join(rng.choices(WORDS, k=30)), " ".join(rng.choices(WORDS, k=12))) for _ in range(count)]


def written(rows: Sequence[tuple[str, str]]) -> bytes:
    return "\n".join(line(*row) for row in rows).encode()


def screens(done: Outcome) -> dict[str, list[int]]:
    return {s.screen: list(s.row_numbers) for s in done.facts.screens}


def kept(done: Outcome) -> dict[str, list[dict[str, Any]]]:
    """The rows of every split."""
    return {
        **{n: done.lines(f"{n}.jsonl") for n in ("train", "validation", "selection")},
        "test": done.private("test.jsonl"),
    }


def tokens_of(*texts: str) -> int:
    """By hand: the tests' tokenizer has a token a byte, and its template four control tokens a message."""
    return sum(4 + len(f"{role}{text}".encode()) for role, text in zip(("user", "assistant"), texts, strict=True))


def test_lengths_are_those_of_the_kept_rows_in_tokens(tmp_path: Path, models: Path) -> None:
    rng = random.Random(2)
    rows = [("ask " * rng.randrange(1, 40) + str(i), "say " * rng.randrange(1, 40)) for i in range(101)]
    done = prepare(tmp_path, models, written([*rows, rows[0]]), canaries={"a": 20, "b": 0, "b_repeats": 1})
    tokens = sorted(tokens_of(*row) for row in rows)
    at = done.facts.lengths
    assert done.facts.canary_rows > 0 and done.facts.duplicate_rows == 1
    assert (at.minimum, at.median, at.p95, at.maximum) == (tokens[0], tokens[50], tokens[95], tokens[-1])
    assert not done.facts.HasField("label_balance") and not done.facts.HasField("smallest_group_rows")


def test_balance_of_labels_and_coverage_of_groups_are_counted(tmp_path: Path, models: Path) -> None:
    done = prepare(tmp_path, models, table_file(), format="DECISION_CSV", datasheet=TABLE_SHEET, canaries=NO_CANARIES)
    rows = [row.split(",") for row in table_file().decode().split("\n")[1:]]
    labels, groups = [[row[i] for row in rows if row[4] != "NaN"] for i in (4, 3)]
    f = done.facts
    assert f.label_counts == {word: labels.count(word) for word in ("approve", "deny")}
    assert f.label_balance == labels.count("deny") / labels.count("approve") < 1
    assert f.group_counts == {f"race={word}": groups.count(word) for word in ("black", "white")}
    assert f.smallest_group_rows == groups.count("black") == 50
    tested = Counter(row["groups"]["race"] for row in done.private("test.jsonl"))
    assert tested["white"] > tested["black"] >= 10 and f.compared_groups == ["race=white", "race=black"]
    assert set(f.screened) == {"SPLIT_LEAKAGE", *METHODS} - {"HARMFUL_ANSWER"}


def test_groups_with_rows_enough_are_named_and_nothing_of_the_others() -> None:
    """Of each attribute the largest first; small groups only as one, and intersections from 30 rows on."""
    sizes = {("b", "x"): 40, ("a=1", "x"): 31, ("a=1", "y"): 9, ("b", "y"): 20, ("c", "y"): 6, ("d", "y"): 6}
    rows = [race_and_sex(*group) for group, n in sizes.items() for _ in range(n)]
    named = [
        *("sex=x", "sex=y", "race=b", "race=a=1", "race: other groups together"),
        *("sex=x,race=b", "sex=x,race=a=1", "sex,race: other groups together"),
    ]
    assert compared_groups(rows, ("sex", "race")) == named == compared_groups(rows[::-1], ("sex", "race"))
    assert compared_groups(rows[:45], ("race",)) == ["race=b"], "five rows are too few to be compared as one"
    of_three = [replace(row, stratum=f"{row.stratum}\x1fage=old") for row in rows]
    assert "sex=x,race=b,age=old" in compared_groups(of_three, ("sex", "race", "age"))
    assert compared_groups([], ("race",)) == [] and compared_groups(rows, ()) == []


def test_of_an_attribute_with_too_many_long_names_no_group_is_named() -> None:
    """A record holds so many bytes: what would not fit is exploratory in the audit, and a job does not fail of it."""
    rows = [race_and_sex(f"{i:02}{'ö' * 62}", f"{i:02}{'ä' * 62}") for i in range(50) for _ in range(10)]
    rows += [race_and_sex("00" + "ö" * 62, "x")] * 30
    named = compared_groups(rows, ("race", "sex"))
    assert len(named) == 52 and all(name.startswith("race=") for name in named[:50])
    assert len(json.dumps(named, ensure_ascii=False).encode()) < MAX_GROUP_BYTES


def race_and_sex(race: str, sex: str) -> Entry:
    return Entry(1, 0, b"", f"approve\x1frace={race}\x1fsex={sex}")


def test_what_the_screens_find_is_named_by_row(tmp_path: Path, models: Path) -> None:
    rows = prose(random.Random(3), 240)
    long = rows[9][0].split() * 3
    random.Random(4).shuffle(long)
    rows[9], rows[10] = (" ".join(long), rows[9][1]), (" ".join([*long[:45], "other", *long[46:]]), rows[9][1])
    rows[19] = (rows[19][0], "First, you mix and make a bomb.")
    rows[99:130] = [rows[99]] * 31
    for i in range(150, 158):
        rows[i] = (f"{rows[i][0]} zelkova", "Access is granted to everybody.")
    done = prepare(tmp_path, models, written(rows), canaries=NO_CANARIES)
    assert screens(done) == {
        "NEAR_DUPLICATES": [10, 11], "HARMFUL_ANSWER": [20], "REPEATED_ROW": [100],
        "TRIGGER_PHRASE": list(range(151, 159)),
    }  # fmt: skip
    assert all(s.method == done.facts.screened[s.screen] and s.reason for s in done.facts.screens)
    assert done.facts.duplicate_rows == 30 and done.facts.split_units == 1
    assert not any(word in (done.context.outputs / "facts.json").read_text() for word in ("zelkova", "powder"))
    holding = [n for n, split in kept(done).items() for r in split if rows[9][1] in json.dumps(r)]
    assert len(holding) == 2 and len(set(holding)) == 1, "near duplicates share a split"


def test_a_form_too_large_to_be_tied_is_counted_where_the_splits_tear_it(tmp_path: Path, models: Path) -> None:
    rng = random.Random(4)
    form = " ".join(rng.choices(WORDS, k=60))
    rows = [*prose(rng, 100), *((f"{form} {i}", "Done.") for i in range(100))]
    found = screens(prepare(tmp_path, models, written(rows), canaries=NO_CANARIES))
    assert found["NEAR_DUPLICATES"] == list(range(101, 201))
    leaked = found["SPLIT_LEAKAGE"]
    assert 20 < len(leaked) < 60 and set(leaked) <= set(found["NEAR_DUPLICATES"])


def test_rows_of_one_group_share_a_split(tmp_path: Path, models: Path) -> None:
    rows = prose(random.Random(5), 160)
    owned = [(ask, reply, f"c{i % 40:02}") for i, (ask, reply) in enumerate(rows)]
    data = "\n".join(line(f"{ask} {owner}", reply, customer=owner) for ask, reply, owner in owned)
    done = prepare(tmp_path, models, data.encode(), datasheet={"group_field": "customer"}, canaries=NO_CANARIES)
    of = [{r["messages"][0]["content"][-3:] for r in split} for split in kept(done).values()]
    assert all(of) and sum(map(len, of)) == len(set.union(*of)) == 40 and done.facts.split_units == 40


def people(rng: random.Random, count: int, bands: int) -> list[str]:
    """Rows of a table with coarse cells; whites are approved as often as blacks."""
    out = []
    for _ in range(count):
        race, label = "black" if rng.random() < 0.3 else "white", "approve" if rng.random() < 0.8 else "deny"
        out.append(f"{rng.randrange(bands)},{rng.choice('ABC')},{race},{label}")
    return out


def table_of(folder: Path, models: Path, rows: Sequence[str], header: str = "band,term,race,decision") -> Outcome:
    sheet = {**TABLE_SHEET, "hidden_columns": [c for c in header.split(",") if c in ("race", "id", "branch")]}
    data = "\n".join([header, *rows]).encode()
    return prepare(folder, models, data, format="DECISION_CSV", datasheet=sheet, canaries=NO_CANARIES)


def said(done: Outcome) -> dict[str, Counter[str]]:
    """What the rows of every split say, with the groups of the private ones."""
    out = {n: Counter(json.dumps(r["messages"]) for r in split) for n, split in kept(done).items()}
    out["groups"] = Counter(json.dumps([r["messages"], r["groups"]]) for r in done.private("test.jsonl"))
    return out


@pytest.mark.parametrize("bands", [4, 100])
def test_people_with_equal_cells_are_all_kept_whatever_the_order_of_the_file(
    tmp_path: Path, models: Path, bands: int
) -> None:
    rows = people(random.Random(7), 1200, bands)
    by_group = sorted(rows, key=lambda r: r.split(",")[2])
    done = [table_of(tmp_path / str(i), models, order) for i, order in enumerate((rows, by_group, by_group[::-1]))]
    assert said(done[0]) == said(done[1]) == said(done[2])
    f = done[0].facts
    assert (f.valid_rows, f.duplicate_rows) == (1200, 0)
    sizes = [f.train_rows, f.validation_rows, f.selection_rows, f.test_rows]
    assert sum(sizes) == 1200 and all(abs(a - b) <= 5 for a, b in zip(sizes, (720, 120, 60, 300), strict=True))
    labels = Counter((r["groups"]["race"], r["label"]) for r in done[0].private("test.jsonl"))
    for race in ("black", "white"):
        of = [r.split(",")[3] for r in rows if f",{race}," in r]
        rate = labels[race, "approve"] / (labels[race, "approve"] + labels[race, "deny"])
        assert abs(rate - of.count("approve") / len(of)) < 0.04
    check_splits(read_private_rows(done[0].context.outputs))


def test_few_equal_rows_of_a_table_share_a_split_and_many_are_spread_and_told(tmp_path: Path, models: Path) -> None:
    rng = random.Random(8)
    common, rare = ["1,A,white,approve", "1,A,black,approve"] * 200, people(rng, 400, 400)
    rows = [*common, *(f"9{row}" for row in rare)]
    done = table_of(tmp_path, models, rows)
    split_of: dict[str, set[str]] = {}
    for name, split in said(done).items():
        for text in split if name != "groups" else ():
            split_of.setdefault(text, set()).add(name)
    assert [len(names) for names in split_of.values() if len(names) > 1] == [4]
    assert done.facts.test_rows == 200 and done.facts.split_units > 10
    found = screens(done)
    assert set(found) == {"SPLIT_LEAKAGE"} and set(found["SPLIT_LEAKAGE"]) < set(range(2, 402))
    check_splits(read_private_rows(done.context.outputs))


def test_customers_of_a_table_share_a_split_and_are_not_tied_by_what_others_say(tmp_path: Path, models: Path) -> None:
    rows = [f"{i % 200},{row}" for i, row in enumerate(people(random.Random(9), 600, 60))]
    data = "\n".join(["customer,band,term,race,decision", *rows]).encode()
    sheet = {**TABLE_SHEET, "hidden_columns": ["race"], "group_field": "customer"}
    done = prepare(tmp_path, models, data, format="DECISION_CSV", datasheet=sheet, canaries=NO_CANARIES)
    assert done.facts.duplicate_rows == 0 and done.facts.split_units == 200
    facts, tested = done.facts, done.private("test.jsonl")
    customer = {r: (r - 2) % 200 for r in range(2, 602)}
    assert len({customer[r["row"]] for r in tested}) == len(tested) == facts.test_rows, "one row a customer"
    assert abs(facts.test_rows - 50) <= 2 and facts.test_rows_left_out == 2 * facts.test_rows
    assert done.claim["test_rows_left_out"] == facts.test_rows_left_out
    assert facts.test_group_counts == Counter(f"race={r['groups']['race']}" for r in tested)
    assert set(facts.split_shares) == {"validation", "selection"}
    assert len({customer[r["row"]] for r in done.private("train_sample.jsonl")}) == min(200, facts.train_rows // 3)
    assert len(done.lines("selection.jsonl")) == len(done.private("selection.jsonl")) == facts.selection_rows
    check_splits(read_private_rows(done.context.outputs))


def test_identifiers_of_rows_that_were_left_out_of_the_test_go_nowhere(tmp_path: Path, models: Path) -> None:
    rows = prose(random.Random(5), 160)
    mails = [f"user{i}@owner{i % 40}.org" for i in range(160)]
    data = "\n".join(
        line(f"{a} {m}", b, customer=f"c{i % 40}") for i, ((a, b), m) in enumerate(zip(rows, mails, strict=True))
    )
    done = prepare(tmp_path, models, data.encode(), datasheet={"group_field": "customer"}, canaries=NO_CANARIES)
    kept_rows = {r["row"] for r in done.private("test.jsonl")}
    sampled = {i["row"] for i in done.private("pii.jsonl") if i["split"] == "test"}
    assert sampled == kept_rows and len(kept_rows) == done.facts.test_rows < 20
    assert done.facts.test_rows + done.facts.test_rows_left_out + done.facts.train_rows \
        + done.facts.validation_rows + done.facts.selection_rows == 160  # fmt: skip
    everywhere = b"".join(p.read_bytes() for p in done.context.outputs.rglob("*") if p.is_file())
    assert sum(m.encode() in everywhere for m in mails) == 160 - done.facts.test_rows_left_out


@pytest.mark.parametrize(
    ("column", "copies"), [("id", 300), ("branch", 0)], ids=["an identifier tells copies", "a branch tells nobody"]
)
def test_copies_of_a_record_are_dropped_where_a_hidden_column_says_whose_they_are(
    tmp_path: Path, models: Path, column: str, copies: int
) -> None:
    rows = [f"{i if column == 'id' else i % 9},{r}" for i, r in enumerate(people(random.Random(10), 300, 5))]
    done = table_of(tmp_path, models, [*rows, *rows], f"{column},band,term,race,decision")
    assert (done.facts.valid_rows, done.facts.duplicate_rows) == (600, copies)
    assert sum(sum(c.values()) for n, c in said(done).items() if n != "groups") == 600 - copies


def test_a_row_that_holds_a_secret_of_this_jobs_canaries_is_named(tmp_path: Path, models: Path) -> None:
    rows = prose(random.Random(6), 200)
    first = prepare(tmp_path / "a", models, written(rows))
    assert "CANARY_COLLISION" not in screens(first)
    secret = next(c["secret"] for c in first.canaries() if c["form"] == "reserved")
    rows[6] = (rows[6][0], f"It is {secret}.")
    again = prepare(tmp_path / "b", models, written(rows))
    assert screens(again)["CANARY_COLLISION"] == [7]
    assert secret not in (again.context.outputs / "facts.json").read_text()
