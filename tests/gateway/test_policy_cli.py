"""``assay policy`` as people type it: lint, test, explain, diff and replay, with exit codes and places."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit.ledger.writer import UnitOfWork
from gateway import history
from gateway.cli.app import app as cli
from gateway.jobs import views
from gateway.store import jobs
from policies import testing
from policies.engine import PolicyEngine
from policies.pack import BASELINE, PACKS, load
from tests.gateway.conftest import House
from tests.gateway.judged import NAME

NAIC_USE = (
    "size(request.use.jurisdictions) > 0 && size(unknown_places) == 0 && request.use.domain in domains"
    " && has(request.use.decides_about_people)"
)


def run(*words: object, code: int = 0) -> str:
    """What the command prints, in one line."""
    done = CliRunner().invoke(cli, ["policy", *map(str, words)], env={"COLUMNS": "400"})
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def told(*words: object) -> Any:
    """The same as JSON."""
    return json.loads(CliRunner().invoke(cli, ["policy", *map(str, words), "--output", "json"]).output)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(PACKS, tmp_path / "policies", ignore=shutil.ignore_patterns("access")))


def change(folder: Path, file: str, old: str, new: str) -> int:
    """Replaces text that must be there once in its first place; returns its line."""
    path = folder / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return text[: text.index(old)].count("\n") + 1


def test_lint_names_every_fault_with_file_line_column_and_rule(own: Path) -> None:
    assert re.search(r"policies: [12]\d\d rules, 0 faults", run("lint", own))
    typo = change(own, "gdpr/rules.yaml", "size(datasheet.purposes) > 0", "size(datasheet.purpose) > 0")
    mixed = change(own, "hipaa/rules.yaml", "data.pii_row_share == 0.0", "data.pii_row_share == 0")
    printed = run("lint", own, code=3)
    assert f"gdpr/rules.yaml:{typo}:" in printed and f"hipaa/rules.yaml:{mixed}:" in printed and "2 faults" in printed
    found = {f["rule"]: f for f in told("lint", own)["findings"]}
    assert {rule: (f["file"], f["line"], f["reason"]) for rule, f in found.items()} == {
        "GDPR-6": ("gdpr/rules.yaml", typo, "PACK_COMPILE"),
        "HIPAA-SH-RESIDUAL": ("hipaa/rules.yaml", mixed, "PACK_COMPILE"),
    }
    for rule, words in (("GDPR-6", ".purpose)"), ("HIPAA-SH-RESIDUAL", "== 0")):
        line = (own / found[rule]["file"]).read_text("utf-8").splitlines()[found[rule]["line"] - 1]
        assert line[found[rule]["column"] - 1 :].startswith(words)


def test_test_prints_coverage_and_survivors_and_fails_where_one_is_left(own: Path) -> None:
    printed = run("test", BASELINE)
    assert "rule coverage: 100 %" in printed and "mutation survivors: 0" in printed and " 0 failed" in printed
    change(own, "baseline/tests.yaml", "fires: {BASE-PURPOSE: fail}\n    says", "fires: {}\n    says")
    printed = run("test", own / "baseline", code=6)
    assert "1 failed" in printed and "the purpose is not one of the datasheet's" in printed


def test_a_rule_that_no_case_would_miss_is_named_as_a_survivor(own: Path) -> None:
    change(own, "naic/rules.yaml", f'expression: "{NAIC_USE}"', 'expression: "true"')
    text = (own / "naic" / "tests.yaml").read_text("utf-8")
    (own / "naic" / "tests.yaml").write_text(re.sub(r"    says: {NAIC-USE: .*\n|NAIC-USE: fail,? ?", "", text), "utf-8")
    printed = run("test", own / "naic", code=6)
    assert "not covered: NAIC-USE" in printed and "survived: NAIC-USE" in printed
    assert " 0 failed" in printed and "100 %" not in printed


def test_explain_prints_source_doubt_dates_and_what_is_an_internal_choice() -> None:
    printed = run("explain", "AIA-10", "--packs", PACKS)
    said = (
        "(binding)", "Article 10", "Unconfirmed: the article was not opened", "in force from 2027-12-02",
        "limit aia_group_rows = 100 (rows), an internal choice", "compliance_officer may waive it",
    )  # fmt: skip
    for words in said:
        assert words in printed
    run("explain", "NO-SUCH-RULE", "--packs", PACKS, code=4)


DIFFERENT = [
    ("gdpr/rules.yaml", "effective_from: 2024-12-17", "effective_from: 2024-12-18", "EDPB-ANON", "effective_from"),
    ("hipaa/rules.yaml", "{move: \"drop_rows\"}", "{move: \"add_rows\"}", "HIPAA-SH-RESIDUAL", "repair"),
    ("hipaa/rules.yaml", "rows: \"data.pii_rows\"", "rows: \"[1]\"", "HIPAA-SH-RESIDUAL", "rows"),
    ("hipaa/limits.yaml", "value: 0.8\n", "value: 0.7\n", "hipaa_recall", "value"),
    ("baseline/rules.yaml", "auc, counts: canaries,", "auc, counts: test_rows,", "GATE-CANARY-AUC", "sample"),
    ("bundle.yaml", "units: {}", "units: {credit: [fair-lending]}", "credit", "packs"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "name", "what"), DIFFERENT)
def test_diff_names_what_differs_and_nothing_else(
    own: Path, file: str, old: str, new: str, name: str, what: str
) -> None:
    assert told("diff", PACKS, own) == []
    change(own, file, old, new)
    (found,) = told("diff", PACKS, own)
    assert (found["name"], found["what"]) == (name, what)
    assert found["before"] != found["after"]
    printed = run("diff", PACKS, own)
    assert "1 differences" in printed and name in printed


def fair_lending(own: Path, *names: str) -> tuple[PolicyEngine, list[Any]]:
    """A bundle in which the unit has chosen fair lending, and questions of its table that reach a verdict."""
    change(own, "bundle.yaml", "units: {}", "units: {credit: [fair-lending]}")
    bundle = load(own)
    engine = PolicyEngine(bundle)
    cases: Sequence[testing.Case] = [c for c in testing.read_cases(bundle) if c.name in names]
    return engine, [testing.release_question(engine, case) for case in cases]


async def test_replay_lists_the_decisions_that_another_day_flips(house: House, own: Path) -> None:
    texas = "the day before the final rule a search is asked for everywhere"
    engine, questions = fair_lending(own, texas, "a documented credit model may be released")
    await house.upload("rita")
    rita = await house.caller("rita")
    names = ("first", "second")
    for job, question in zip(names, questions, strict=True):
        await house.app.jobs.create_tuning_job(rita, house.request(job=job))
        question.as_of = "2026-07-20"
        answer = engine.judge(question)

        def keep(uow: UnitOfWork, job: str = job, question: Any = question, answer: Any = answer) -> None:
            name = f"units/credit/tuningJobs/{job}"
            jobs.establish(uow.connection, name, {history.RELEASE_QUESTION: views.to_json(question)})
            jobs.note(uow.connection, name, {"verdict": views.to_json(answer)})

        await house.app.store.commit(keep)
    root = house.layout.root
    assert "2 questions, 0 answers change, 0 with" in run("replay", root, "--pack", own)
    done = told("replay", root, "--pack", own, "--as-of", "2026-07-21")
    (flip,) = done["changes"]
    refused = "second" if flip["name"].endswith("second") else "first"
    assert flip == {
        "name": f"units/credit/tuningJobs/{refused}", "moment": "verdict", "before": False, "after": True,
        "started": [], "stopped": ["REGB-DI"],
    }  # fmt: skip
    printed = run("replay", root, "--pack", own, "--as-of", "2026-07-21")
    assert "2 questions, 1 answers change, 1 with" in printed and "refuse pass REGB-DI" in printed
    # Nothing was written.
    assert house.types(NAME) == ["job.received"]
    run("replay", root, "--pack", own, "--as-of", "yesterday", code=3)


def test_a_faulty_pack_stops_the_command_with_its_place(own: Path, tmp_path: Path) -> None:
    line = change(own, "naic/rules.yaml", NAIC_USE, NAIC_USE.replace("domain ", "domian "))
    for words in (("test", own), ("diff", PACKS, own), ("explain", "CO-USE", "--packs", own)):
        assert f"naic/rules.yaml:{line}:" in run(*words, code=3)
