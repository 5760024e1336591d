"""A pack's own tests: tables that an officer can read, run before the pack is used.

``tests.yaml`` holds named questions (fixtures) and cases. A case changes a fixture and names every rule that must not
pass, with its outcome; any other rule that does not pass fails the case. Three things are asked of the table as a
whole: every case holds, every rule was seen both passing and not passing, and no rule can be replaced by ``true``
without a case noticing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay import canonical, digests
from assay.errors import FieldViolation, InvalidInputError
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from policies import asking, statistics, yamlsource
from policies.cel import ENGINE
from policies.engine import PolicyEngine
from policies.limits import plain
from policies.pack import TESTS, load
from policies.rule import GOOD, Pack
from policies.yamlsource import Section

_WORDS = {
    "fail": policy_pb2.OUTCOME_FAIL,
    "warn": policy_pb2.OUTCOME_WARN,
    "error": policy_pb2.OUTCOME_ERROR,
    "inconclusive": policy_pb2.OUTCOME_INCONCLUSIVE,
}
_DOCUMENT = "d" * 64
"""Digest of the documents that fixtures hand in by kind."""
_HELD = (policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_NOT_APPLICABLE)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: what it shows.
        pack: name of the pack whose table it stands in; it is judged by that pack beside the bundle's first.
        line: where it stands in the file.
        intake: intake question; also the source of the plan of a release case.
        release: what the release stage sees beside the plan; None for an intake case.
        plan: changes to the plan, as JSON.
        after: changes to request and datasheet that only the release stage sees, as JSON.
        fires: outcome by rule id of every rule that must not pass.
        says: text that a rule's message or fix must hold, by rule id.
        as_of: day whose rules apply.
        life: the question is the one asked at each permit.
    """

    name: str
    pack: str
    line: int
    intake: policy_input_pb2.IntakeInput
    release: Mapping[str, Any] | None
    plan: Mapping[str, Any]
    after: Mapping[str, Any]
    fires: Mapping[str, policy_pb2.Outcome]
    says: Mapping[str, str]
    as_of: str
    life: bool = False


@dataclass(frozen=True)
class Failure:
    """A case that does not hold."""

    case: str
    line: int
    message: str


@dataclass(frozen=True)
class Coverage:
    """In how many cases a rule passed, and in how many it did not."""

    rule_id: str
    passed: int
    fired: int


@dataclass(frozen=True)
class TestReport:
    """What a run of the table showed.

    Attributes:
        cases: how many were run.
        failures: cases that do not hold.
        coverage: by rule, in the pack's order.
        survivors: rules that could be replaced by ``true`` unnoticed; empty when the check was not asked for.
    """

    __test__ = False

    cases: int
    failures: tuple[Failure, ...]
    coverage: tuple[Coverage, ...]
    survivors: tuple[str, ...] = ()

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Rules that were not seen both passing and not passing."""
        return tuple(c.rule_id for c in self.coverage if not (c.passed and c.fired))

    @property
    def ok(self) -> bool:
        """True when every case holds, every rule is covered and no mutant survived."""
        return not (self.failures or self.uncovered or self.survivors)


def test_pack(folder: Path) -> TestReport:
    """Loads a pack and runs its table with the mutation check; for the command line.

    Raises:
        InvalidInputError: ``PACK_*`` when the pack or its table is malformed.
    """
    pack = load(folder)
    cases = read_cases(pack)
    report = run(pack, cases)
    return TestReport(report.cases, report.failures, report.coverage, survivors(pack, cases))


test_pack.__test__ = False  # type: ignore[attr-defined]  # a function of the product; test runners must not collect it


def standing(pack: Pack) -> str:
    """What the result of a pack's own tests follows from, as one digest: rules, limits, tables, engine and its code."""
    tables = {part.name: digests.sha256_file(part.folder / TESTS) for part in pack.parts}
    code = {file.name: digests.sha256_file(file) for file in sorted(Path(__file__).parent.glob("*.py"))}
    on = {"bundle": pack.bundle_sha256, "limits": pack.limits_sha256, "tests": tables, "engine": ENGINE, "code": code}
    return digests.sha256_bytes(canonical.encode(on))


