"""``assay approval``: list, decide, waive, dismiss, raise, revoke. Keys never leave this side."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer

from assay import canonical, digests
from assay.errors import IntegrityError, InvalidInputError, NotFoundError
from assay.v1 import approval_pb2, audit_pb2, identity_pb2, model_pb2, tuning_job_pb2
from audit.ledger import records
from audit.ledger.tree import leaf_hash, verify_inclusion
from gateway.cli.errors import exit_on_error
from gateway.cli.job import JobArgument
from gateway.cli.job_text import describe, use_lines
from gateway.cli.output import Output, OutputOption, emit, every_page, micros, table
from gateway.cli.session import AddressOption, IdentityOption, Session, open_session
from gateway.cli.signing import sign, signing_role
from gateway.names import model_of
from gateway.statements import (
    APPROVAL_REVOCATION_REASONS,
    approval_statement,
    dismissal_statement,
    opening,
    raise_statement,
    revocation_statement,
    waiver_statement,
)

app = typer.Typer()
ReasonOption = Annotated[str, typer.Option(help="Reason in words; signed by its commitment, kept outside the log.")]
CodeOption = Annotated[str, typer.Option(help=f"One of: {', '.join(APPROVAL_REVOCATION_REASONS)}.")]


@app.command("list")
def list_(
    parent: Annotated[str, typer.Argument(help="units/UNIT, or units/- for all that you may see.")] = "units/-",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List what waits for a signature.

    Example: assay approval list units/-
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = approval_pb2.ListPendingApprovalsRequest(parent=parent)
        answer = every_page(session.approvals.ListPendingApprovals, request)
        rows = [
            (
                p.tuning_job,
                p.purpose,
                p.audit_profile,
                p.card_sha256[:16],
                ", ".join(_role(r) for r in p.missing_roles),
                len(p.approvals),
            )
            for p in answer.pending_approvals
        ]
        uses = [f"{p.tuning_job}  {line}" for p in answer.pending_approvals for line in use_lines(p.use, p.use_reading)]
        emit(output, answer, [table(("job", "purpose", "profile", "card", "still needed", "signed"), rows), *uses])


@app.command()
def decide(
    name: JobArgument,
    reason: ReasonOption,
    grant: Annotated[bool, typer.Option("--grant/--refuse", help="Grant or refuse.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check what is to be signed, sign it with your own key, hand it in.

    Before signing, the card is downloaded and hashed, must be of the job, purpose, adapter and base model that are to
    be signed, and its record is proved to be under the evidence root.

    Example: assay approval decide units/support/tuningJobs/replies --grant --reason "read card, limits met"
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = decide_as(session, name, grant=grant, reason=reason)
        emit(output, answer, [f"recorded at ledger index {answer.approval.record_index}", *describe(answer.tuning_job)])


def decide_as(session: Session, name: str, *, grant: bool, reason: str) -> approval_pb2.DecideApprovalResponse:
    """Does what ``decide`` does, for a caller that holds a session."""
    pending = _pending(session, name)
    check_card(session, pending)
    role = signing_role(session, pending, granted=grant)
    said = opening(reason)
    statement = approval_statement(pending, granted=grant, role=role, reason=said, signed_at=dt.datetime.now(dt.UTC))
    envelope = sign(session, statement)
    request = approval_pb2.DecideApprovalRequest(name=name, etag=pending.etag, envelope=envelope, reason=said)
    return session.approvals.DecideApproval(request)  # type: ignore[no-any-return]


def check_card(session: Session, pending: approval_pb2.PendingApproval) -> None:
    """Makes sure that what is signed is what can be read: the card, what it is about, its record, the record's proof.

    Raises:
        IntegrityError: ``CARD_MISMATCH``, ``PROOF_REFUSED`` or ``INCLUSION_BAD``; nothing is signed then.
        InvalidInputError: card or record is malformed; nothing is signed either.
    """
    from audit.cards import about  # with all that draws cards, which no other command needs

    model = model_of(pending.tuning_job)
    request = model_pb2.DownloadCardRequest(name=model, format=model_pb2.CARD_FORMAT_JSON)
    card = b"".join(part.chunk for part in session.models.DownloadCard(request))
    if digests.sha256_bytes(card) != pending.card_sha256:
        raise IntegrityError("CARD_MISMATCH", "the card downloaded is not the card to be signed")
    signed = {
        "job": pending.tuning_job,
        "model": model,
        "purpose": pending.purpose,
        "adapter_sha256": pending.adapter_sha256,
        "base_sha256": pending.base_sha256,
    }
    shown = about(canonical.decode(card))
    for name, value in signed.items():
        if shown[name] != value:
            raise IntegrityError("CARD_MISMATCH", f"the card shows {name} {shown[name]!r}; to be signed is {value!r}")
    proof = session.audit.GetInclusionProof(
        audit_pb2.GetInclusionProofRequest(index=pending.card_record_index, tree_size=pending.evidence_size)
    ).proof
    record = records.read(proof.body)
    named = record.type, record.job, record.predicate.get("card_sha256"), record.subjects("adapter")
    if named != ("card.rendered", pending.tuning_job, pending.card_sha256, {pending.adapter_sha256}):
        raise IntegrityError("PROOF_REFUSED", "the record at that index is not this card's, of this job and adapter")
    root = bytes.fromhex(pending.evidence_root)
    verify_inclusion(pending.card_record_index, pending.evidence_size, leaf_hash(proof.body), list(proof.hashes), root)


@app.command()
def waive(
    name: JobArgument,
    rule: Annotated[list[str], typer.Option(help="Rule id; repeat for more.")],
    reason: ReasonOption,
    compensating_control: Annotated[str, typer.Option(help="What protects instead.")],
    expires: Annotated[str, typer.Option(help="Last day, ISO 8601.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Waive named rules of a denied or quarantined job, signed.

    Example: assay approval waive units/support/tuningJobs/x --rule BASE-PII-CEILING --reason pilot
    --compensating-control "internal use only" --expires 2026-12-31
    """
    with exit_on_error(), open_session(identity, address) as session:
        job = _job(session, name)
        said, instead = opening(reason), opening(compensating_control)
        statement = waiver_statement(name, job.etag, sorted(rule), said, instead, _day(expires))
        request = approval_pb2.WaiveRulesRequest(
            name=name, etag=job.etag, envelope=sign(session, statement), reason=said, compensating_control=instead
        )
        answer = session.approvals.WaiveRules(request)
        emit(output, answer, describe(answer.tuning_job))


