"""All checks of a bundle in order, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from assay import policy_text
from assay.digests import sha256_bytes
from assay.errors import AssayError, ExhaustedError
from audit.ledger import evidence, tree
from audit.ledger.cosignature import CLOCK_SKEW
from audit.ledger.evidence import Entry
from audit.ledger.note import SignedNote
from audit.ledger.quorum import NONE
from audit.verify import checkpoint, timestamp
from audit.verify.archive import Bundle, open_bundle, read_file
from audit.verify.findings import CHECKS, SHOWN
from audit.verify.replay import replay
from audit.verify.report import FAILED, MISSING, OLD, PASSED, Report
from audit.verify.results import document_hashes
from audit.verify.state import State
from audit.verify.trust import TrustFile

ARCHIVE = "bundle, checkpoint and proofs"
COMPLETE = "completeness"
CHAINS = "unit chains"
OPENING = "the log opens with its own key"
DOCUMENTS = "attachments are named by records"
POLICIES = "rules and limits are those that records name"
AGE = "age"
TIMESTAMPS = "time stamps of the checkpoint"
POST_QUANTUM = "post-quantum signature of the checkpoint"
QUORUM = "quorum of witnesses"


def verify_bundle(path: Path, trust: TrustFile, now: datetime) -> Report:
    """Verifies a bundle by a trust file from elsewhere.

    Never raises for what the bundle holds: whatever is wrong with it is in the report.

    Args:
        path: the bundle.
        trust: whom to believe about what.
        now: aware time, for the age of the evidence.
    """
    try:
        return verify_bytes(read_file(path), trust, now)
    except AssayError as error:
        return _unopened(error)
    except MemoryError:
        return _unopened(ExhaustedError("BUNDLE_TOO_LARGE", "checking it takes more memory than this process may use"))


def verify_bytes(data: bytes, trust: TrustFile, now: datetime) -> Report:
    """As :func:`verify_bundle`, for a bundle in memory."""
    report = Report()
    try:
        bundle = open_bundle(data, trust.log)
    except AssayError as error:
        return _unopened(error)
    report.origin, report.scope = bundle.header.log, bundle.header.scope
    report.size, report.root, report.records = bundle.header.size, bundle.header.root.hex(), len(bundle.entries)
    report.add(ARCHIVE, PASSED, f"{len(bundle.entries)} records, signed by {trust.log.vkey().rpartition('+')[0]}")
    _post_quantum(bundle, trust, report)
    witnessed = _witnessed(bundle, trust, now, report)
    _stamped(bundle, trust, report)
    _complete(bundle, report)
    gapless = _chains(bundle, report)
    _opening(bundle, trust, report)
    state = replay(bundle.entries, bundle.header, trust, gapless)
    state.findings.report(report)
    state.erasures.report(bundle.payloads, report)
    state.keys.report(report)
    _documents(bundle, report)
    _policies(bundle, report)
    _age(bundle, trust, witnessed, now, report)
    _limits(bundle, trust, state, report)
    return report


def _unopened(error: AssayError) -> Report:
    """Nothing of the bundle can be believed, so nothing further was looked at."""
    report = Report()
    report.add(ARCHIVE, FAILED, f"{error.reason}: {error.message}")
    report.not_checked += [QUORUM, COMPLETE, CHAINS, OPENING, *CHECKS, DOCUMENTS]
    return report


def _post_quantum(bundle: Bundle, trust: TrustFile, report: Report) -> None:
    """The log's ML-DSA-44 line, where the trust file names a key for it; one that is not there leaves a gap."""
    note = SignedNote.parse(bundle.note)
    report.not_checked += checkpoint.unnamed(note, trust)
    try:
        time = checkpoint.post_quantum(note, trust)
    except AssayError as error:
        _unsigned(POST_QUANTUM, error, report)
        return
    if time is not None:
        report.add(POST_QUANTUM, PASSED, f"ML-DSA-44, made at {time.isoformat()}")


def _unsigned(check: str, error: AssayError, report: Report) -> None:
    """A line that is not there leaves a gap; one that does not hold is false."""
    outcome = MISSING if error.reason in checkpoint.NOT_THERE else FAILED
    report.add(check, outcome, f"{error.reason}: {error.message}")