def demand(pack: Pack) -> None:
    """Runs the table and refuses the pack when a case fails or a rule is not covered.

    Raises:
        InvalidInputError: ``PACK_TESTS_FAILED`` with every failure in ``violations``.
    """
    report = run(pack, read_cases(pack))
    faults = [FieldViolation(f"{TESTS}:{f.line}", f"{f.case}: {f.message}") for f in report.failures]
    faults += [FieldViolation(TESTS, f"{rule} needs a passing and a failing case") for rule in report.uncovered]
    if faults:
        message = f"the tests of pack {pack.name} do not hold: {faults[0].description}"
        raise InvalidInputError("PACK_TESTS_FAILED", message, violations=faults, remedy="mend the rule or its test")


def run(pack: Pack, cases: Sequence[Case]) -> TestReport:
    """Runs every case."""
    engines = {part.name: engine_of(pack, part.name) for part in pack.parts}
    failures: list[Failure] = []
    passed = dict.fromkeys((rule.id for rule in pack.rules), 0)
    fired = dict(passed)
    home = {rule.id: rule.pack for rule in pack.rules}
    for case in cases:
        outcomes, differences = attempt(engines[case.pack], case)
        failures += [Failure(case.name, case.line, message) for message in differences]
        for outcome in outcomes:
            if home.get(outcome.rule_id) == case.pack:
                passed[outcome.rule_id] += outcome.outcome == policy_pb2.OUTCOME_PASS or _declared(outcome)
                fired[outcome.rule_id] += outcome.outcome not in _HELD and not _declared(outcome)
    coverage = tuple(Coverage(rule.id, passed[rule.id], fired[rule.id]) for rule in pack.rules)
    return TestReport(len(cases), tuple(failures), coverage)


def survivors(pack: Pack, cases: Sequence[Case]) -> tuple[str, ...]:
    """The mutation check: rules that may be replaced by ``true`` without any case failing."""
    out = []
    for rule in pack.rules:
        mutant = engine_of(pack, rule.pack, always_true=rule.id)
        # Only a case in which the rule fires can notice.
        noticed = (attempt(mutant, case)[1] for case in cases if rule.id in case.fires and rule.pack == case.pack)
        if not any(noticed):
            out.append(rule.id)
    return tuple(out)


def engine_of(pack: Pack, name: str, *, always_true: str = "") -> PolicyEngine:
    """The engine as a unit meets it that chose one pack beside the bundle's first."""
    return PolicyEngine(pack, always_true=always_true, packs=frozenset({pack.parts[0].name, name}))


def read_cases(pack: Pack) -> tuple[Case, ...]:
    """Reads every pack's ``tests.yaml``; a later pack may build on fixtures of the first.

    A fixture ``{from, set, hands_in}`` changes one that is known and hands in documents by kind; a case takes some
    away by ``without``. That a rule rests on a document that was handed in (``DECLARED``) need not be listed in
    ``fires``, and is looked for where it is.

    Raises:
        InvalidInputError: ``PACK_*`` with file, line and column.
    """
    cases: list[Case] = []
    known: dict[str, dict[str, Any]] = {"intake": {}, "release": {}}
    for i, part in enumerate(pack.parts):
        document = yamlsource.read(part.folder / TESTS, f"{part.folder.name}/" if len(pack.parts) > 1 else "")
        top = Section(document, ())
        top.only(("apiVersion", "kind", "cases"), ("intake", "release"))
        top.choice("apiVersion", ("policies.assay.dev/v1",))
        top.choice("kind", ("PolicyTests",))
        mine = {kind: dict(known[kind]) for kind in known}
        for kind in mine:
            _fixtures(top, kind, mine[kind])
        if i == 0:
            known = mine
        cases += [_case(section, pack, part.name, mine) for section in top.items("cases")]
    return tuple(cases)


def _fixtures(top: Section, kind: str, known: dict[str, Any]) -> None:
    """Adds a file's fixtures to those known; ``{from, set}`` changes one that is known already."""
    for name in top.child(kind).data if kind in top.data else ():
        section = top.child(kind).child(name)
        value = plain(section.data)
        if "from" in value:
            section.only(("from",), ("set", "hands_in"))
            if value["from"] not in known:
                raise section.error("from", "PACK_SCHEMA", f"there is no {kind} fixture {value['from']!r}")
            changed = copy.deepcopy(known[value["from"]])
            for path, item in (value.get("set") or {}).items():
                _put(changed, path, item)
            if "hands_in" in value:
                handed = [{"kind": kind, "sha256": _DOCUMENT} for kind in section.texts("hands_in")]
                _put(changed, "request.use.artefacts", handed)
            value = changed
        known[name] = value


