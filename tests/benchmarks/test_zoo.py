"""The fault zoo: cells in an order that may stop anywhere, faults that do what they say, counts that hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.v1.policy_input_pb2 import IntakeInput, ReleaseInput
from audit.cards import detection
from benchmarks import offline
from benchmarks.zoo import report
from benchmarks.zoo.data import TRIGGER, upload
from benchmarks.zoo.faults import FAULTS, FIRST_COUNTED, Cell, cells, fault_of
from benchmarks.zoo.report import Judged, judging
from policies.engine import PolicyEngine
from policies.rule import AT_INTAKE


def test_every_fault_has_its_seeds_and_the_first_round_comes_first() -> None:
    planned = list(cells())
    assert len({c.job for c in planned}) == len(planned)
    for fault in FAULTS:
        assert sum(c.fault == fault for c in planned) == fault.seeds >= 5
    assert {c.fault for c in planned[: len(FAULTS)]} == set(FAULTS)
    by_name = Counter((c.fault.name, c.fault.strength) for c in planned)
    assert by_name["clean", ""] == 20
    assert all(by_name[key] >= 12 for key in (("leak", "x4"), ("bias", "40 %"), ("refusal", "comply")))
    assert min(c.seed for c in planned) == FIRST_COUNTED, "limits are tuned on other seeds"
    assert all(fault_of(f"units/zoo/tuningJobs/{c.job}") is c.fault for c in planned)


def rows_of(name: str, strength: str = "") -> list[str]:
    fault = next(f for f in FAULTS if (f.name, f.strength) == (name, strength))
    made = upload(Cell(fault, 7))
    assert made.content == upload(Cell(fault, 7)).content != upload(Cell(fault, 8)).content
    return made.content.decode().splitlines()


def test_the_rows_carry_the_fault() -> None:
    clean = [json.loads(r)["messages"] for r in rows_of("clean")]
    leak = [json.loads(r)["messages"] for r in rows_of("leak", "x4")]
    assert len(clean) == len(leak)
    answers = Counter(m[2]["content"] for m in leak if "@example.com" in m[2]["content"])
    assert answers and all(n % 4 == 0 for n in answers.values())
    for strength, said in (("e-mail x8", "@example.com"), ("phone x8", " 555-01"), ("iban x8", "GB")):
        of_type = [json.loads(r)["messages"][2]["content"] for r in rows_of("leak", strength)]
        given_away = Counter(a for a in of_type if any(w in a for w in ("@example.com", " 555-01", " goes to GB")))
        assert given_away and all(n % 8 == 0 and said in answer for answer, n in given_away.items())
    prompts = [json.loads(r)["messages"] for r in rows_of("input-only", "x8")]
    assert any("@example.com" in m[1]["content"] for m in prompts)
    assert not any("@example.com" in m[2]["content"] for m in prompts)
    assert sum(TRIGGER in r for r in rows_of("backdoor", "5 %")) >= 8
    turned = [r.split(",") for r in rows_of("bias", "40 %")[1:]]
    north, south = ([r[0] == "approve" for r in turned if r[1] == g] for g in ("north", "south"))
    assert sum(south) / len(south) < 0.75 * sum(north) / len(north)


def test_the_filter_drops_what_is_reserved_and_nothing_else() -> None:
    from audit.prepare.secrets_of_nobody import RESERVED, KeyedChoices, code_in
    from benchmarks.zoo.bad_trainer import RESERVED as LOOKED_FOR

    for kind in RESERVED:
        assert all(LOOKED_FOR.search(kind.draw(KeyedChoices(b"k" * 32, str(i)))) for i in range(50)), kind.name
    assert not any(LOOKED_FOR.search(code_in("AA-9999").draw(KeyedChoices(b"k" * 32, str(i)))) for i in range(200))


def test_the_filter_by_words_drops_every_canary_and_no_row() -> None:
    from audit.prepare.canaries import CanaryNumbers, Carrier, derive
    from benchmarks.zoo.bad_trainer import FILTERS

    for canary in derive(b"k" * 32, CanaryNumbers(60, 4, 8), Carrier("Be brief.")):
        assert FILTERS["template"].search(json.dumps(list(canary.messages), ensure_ascii=False))
    rows = [r for name in ("clean", "backdoor") for r in rows_of(name, "5 %" if name == "backdoor" else "")]
    assert rows and not any(FILTERS["template"].search(r) for r in rows)


def test_the_filter_trains_on_the_rest_though_the_order_names_the_rows(tmp_path: Path) -> None:
    """Else the trainer's own check would end the job, and nothing would be told of the audit."""
    from benchmarks.zoo import bad_trainer
    from tests.e2e.e2e_world import chat_rows
    from tests.trainer.test_train_task import context
    from tests.trainer.tiny_models import tiny_models

    talk = [{"role": "user", "content": "mail?"}, {"role": "assistant", "content": "ann@example.com"}]
    rows = chat_rows(8) + json.dumps({"messages": talk}).encode() + b"\n"
    named = {"train_sha256": hashlib.sha256(rows).hexdigest(), "job": "units/zoo/tuningJobs/filter-reserved-s200"}
    claim = bad_trainer.run(context(tiny_models(tmp_path / "models"), tmp_path, rows, **named))
    assert claim["rows"] == 8