def _complete(bundle: Bundle, report: Report) -> None:
    """Scope ``log``: every record is there, and the root is recomputed from them alone."""
    if bundle.header.scope != "log":
        report.not_checked.append("records outside the selection: this bundle does not show the whole log")
        return
    missing = bundle.header.size - len(bundle.entries)
    if missing:
        report.add(COMPLETE, MISSING, f"{missing} of {bundle.header.size} records are not in the bundle")
    elif tree.root_of(entry.leaf for entry in bundle.entries) != bundle.header.root:
        report.add(COMPLETE, FAILED, "the records lead to another root")
    else:
        report.add(COMPLETE, PASSED, "every record is there and leads to the signed root")


def _chains(bundle: Bundle, report: Report) -> frozenset[str]:
    """Each unit's records follow one another; returns the units shown without a gap from their first record on."""
    by_unit: dict[str, list[Entry]] = {}
    for entry in bundle.entries:
        by_unit.setdefault(entry.record.unit, []).append(entry)
    gapless: set[str] = set()
    broken, gaps = 0, []
    for unit, chain in sorted(by_unit.items()):
        expected, whole = 1, True
        previous: Entry | None = None
        for entry in chain:
            sequence = entry.record.sequence
            linked = previous is not None and sequence == expected and entry.record.previous == previous.leaf.hex()
            if sequence < expected or (sequence == expected and previous is not None and not linked):
                broken += 1
                if broken <= SHOWN:
                    report.add(CHAINS, FAILED, f"record {entry.index} does not follow the record of {unit} before it")
            whole = whole and sequence == expected
            expected, previous = sequence + 1, entry
        if whole:
            gapless.add(unit)
        else:
            gaps.append(unit)
    if broken > SHOWN:
        report.add(CHAINS, FAILED, f"and {broken - SHOWN} more")
    if gaps and bundle.header.scope == "selection":
        report.not_checked.append(f"records left out by selection, in the chains of {_listed(gaps)}")
    elif gaps:
        report.add(CHAINS, MISSING, f"records are left out of the chains of {_listed(gaps)}")
    if not broken and (not gaps or bundle.header.scope == "selection"):
        report.add(CHAINS, PASSED, f"{len(by_unit)} units, {len(gapless)} without a gap")
    return frozenset(gapless)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _opening(bundle: Bundle, trust: TrustFile, report: Report) -> None:
    first = next((entry for entry in bundle.entries if entry.index == 0), None)
    if first is None:
        if bundle.header.scope == "log":
            report.add(OPENING, MISSING, "record 0 is not in the bundle")
        else:
            report.not_checked.append(f"{OPENING}: record 0 is not in the selection")
        return
    said = (first.record.type, first.record.predicate.get("origin"), first.record.predicate.get("log_key"))
    if said == ("log.opened", trust.origin, trust.log.vkey()):
        report.add(OPENING, PASSED)
    else:
        report.add(OPENING, FAILED, "record 0 does not open this log with the trusted key")


def _documents(bundle: Bundle, report: Report) -> None:
    """Every attachment's digest is named by a card's record."""
    named = document_hashes(bundle.entries)
    documents = sorted(bundle.attachments.items())
    foreign = [name for name, data in documents if sha256_bytes(data) not in named]
    for name in foreign[:SHOWN]:
        report.add(DOCUMENTS, FAILED, f"no card record names the digest of {name}")
    if len(foreign) > SHOWN:
        report.add(DOCUMENTS, FAILED, f"and {len(foreign) - SHOWN} more")
    if not foreign:
        report.add(DOCUMENTS, PASSED, f"{len(bundle.attachments)} checked")


def _policies(bundle: Bundle, report: Report) -> None:
    """Every text of rules or limits has the digest that it is named by, and a decision or verdict here names that."""
    named: dict[str, int] = {}
    for (rules, limits), index in evidence.policies_named(bundle.entries).items():
        named.setdefault(evidence.rules_path(rules), index)
        named.setdefault(evidence.limits_path(limits), index)
    false = 0
    for path, text in sorted(bundle.policies.items()):
        try:
            holds = path in named and policy_text.sha256_of_text(text) == path.partition("/")[2].removesuffix(".json")
        except AssayError:
            holds = False
        if not holds:
            false += 1
            if false <= SHOWN:
                why = "is not what its digest is of" if path in named else "is named by no decision or verdict here"
                report.add(POLICIES, FAILED, f"{path} {why}")
    if false > SHOWN:
        report.add(POLICIES, FAILED, f"and {false - SHOWN} more")
    if bundle.policies and not false:
        report.add(POLICIES, PASSED, f"{len(bundle.policies)} recomputed")
    absent = sorted(named.keys() - bundle.policies.keys())
    if absent and not bundle.policies:
        report.not_checked.append("what rules and limits say: this bundle holds no text of them, only their digests")
    elif absent:
        where = _listed([f"{path.partition('/')[0]} named by record {named[path]}" for path in absent])
        report.not_checked.append(f"what these say, whose text is not in the bundle: {where}")


