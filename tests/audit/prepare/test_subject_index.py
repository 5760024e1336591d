"""Whom rows are about, as the prepare task takes it down: by keyed handle, of refused rows too."""

from __future__ import annotations

import io
import json
import re
import resource
from pathlib import Path

import pytest

from assay.subjects import INDEX_FILE, KEY_FILE, IndexMaker, SubjectIndex, handle_of
from assay.worker.task import TaskContext
from audit.prepare.findings import Findings
from audit.prepare.lines import FileLimits
from audit.prepare.parse_chat import parse_chat, parse_json_lines
from audit.prepare.parse_table import TableColumns, render_rows, survey
from audit.prepare.task import run
from tests.audit.prepare.test_prepare_task import MODEL, models

__all__ = ["models"]
UNIT_KEY = b"u" * 32


def chat_line(i: int, customer: object, role: str = "user") -> str:
    turns = [{"role": role, "content": f"Where is {i}?"}, {"role": "assistant", "content": f"At depot {i}."}]
    return json.dumps({"messages": turns, "customer": customer})


def task(folder: Path, models: Path, data: bytes, key: bytes = UNIT_KEY, field: str = "customer") -> TaskContext:
    for name in ("inputs", "outputs", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "inputs" / "dataset").write_bytes(data)
    if key:
        (folder / "inputs" / KEY_FILE).write_bytes(key)
    order = {
        "format": "CHAT_JSONL", "datasheet": {"group_field": field}, "base_model": MODEL, "seed": 7,
        "canaries": {"a": 4, "b": 4, "b_repeats": 2},
    }  # fmt: skip
    places = (folder / "inputs", folder / "outputs", folder / "work", models)
    return TaskContext("t1", "prepare", order, *places, b"s" * 32, folder / "pause", lambda line: None)


def test_the_task_leaves_the_index_and_no_value_anywhere(tmp_path: Path, models: Path) -> None:
    lines = [chat_line(i, f"Cust-{i % 40:04}") for i in range(120)]
    lines[7] = chat_line(7, "Cust-0007", role="robot")
    context = task(tmp_path, models, "\n".join(lines).encode())
    claim = run(context)
    index = SubjectIndex.parse((context.outputs / INDEX_FILE).read_bytes())
    index.demand_ordered()
    assert claim["invalid_rows"] == 1 and len(index) == 120
    assert list(index.rows(handle_of(UNIT_KEY, "Cust-0007"))) == [8, 48, 88], "the refused row lies in the file too"
    assert index.rows(handle_of(b"x" * 32, "Cust-0007")) == []
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "inputs"]
    assert left and not any(b"Cust-0007" in p.read_bytes() for p in left)
    assert "Cust" not in json.dumps(claim) and UNIT_KEY.hex() not in json.dumps(claim)


def test_the_same_rows_give_the_same_index(tmp_path: Path, models: Path) -> None:
    data = "\n".join(chat_line(i, i % 30) for i in range(90)).encode()
    both = []
    for name in ("a", "b"):
        context = task(tmp_path / name, models, data)
        run(context)
        both.append((context.outputs / INDEX_FILE).read_bytes())
    assert both[0] == both[1]


