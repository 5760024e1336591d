"""May this model run here, now, for this purpose? Answered offline, from permit, files and trust file alone.

The caller's files are hashed here. The gateway's word counts for nothing: its permit key must have signed the
statement, the log's key the checkpoint, the records must be proved to lie under it, and two people other than the
maker, whose roles go back to the operator of the trust file, must have signed for this very adapter, base and card. A
record that is left out proves nothing: each of them is demanded. What cannot be seen offline (a revocation after the
permit was fetched) is bounded by ``not_after``, at most 24 hours.
"""

from __future__ import annotations

import re
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
from audit.ledger import records, tree
from audit.ledger.evidence import Entry
from audit.ledger.note import Checkpoint
from audit.ledger.records import SYSTEM_UNIT
from audit.verify import grants, keys
from audit.verify.acts import quorum_met
from audit.verify.checkpoint import open_trusted
from audit.verify.grants import Shown
from audit.verify.keys import KeyTable
from audit.verify.people import role_name
from audit.verify.results import LONGEST_PERMIT
from audit.verify.state import members, parse_moment, text
from audit.verify.trust import TrustFile

MAX_PROOFS = 256
MAX_HASHES = 64
_JOB = re.compile(r"units/([a-z][a-z0-9-]*)/tuningJobs/[a-z][a-z0-9-]*")
_ROOT = re.compile(r"[0-9a-f]{64}")
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
        trust: whom to believe about what; without its ``operator`` line nothing is allowed.
        place: where it is used, in the words of the declaration of use, such as ``EU`` or ``US-NY``; empty not to ask.
    """
    notes: list[str] = []
    try:
        _founded(trust)
        statement, predicate = _statement(permit)
        _matches(permit, predicate)
        _in_force(permit, predicate, now)
        _demand(predicate.get("purpose") == purpose, f"permitted for another purpose than {purpose!r}")
        _demand(predicate.get("environment") == environment, f"permitted for another environment than {environment!r}")
        unit = _unit(predicate)
        checkpoint, left = open_trusted(from_base64(_field(permit, "checkpoint")), trust, now)
        notes += left
        entries = _proved(permit, checkpoint, unit)
        _grown(permit, predicate, checkpoint)
        issued = _issued(entries, statement, predicate)
        request = _request(entries, predicate)
        _place(request, place, notes)
        shown = grants.read(entries, trust)
        _signed(permit, statement, issued, shown.table)
        _people(entries, issued, request, predicate, unit, trust, shown)
        _firm(shown, issued, entries, notes)
        _shown(permit, entries)
        _demand(_digest(adapter) == predicate.get("adapter_sha256"), "the adapter is not the one permitted")
        _demand(_digest(base) == predicate.get("base_sha256"), "the base model is not the one permitted")
    except _Refused as refused:
        return PermitVerdict(False, str(refused), tuple(notes))
    except AssayError as error:
        return PermitVerdict(False, f"{error.reason}: {error.message}", tuple(notes))
    except (OSError, RecursionError) as error:
        return PermitVerdict(False, f"cannot be checked: {type(error).__name__}", tuple(notes))
    notes.append("that no grant was revoked before the permit: it shows grants, the evidence bundle shows all")
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


def _founded(trust: TrustFile) -> None:
    """The trust file says who granted the first roles: else whoever made the permit would choose them."""
    remedy = "add the line `operator SUBJECT`, the subject of the person who signed the log's first grants"
    _demand(bool(trust.operator), f"TRUST_OPERATOR: the trust file names no founding operator; {remedy}")


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


def _unit(predicate: Mapping[str, Any]) -> str:
    """The unit of the job that was permitted: in it signers held their roles, and model and permit are the job's."""
    job = text(predicate, "job")
    match = _JOB.fullmatch(job)
    own = (job.replace("/tuningJobs/", "/models/"), f"units/{match[1]}/permits/") if match else ("", "")
    if match is None or predicate.get("model") != own[0] or not text(predicate, "permit").startswith(own[1]):
        raise _Refused("its job, model and name are not of one job")
    return match[1]


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


def _proved(permit: Mapping[str, Any], checkpoint: Checkpoint, unit: str) -> tuple[Entry, ...]:
    """The records that come with it, each proved to lie under the checkpoint, in the chain where it belongs."""
    proofs = _field(permit, "proofs")
    _demand(isinstance(proofs, list) and 0 < len(proofs) <= MAX_PROOFS, "it carries no proofs, or too many")
    entries: dict[int, Entry] = {}
    for proof in proofs:
        _demand(isinstance(proof, Mapping), "a proof is malformed")
        index, size = _number(_field(proof, "index")), _number(_field(proof, "tree_size"))
        _demand(size == checkpoint.size, "a proof is for another tree than the checkpoint's")
        body = from_base64(_field(proof, "body"))
        leaf = tree.leaf_hash(body)
        tree.verify_inclusion(index, size, leaf, _hashes(proof, "hashes"), checkpoint.root)
        record = records.read(body)
        _demand(record.log == checkpoint.origin, "a record is of another log")
        chain = SYSTEM_UNIT if record.type.startswith(("grant.", "key.")) else unit
        _demand(record.unit == chain, f"record {index} lies in another chain than that of {chain}")
        entries[index] = Entry(index, body, leaf, record)
    return tuple(entries[index] for index in sorted(entries))