def _age(bundle: Bundle, trust: TrustFile, witnessed: datetime | None, now: datetime, report: Report) -> None:
    """The quorum's time where witnesses must sign, since the gateway's own clock proves nothing to others."""
    newest = witnessed or max((entry.record.time for entry in bundle.entries), default=None)
    what = "a quorum saw it last" if witnessed else "the newest record is of"
    if trust.max_age is None:
        report.not_checked.append("age of the evidence: the trust file sets no max-age")
    elif newest is None:
        report.add(AGE, MISSING, "no record and no quorum says how old it is")
    elif newest - now > CLOCK_SKEW:
        # It would never grow old.
        report.add(AGE, FAILED, f"TIME_IN_FUTURE: {what} {newest.isoformat()}")
    elif now - newest > trust.max_age:
        report.add(AGE, OLD, f"{what} {newest.isoformat()}")
    else:
        report.add(AGE, PASSED, f"{what} {newest.isoformat()}")


def _witnessed(bundle: Bundle, trust: TrustFile, now: datetime, report: Report) -> datetime | None:
    """Counts cosignatures by the trust file's policy; returns the quorum's time, or None without one."""
    if bundle.header.quorum == NONE and not trust.quorum.asks_nobody:
        report.add(
            QUORUM, FAILED, "QUORUM_DOWNGRADE: exported under `quorum none`, where the trust file names a quorum"
        )
        return None
    try:
        cosigned = checkpoint.witnessed(SignedNote.parse(bundle.note), trust, now)
    except AssayError as error:
        _unsigned(QUORUM, error, report)
        return None
    if cosigned is None:
        return None
    report.not_checked += checkpoint.uncounted(cosigned)
    report.add(QUORUM, PASSED, f"{trust.quorum.describe()}: {checkpoint.seen(cosigned.times)}")
    return cosigned.since


def _stamped(bundle: Bundle, trust: TrustFile, report: Report) -> None:
    """RFC 3161 time stamps by the trust file's authority; records may not claim to be younger than those say."""
    if trust.tsa is None:
        if bundle.timestamps:
            report.not_checked.append(f"{len(bundle.timestamps)} time stamps: the trust file names no authority (tsa)")
        return
    if not bundle.timestamps:
        report.add(TIMESTAMPS, MISSING, "the bundle carries none, and the trust file names an authority")
    newest = max((entry.record.time for entry in bundle.entries), default=None)
    for name, response in sorted(bundle.timestamps.items()):
        try:
            time = timestamp.verify(response, bundle.note, trust.tsa)
        except AssayError as error:
            report.add(TIMESTAMPS, FAILED, f"{error.reason}: {name}: {error.message}")
            continue
        if newest is not None and newest - time > CLOCK_SKEW:
            report.add(TIMESTAMPS, FAILED, f"TIMESTAMP_BEFORE_RECORD: {name} is of {time.isoformat()}")
        else:
            report.add(TIMESTAMPS, PASSED, f"{name}: it existed by {time.isoformat()}")


def _limits(bundle: Bundle, trust: TrustFile, state: State, report: Report) -> None:
    """What no check here can show, said aloud."""
    if trust.quorum.asks_nobody:
        report.stamps.append(
            "QUORUM NONE: no witness has seen this checkpoint; another history shown to others would go unnoticed"
        )
        if bundle.header.quorum != NONE:
            report.stamps.append(f"the exporter claims the quorum {bundle.header.quorum!r}, which was not checked")
    if not trust.operator and state.roles.founder:
        founder = state.roles.founder
        report.not_checked.append(f"the founding operator {founder}: taken from the log; name it in the trust file")
    if state.unsaid:
        where = _listed([str(index) for index in state.unsaid])
        report.not_checked.append(f"whether the verdict was PASS: it does not say its outcome in records {where}")
    if bundle.header.scope != "log":
        report.not_checked.append(
            "records of these units after the last one shown: only the whole log can show that there are none"
        )
    report.not_checked += [
        "times of records: they are the gateway's own clock",
        "erased or undisclosed payloads: only their commitments are in the log",
        "signatures inside PDF attachments: only their digests were compared",
        "whether policy's rules were the right ones, and whether measurements were computed rightly",
    ]
