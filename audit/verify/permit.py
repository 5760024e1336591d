"""May this model run here, now, for this purpose? Answered offline, from permit, files and trust file alone.

The caller's files are hashed here. The gateway's word counts for nothing: its permit key must have signed the
statement, the log's key the checkpoint, the records must be proved to lie under it, and two people other than the
maker must have signed for this very adapter, base and card. What cannot be seen offline (a revocation after the
permit was fetched) is bounded by ``not_after``, at most 24 hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from assay import canonical, dsse
from assay.digests import folder_manifest, sha256_bytes
from assay.dsse import Signer, from_base64
from assay.errors import AssayError
from assay.key_events import EVENTS
from audit.ledger import records, tree
from audit.ledger.evidence import Entry
from audit.ledger.note import SignedNote, open_checkpoint
from audit.verify import keys
from audit.verify.acts import quorum_met
from audit.verify.keys import KeyTable
from audit.verify.people import Grant, Roles, role_name
from audit.verify.results import LONGEST_PERMIT
from audit.verify.state import members, parse_moment, text
from audit.verify.trust import TrustFile

MAX_PROOFS = 256
_SIGNED = ("model", "adapter_sha256", "base_sha256", "purpose", "environment", "evidence_root")


@dataclass(frozen=True)
class PermitVerdict:
    """The answer. ``reason`` is empty when allowed; ``not_checked`` says what an offline check could not see."""

    allowed: bool
    reason: str = ""
    not_checked: tuple[str, ...] = ()


def check_permit(
    permit: Mapping[str, Any],
    adapter: Path | str,
    base: Path | str,
    purpose: str,
    environment: str,
    now: datetime,
    trust: TrustFile,
    place: str = "",
) -> PermitVerdict:
    """Checks a permit for what is about to run.

    Args:
        permit: ``assay.v1.Permit`` as protobuf JSON, with either spelling of field names.
        adapter: folder of the adapter, which is hashed here; or its hex digest, if the caller hashed it.
        base: folder of the base model's files, or its hex digest.
        purpose: what the model does there.
        environment: where it runs.
        now: aware time.
        trust: whom to believe about what.
        place: where it is used, in the words of the declaration of use, such as ``EU`` or ``US-NY``; empty not to ask.
    """
    notes: list[str] = []
    try:
        statement, predicate = _statement(permit)
        _matches(permit, predicate)
        _in_force(permit, predicate, now)
        _demand(predicate.get("purpose") == purpose, f"permitted for another purpose than {purpose!r}")
        _demand(predicate.get("environment") == environment, f"permitted for another environment than {environment!r}")
        entries = _proved(permit, trust)
        issued = _issued(entries, statement, predicate)
        _place(entries, predicate, place, notes)
        today, table = _system(entries, trust)
        _signed(permit, statement, issued, table)
        _people(permit, entries, issued, predicate, trust, today, table, notes)
        _demand(_digest(adapter) == predicate.get("adapter_sha256"), "the adapter is not the one permitted")
        _demand(_digest(base) == predicate.get("base_sha256"), "the base model is not the one permitted")
    except _Refused as refused:
        return PermitVerdict(False, str(refused), tuple(notes))
    except AssayError as error:
        return PermitVerdict(False, f"{error.reason}: {error.message}", tuple(notes))
    except (OSError, RecursionError) as error:
        return PermitVerdict(False, f"cannot be checked: {type(error).__name__}", tuple(notes))
    notes.append("that no key event was left out: it shows those that the gateway chose, the evidence bundle shows all")
    notes.append("revocations after this permit was fetched; ask the gateway, or let not_after bound them")
    return PermitVerdict(True, "", tuple(notes))


def outside(place: str, declared: Sequence[str]) -> str:
    """Why a place is none that was declared, or nothing; ``US-NY`` lies in ``US``, and no other place in another."""
    if any(place == known or place.startswith(f"{known}-") for known in declared):
        return ""
    return f"its use was declared for {', '.join(declared) or 'no place'}, not for {place!r}"


class _Refused(Exception):
    """Why the model may not run."""


def _demand(holds: bool, reason: str) -> None:
    if not holds:
        raise _Refused(reason)


def _statement(permit: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The statement that the permit key should have signed, and its predicate."""
    payload = from_base64(_field(permit, "statement"))
    statement = dsse.read_statement(payload)
    _demand(dsse.predicate_name(statement["predicateType"]) == "permit", "what was signed is not a permit")
    predicate: dict[str, Any] = statement["predicate"]
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    bound = {"adapter": predicate.get("adapter_sha256"), "base": predicate.get("base_sha256")}
    _demand(subjects == bound, "the signed subjects are not the adapter and base it names")
    return payload, predicate


