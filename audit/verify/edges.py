"""The legal changes of a job's state, as data: what the log is held against, written down apart from the gateway.

``EDGES[record type]`` lists the pairs (from, to) that such a record may state. A pair not listed did not happen
lawfully, whatever the gateway's own table says.
"""

from __future__ import annotations

from collections.abc import Mapping

UNDER_WAY = ("RECEIVED", "PREPARING", "QUEUED", "TRAINING", "AUDITING")

EDGES: Mapping[str, frozenset[tuple[str, str]]] = {
    "job.received": frozenset({("NONE", "RECEIVED")}),
    "job.preparing": frozenset({("RECEIVED", "PREPARING")}),
    "intake.decided": frozenset({("PREPARING", "DENIED"), ("PREPARING", "QUEUED")}),
    "training.ordered": frozenset({("QUEUED", "TRAINING")}),
    "training.completed": frozenset({("TRAINING", "AUDITING")}),
    "release.decided": frozenset({("AUDITING", "QUARANTINED"), ("AUDITING", "AWAITING_APPROVAL")}),
    "job.approved": frozenset({("AWAITING_APPROVAL", "APPROVED")}),
    "job.rejected": frozenset({("AWAITING_APPROVAL", "REJECTED")}),
    "job.revoked": frozenset({("APPROVED", "REVOKED"), ("APPROVED", "AWAITING_APPROVAL")}),
    "job.expired": frozenset({("APPROVED", "EXPIRED")}),
    "job.paused": frozenset({("QUEUED", "PAUSED"), ("TRAINING", "PAUSED")}),
    "job.resumed": frozenset({("PAUSED", "QUEUED"), ("PAUSED", "TRAINING")}),
    "job.cancelled": frozenset((state, "CANCELLED") for state in (*UNDER_WAY, "PAUSED", "AWAITING_APPROVAL")),
    "job.failed": frozenset((state, "FAILED") for state in (*UNDER_WAY, "PAUSED")),
    "appeal.filed": frozenset(
        {("DENIED", "DENIED"), ("QUARANTINED", "QUARANTINED"), ("REJECTED", "AWAITING_APPROVAL")}
    ),
    "appeal.answered": frozenset({("DENIED", "DENIED"), ("QUARANTINED", "QUARANTINED")}),
    "job.waived": frozenset({("DENIED", "QUEUED"), ("QUARANTINED", "AWAITING_APPROVAL")}),
}


def state_name(text: object) -> str:
    """A state as written in a record, without the contract's prefix; the contract's zero is ``NONE``."""
    name = text.removeprefix("STATE_") if isinstance(text, str) else ""
    return "NONE" if name in ("", "UNSPECIFIED", "NONE") else name
