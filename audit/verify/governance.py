"""Records of the whole installation: who holds which role, which keys and which policy hold, where the log ends."""

from __future__ import annotations

from collections.abc import Mapping

from audit.ledger.evidence import Entry
from audit.verify import findings as names
from audit.verify import keys
from audit.verify.people import COMPLIANCE_OFFICER, EVERY_UNIT, OPERATOR, Grant, role_name
from audit.verify.state import Handler, State, text

PUBLISHERS = 2


def grant(state: State, entry: Entry) -> None:
    """An operator, or the founder, gives a subject a role."""
    signer, predicate = state.signed(entry)
    given = Grant(text(predicate, "subject"), role_name(predicate.get("role")), text(predicate, "unit"))
    grant_id = text(predicate, "grant_id")
    state.findings.demand(names.ROLES, state.roles.may_grant(signer), f"{signer.subject} may not grant roles")
    fresh = grant_id and grant_id not in state.roles.known
    state.findings.demand(names.ROLES, bool(fresh), "the grant's id is empty or was used before")
    state.roles.grant(grant_id, given)


def grant_revocation(state: State, entry: Entry) -> None:
    """An operator ends a grant that is in force."""
    signer, predicate = state.signed(entry)
    grant_id = text(predicate, "grant_id")
    state.findings.demand(names.ROLES, state.roles.may_grant(signer), f"{signer.subject} may not revoke roles")
    known = grant_id in state.roles.grants
    state.findings.demand(
        names.ROLES, known, "it revokes a grant that is not in force", missing=not state.whole("system")
    )
    state.roles.revoke(grant_id)


def key_event(state: State, entry: Entry) -> None:
    """An operator lets a key follow another, or says that one may have been in other hands."""
    with state.key_checked():
        keys.take(state.keys, entry.index, entry.record, state.trust, state.roles.may_grant)


def policy(state: State, entry: Entry) -> None:
    """Two people who may publish put rules and limits into force, once by each publication's id."""
    signers, predicate = state.signatures(entry)
    two = len(signers) == len({signer.subject for signer in signers}) == PUBLISHERS
    state.findings.demand(names.SIGNATURES, two, "a policy is published by two people")
    for signer in signers:
        publisher = any(state.roles.holds(signer.subject, role, EVERY_UNIT) for role in (OPERATOR, COMPLIANCE_OFFICER))
        state.findings.demand(names.ROLES, publisher, f"{signer.subject} may not publish a policy",
                             missing=not state.whole("system"))  # fmt: skip
    publication = text(predicate, "publication_id")
    fresh = publication and publication not in state.publications
    state.findings.demand(names.SIGNATURES, bool(fresh), "the publication's id is empty or was used before")
    state.publications.add(publication)


def freeze(state: State, entry: Entry) -> None:
    """An operator ends this log, and nothing follows."""
    signer, predicate = state.signed(entry)
    state.holds(signer, OPERATOR, EVERY_UNIT)
    last = entry.index == state.header.size - 1
    state.findings.demand(names.END, predicate.get("origin") == entry.record.log, "it freezes another log")
    state.findings.demand(names.END, last, "records follow the one that ended the log")


def continuation(state: State, entry: Entry) -> None:
    """An operator says which other log this one continues."""
    signer, predicate = state.signed(entry)
    state.holds(signer, OPERATOR, EVERY_UNIT)
    own = predicate.get("origin") == entry.record.log != predicate.get("previous_origin")
    state.findings.demand(names.END, own, "it does not say what this log continues")


HANDLERS: Mapping[str, Handler] = {
    "grant.issued": grant,
    "grant.revoked": grant_revocation,
    "key.rotated": key_event,
    "key.compromised": key_event,
    "policy.published": policy,
    "log.frozen": freeze,
    "log.continued": continuation,
}