def _system(entries: Sequence[Entry], trust: TrustFile, before: int | None = None) -> tuple[Roles | None, KeyTable]:
    """Roles and keys by the grants and key events that come with it, up to an index; no roles without a grant."""
    roles, table = Roles(founder=trust.operator), KeyTable.of(trust)
    for entry in entries:
        if before is not None and entry.index >= before:
            break
        if entry.record.type in ("grant.issued", "grant.revoked"):
            _grant(entry, trust, roles, table)
        elif entry.record.type in EVENTS:
            # Without a grant shown whoever signs would be taken for the founder.
            founded = bool(roles.known or trust.operator)
            _demand(founded, "a key event comes without the grants of whoever signed it")
            keys.take(table, entry.index, entry.record, trust, roles.may_grant)
    return (roles if roles.known else None), table


def _grant(entry: Entry, trust: TrustFile, roles: Roles, table: KeyTable) -> None:
    verified = dsse.verify_person(entry.record.envelope(), trust.people_root, entry.record.time, trust.relying_party)
    for signer in verified.signers:
        table.demand_person(signer, entry.index)
    _demand(all(roles.may_grant(s) for s in verified.signers), "a grant is not signed by an operator")
    said = verified.predicate
    grant_id = str(said.get("grant_id", ""))
    if entry.record.type == "grant.issued":
        roles.grant(grant_id, Grant(str(said.get("subject")), role_name(said.get("role")), str(said.get("unit"))))
    elif grant_id in roles.grants:
        roles.revoke(grant_id)


def _signed(permit: Mapping[str, Any], statement: bytes, issued: Entry, table: KeyTable) -> None:
    """The permit key that held when it was issued signed the statement."""
    signature, message = from_base64(_field(permit, "signature")), dsse.pae(dsse.PAYLOAD_TYPE, statement)
    try:
        table.verified(keys.PERMIT, issued.index, lambda key: key.verify(signature, message))
    except InvalidSignature as error:
        raise _Refused("the permit key did not sign it") from error


def _matches(permit: Mapping[str, Any], predicate: Mapping[str, Any]) -> None:
    """What the permit shows is what was signed."""
    shown = {"permit": _field(permit, "name"), **{name: _field(permit, name) for name in _SIGNED}}
    for name, value in shown.items():
        _demand(
            isinstance(value, str) and value != "" and predicate.get(name) == value,
            f"its {name} is not what was signed",
        )
    for name in ("not_before", "not_after"):
        signed = parse_moment(predicate.get(name))
        _demand(
            signed is not None and parse_moment(_field(permit, name)) == signed, f"its {name} is not what was signed"
        )


def _in_force(permit: Mapping[str, Any], predicate: Mapping[str, Any], now: datetime) -> None:
    begin, end = parse_moment(predicate.get("not_before")), parse_moment(predicate.get("not_after"))
    _demand(not _field(permit, "revoke_time"), "revoked")
    if begin is None or end is None or not timedelta(0) < end - begin <= LONGEST_PERMIT:
        raise _Refused("it lasts longer than a permit may")
    _demand(now >= begin, "not valid yet")
    _demand(now < end, "expired")