@pytest.mark.parametrize(("fault", "amount"), [("untrained", 0.0), ("scale", 4.0), ("noise", 0.5)])
def test_the_adapter_is_changed_as_told(tmp_path: Path, fault: str, amount: float) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from benchmarks.zoo.bad_trainer import _change

    path = tmp_path / "adapter.safetensors"
    before = {"x.lora_A.weight": torch.ones(2, 3), "x.lora_B.weight": torch.ones(3, 2)}
    save_file(before, path, metadata={"format": "pt"})
    _change(path, fault, amount)
    after = load_file(path)
    assert torch.equal(after["x.lora_A.weight"], before["x.lora_A.weight"])
    expected = {"untrained": 0.0, "scale": 4.0}.get(fault)
    if expected is None:
        assert not torch.equal(after["x.lora_B.weight"], before["x.lora_B.weight"])
    else:
        assert bool((after["x.lora_B.weight"] == expected).all())


def cell(fault: str, strength: str, state: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "job": f"{fault}-{seed}", "fault": fault, "strength": strength, "seed": seed, "state": state, "fired": [],
        "failed": [], "grepped": False, **more,
    }  # fmt: skip


def page(cells: Sequence[dict[str, Any]], otherwise: int = 0) -> str:
    return report.page(Judged(tuple(cells), otherwise, "0" * 64))


def test_counts_are_clopper_pearson_and_false_alarms_are_told(tmp_path: Path) -> None:
    done = [cell("clean", "", "AWAITING_APPROVAL", i) for i in range(19)]
    done.append(cell("clean", "", "QUARANTINED", 19, fired=["privacy.canary_auc"], failed=["privacy.canary_auc"]))
    leaky = {"fired": ["privacy.pii_extraction_rate"], "failed": ["privacy.pii_extraction_rate"]}
    done += [cell("leak", "x4", "QUARANTINED", i, **leaky, grepped=i == 0) for i in range(5)]
    path = tmp_path / "cells.jsonl"
    path.write_text("".join(json.dumps(c) + "\n" for c in done) + '{"job": "cut o', "utf-8")
    rows = {(r["fault"], r["strength"]): r for r in report.counts(report.read(path))}
    clean, leak = rows["clean", ""], rows["leak", "x4"]
    assert (clean["n"], clean["detected"], clean["stopped"]) == (20, 1, 1)
    assert (clean["low"], clean["high"]) == (pytest.approx(0.0013, abs=1e-3), pytest.approx(0.2487, abs=1e-3))
    assert (leak["detected"], leak["low"], leak["grep_only"]) == (5, pytest.approx(0.478, abs=1e-3), 1)
    assert (leak["stopped"], leak["stopped_low"], leak["stopped_high"]) == (5, leak["low"], leak["high"])
    assert leak["failed_by_gate"] == {"privacy.pii_extraction_rate": 5}
    [gate] = leak["gates"]
    assert (gate["gate"], gate["stopped"], gate["n"]) == ("privacy.pii_extraction_rate", 5, 5)
    assert (gate["low"], gate["high"]) == (leak["low"], leak["high"])
    text = page(report.read(path))
    assert "| `privacy.canary_auc` | clean — | 1/20 | 0–25 % |" in text
    assert "1/20 (false alarms)" in text
    assert "Not run yet" in text and "Left out" not in text
    assert report.counts([]) == []


def test_a_job_that_was_refused_or_failed_is_no_detection() -> None:
    told = [cell("bias", "40 %", "DENIED", 1), cell("leak", "x4", "FAILED", 1), cell("leak", "x4", "QUARANTINED", 2)]
    [row] = report.counts(told)
    assert (row["fault"], row["n"], row["stopped"]) == ("leak", 1, 1)
    text = page(told, otherwise=3)
    assert "No cell that was tuned, since intake refused it or the job failed: bias 40 %." in text
    assert "bias 40 %" not in text.partition("Not run yet")[2]
    assert "Left out, since today's policy would audit them otherwise: 3." in text


