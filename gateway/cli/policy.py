"""``assay policy``: list, explain, publish, evaluate, lint, test."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format

import policies
from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.v1 import policy_input_pb2, policy_pb2
from gateway import publications
from gateway.cli.errors import EXIT_CODES, EXIT_REFUSED, exit_on_error
from gateway.cli.job import _outcomes
from gateway.cli.output import Output, OutputOption, emit, table
from gateway.cli.session import AddressOption, IdentityOption, open_session
from policies.engine import PolicyEngine
from policies.lint import lint_pack
from policies.testing import test_pack

M = TypeVar("M", policy_input_pb2.IntakeInput, policy_input_pb2.ReleaseInput)
BASELINE = Path(policies.__file__).parent / "packs" / "baseline"
PackArgument = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="A pack's folder; default: the baseline.")
]
app = typer.Typer(no_args_is_help=True, help="Policies: list, explain, publish, evaluate, lint, test.")


@app.command("list")
def list_(identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT) -> None:
    """List the rules in force.

    Example: assay policy list
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = session.policies.ListPolicies(policy_pb2.ListPoliciesRequest())
        rows = [
            (r.id, policy_pb2.Stage.Name(r.stage).removeprefix("STAGE_").lower(), _status(r.status), r.title)
            for p in answer.policies
            for r in p.rules
        ]
        heads = [
            f"{p.name} {p.version}  rules {p.bundle_sha256[:16]}  limits {p.limits_sha256[:16]}"
            for p in answer.policies
        ]
        emit(output, answer, [*heads, table(("rule", "stage", "status", "title"), rows)])


@app.command()
def explain(
    rule_id: Annotated[str, typer.Argument(help="Such as BASE-PURPOSE.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Explain one rule: source, dates, limits, how to pass it.

    Example: assay policy explain BASE-PURPOSE
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = session.policies.ExplainPolicy(policy_pb2.ExplainPolicyRequest(rule_id=rule_id))
        rule = answer.rule
        lines = [
            f"{rule.id}  {rule.title}  ({_status(rule.status)})",
            f"  source: {rule.citation}{' — ' + rule.caveat if rule.caveat else ''}",
            f"  in force from {rule.effective_from} to {rule.effective_to or 'further notice'}",
            f"  expression: {rule.expression}",
            f"  {answer.explanation}",
            *[f"  limit {name} = {value}" for name, value in sorted(answer.limits.items())],
        ]
        emit(output, answer, lines)


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The installation.")],
    identity: IdentityOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Sign the installed rules and limits with your own key; the gateway runs under them from its next start.

    Without a publication that names exactly what is installed the gateway does not start.

    Example: assay policy publish ./bank --as ./bank/people/cora
    """
    with exit_on_error():
        if identity is None:
            raise InvalidInputError("NO_IDENTITY", "no identity given", remedy="pass --as FOLDER or set ASSAY_IDENTITY")
        rules = PolicyEngine.load().policy()
        publications.publish(Layout(directory), identity, rules)
        emit(output, rules, [
            f"{rules.name} {rules.version}  rules {rules.bundle_sha256[:16]}  limits {rules.limits_sha256[:16]}",
            f"signed; restart the gateway of {directory} to put it in force",
        ])  # fmt: skip


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="IntakeInput or ReleaseInput as JSON.")],
    stage: Annotated[str, typer.Option(help="intake or release.")] = "intake",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask what policy would say.

    Example: assay policy evaluate question.json --stage intake
    """
    with exit_on_error(), open_session(identity, address) as session:
        if stage == "intake":
            request = policy_pb2.EvaluatePolicyRequest(intake=_parse(file, policy_input_pb2.IntakeInput()))
        elif stage == "release":
            request = policy_pb2.EvaluatePolicyRequest(release=_parse(file, policy_input_pb2.ReleaseInput()))
        else:
            raise InvalidInputError("UNKNOWN_STAGE", f"no stage {stage!r}", remedy="pass --stage intake or release")
        answer = session.policies.EvaluatePolicy(request)
        if answer.HasField("decision"):
            passed = answer.decision.allowed
            lines = _outcomes("Intake decision", "allowed" if passed else "denied", answer.decision.outcomes)
        else:
            passed = answer.verdict.outcome == policy_pb2.OUTCOME_PASS
            lines = _outcomes(
                "Release verdict", policy_pb2.Outcome.Name(answer.verdict.outcome), answer.verdict.outcomes
            )
        emit(output, answer, lines)
    if not passed:
        raise typer.Exit(EXIT_REFUSED)


def _status(status: policy_pb2.RuleStatus) -> str:
    return policy_pb2.RuleStatus.Name(status).removeprefix("RULE_STATUS_").lower()


def _parse(file: Path, message: M) -> M:
    try:
        return json_format.Parse(file.read_text("utf-8"), message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidInputError("BAD_POLICY_INPUT", f"{file.name}: {error}") from error


@app.command()
def lint(folder: PackArgument = BASELINE, output: OutputOption = Output.TEXT) -> None:
    """Check a pack's files: every fault with file, line, column and rule. Exit 3 when there is one.

    Example: assay policy lint policies/packs/baseline
    """
    report = lint_pack(folder)
    rows = [(f"{f.file}:{f.line}:{f.column}", f.rule, f.reason, f.message) for f in report.findings]
    lines: list[Any] = [f"{report.folder}: {report.rules} rules, {len(rows)} faults"]
    emit(
        output,
        dataclasses.asdict(report),
        [*lines, *([table(("where", "rule", "reason", "fault"), rows)] if rows else [])],
    )
    if not report.ok:
        raise typer.Exit(EXIT_CODES["INVALID_ARGUMENT"])


@app.command()
def test(folder: PackArgument = BASELINE, output: OutputOption = Output.TEXT) -> None:
    """Run a pack's own cases, with rule coverage and the mutation check. Exit 6 when one does not hold.

    Example: assay policy test policies/packs/baseline
    """
    with exit_on_error():
        report = test_pack(folder)
        lines = [
            f"{report.cases} cases, {len(report.failures)} failed",
            f"{len(report.coverage)} rules, not covered: {', '.join(report.uncovered) or 'none'}",
            f"mutation survivors: {', '.join(report.survivors) or 'none'}",
            *[str(f) for f in report.failures],
        ]
        emit(output, dataclasses.asdict(report), lines)
    if not report.ok:
        raise typer.Exit(EXIT_REFUSED)
