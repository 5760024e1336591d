"""``assay erase``: orders an erasure, signed with your own key."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.v1 import erasure_pb2
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit
from gateway.cli.session import AddressOption, IdentityOption, open_session
from gateway.cli.signing import sign
from gateway.statements import ERASURE_REASONS, erasure_order_statement


def erase(
    resource: Annotated[str, typer.Argument(help="units/UNIT/datasets/ID, …/tuningJobs/ID or …/dataSubjects/HANDLE.")],
    reason_code: Annotated[str, typer.Option(help=f"One of: {', '.join(ERASURE_REASONS)}.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Erase payloads and files for good; records and proofs stay. Signed with a compliance officer's own key.

    A job that rests loses its adapter too: nobody can appeal, approve, audit or repeat it any more.

    A data subject's HANDLE is what `assay dataset lineage units/UNIT --subject VALUE` prints first.

    Example: assay erase units/support/datasets/replies --reason-code retention-ended
    """
    with exit_on_error(), open_session(identity, address) as session:
        envelope = sign(session, erasure_order_statement(resource, reason_code))
        answer = session.erasures.EraseResource(erasure_pb2.EraseResourceRequest(name=resource, envelope=envelope))
        erasure = answer.erasure
        emit(
            output,
            erasure,
            [
                f"{erasure.name} erased: {erasure.payloads} payloads, {erasure.blobs} files",
                f"  ordered by record {erasure.order_index}, executed by record {erasure.executed_index}",
                *_meaning(erasure),
                *[f"  affected: {model}, trained on it or on from it" for model in erasure.affected_models],
                *[f"  still to be erased: {name} holds its rows" for name in erasure.affected_datasets],
            ],
        )


def _meaning(erasure: erasure_pb2.Erasure) -> list[str]:
    """What else follows, that counts do not say."""
    if "/tuningJobs/" in erasure.name and erasure.blobs:
        return ["  its adapter is gone: nobody can appeal, approve, audit or repeat the job any more; its card stays"]
    if "/dataSubjects/" in erasure.name and not erasure.affected_datasets and not erasure.affected_models:
        return ["  no row of it has been found so far; a job that reads one later is denied"]
    return []