def _grown(permit: Mapping[str, Any], predicate: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """The tree whose root people signed over has grown into the checkpoint's: it is of this log and of no other."""
    size, root, hashes = (
        predicate.get("evidence_size"),
        text(predicate, "evidence_root"),
        _hashes(permit, "consistency"),
    )
    if type(size) is not int or not 0 < size < checkpoint.size or not _ROOT.fullmatch(root):
        raise _Refused("CONSISTENCY_BAD: people signed over no tree smaller than the checkpoint's")
    missing = "CONSISTENCY_MISSING: it lacks the proof (consistency) that the evidence root is of this log"
    _demand(bool(hashes), f"{missing}; fetch the permit again, with a gateway and a client of this release")
    tree.verify_consistency(size, checkpoint.size, bytes.fromhex(root), checkpoint.root, hashes)


def _issued(entries: Sequence[Entry], statement: bytes, predicate: Mapping[str, Any]) -> Entry:
    """The permit's own record, which says what was signed and names the digest of exactly this statement."""
    for entry in entries:
        said = entry.record.predicate
        if entry.record.type == "permit.issued" and said.get("permit") == predicate.get("permit"):
            same = said.get("statement_sha256") == sha256_bytes(statement)
            same &= all(said.get(name) == value for name, value in predicate.items())
            _demand(same, "the log recorded another permit of this name")
            return entry
    raise _Refused("no proof that it was issued")


def _request(entries: Sequence[Entry], predicate: Mapping[str, Any]) -> Entry:
    """The job's first record, by which the log has known since before any approval who asked for it, and for where."""
    creator = text(predicate, "creator")
    _demand(bool(creator), "it does not name the maker")
    asked = [e for e in entries if e.record.type == "job.received" and e.record.job == predicate.get("job")]
    _demand(len(asked) == 1, "it does not carry one record of the request (job.received), which says who the maker is")
    _demand(text(asked[0].record.predicate, "actor") == creator, "somebody else than the maker asked for the job")
    return asked[0]


def _people(
    entries: Sequence[Entry],
    issued: Entry,
    request: Entry,
    predicate: Mapping[str, Any],
    unit: str,
    trust: TrustFile,
    shown: Shown,
) -> None:
    """Two people other than the maker signed for this adapter, base, purpose and card before the permit was issued."""
    today = shown.roles()
    doubt = " by a grant that no thief can have signed" if shown.doubtful else ""
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
        _demand(request.index < entry.index, "the request is younger than an approval")
        _card(entries, said, entry, text(predicate, "model"))
        signer, role = verified.signers[0], role_name(said.get("role"))
        shown.table.demand_person(signer, entry.index)
        _demand(signer.subject != predicate.get("creator"), "the maker signed it")
        then = shown.roles(entry.index).holds(signer.subject, role, unit)
        _demand(then, f"{signer.subject} did not hold {role} when signing{doubt}")
        _demand(today.holds(signer.subject, role, unit), f"{signer.subject} does not hold {role}{doubt}")
        signed.append((signer, role))
    _demand(quorum_met(signed), "no two people signed as compliance officer and validator")


def _place(request: Entry, place: str, notes: list[str]) -> None:
    """The place is one that the request declared."""
    declared = members(members(request.record.predicate, "request"), "use").get("jurisdictions")
    known = [str(name) for name in declared] if isinstance(declared, list) else []
    if place:
        _demand(not outside(place, known), outside(place, known))
    else:
        notes.append(f"where it is used: nobody asked; its use was declared for {', '.join(known) or 'no place'}")


def _firm(shown: Shown, issued: Entry, entries: Sequence[Entry], notes: list[str]) -> None:
    """No thief can have signed the permit or an approval, nor brought in a key that did."""
    rests = {issued.index, *(e.index for e in entries if e.record.type == "approval.decided")}
    doubtful = sorted({use.name for use in shown.table.uses if use.index in rests and shown.in_doubt(use)})
    keyed = "keys that may have been in other hands, or that such a key brought in, signed for it"
    _demand(not doubtful, f"{keyed}: {', '.join(doubtful)}")
    if any(shown.table.suspects()):
        notes.append("grants and key events in doubt: nothing here rests on them; the evidence bundle lists them")


def _card(entries: Sequence[Entry], said: Mapping[str, Any], approval: Entry, model: str) -> None:
    """The card that an approval names is the one of a proved record before it, of this model and adapter."""
    size, name = said.get("evidence_size"), said.get("card_sha256")
    for entry in entries:
        if entry.record.type == "card.rendered" and entry.index == said.get("card_index"):
            covered = isinstance(size, int) and entry.index < size <= approval.index
            same_job = entry.record.job == approval.record.job
            same_card = bool(name) and entry.record.predicate.get("card_sha256") == name
            _demand(covered and same_job and same_card, "an approval's card is not proved")
            # The format does not demand that a card's record names its adapter; a permit does.
            same_adapter = entry.record.subjects("adapter") == {said.get("adapter_sha256")}
            _demand(same_adapter, "an approval's card is of another adapter, or names none")
            _demand(entry.record.predicate.get("model") == model, "an approval's card is of another model")
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


def _hashes(message: Any, name: str) -> list[bytes]:
    """A proof's hashes; none when the field is not set."""
    hashes = _field(message, name) or []
    _demand(isinstance(hashes, list) and len(hashes) <= MAX_HASHES, "a proof is malformed")
    return [from_base64(value) for value in hashes]


def _number(value: Any) -> int:
    """A 64-bit integer as protobuf JSON writes it; an absent one is zero."""
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _Refused("a number is malformed")