def _case(section: Section, pack: Pack, part: str, known: Mapping[str, Mapping[str, Any]]) -> Case:
    fixtures = ("intake", "release", "live")
    section.only(("name", "fires"), (*fixtures, "set", "measure", "unmeasure", "plan", "says", "as_of", "without"))
    named = [key for key in fixtures if key in section.data]
    if len(named) != 1:
        raise section.error("", "PACK_SCHEMA", "a case names one fixture: intake, release or live")
    release: dict[str, Any] | None = None
    if named[0] == "intake":
        intake = _fixture(section, "intake", "intake", known)
    else:
        release = _fixture(section, named[0], "release", known)
        release["run"] = dict(release.get("run", {}))
        intake = _fixture(section, named[0], "intake", known, str(release.pop("intake", "")))
    after: dict[str, Any] = {}
    for path, value in plain(section.data.get("set") or {}).items():
        if release is not None and path.startswith(("run.", "live.")):
            _put(release, path, value)
        elif release is not None and path.startswith("release."):
            after[path.removeprefix("release.")] = value
        else:
            _put(intake, path, value)
    dropped_kinds = section.texts("without")
    if dropped_kinds:
        use = intake["request"]["use"]
        use["artefacts"] = [item for item in use["artefacts"] if item["kind"] not in dropped_kinds]
    if release is not None:
        release["measurements"] = {**release.get("measurements", {}), **plain(section.data.get("measure") or {})}
        for dropped in section.texts("unmeasure"):
            release["measurements"].pop(dropped, None)
    fires = plain(section.data.get("fires") or {})
    for rule_id, word in fires.items():
        if pack.rule(rule_id) is None or word not in _WORDS:
            message = f"{rule_id}: {word} is not a rule and one of {', '.join(_WORDS)}"
            raise section.error("fires", "PACK_SCHEMA", message)
    try:
        question = json_format.ParseDict(intake, policy_input_pb2.IntakeInput())
    except json_format.ParseError as error:
        raise section.error("", "PACK_SCHEMA", f"the fixture is no intake input: {error}") from error
    return Case(
        name=section.text("name"),
        pack=part,
        line=document_line(section),
        intake=question,
        release=release,
        plan=plain(section.data.get("plan") or {}),
        after=after,
        fires={rule_id: _WORDS[word] for rule_id, word in fires.items()},
        says=plain(section.data.get("says") or {}),
        as_of=str(section.data.get("as_of") or ""),
        life=named[0] == "live",
    )


def document_line(section: Section) -> int:
    """Line of a case in its file."""
    return section.document.position(section.where).line


def _fixture(
    section: Section, key: str, kind: str, known: Mapping[str, Mapping[str, Any]], name: str = ""
) -> dict[str, Any]:
    name = name or section.text(key)
    value = known[kind].get(name)
    if not isinstance(value, dict):
        raise section.error(key, "PACK_SCHEMA", f"there is no {kind} fixture {name!r}")
    return copy.deepcopy(value)