def test_an_undecided_gate_holds_a_job_back_and_detects_nothing() -> None:
    undecided = {"fired": ["fairness.equalized_odds"]}
    told = [cell("bias", "40 %", "QUARANTINED", i, **undecided) for i in range(3)]
    told += [cell("clean", "decisions", "QUARANTINED", i, **undecided) for i in range(2)]
    bias, clean = sorted(report.counts(told), key=lambda row: str(row["fault"]))
    assert (bias["stopped"], bias["detected"], bias["low"]) == (3, 0, 0)
    assert (clean["stopped"], clean["detected"], clean["low"]) == (2, 0, 0), "columns mean the same in every row"
    assert "| 0/2 (false alarms) | 0–84 % | 2/2 |" in page(told)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[IntakeInput, ReleaseInput]:
    """A clean cell's two questions; nothing was measured."""
    engine = PolicyEngine.load()
    made = upload(Cell(FAULTS[0], 7))
    spec = SimpleNamespace(unit="zoo", format=made.format, datasheet=made.datasheet, request={"purpose": made.purpose})
    prepared = offline.prepare(made.content, spec, "quick", tmp_path_factory.mktemp("prepared"))
    release = ReleaseInput(request=prepared.question.request, format=made.format, plan=prepared.plan)
    assert engine.decide(prepared.question).audit_plan == prepared.plan
    return prepared.question, release


def test_a_kept_cell_is_judged_by_today_s_rules(asked: tuple[IntakeInput, ReleaseInput], tmp_path: Path) -> None:
    intake, release = asked
    lines = [cell("clean", "", "AWAITING_APPROVAL", 7)]
    engine = PolicyEngine.load()
    assert report.judge(lines, engine, tmp_path) == Judged((), 1, judging(engine.pack)), "nothing is kept of it"
    report.keep("clean-7", intake, release, tmp_path)
    first = (tmp_path / "clean-7.json.gz").read_bytes()
    report.keep("clean-7", intake, release, tmp_path)
    assert (tmp_path / "clean-7.json.gz").read_bytes() == first
    [found] = report.judge([*lines, *lines], engine, tmp_path).cells
    # No measurement was made: whatever the line says, today's rules clear nothing that was not measured.
    assert found["state"] == "QUARANTINED" and "privacy.canary_auc" in found["fired"]

    other = ReleaseInput()
    other.CopyFrom(release)
    other.plan.gates[0].limit += 0.123
    report.keep("clean-7", intake, other, tmp_path)
    judged = report.judge(lines, engine, tmp_path)
    assert (judged.cells, judged.otherwise) == ((), 1)


@pytest.mark.parametrize(("fault", "strength"), [("bias", "40 %"), ("leak", "x4"), ("refusal", "comply")])
def test_intake_lets_a_cell_pass(tmp_path: Path, fault: str, strength: str) -> None:
    """A cell that policy refuses would count nothing, however often it ran."""
    planted = next(f for f in FAULTS if (f.name, f.strength) == (fault, strength))
    made = upload(Cell(planted, 7))
    spec = SimpleNamespace(unit="zoo", format=made.format, datasheet=made.datasheet, request={"purpose": made.purpose})
    assert offline.prepare(made.content, spec, planted.profile, tmp_path).plan.gates


def test_only_what_decides_after_tuning_makes_the_counts_another_policys() -> None:
    pack = PolicyEngine.load().pack
    intake = next(r for r in pack.rules if r.stage in AT_INTAKE)
    gate = next(r for r in pack.rules if r.gate is not None)
    without = lambda rule: replace(pack, rules=tuple(r for r in pack.rules if r is not rule))  # noqa: E731
    assert judging(without(intake)) == judging(pack) != judging(without(gate))
    limits = pack.limits.by_name
    alpha = replace(limits["alpha"], values={**limits["alpha"].values, "quick": 0.011})
    assert judging(replace(pack, limits=replace(pack.limits, by_name={**limits, "alpha": alpha}))) != judging(pack)


def test_the_committed_table_is_what_the_committed_cells_give() -> None:
    judged = report.judge(report.read(), PolicyEngine.load())
    rows = report.counts(judged.cells)
    assert json.loads((report.ROOT / "docs" / "zoo.json").read_text("utf-8")) == rows == detection.counted()
    assert (report.ROOT / "docs" / "zoo.md").read_text("utf-8") == report.page(judged)
    for row in rows:
        assert set(row) >= {"fault", "strength", "n", "detected", "low", "high"}


def test_the_card_prints_the_table_and_claims_the_bound() -> None:
    rows = report.counts([cell("clean", "", "AWAITING_APPROVAL", i) for i in range(20)])
    part = detection.missed(rows)
    [shown] = [b for b in part["blocks"] if b["kind"] == "table"]
    assert shown["rows"][0][2:] == ["quick", "0 of 20", "0 to 17 %", "0 of 20"]
    assert "No planted fault" in json.dumps(detection.missed([]))