@app.command()
def dismiss(
    name: JobArgument,
    reason: ReasonOption,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say no to an appeal against a denial or a quarantine, signed; the job stays refused.

    To say yes, waive the rules. An appeal against a person's refusal is answered by deciding again.

    Example: assay approval dismiss units/support/tuningJobs/replies --reason "the rows were not mended"
    """
    with exit_on_error(), open_session(identity, address) as session:
        job, said = _job(session, name), opening(reason)
        envelope = sign(session, dismissal_statement(name, job.etag, said))
        request = approval_pb2.DismissAppealRequest(name=name, etag=job.etag, envelope=envelope, reason=said)
        answer = session.approvals.DismissAppeal(request)
        emit(output, answer, describe(answer.tuning_job))


@app.command("raise")
def raise_budget(
    name: JobArgument,
    max_usd: Annotated[float, typer.Option(help="What the job may cost in all, in US dollars.")],
    reason: ReasonOption,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Raise the budget of a job that stopped at its cap, signed; it goes on from its checkpoint.

    Example: assay approval raise units/support/tuningJobs/replies --max-usd 25 --reason "quote was too low"
    """
    with exit_on_error(), open_session(identity, address) as session:
        job, said = _job(session, name), opening(reason)
        statement = raise_statement(name, job.etag, micros(max_usd), said)
        request = approval_pb2.RaiseBudgetRequest(
            name=name, etag=job.etag, envelope=sign(session, statement), reason=said
        )
        answer = session.approvals.RaiseBudget(request)
        emit(output, answer, describe(answer.tuning_job))


@app.command()
def revoke(
    name: JobArgument,
    reason: CodeOption,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Withdraw an approval; permits become void.

    For signer-left and signer-key the model waits for other people to sign; for any other reason it is at an end.

    Example: assay approval revoke units/support/tuningJobs/replies --reason incident
    """
    with exit_on_error(), open_session(identity, address) as session:
        job = _job(session, name)
        envelope = sign(session, revocation_statement(name, job.etag, reason))
        request = approval_pb2.RevokeApprovalRequest(name=name, etag=job.etag, envelope=envelope)
        answer = session.approvals.RevokeApproval(request)
        emit(output, answer, describe(answer.tuning_job))


def _pending(session: Session, name: str) -> approval_pb2.PendingApproval:
    parts = name.split("/")
    if len(parts) != 4:
        raise InvalidInputError("BAD_NAME", f"{name!r} is not a job", remedy="pass units/UNIT/tuningJobs/ID")
    request = approval_pb2.ListPendingApprovalsRequest(parent=f"units/{parts[1]}")
    for pending in every_page(session.approvals.ListPendingApprovals, request).pending_approvals:
        if pending.tuning_job == name:
            return pending  # type: ignore[no-any-return]
    raise NotFoundError("NOT_PENDING", f"{name} waits for no approval", remedy="see `assay job get`")


def _job(session: Session, name: str) -> Any:
    return session.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError("BAD_DATE", f"{text!r} is no day", remedy="write it as 2026-12-31") from error


def _role(role: identity_pb2.Role) -> str:
    return identity_pb2.Role.Name(role).removeprefix("ROLE_").lower()
