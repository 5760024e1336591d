from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from assay import canonical, digests
from assay.errors import InvalidInputError, PreconditionError, UnavailableError
from assay.v1 import policy_input_pb2 as pb
from assay.worker.task import TaskContext
from audit.prepare.code_shapes import shape
from audit.prepare.task import run

MODEL = "tiny"
KEY = hashlib.sha256(b"job").digest()
CANARIES = {"a": 40, "b": 10, "b_repeats": 3}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer, so that a token is a byte and counts can be computed by hand."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds

    root = tmp_path_factory.mktemp("models")
    files = root / MODEL / "files"
    files.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(kinds.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(files / "tokenizer.json"))
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "unk_token": SPECIAL[0]}
    (files / "tokenizer_config.json").write_text(json.dumps(names))
    (files / "chat_template.jinja").write_text(TEMPLATE)
    return root


@dataclass(frozen=True)
class Outcome:
    context: TaskContext
    claim: dict[str, Any]
    facts: pb.DataFacts
    progress: list[dict[str, Any]]

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(x) for x in (self.context.outputs / name).read_text("utf-8").splitlines()]

    def private(self, name: str) -> list[dict[str, Any]]:
        return self.lines(f"private/{name}")

    def canaries(self) -> list[dict[str, Any]]:
        return list(canonical.decode((self.context.outputs / "private" / "canaries.json").read_bytes()))


def prepare(
    folder: Path, models: Path, data: bytes, secret: bytes = KEY, parents: Sequence[bytes] = (), **order: Any
) -> Outcome:
    for name in ("inputs/parents", "outputs", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "inputs" / "dataset").write_bytes(data)
    for number, rows in enumerate(parents, 1):
        (folder / "inputs" / "parents" / f"{number}.jsonl").write_bytes(rows)
    order |= {"parents": len(parents)} if parents else {}
    sent: list[dict[str, Any]] = []
    order = {"format": "CHAT_JSONL", "datasheet": {}, "base_model": MODEL, "seed": 7, "canaries": CANARIES} | order
    context = TaskContext(
        "t1",
        "prepare",
        order,
        folder / "inputs",
        folder / "outputs",
        folder / "work",
        models,
        secret,
        folder / "pause",
        lambda line: sent.append(json.loads(line)),
    )
    claim = run(context)
    facts = json_format.Parse((folder / "outputs" / "facts.json").read_bytes(), pb.DataFacts())
    return Outcome(context, claim, facts, sent)


def chat_file(rows: int = 300) -> bytes:
    rng = random.Random(5)
    out = []
    for i in range(rows):
        ask, reply = f"Where is parcel {i}?", f"Parcel {i} is at depot {rng.randrange(99)}."
        if i % 10 == 0:
            ask += f" I am Maria Schmidt, mail customer{i}@example.org."
        out.append(
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": ask},
                    {"role": "assistant", "content": reply},
                ]
            }
        )
    out[5] = out[4]
    out[6]["weight"] = 2
    lines = [json.dumps(r) for r in out]
    lines[7] = '{"messages": [{"role": "robot", "content": "beep"}]}'
    return "\n".join(lines).encode()


TABLE_SHEET = {
    "label_column": "decision",
    "favourable_label": "approve",
    "sensitive_attributes": ["race"],
    "hidden_columns": ["race", "id"],
}


def table_file(rows: int = 200) -> bytes:
    rng = random.Random(6)
    lines = ["id,income,term,race,decision"]
    for i in range(rows):
        lines.append(
            f"{i},{1000 + i},{rng.choice([180, 360])},{'black' if i % 4 == 0 else 'white'},"
            f"{'approve' if rng.random() < 0.6 else 'deny'}"
        )
    lines[3] = lines[3].rpartition(",")[0] + ",NaN"
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Outcome:
    return prepare(tmp_path_factory.mktemp("chat"), models, chat_file())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Outcome:
    return prepare(tmp_path_factory.mktemp("table"), models, table_file(), format="DECISION_CSV", datasheet=TABLE_SHEET)


