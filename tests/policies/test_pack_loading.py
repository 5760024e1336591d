"""A faulty pack does not load, and the error names file, line, column and rule."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from policies.engine import PolicyEngine
from policies.lint import lint_pack
from policies.pack import BASELINE, collect, load
from policies.planning import SAMPLE_SIZES, Planner
from policies.yamlsource import MAX_BYTES, parse
from tests.policies.packs import copy_baseline, one_rule_pack, replace

PURPOSE = "    expression: request.purpose in datasheet.purposes\n"
CITATION = "    citation: Internal standard modelled on GDPR Article 5(1)(b), purpose limitation\n"


def refusal(folder: Path) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        load(folder)
    return caught.value


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text("utf-8").splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "reason", "marker", "column"),
    [
        (PURPOSE, PURPOSE.replace("purposes", "purpose"), "PACK_COMPILE", "datasheet.purpose", 45),
        (PURPOSE, PURPOSE.replace(" in ", " == "), "PACK_COMPILE", "request.purpose == data", 33),
        (PURPOSE, "    expression: size(request.purpose)\n", "PACK_NOT_BOOLEAN", "size(request.purpose)", 17),
        (
            PURPOSE,
            "    expression: size(request.purpose) > limits.nothing\n",
            "PACK_UNKNOWN_LIMIT",
            "limits.nothing",
            47,
        ),
        (PURPOSE, "    expression: request.budget_usd_micros <= limits.alpha\n", "PACK_COMPILE", "limits.alpha", 43),
        (PURPOSE, "", "PACK_SCHEMA", "- id: BASE-PURPOSE", 5),
        (PURPOSE, PURPOSE + "    gate: {}\n", "PACK_MISSING_KEY", "gate: {}", 11),
        (PURPOSE, PURPOSE + "    severity: high\n", "PACK_SCHEMA", "severity: high", 15),
        (PURPOSE, PURPOSE + "    colour: red\n", "PACK_UNKNOWN_KEY", "colour: red", 13),
        (PURPOSE, PURPOSE + "    artefacts: [LETTER]\n", "PACK_SCHEMA", "[LETTER]", 16),
        (PURPOSE, PURPOSE + "    waivable_by: validator\n", "PACK_SCHEMA", "- id: BASE-PURPOSE", 5),
        (PURPOSE, PURPOSE + "    waivable_by: validator\n    waiver_days: 9999\n", "PACK_SCHEMA", "9999", 18),
        (PURPOSE, PURPOSE + "    waiver_days: 30\n", "PACK_SCHEMA", "waiver_days: 30", 18),
        (PURPOSE, "    expression: data.rows > 0\n", "PACK_STAGE", "data.rows > 0", 17),
        (PURPOSE, "    expression: request.quote_usd_micros > 0\n", "PACK_STAGE", "request.quote_usd_micros > 0", 17),
        (PURPOSE, PURPOSE + "    needs: [data.rows]\n", "PACK_STAGE", "needs: [data.rows]", 12),
        ("{move: set, field: datasheet.purposes", "{move: pray, field: datasheet.purposes", "PACK_SCHEMA", "pray", 16),
        ("field: datasheet.purposes,", "field: request.nothing,", "PACK_UNKNOWN_FIELD", "request.nothing", 28),
        (PURPOSE, PURPOSE + "    jurisdictions: [Europe]\n", "PACK_SCHEMA", "[Europe]", 20),
        (PURPOSE, PURPOSE + "    status: binding\n", "PACK_CITATION", "- id: BASE-PURPOSE", 5),
        (
            PURPOSE,
            PURPOSE + "    status: binding\n    reference: Article 1\n",
            "PACK_UNCONFIRMED",
            "- id: BASE-PURPOSE",
            5,
        ),
        (PURPOSE, PURPOSE + PURPOSE, "PACK_AMBIGUOUS", "", 0),
        (PURPOSE, PURPOSE + "    rows: data.rows\n", "PACK_TYPE", "rows: data.rows", 11),
        (PURPOSE, PURPOSE + "    needs: [data.nothing]\n", "PACK_UNKNOWN_FIELD", "data.nothing", 12),
        (PURPOSE, PURPOSE + "    waivable_by: boss\n", "PACK_SCHEMA", "boss", 18),
        ("    appealable: true\n", "    appealable: perhaps\n", "PACK_SCHEMA", "perhaps", 17),
        ("    appealable: true\n" + PURPOSE, "    appealable: yes\n" + PURPOSE, "PACK_AMBIGUOUS", "", 0),
        (CITATION, "    citation: ''\n", "PACK_SCHEMA", "citation: ''", 16),
        (CITATION, "", "PACK_MISSING_KEY", "- id: BASE-PURPOSE", 5),
        (PURPOSE, PURPOSE + "    effective_from: yesterday\n", "PACK_DATE", "yesterday", 21),
        (PURPOSE, PURPOSE + "    effective_from: 2018-13-25\n", "PACK_AMBIGUOUS", "", 0),
        (
            PURPOSE,
            PURPOSE + "    effective_from: 2018-05-25\n    effective_to: 2017-01-01\n",
            "PACK_DATE",
            "effective_from: 2018-05-25",
            21,
        ),
        ("- id: BASE-PURPOSE", "- id: base purpose", "PACK_SCHEMA", "base purpose", 9),
        (PURPOSE, PURPOSE + "    status: law\n", "PACK_SCHEMA", "status: law", 13),
        ("    stage: intake\n", "    stage: later\n", "PACK_SCHEMA", "stage: later", 12),
        ("{request.purpose}; the owner", "{request.purpos}; the owner", "PACK_COMPILE", "request.purpos}", 15),
        ("{request.purpose}; the owner", "{request.purpose | euros}; the owner", "PACK_COMPILE", "euros", 15),
        ("{request.purpose}; the owner", "{request.purpose; the owner", "PACK_COMPILE", "request.purpose; the", 15),
        (
            PURPOSE,
            "    expression: |\n      size(request.purpose) > 0\n      && datasheet.purposes.all(p, p != '')\n",
            "PACK_UNGUARDED",
            "&& datasheet.purposes.all",
            32,
        ),
        (
            PURPOSE,
            "    expression: |\n      size(request.purpose) > 0\n      && request.purpos == ''\n",
            "PACK_COMPILE",
            "&& request.purpos ==",
            17,
        ),
    ],
)
def test_a_faulty_rule_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, reason: str, marker: str, column: int
) -> None:
    folder = copy_baseline(tmp_path)
    rules = folder / "rules.yaml"
    replace(rules, old, new)
    error = refusal(folder)
    assert error.reason == reason, error.message
    assert error.code == "INVALID_ARGUMENT"
    assert error.metadata["file"] == "rules.yaml"
    if marker:
        place = (int(error.metadata["line"]), int(error.metadata["column"]))
        assert place == (line_of(rules, marker), column), error.message
    if marker and "base purpose" not in new:
        assert error.metadata["rule"] == "BASE-PURPOSE"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("  min_rows:\n    value: 100\n", "  min_rows:\n    value: 100\n    colour: red\n", "PACK_UNKNOWN_KEY"),
        ("  min_rows:\n    value: 100\n", "  min_rows:\n", "PACK_MISSING_KEY"),
        ("  min_rows:\n    value: 100\n", "  min_rows:\n    value: .nan\n", "PACK_AMBIGUOUS"),
        ("  min_rows:\n    value: 100\n", "  min_rows:\n    value: 2026-01-01\n", "PACK_LIMIT_TYPE"),
        (
            "  min_rows:\n    value: 100\n",
            "  min_rows:\n    value: {quick: 1, default: 2}\n    by: profile\n",
            "PACK_MISSING_KEY",
        ),
        (
            "  min_rows:\n    value: 100\n",
            "  min_rows:\n    value: {quick: 1, default: 2.0, strict: 3}\n    by: profile\n",
            "PACK_LIMIT_TYPE",
        ),
        ("  min_rows:\n", "  minimum_rows:\n", "PACK_UNKNOWN_LIMIT"),
        ("  power:\n", "  powers:\n", "PACK_UNKNOWN_LIMIT"),
        ("  min_rows:\n", "  Min Rows:\n", "PACK_SCHEMA"),
        ("    status: internal\n", "    status: binding\n", "PACK_SCHEMA"),
        ("kind: Limits", "kind: PolicyPack", "PACK_SCHEMA"),
        (
            "limits:\n",
            "limits:\n  unused: {value: 1, unit: rows, status: internal, why: nobody reads it}\n",
            "PACK_UNUSED_LIMIT",
        ),
        ("limits:\n", "limits: &a\n", "PACK_AMBIGUOUS"),
    ],
)
def test_a_faulty_limit_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "limits.yaml", old, new)
    assert refusal(folder).reason == reason


def test_a_baseline_of_before_a_size_was_added_is_loaded_and_plans_without_it(tmp_path: Path) -> None:
    """A kit of an earlier release holds its own bundle, by which its numbers are judged again."""
    folder = copy_baseline(tmp_path)
    text = (folder / "limits.yaml").read_text("utf-8")
    start = text.index("  sample_permutations:\n")
    (folder / "limits.yaml").write_text(text[:start] + text[text.index("  batch_tokens:\n", start) :], "utf-8")
    before, now = load(folder), load(copy_baseline(tmp_path / "now"))
    for pack, sizes in ((before, set()), (now, {"permutations"})):
        assert set(Planner(pack)._chosen("default")) == {*SAMPLE_SIZES, *sizes}


def test_a_gate_needs_numbers_and_known_methods(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "rules.yaml", "limit: canary_auc\n", "limit: base_models\n")
    assert refusal(folder).reason == "PACK_LIMIT_TYPE"
    replace(folder / "rules.yaml", "limit: base_models\n", "limit: canary_auc\n")
    replace(
        folder / "rules.yaml",
        "{method: auc, counts: canaries, assumed: assumed_canary_auc}",
        "{method: auc, counts: canaries}",
    )
    assert refusal(folder).reason == "PACK_MISSING_KEY"


def test_a_gate_of_the_intake_stage_is_refused(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    text = (folder / "rules.yaml").read_text("utf-8")
    head, tail = text.split("- id: GATE-CANARY-AUC", 1)
    (folder / "rules.yaml").write_text(
        head + "- id: GATE-CANARY-AUC" + tail.replace("stage: pre_deploy", "stage: intake", 1)
    )
    assert refusal(folder).reason == "PACK_SCHEMA"


def test_a_rule_written_twice_is_refused(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "rules.yaml", "- id: BASE-LICENCE", "- id: BASE-MODEL")
    error = refusal(folder)
    assert (error.reason, error.metadata["rule"]) == ("PACK_DUPLICATE_ID", "BASE-MODEL")


def test_every_fault_is_listed_and_the_first_one_raised(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "rules.yaml", "request.method in limits.methods", "request.methods in limits.methods")
    replace(folder / "rules.yaml", "run.adapter_sane", "run.adapter_insane")
    error = refusal(folder)
    assert len(error.violations) == 2
    report = lint_pack(folder)
    assert [(f.rule, f.reason) for f in report.findings] == [
        ("BASE-METHOD", "PACK_COMPILE"),
        ("REL-ADAPTER", "PACK_COMPILE"),
    ]
    assert not report.ok


@pytest.mark.parametrize("missing", ["rules.yaml", "limits.yaml", "tests.yaml"])
def test_a_pack_without_one_of_its_files_does_not_load(tmp_path: Path, missing: str) -> None:
    folder = copy_baseline(tmp_path)
    (folder / missing).unlink()
    assert refusal(folder).reason in {"PACK_UNREADABLE", "PACK_WITHOUT_TESTS"}
    with pytest.raises(InvalidInputError):
        PolicyEngine.load(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"rules: [",
        b"!!python/object/apply:os.system ['true']",
        b"a" * (MAX_BYTES + 1),
        b"",
        b"- 1\n- 2\n",
    ],
)
def test_hostile_files_are_refused_in_words(tmp_path: Path, content: bytes) -> None:
    folder = copy_baseline(tmp_path)
    (folder / "rules.yaml").write_bytes(content)
    assert refusal(folder).reason.startswith("PACK_")


@pytest.mark.parametrize(
    "text",
    ["a: no", "a: 017", "a: 1_000", "a: 12:30:45", "a: 1_0e3x: 2", "? [1, 2]\n: 3", "<<: {a: 1}", "a: !!binary abcd"],
)
def test_what_yaml_would_guess_is_asked_for_in_full(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse("x.yaml", text)


def test_digests_follow_content_and_not_layout(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    original = load(BASELINE)
    rules = folder / "rules.yaml"
    rules.write_text("# a comment more\n\n" + rules.read_text("utf-8"), "utf-8")
    assert load(folder).bundle_sha256 == original.bundle_sha256
    replace(folder / "limits.yaml", "value: 100\n", "value: 101\n")
    changed = load(folder)
    assert changed.limits_sha256 != original.limits_sha256
    assert changed.bundle_sha256 == original.bundle_sha256
    replace(rules, "title: The base model is on", "title: A base model is on")
    assert load(folder).bundle_sha256 != original.bundle_sha256


def test_collect_returns_the_pack_or_the_faults(tmp_path: Path) -> None:
    pack, faults = collect(BASELINE)
    assert pack is not None and not faults
    folder = one_rule_pack(tmp_path, "expression: nothing")
    pack, faults = collect(folder)
    assert pack is None and len(faults) == 1


def test_lint_of_the_baseline_is_clean_and_of_a_vague_citation_is_not(tmp_path: Path) -> None:
    assert lint_pack(BASELINE).ok
    folder = copy_baseline(tmp_path)
    law = "    status: binding\n    instrument: data protection law\n    reference: on purposes\n"
    replace(folder / "rules.yaml", PURPOSE, f"{PURPOSE}{law}    unconfirmed: not read anywhere\n")
    assert [f.reason for f in lint_pack(folder).findings] == ["PACK_CITATION"]
    shutil.rmtree(folder)
    assert not lint_pack(folder).ok


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ("    reference: Article 3\n", ""),
        ("    reference: Articles 3(1) and 4\n", "Article 4"),
        ("    reference: Annex II(1)\n", "Annex II"),
        ("    instrument: Another Act\n    reference: Article 3\n", "Another Act"),
        ("    reference: Article 4\n    citation: Read there\n", ""),
        ("    reference: Clause 4\n", ""),
    ],
)
def test_a_citation_is_not_inherited_by_what_it_does_not_hold(tmp_path: Path, keys: str, missing: str) -> None:
    folder = one_rule_pack(tmp_path, "expression: 'true'")
    rules = folder / "rules.yaml"
    replace(rules, "    citation: Internal standard\n", keys)
    replace(rules, "    instrument: Internal standard\n", "")
    given = "{citation: 'Read in a page (Article 3)', instrument: Act, unconfirmed: the text}"
    replace(rules, "rules:\n", f"defaults: {given}\nrules:\n")
    found = [finding.message for finding in lint_pack(folder).findings if finding.reason == "PACK_CITATION"]
    assert found == ([f"the pack's citation does not hold {missing}: the rule needs one of its own"] if missing else [])