def _proved(permit: Mapping[str, Any], trust: TrustFile) -> tuple[Entry, ...]:
    """The records that come with it, each proved to lie under the checkpoint that the log's key signed."""
    note = from_base64(_field(permit, "checkpoint"))
    checkpoint = open_checkpoint(note, trust.log)
    _demand(
        trust.quorum.judge(SignedNote.parse(note)).met,
        f"QUORUM_NOT_MET: {trust.quorum.describe()} has not cosigned the checkpoint",
    )
    proofs = _field(permit, "proofs")
    _demand(isinstance(proofs, list) and 0 < len(proofs) <= MAX_PROOFS, "it carries no proofs, or too many")
    entries: dict[int, Entry] = {}
    for proof in proofs:
        _demand(isinstance(proof, Mapping), "a proof is malformed")
        index, size = _number(_field(proof, "index")), _number(_field(proof, "tree_size"))
        _demand(size == checkpoint.size, "a proof is for another tree than the checkpoint's")
        hashes = _field(proof, "hashes") or []
        _demand(isinstance(hashes, list) and len(hashes) <= 64, "a proof is malformed")
        body = from_base64(_field(proof, "body"))
        leaf = tree.leaf_hash(body)
        tree.verify_inclusion(index, size, leaf, [from_base64(h) for h in hashes], checkpoint.root)
        record = records.read(body)
        _demand(record.log == trust.origin, "a record is of another log")
        entries[index] = Entry(index, body, leaf, record)
    return tuple(entries[index] for index in sorted(entries))


def _issued(entries: Sequence[Entry], statement: bytes, predicate: Mapping[str, Any]) -> Entry:
    """The permit's own record, which names the digest of exactly this statement."""
    for entry in entries:
        said = entry.record.predicate
        if entry.record.type == "permit.issued" and said.get("permit") == predicate.get("permit"):
            _demand(
                said.get("statement_sha256") == sha256_bytes(statement), "the log recorded another permit of this name"
            )
            return entry
    raise _Refused("no proof that it was issued")


def _people(
    permit: Mapping[str, Any],
    entries: tuple[Entry, ...],
    issued: Entry,
    predicate: Mapping[str, Any],
    trust: TrustFile,
    today: Roles | None,
    table: KeyTable,
    notes: list[str],
) -> None:
    """Two people other than the maker signed for this adapter, base, purpose and card before the permit was issued."""
    creator = _maker(entries, predicate, notes)
    signed: list[tuple[Signer, str]] = []
    for entry in entries:
        if entry.record.type != "approval.decided":
            continue
        verified = dsse.verify_person(
            entry.record.envelope(), trust.people_root, entry.record.time, trust.relying_party
        )
        said = verified.predicate
        _demand(len(verified.signers) == 1, "more than one person signed one approval")
        _demand(said.get("decision") == "grant", "a person refused it")
        for name in ("job", "adapter_sha256", "base_sha256", "purpose", "evidence_root", "evidence_size"):
            _demand(said.get(name) == predicate.get(name), f"an approval is for another {name}")
        _demand(entry.index < issued.index, "an approval is younger than the permit")
        _card(entries, said, entry)
        signer, role = verified.signers[0], role_name(said.get("role"))
        table.demand_person(signer, entry.index)
        _demand(signer.subject != creator, "the maker signed it")
        if today is not None:
            then, _ = _system(entries, trust, entry.index)
            held = then is not None and then.holds(signer.subject, role, issued.record.unit)
            _demand(held, f"{signer.subject} did not hold {role} when signing")
            _demand(today.holds(signer.subject, role, issued.record.unit), f"{signer.subject} does not hold {role}")
        signed.append((signer, role))
    _undoubted(table, {issued.index, *(e.index for e in entries if e.record.type == "approval.decided")}, notes)
    if not any(e.record.subjects("adapter") for e in entries if e.record.type == "card.rendered"):
        notes.append("that the card is of this adapter: its record names none")
    _demand(quorum_met(signed), "no two people signed as compliance officer and validator")
    if today is None:
        notes.append("that the signers held their roles: the permit carries no grants; the evidence bundle does")
    else:
        notes.append("that no grant was revoked before the permit: it shows grants, the evidence bundle shows all")
        if not trust.operator:
            notes.append(f"the founding operator {today.founder}: taken from the log; name it in the trust file")
    _shown(permit, entries)