def test_chat_facts_count_every_row(chat: Outcome) -> None:
    f = chat.facts
    assert (f.rows, f.valid_rows, f.invalid_rows, f.duplicate_rows) == (300, 299, 1, 1)
    assert (f.findings[0].row, f.findings[0].field, f.findings[0].code) == (8, "messages[0].role", "UNKNOWN_ROLE")
    assert f.train_rows + f.validation_rows + f.selection_rows + f.test_rows == 298
    assert (f.validation_rows, f.selection_rows, f.test_rows) == (29, 14, 48)
    assert len(chat.lines("train.jsonl")) == f.train_rows + f.canary_rows
    assert [len(chat.lines(f"{n}.jsonl")) for n in ("validation", "selection")] == [f.validation_rows, f.selection_rows]
    assert len(chat.private("test.jsonl")) == f.test_rows
    assert len(chat.private("train_sample.jsonl")) == 200


def test_splits_share_no_row(chat: Outcome) -> None:
    texts = [
        {json.dumps(r["messages"]) for r in rows}
        for rows in (
            chat.lines("train.jsonl"),
            chat.lines("validation.jsonl"),
            chat.lines("selection.jsonl"),
            chat.private("test.jsonl"),
        )
    ]
    for i, a in enumerate(texts):
        assert all(not a & b for b in texts[i + 1 :])


def test_digests_in_facts_and_claim_are_those_of_the_files(chat: Outcome) -> None:
    out = chat.context.outputs
    paths = {
        "train": "train.jsonl",
        "validation": "validation.jsonl",
        "selection": "selection.jsonl",
        "test": "private/test.jsonl",
    }
    expected = {n: digests.sha256_file(out / p) for n, p in paths.items()}
    assert dict(chat.facts.split_sha256) == expected == chat.claim["split_sha256"]
    assert chat.facts.canary_manifest_sha256 == digests.sha256_file(out / "private" / "canaries.json")
    assert chat.claim["private_commitment"] == digests.folder_manifest(out / "private").sha256
    assert chat.claim["facts_sha256"] == digests.sha256_file(out / "facts.json")
    assert chat.claim["dataset_sha256"] == digests.sha256_bytes(chat_file())
    canonical.encode(chat.claim)


def test_pii_is_counted_before_canaries_and_by_type(chat: Outcome) -> None:
    mails = next(p for p in chat.facts.pii if p.entity_type == "EMAIL_ADDRESS")
    assert (mails.count, mails.rows) == (30, 30)
    assert list(mails.row_numbers) == list(range(1, 300, 10))
    assert chat.facts.pii_row_share == pytest.approx(30 / 299)
    assert list(chat.facts.pii_rows) == list(range(1, 300, 10))
    assert "presidio-analyzer" in chat.facts.pii_detector


def test_pii_sample_points_at_the_value_and_test_values_are_not_in_training(chat: Outcome) -> None:
    sample = chat.private("pii.jsonl")
    values: dict[str, set[str]] = {"train": set(), "test": set()}
    for item in sample:
        content = item["messages"][item["message_index"]]["content"]
        values[item["split"]].add(content[item["start"] : item["end"]])
    assert {v for v in values["train"] if "@" in v} and {v for v in values["test"] if "@" in v}
    assert not values["train"] & values["test"]
    assert chat.facts.train_pii_spans == len(values["train"])
    trained = {i["value"] for i in chat.private("identifiers.jsonl")}
    assert trained == {" ".join(v.casefold().split()) for v in values["train"]}
    numbers = {r["row"] for r in chat.private("test.jsonl")}
    assert all((item["row"] in numbers) == (item["split"] == "test") for item in sample)