def _put(whole: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        whole = whole.setdefault(step, {})
    if value is None:
        whole.pop(last, None)
    else:
        whole[last] = value


def attempt(engine: PolicyEngine, case: Case) -> tuple[Sequence[policy_pb2.RuleOutcome], list[str]]:
    """The outcomes of a case, and what is not as it should be."""
    try:
        if case.release is None:
            outcomes = engine.decide(_dated(case)).outcomes
        else:
            question = release_question(engine, case)
            outcomes = (engine.renew(question) if case.life else engine.judge(question)).outcomes
    except InvalidInputError as error:
        return (), [error.message]
    return outcomes, _differences(case, outcomes)


def _dated(case: Case) -> policy_input_pb2.IntakeInput:
    question = policy_input_pb2.IntakeInput()
    question.CopyFrom(case.intake)
    question.as_of = case.as_of or question.as_of
    return question


def release_question(engine: PolicyEngine, case: Case) -> policy_input_pb2.ReleaseInput:
    """Builds the release question of a case, with the plan that the engine makes for its intake question.

    Raises:
        InvalidInputError: ``PACK_TESTS_FAILED`` when intake would have denied it.
    """
    decision = engine.decide(_dated(case))
    if not decision.allowed or case.release is None:
        stopped = [outcome.rule_id for outcome in decision.outcomes if outcome.outcome not in GOOD]
        raise InvalidInputError("PACK_TESTS_FAILED", f"{TESTS}:{case.line}: intake denies the fixture by {stopped}")
    plan = json_format.MessageToDict(decision.audit_plan, preserving_proto_field_name=True)
    for path, value in case.plan.items():
        _put(plan, path, value)
    told = json_format.MessageToDict(case.intake, preserving_proto_field_name=True)
    whole: dict[str, Any] = {str(key): told[key] for key in ("request", "datasheet", "format") if key in told}
    whole |= {"plan": plan, "run": case.release["run"], "as_of": case.as_of}
    if case.life:
        whole["live"] = case.release.get("live", {})
    for path, value in case.after.items():
        _put(whole, path, value)
    try:
        question = json_format.ParseDict(whole, policy_input_pb2.ReleaseInput())
        for key, given in case.release["measurements"].items():
            question.measurements[key].CopyFrom(measurement(key, given, decision.audit_plan.confidences))
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise InvalidInputError("PACK_TESTS_FAILED", f"{TESTS}:{case.line}: {error}") from error
    return question


def measurement(key: str, given: Mapping[str, Any], confidences: Sequence[float]) -> measurement_pb2.Measurement:
    """A measurement from shorthand, with an interval at every level.

    ``{successes, n}`` is a proportion with exact intervals; ``{value, error, n}`` has normal ones; ``{value, lower,
    upper, n}`` the same at every level; ``{value}`` none. ``unavailable``, ``exploratory`` and ``control`` are as on
    the wire.
    """
    name, _, rest = key.partition("[")
    out = measurement_pb2.Measurement(name=name, slice=rest.removesuffix("]"))
    out.unavailable, out.exploratory = str(given.get("unavailable", "")), bool(given.get("exploratory", False))
    if "n" in given:
        out.n = int(given["n"])
    if "control" in given:
        out.control = float(given["control"])
    if "successes" in given:
        out.successes = int(given["successes"])
        out.value = out.successes / out.n
    elif "value" in given:
        out.value = float(given["value"])
    for confidence in confidences:
        if "successes" in given:
            lower, upper = statistics.clopper_pearson(out.successes, out.n, confidence)
        elif "error" in given:
            half = statistics.quantile(0.5 + confidence / 2) * float(given["error"])
            lower, upper = out.value - half, out.value + half
        elif "lower" in given or "upper" in given:
            lower, upper = float(given.get("lower", -math.inf)), float(given.get("upper", math.inf))
        else:
            continue
        interval = out.intervals.add(confidence=confidence)
        if math.isfinite(lower):
            interval.lower = lower
        if math.isfinite(upper):
            interval.upper = upper
    return out


def _differences(case: Case, outcomes: Sequence[policy_pb2.RuleOutcome]) -> list[str]:
    out = []
    seen: dict[str, policy_pb2.RuleOutcome] = {}
    for outcome in outcomes:
        if outcome.outcome not in _HELD:
            seen.setdefault(outcome.rule_id, outcome)
    for rule_id, expected in case.fires.items():
        found = seen[rule_id].outcome if rule_id in seen else policy_pb2.OUTCOME_PASS
        if found != expected:
            out.append(f"{rule_id} should be {_word(expected)}, but is {_word(found)}")
    out += [
        f"{rule_id} should pass, but is {_word(outcome.outcome)}: {outcome.message}"
        for rule_id, outcome in seen.items()
        if rule_id not in case.fires and not _declared(outcome)
    ]
    for rule_id, text in case.says.items():
        words = f"{seen[rule_id].message} {seen[rule_id].fix}" if rule_id in seen else ""
        if text not in words:
            out.append(f"{rule_id} should say {text!r}, but says {words!r}")
    return out


def _declared(outcome: policy_pb2.RuleOutcome) -> bool:
    """The rule holds, by a document that was handed in."""
    return bool(outcome.outcome == policy_pb2.OUTCOME_WARN and outcome.message.startswith(asking.DECLARED))


def _word(outcome: policy_pb2.Outcome) -> str:
    return policy_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()