def _maker(entries: Sequence[Entry], predicate: Mapping[str, Any], notes: list[str]) -> str:
    """Who asked for the job, as the permit names them and the log recorded before anybody approved."""
    creator = predicate.get("creator")
    if not isinstance(creator, str) or not creator:
        raise _Refused("it does not name the maker")
    asked = [e for e in entries if e.record.type == "job.received" and e.record.job == predicate.get("job")]
    for entry in asked:
        _demand(text(entry.record.predicate, "actor") == creator, "somebody else than the maker asked for the job")
    if not asked:
        notes.append(f"that {creator} asked for the job: the permit lacks that record, the evidence bundle has it")
    return creator


def _place(entries: Sequence[Entry], predicate: Mapping[str, Any], place: str, notes: list[str]) -> None:
    """The place is one that the request declared, as its record says, which the log holds since before any approval."""
    asked = [e for e in entries if e.record.type == "job.received" and e.record.job == predicate.get("job")]
    _demand(bool(asked) or not place, "it lacks the record of the request, which names the places of its use")
    for entry in asked:
        declared = members(members(entry.record.predicate, "request"), "use").get("jurisdictions")
        known = [str(name) for name in declared] if isinstance(declared, list) else []
        if place:
            _demand(not outside(place, known), outside(place, known))
        else:
            notes.append(f"where it is used: nobody asked; its use was declared for {', '.join(known) or 'no place'}")


def _undoubted(table: KeyTable, signed: set[int], notes: list[str]) -> None:
    """No thief can have signed the permit, an approval, or the event that brought one of their keys in."""
    terms = [table.find(use.name, use.keyid) for use in table.uses if use.index in signed]
    rests = signed | {term.begin for term in terms if term is not None and term.begin}
    suspects = list(table.suspects())
    doubtful = sorted({use.name for use in suspects if use.index in rests})
    _demand(not doubtful, f"keys that may have been in other hands signed for it: {', '.join(doubtful)}")
    if suspects:
        notes.append("grants and key events in doubt that nothing here rests on directly; the bundle lists them")


def _card(entries: tuple[Entry, ...], said: Mapping[str, Any], approval: Entry) -> None:
    """The card that an approval names is the one of a proved record before it, which is of no other adapter."""
    size, name = said.get("evidence_size"), said.get("card_sha256")
    for entry in entries:
        if entry.record.type == "card.rendered" and entry.index == said.get("card_index"):
            covered = isinstance(size, int) and entry.index < size <= approval.index
            same_job = entry.record.job == approval.record.job
            same_card = bool(name) and entry.record.predicate.get("card_sha256") == name
            _demand(covered and same_job and same_card, "an approval's card is not proved")
            # The gateway's own records name the adapter; the format does not demand it, and the golden one does not.
            same_adapter = entry.record.subjects("adapter") <= {said.get("adapter_sha256")}
            _demand(same_adapter, "an approval's card is of another adapter")
            return
    raise _Refused("an approval's card is not proved")


def _shown(permit: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    """The approvals that the permit shows are among those proved."""
    proved = {canonical.encode(e.record.statement) for e in entries if e.record.type == "approval.decided"}
    shown = _field(permit, "approvals") or []
    _demand(isinstance(shown, list), "its approvals are malformed")
    for approval in shown:
        envelope = _field(approval, "envelope") if isinstance(approval, Mapping) else None
        _demand(isinstance(envelope, Mapping), "an approval it shows has no envelope")
        _demand(
            from_base64(_field(envelope, "payload")) in proved, "an approval it shows is not proved to be in the log"
        )


def _digest(what: Path | str) -> str:
    return folder_manifest(what).sha256 if isinstance(what, Path) else what


def _field(message: Any, name: str) -> Any:
    """A field of a message as protobuf JSON, in either spelling; None when it is not set."""
    if name in message:
        return message[name]
    head, *rest = name.split("_")
    return message.get(head + "".join(part.capitalize() for part in rest))


def _number(value: Any) -> int:
    """A 64-bit integer as protobuf JSON writes it; an absent one is zero."""
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _Refused("a number is malformed")