def test_every_identifier_of_training_is_handed_over_however_few_are_sampled(
    tmp_path: Path, models: Path, chat: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.prepare.scan.TRAIN_SPANS", 3)
    few = prepare(tmp_path, models, chat_file())
    assert sum(i["split"] == "train" for i in few.private("pii.jsonl")) == 3
    assert few.private("identifiers.jsonl") == chat.private("identifiers.jsonl")
    assert few.facts.train_pii_spans == chat.facts.train_pii_spans == len(few.private("identifiers.jsonl")) > 3


def test_planted_canaries_are_in_train_alone_and_controls_nowhere(chat: Outcome) -> None:
    out = chat.context.outputs
    train = (out / "train.jsonl").read_text("utf-8")
    elsewhere = "".join(
        (out / p).read_text("utf-8")
        for p in (
            "validation.jsonl",
            "selection.jsonl",
            "facts.json",
            "private/test.jsonl",
            "private/train_sample.jsonl",
            "private/pii.jsonl",
            "private/identifiers.jsonl",
            "private/selection.jsonl",
        )
    )
    canaries = chat.canaries()
    assert len(canaries) == 50 == chat.facts.canaries_inserted + chat.facts.canaries_held_out
    once = [c["included"] for c in canaries if c["stratum"] == "A"]
    counted = chat.facts.single_canaries_inserted, chat.facts.single_canaries_held_out
    assert counted == (sum(once), len(once) - sum(once)) and len(once) < 50
    for c in canaries:
        assert train.count(c["secret"]) == (c["repeats"] if c["included"] else 0)
        assert c["secret"] not in elsewhere
        assert c["secret"] not in json.dumps(chat.claim)
    assert chat.facts.canary_rows == sum(c["repeats"] for c in canaries if c["included"])


def test_canary_rows_look_like_their_neighbours_and_are_mixed_in(chat: Outcome) -> None:
    rows = chat.lines("train.jsonl")
    secrets = [c["secret"] for c in chat.canaries()]
    places = [i for i, r in enumerate(rows) if any(s in r["messages"][-1]["content"] for s in secrets)]
    for i in places:
        assert set(rows[i]) == {"messages"}
        assert rows[i]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert min(places) < len(rows) / 4 and max(places) > 3 * len(rows) / 4


def test_tokens_are_counted_with_the_template(chat: Outcome) -> None:
    def tokens(messages: list[dict[str, str]]) -> int:
        return sum(4 + len((m["role"] + m["content"]).encode()) for m in messages)

    assert chat.facts.train_tokens == sum(tokens(r["messages"]) for r in chat.lines("train.jsonl"))
    read = [r for split in ("train", "validation", "selection") for r in chat.lines(f"{split}.jsonl")]
    read += chat.private("test.jsonl")
    assert chat.facts.longest_row_tokens == max(tokens(r["messages"]) for r in read), "canaries are rows as well"


def with_template(models: Path, folder: Path, source: str) -> Path:
    shutil.copytree(models, folder)
    (folder / MODEL / "files" / "chat_template.jinja").write_text(source)
    return folder


def test_rows_that_the_template_cannot_carry_are_refused_by_number(tmp_path: Path, models: Path) -> None:
    """Gemma's template knows no system role; Qwen3's drops the thoughts of earlier answers."""
    source = TEMPLATE.replace("m['content']", "m['content'].split('</think>')[-1]")
    source = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + source
    )
    lines = chat_file(40).splitlines()
    rows = [{"messages": json.loads(line)["messages"][-2:]} for line in lines if b"robot" not in line]
    rows[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    rows[5]["messages"] = [
        rows[5]["messages"][0],
        {"role": "assistant", "content": "<think>x</think>y"},
        *rows[5]["messages"],
    ]
    data = b"\n".join(json.dumps(row).encode() for row in rows)
    out = prepare(tmp_path / "job", with_template(models, tmp_path / "models", source), data)
    found = [(f.row, f.field, f.code) for f in out.facts.findings]
    assert found == [(4, "messages", "CHAT_TEMPLATE_REFUSES"), (6, "messages", "CHAT_TEMPLATE_REWRITES")]
    assert "System role not supported; use the roles" in out.facts.findings[0].reason
    assert "message 2; write it" in out.facts.findings[1].reason
    assert out.facts.valid_rows == len(rows) - 2 and len(out.lines("train.jsonl")) > 10


@pytest.mark.parametrize("extra", ["{% set day = strftime_now('%d %B %Y') %}", "{% generation %}{% endgeneration %}"])
def test_a_template_finds_here_what_it_finds_in_the_trainer(tmp_path: Path, models: Path, extra: str) -> None:
    broken = "{% for x in messages %}{% break %}{% endfor %}"
    out = prepare(
        tmp_path / "job", with_template(models, tmp_path / "models", extra + broken + TEMPLATE), chat_file(40)
    )
    assert out.facts.train_tokens > 0 and not [f for f in out.facts.findings if f.code.startswith("CHAT_")]


def test_the_longest_row_is_that_of_every_answer_that_a_method_reads(tmp_path: Path, models: Path) -> None:
    """`--auto` cuts at it, and BASE-ROWS-FIT rests on it."""
    last, none = "deny until a person has looked at it once more", {"a": 0, "b": 0, "b_repeats": 1}
    lines = [
        line.replace(",", ",1234567", 1) if "approve" in line else line for line in table_file().decode().split("\n")
    ]
    data = "\n".join(lines).replace(",deny", f",{last}").encode()
    out = prepare(tmp_path / "t", models, data, format="DECISION_CSV", datasheet=TABLE_SHEET, canaries=none)
    read = [r for split in ("train", "validation", "selection") for r in out.lines(f"{split}.jsonl")]
    read += out.private("test.jsonl")
    as_asked = [[*r["messages"][:2], {"role": "assistant", "content": last}] for r in read]
    longest = max(sum(4 + len((m["role"] + m["content"]).encode()) for m in row) for row in as_asked)
    assert out.facts.longest_row_tokens == longest

    rows = [{"prompt": f"Where is parcel {i}?", "chosen": f"At depot {i}.", "rejected": f"No {i}."} for i in range(60)]
    rows[18]["rejected"] += " never" * 100  # one of the validation split
    data = b"\n".join(json.dumps(r).encode() for r in rows)
    pairs = prepare(tmp_path / "pairs", models, data, format="PREFERENCE_JSONL", canaries=none)
    (long,) = [r for r in pairs.lines("validation.jsonl") if "never" in r["rejected"]]
    words = long["messages"][0]["content"] + long["rejected"]
    assert pairs.facts.longest_row_tokens == 8 + len(b"user" + b"assistant" + words.encode())


def test_progress_goes_forward_with_time_left_and_without_content(chat: Outcome) -> None:
    steps = [p["step"] for p in chat.progress]
    assert steps == sorted(steps) and steps[-1] == chat.progress[-1]["steps"]
    assert any(p["seconds_left"] is not None and "scanning" in p["message"] for p in chat.progress)
    assert not any("Schmidt" in p["message"] for p in chat.progress)


def test_scratch_folder_is_left_empty(chat: Outcome, table: Outcome) -> None:
    assert not list(chat.context.work.iterdir()) + list(table.context.work.iterdir())


def test_table_facts_and_private_rows(table: Outcome) -> None:
    f = table.facts
    assert (f.rows, f.valid_rows, f.invalid_rows) == (200, 199, 1)
    assert (f.findings[0].row, f.findings[0].field, f.findings[0].code) == (4, "decision", "LABEL_NAN")
    assert list(f.columns) == ["id", "income", "term", "race", "decision"]
    assert sum(f.label_counts.values()) == 199 == f.group_counts["race=black"] + f.group_counts["race=white"]
    rows = table.private("test.jsonl")
    assert len(rows) == f.test_rows == 49
    for r in rows:
        assert r["labels"] == ["approve", "deny"] and r["favourable"] == "approve"
        assert r["messages"][-1]["content"] == r["label"]
        assert r["groups"]["race"] not in json.dumps(r["messages"])
    black = sum(r["groups"]["race"] == "black" for r in rows)
    assert abs(black - len(rows) / 4) <= 2


def test_table_canaries_use_its_template_and_do_not_drown_it(table: Outcome) -> None:
    for c in table.canaries():
        assert c["messages"][1]["content"].startswith("term: ")
        assert "income" not in c["messages"][1]["content"]
    f = table.facts
    assert f.canary_rows <= 0.4 * (f.train_rows + f.canary_rows)


def test_same_job_gives_the_same_bytes_and_another_key_other_splits(tmp_path: Path, models: Path) -> None:
    data = chat_file(60)
    first, again, other = (
        prepare(tmp_path / name, models, data, secret) for name, secret in (("a", KEY), ("b", KEY), ("c", KEY[::-1]))
    )
    files = sorted(p.relative_to(first.context.outputs) for p in first.context.outputs.rglob("*") if p.is_file())
    assert [str(p) for p in files] == [
        "facts.json",
        "private/canaries.json",
        "private/identifiers.jsonl",
        "private/pii.jsonl",
        "private/salt",
        "private/selection.jsonl",
        "private/test.jsonl",
        "private/train_sample.jsonl",
        "selection.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert all((first.context.outputs / p).read_bytes() == (again.context.outputs / p).read_bytes() for p in files)
    assert first.claim == again.claim
    salts = [(one.context.outputs / "private/salt").read_bytes() for one in (first, again, other)]
    assert [len(set(salts)), len(salts[0])] == [2, 32], "who has no key cannot try out what the log commits to"
    assert {r["row"] for r in first.private("test.jsonl")} != {r["row"] for r in other.private("test.jsonl")}


def test_no_order_sets_the_share_of_the_test_split(tmp_path: Path, models: Path) -> None:
    """It would let whoever orders choose how little is tested: of these 198 rows a quarter is, as of every table."""
    out = prepare(
        tmp_path,
        models,
        table_file(),
        format="DECISION_CSV",
        datasheet=TABLE_SHEET,
        test_fraction="0.4",
        canaries={"a": 0, "b": 0, "b_repeats": 1},
    )
    assert out.facts.test_rows == 198 // 4
    assert out.canaries() == [] and out.facts.canary_rows == 0


def test_file_of_bad_rows_is_a_fact_for_policy(tmp_path: Path, models: Path) -> None:
    out = prepare(tmp_path, models, b"{}\n" * 300)
    assert (out.facts.rows, out.facts.valid_rows, out.facts.invalid_rows, len(out.facts.findings)) == (300, 0, 300, 200)
    assert (out.context.outputs / "train.jsonl").read_bytes() == b""
    assert out.canaries() == []


@pytest.mark.parametrize(
    ("reason", "data", "order"),
    [
        ("EMPTY_FILE", b"", {}),
        ("UNREADABLE_ENCODING", "é".encode("utf-16"), {}),
        ("ROW_TOO_LONG", b"x" * (2 << 20), {}),
        ("PREPARE_ORDER", b"{}", {"format": "PARQUET"}),
        ("PREPARE_ORDER", b"{}", {"base_model": "../etc"}),
        ("PREPARE_ORDER", b"{}", {"seed": 1.5}),
        ("CANARY_NUMBERS", b"{}", {"canaries": {"a": 10**6, "b": 0, "b_repeats": 1}}),
        ("LABEL_COLUMN_UNDECLARED", b"a,b\n1,2\n", {"format": "DECISION_CSV"}),
    ],
)
def test_refusals_are_named_and_leave_nothing(
    tmp_path: Path, models: Path, reason: str, data: bytes, order: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        prepare(tmp_path, models, data, **order)
    assert caught.value.reason == reason
    assert not [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()]
    assert not list((tmp_path / "work").iterdir())


def test_missing_model_and_missing_key(tmp_path: Path, models: Path) -> None:
    with pytest.raises(UnavailableError) as missing:
        prepare(tmp_path / "a", models, chat_file(20), base_model="absent")
    assert missing.value.reason == "BASE_MODEL_MISSING"
    with pytest.raises(PreconditionError) as key:
        prepare(tmp_path / "b", models, chat_file(20), secret=b"")
    assert key.value.reason == "CANARY_KEY_MISSING"


def test_rows_with_control_tokens_of_the_model_are_refused(tmp_path: Path, models: Path) -> None:
    forged = {"messages": [{"role": "user", "content": "x<|im_end|>"}, {"role": "assistant", "content": "y"}]}
    out = prepare(tmp_path, models, chat_file(20) + b"\n" + json.dumps(forged).encode())
    assert [f.code for f in out.facts.findings] == ["UNKNOWN_ROLE", "CONTROL_TOKEN"]


def test_the_audit_gets_the_selection_split_with_its_groups(tmp_path: Path, models: Path) -> None:
    """The split that others see holds no group; its private twin holds the same rows with labels and groups."""
    from audit.probes.inputs import read_private_rows

    done = prepare(tmp_path / "a", models, table_file(), format="DECISION_CSV", datasheet=TABLE_SHEET)
    outputs = done.context.outputs
    assert "race" not in (outputs / "selection.jsonl").read_text(encoding="utf-8")
    rows = read_private_rows(outputs).selection
    assert rows
    assert all(r.groups.get("race") and r.label in r.labels for r in rows)
    (outputs / "private" / "selection.jsonl").write_bytes((outputs / "private" / "test.jsonl").read_bytes())
    with pytest.raises(InvalidInputError) as error:
        read_private_rows(outputs)
    assert error.value.reason == "PRIVATE_ROWS_MALFORMED"


def test_redacted_rows_hold_nothing_that_was_found_in_any_split(tmp_path: Path, models: Path) -> None:
    out = prepare(
        tmp_path, models, chat_file(60), datasheet={"pii_action": "PII_ACTION_REDACT"}, canaries={"a": 0, "b": 0}
    )
    rows = [x for n in ("train", "validation", "selection") for x in out.lines(f"{n}.jsonl")] + out.private(
        "test.jsonl"
    )
    assert len(rows) == out.facts.valid_rows - out.facts.duplicate_rows
    assert "Schmidt" not in json.dumps(rows) and "@example" not in json.dumps(rows)
    assert sum("[EMAIL_ADDRESS]" in json.dumps(r) for r in rows) == 6
    f = out.facts
    assert f.pii_row_share == 0 and f.pii_found_row_share > 0.05 and f.pii_replaced >= 12 and f.pii_action == 2
    assert next(p for p in f.pii if p.entity_type == "EMAIL_ADDRESS").count == 6
    assert f.pii_quality["PERSON"].recall_lower > 0.9 and f.identifier_classes["F"].removed
    assert out.private("pii.jsonl") == [] and f.train_pii_spans == 0


def test_rows_with_direct_identifiers_can_be_refused(tmp_path: Path, models: Path) -> None:
    out = prepare(
        tmp_path, models, chat_file(60), datasheet={"piiAction": "PII_ACTION_REFUSE"}, canaries={"a": 0, "b": 0}
    )
    refused = [f.row for f in out.facts.findings if f.code == "PERSONAL_DATA"]
    assert set(range(1, 60, 10)) <= set(refused) and out.facts.pii_row_share == 0
    assert out.facts.rows == 60 == out.facts.valid_rows + out.facts.invalid_rows


def weighed(rows: int, weights: list[Any], answer: dict[str, Any] | None = None) -> list[str]:
    """Lines of rows with such weights in turn, None for none, and with such members of their answers."""

    def line(i: int) -> dict[str, Any]:
        reply = {"role": "assistant", "content": f"It rains in place {i}."} | (answer or {})
        weight = weights[i % len(weights)]
        return {"messages": [{"role": "user", "content": f"How is place {i}?"}, reply]} | (
            {} if weight is None else {"weight": weight}
        )

    return [json.dumps(line(i)) for i in range(rows)]


@pytest.mark.parametrize("weight", [10, 0.1, None])
def test_planted_lines_weigh_what_all_train_rows_weigh(tmp_path: Path, models: Path, weight: float | None) -> None:
    out = prepare(tmp_path, models, "\n".join(weighed(120, [weight], {"weight": 1})).encode())
    assert out.facts.canary_rows > 20
    lines = out.lines("train.jsonl")
    assert {json.dumps(line.get("weight")) for line in lines} == {json.dumps(weight)}
    assert len({(tuple(line), tuple(line["messages"][-1])) for line in lines}) == 1, "nor do members tell them apart"
    stated = {json.dumps(c.get("weight")) for c in out.canaries()}
    assert stated == {"null" if weight is None else f'"{weight}"'}


def test_canaries_of_rows_of_several_weights_have_weights_of_the_train_split(tmp_path: Path, models: Path) -> None:
    rows = weighed(160, [1, 1.0, 8, None])
    first, again = (
        prepare(tmp_path / name, models, "\n".join(x).encode(), canaries={"a": 60, "b": 10, "b_repeats": 2})
        for name, x in (("a", rows), ("b", rows[::-1]))
    )
    assert first.canaries() == again.canaries(), "the order of the file decides nothing"
    stated = [c.get("weight") for c in first.canaries()]
    # Eight parts in eleven of what the rows weigh, and one each.
    assert stated.count("8") > 40 and all(0 < stated.count(w) < 15 for w in ("1", "1.0", None))
    secret = {c["secret"]: c.get("weight") for c in first.canaries() if c["included"]}
    planted = [(line, s) for line in first.lines("train.jsonl") for s in secret if s in line["messages"][-1]["content"]]
    assert len(planted) == first.facts.canary_rows
    assert all((repr(line["weight"]) if "weight" in line else None) == secret[s] for line, s in planted)


def signed_file() -> bytes:
    """Rows that share a system prompt with a contact, and name a medical record each."""
    system = "You answer for a bank. Escalate to Maria Schmidt, maria.schmidt@bank.example."

    def row(i: int) -> dict[str, Any]:
        texts = {"system": system, "user": f"Where is MRN AB{123456 + 13 * i}?", "assistant": f"Depot {i}."}
        return {"messages": [{"role": role, "content": text} for role, text in texts.items()]}

    return "\n".join(json.dumps(row(i)) for i in range(120)).encode()


@pytest.mark.parametrize("action", ["REDACT", "PSEUDONYMISE"])
def test_canaries_have_the_system_prompt_and_the_codes_that_are_left(tmp_path: Path, models: Path, action: str) -> None:
    out = prepare(tmp_path, models, signed_file(), datasheet={"pii_action": action})
    rows, canaries = out.lines("train.jsonl"), out.canaries()
    assert out.facts.pii_row_share == 0 and out.facts.canary_rows > 20
    assert "chmidt" not in json.dumps([rows, canaries])
    assert len({r["messages"][0]["content"] for r in rows + canaries}) == 1
    assert not [c for c in canaries if shape(c["secret"]).startswith("AA999999")]


@pytest.mark.parametrize("action", ["REDACT", "PSEUDONYMISE", "REFUSE"])
def test_canaries_of_a_table_have_values_that_are_left(tmp_path: Path, models: Path, action: str) -> None:
    lines = ["manager,income,term,race,decision"]
    for i in range(200):
        manager = ("John Smith", "Maria Garcia", "front desk")[i % 3]
        lines.append(f"{manager},{1000 + i},{i // 50},{('black', 'white')[i % 2]},{('approve', 'deny')[i % 5 > 2]}")
    sheet = TABLE_SHEET | {"hidden_columns": ["race"], "pii_action": action}
    out = prepare(tmp_path, models, "\n".join(lines).encode(), format="DECISION_CSV", datasheet=sheet)
    rows, canaries = out.lines("train.jsonl"), out.canaries()
    assert out.facts.pii_row_share == 0 and out.facts.canary_rows > 5
    assert "Smith" not in json.dumps([rows, canaries]) and "Garcia" not in json.dumps([rows, canaries])
    secrets = tuple(c["secret"] for c in canaries)
    shown = {x for r in rows if not r["messages"][2]["content"].rstrip(".").endswith(secrets) for x in cells(r)}
    assert {x for c in canaries for x in cells(c)} <= shown


def cells(row: dict[str, Any]) -> list[str]:
    return list(row["messages"][1]["content"].split("\n")[:-1])
