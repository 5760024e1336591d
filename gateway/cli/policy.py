"""``assay policy``: list, explain, publish, precedents, evaluate; :mod:`gateway.cli.policy_packs` needs no gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from google.protobuf import json_format

from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.v1 import policy_input_pb2, policy_pb2
from audit.verify.trust import TrustFile
from gateway import active_policy, publications
from gateway.cli import policy_packs
from gateway.cli.errors import EXIT_REFUSED, exit_on_error
from gateway.cli.job_text import outcomes
from gateway.cli.output import Output, OutputOption, emit, more, table
from gateway.cli.session import AddressOption, IdentityOption, identity_folder, open_session
from gateway.settings import Settings
from policies.bundle import demand_units
from policies.engine import PolicyEngine
from policies.pack import load

M = TypeVar("M", policy_input_pb2.IntakeInput, policy_input_pb2.ReleaseInput)
app = typer.Typer()
policy_packs.register(app)


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
            + (f"  in force since {p.publish_time.ToJsonString()}" if p.HasField("publish_time") else "")
            for p in answer.policies
        ]
        emit(output, answer, [*heads, table(("rule", "stage", "status", "title"), rows)])


@app.command()
def explain(
    rule_id: Annotated[str, typer.Argument(help="Such as BASE-PURPOSE.")],
    packs: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Explain from this bundle or pack, not by RPC.")
    ] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Explain one rule: source, dates, limits, how to pass it.

    Example: assay policy explain BASE-PURPOSE
    """
    with exit_on_error():
        if packs is not None:
            answer = PolicyEngine(load(packs)).explain(rule_id)
        else:
            with open_session(identity, address) as session:
                answer = session.policies.ExplainPolicy(policy_pb2.ExplainPolicyRequest(rule_id=rule_id))
        rule = answer.rule
        lines = [
            f"{rule.id}  {rule.title}  ({_status(rule.status)})",
            f"  instrument: {', '.join(filter(None, (rule.instrument, rule.reference)))}",
            f"  holds in: {', '.join(rule.jurisdictions)}",
            f"  source: {rule.citation}{' — ' + rule.caveat if rule.caveat else ''}",
            f"  in force from {rule.effective_from} to {rule.effective_to or 'further notice'}",
            *([f"  asked when: {rule.applies}"] if rule.applies != "true" else []),
            *([f"  artefacts: {', '.join(rule.artefacts)}"] if rule.artefacts else []),
            f"  expression: {rule.expression}",
            f"  {_freedoms(rule)}",
            f"  {answer.explanation}",
            *[f"  limit {name} = {value}, an internal choice" for name, value in sorted(answer.limits.items())],
        ]
        emit(output, answer, lines)


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The installation.")],
    identity: IdentityOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Sign the installed rules and limits with your own key; two people sign, then they hold from the next start.

    Without a publication that names exactly what is installed, signed by two, the gateway does not start. Where the
    installation's own files lie, who may not sign and a unit that there is not are refused at once. It needs
    trust.txt, and what of policies/ and bootstrap/policy.json there is, which may be a copy.

    Example: assay policy publish ./bank --as ./bank/people/cora
    """
    with exit_on_error():
        person, layout = identity_folder(identity), Layout(directory)
        TrustFile.load(layout.trust)  # which lies on a person's machine too: this is no directory by mistake
        publications.demand_publisher(layout, person)
        folder = active_policy.folder(layout)
        if layout.settings.exists():
            demand_units(folder, Settings.load(directory).units)
        rules = PolicyEngine.load(folder).policy()
        signed = publications.signers(publications.publish(layout, person, rules))
        left = publications.SIGNERS - len(signed)
        next_ = f"restart the gateway of {directory} to put it in force" if not left else "one more person must sign"
        emit(output, rules, [
            f"{rules.name} {rules.version}  rules {rules.bundle_sha256[:16]}  limits {rules.limits_sha256[:16]}",
            f"signed by {' and '.join(signed)}; {next_}",
        ])  # fmt: skip


@app.command()
def precedents(
    parent: Annotated[str, typer.Argument(help="The unit, or units/- for all that you may see.")] = "units/-",
    rule: Annotated[str, typer.Option(help="Rule that stood in the way.")] = "",
    text: Annotated[str, typer.Option(help="Words in purpose or message.")] = "",
    page_size: Annotated[int, typer.Option(help="At most this many.")] = 50,
    page_token: Annotated[str, typer.Option(help="Token of the page before.")] = "",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Search past decisions: which rule stood in whose way, and how it ended.

    Example: assay policy precedents units/support --rule BASE-PII-CEILING
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = policy_pb2.ListPrecedentsRequest(
            parent=parent, rule_id=rule, text=text, page_size=page_size, page_token=page_token
        )
        answer = session.policies.ListPrecedents(request)
        rows = [
            (p.tuning_job, p.rule_id, p.message, "waived" if p.waived else "", p.state, p.as_of)
            for p in answer.precedents
        ]
        emit(output, answer, [table(("job", "rule", "why", "", "job is", "rules as of"), rows), *more(answer)])


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
            lines = outcomes("Intake decision", "allowed" if passed else "denied", answer.decision.outcomes)
        else:
            passed = answer.verdict.outcome == policy_pb2.OUTCOME_PASS
            lines = outcomes(
                "Release verdict", policy_pb2.Outcome.Name(answer.verdict.outcome), answer.verdict.outcomes
            )
        emit(output, answer, lines)
    if not passed:
        raise typer.Exit(EXIT_REFUSED)


def _freedoms(rule: policy_pb2.Rule) -> str:
    severity = policy_pb2.Severity.Name(rule.severity).removeprefix("SEVERITY_").lower()
    role = rule.waivable_by.removeprefix("ROLE_").lower()
    waiver = f"{role} may waive it for {rule.waiver_days} days" if role else "nobody may waive it"
    return f"severity {severity}; {'may' if rule.appealable else 'may not'} be appealed; {waiver}"


def _status(status: policy_pb2.RuleStatus) -> str:
    return policy_pb2.RuleStatus.Name(status).removeprefix("RULE_STATUS_").lower()


def _parse(file: Path, message: M) -> M:
    try:
        return json_format.Parse(file.read_text("utf-8"), message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidInputError("BAD_POLICY_INPUT", f"{file.name}: {error}") from error