def test_users_are_numbered_where_they_are_protected_and_nowhere_else(tmp_path: Path, models: Path) -> None:
    """Rows of one value share a number, whatever its spacing; a canary's row has its own; names are nowhere."""
    people = [f"Cust-{i % 30:04}" + ("  " if i % 60 < 30 else "") for i in range(120)]
    lines = [chat_line(i, person) for i, person in enumerate(people)]
    plain = task(tmp_path / "plain", models, "\n".join(lines).encode())
    run(plain)
    assert b'"user":' not in (plain.outputs / "train.jsonl").read_bytes()
    lines.append(json.dumps({"messages": [{"role": "assistant", "content": "Nobody's row."}]}))
    context = task(tmp_path / "users", models, "\n".join(lines).encode())
    context.order["privacy_unit"] = "user"
    claim = run(context)
    facts = json.loads((context.outputs / "facts.json").read_text())
    rows = [json.loads(line) for line in (context.outputs / "train.jsonl").read_text().splitlines()]
    users = [row["user"] for row in rows]
    assert sorted(set(users)) == list(range(1, int(facts["train_users"]) + 1)) and claim["train_users"] == max(users)
    assert list(dict.fromkeys(users)) == sorted(set(users)), "numbered as they come"
    by_person: dict[str, set[int]] = {}
    canaries = 0
    for row in rows:
        found = re.fullmatch(r"At depot (\d+)\.", row["messages"][-1]["content"])
        if found is None:
            canaries += 1
            assert users.count(row["user"]) == 1
        else:
            by_person.setdefault(people[int(found[1])].strip(), set()).add(row["user"])
    assert canaries == int(facts["canary_rows"]) > 0 and all(len(numbers) == 1 for numbers in by_person.values())
    assert len(by_person) + canaries == max(users) and int(facts["rows_without_group"]) == 1
    assert "Cust" not in (context.outputs / "train.jsonl").read_text()
    for name in ("validation.jsonl", "selection.jsonl"):
        assert b'"user":' not in (context.outputs / name).read_bytes()


def test_without_a_group_field_there_is_no_index(tmp_path: Path, models: Path) -> None:
    lines = [json.loads(chat_line(i, 1)) for i in range(60)]
    data = "\n".join(json.dumps({"messages": line["messages"]}) for line in lines).encode()
    context = task(tmp_path, models, data, field="")
    run(context)
    assert not (context.outputs / INDEX_FILE).exists()


def test_a_tables_group_column_is_indexed_with_the_numbers_that_a_spreadsheet_shows() -> None:
    csv = b"id,income,decision\nA,10,yes\nB,,no\nA,7,NaN\n,8,yes\nC,9\nB,3,no\n"
    declared = TableColumns("decision", (), ("id",), "yes", group="id")
    seen: list[tuple[int, str]] = []
    found = survey(io.BytesIO(csv), declared, Findings(), (), FileLimits())
    valid = list(render_rows(io.BytesIO(csv), found, declared, (), FileLimits(), lambda n, v: seen.append((n, v))))
    # Row 4 is refused for its label and row 3 has nothing to show; row 5 names nobody, and row 6 cannot be read.
    assert seen == [(2, "A"), (3, "B"), (4, "A"), (7, "B")]
    assert {r.number for r in valid} < {n for n, _ in seen}


def test_a_hundred_thousand_rows_take_a_bounded_memory(tmp_path: Path) -> None:
    path, maker = tmp_path / "rows", IndexMaker(UNIT_KEY)
    with path.open("w") as out:
        out.writelines(chat_line(i, f"C{i % 50_000}") + "\n" for i in range(100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("rb") as stream:
        rows = sum(
            1 for _ in parse_json_lines(stream, Findings(), (), FileLimits(), parse_chat, "customer", maker.note)
        )
    maker.write(tmp_path / INDEX_FILE)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    index = SubjectIndex.parse((tmp_path / INDEX_FILE).read_bytes())
    assert rows == len(index) == 100_000 and len(index.data) == 11 + 36 * 100_000
    assert list(index.rows(handle_of(UNIT_KEY, "C17"))) == [18, 50_018]
    assert grown < 40 << 20


@pytest.mark.parametrize("value", ["", None, True, [1]], ids=str)
def test_a_row_without_a_subject_is_refused_and_not_indexed(value: object) -> None:
    seen: list[tuple[int, str]] = []
    data = (chat_line(1, value) + "\n").encode()
    findings = Findings()
    rows = list(
        parse_json_lines(
            io.BytesIO(data), findings, (), FileLimits(), parse_chat, "customer", lambda n, v: seen.append((n, v))
        )
    )
    assert rows == [] and seen == [] and findings.kept[0].problem.code == "GROUP_MISSING"
