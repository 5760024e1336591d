"""What the log has said so far while it is replayed, and the checks that every handler shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from assay import canonical, dsse
from assay.dsse import Signer
from assay.errors import AssayError
from audit.ledger.evidence import Entry, Header
from audit.ledger.records import Record
from audit.verify import findings as names
from audit.verify.erasures import Erasures
from audit.verify.findings import Findings, Problem
from audit.verify.keys import KeyTable
from audit.verify.people import Roles
from audit.verify.trust import TrustFile


@dataclass(frozen=True)
class Signature:
    """A person's decision on a job's card, as counted for the quorum."""

    signer: Signer
    role: str
    granted: bool
    version: int
    card: str
    index: int


@dataclass
class Job:
    """What the records so far say of one job.

    Attributes:
        held: a compliance officer paused it who did not ask for it.
        dataset: name of the upload that was asked about.
        anew: its approval was revoked because of a signer, so that it waits for other people.
        asked: digests of the upload and of the base model that were asked about, by member.
        prepared: digests of the files that preparation made, by name.
        private: its commitment to what it sealed to its own worker; empty in statements of earlier releases.
        answers: indices of the decision, and of waivers, by which training may be ordered.
        canaries: digest of the canaries that the decision committed to.
        order: digest of the order to train.
        terms: the order to train, as it was signed.
        ran: digest of the order that the train worker's statement names.
        claim: what the train worker's statement claims.
        revealed: digest of the canaries that the audit worker's statement names.
        measured: what the audit worker's statement says it measured, and by: digests of the adapter and of the plan,
            and the commitment to the private rows.
        plan: digest of what will be measured.
        report: digest of what was measured.
        fired: what policy's newest answer says of each rule that stands in the way, by rule.
        waived_until: last day of the waivers that let it on.
        appealed: who filed the appeals that wait.
        cards: digest of each rendered card and the job's version that it shows, by index.
    """

    name: str
    unit: str
    state: str = "NONE"
    version: int = 0
    creator: str = ""
    paused_in: str = ""
    held: bool = False
    dataset: str = ""
    capped: bool = False
    adapter: str = ""
    base: str = ""
    purpose: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    prepared: Mapping[str, str] = field(default_factory=dict)
    private: str = ""
    answers: set[int] = field(default_factory=set)
    canaries: str = ""
    order: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)
    ran: str = ""
    claim: Mapping[str, Any] = field(default_factory=dict)
    revealed: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""
    report: str = ""
    fired: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waived_until: date = date.max
    anew: bool = False
    appealed: set[str] = field(default_factory=set)
    cards: dict[int, tuple[str, object]] = field(default_factory=dict)
    signatures: list[Signature] = field(default_factory=list)
    acts: set[tuple[str, int]] = field(default_factory=set)

    @property
    def etag(self) -> str:
        """What a person must have seen to sign about this version."""
        return hashlib.sha256(canonical.encode({"name": self.name, "version": self.version})).hexdigest()[:32]


@dataclass
class State:
    """The log up to a record; problems go to ``findings``.

    A handler of a record type is a function of this state and the entry, which either changes the state or raises
    :class:`~audit.verify.findings.Problem`.

    Attributes:
        header: what the bundle says of the log.
        trust: whom to believe.
        gapless: units whose chains are shown whole.
        roles: grants in force.
        keys: keys in force, and which records each has signed so far.
        newest: the newest time of the records before this one.
        publications: ids of policy publications so far.
        unsaid: indices of verdicts that do not say their outcome.
        uploaders: who uploaded a dataset, by its name.
    """

    header: Header
    trust: TrustFile
    gapless: frozenset[str]
    roles: Roles
    findings: Findings = field(default_factory=Findings)
    jobs: dict[str, Job] = field(default_factory=dict)
    erasures: Erasures = field(default_factory=Erasures)
    keys: KeyTable = field(init=False)
    newest: datetime | None = None
    publications: set[str] = field(default_factory=set)
    unsaid: list[int] = field(default_factory=list)
    uploaders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begins with the keys that the trust file names."""
        self.keys = KeyTable.of(self.trust)

    def job(self, record: Record) -> Job:
        """The job that a record is about; a new one when it is the first."""
        return self.jobs.setdefault(record.job, Job(record.job, record.unit))

    def signed(self, entry: Entry) -> tuple[Signer, dict[str, Any]]:
        """As :meth:`signatures`; exactly one person signs an act."""
        signers, predicate = self.signatures(entry)
        self.findings.demand(names.SIGNATURES, len(signers) == 1, "more than one person signed one act")
        return signers[0], predicate

    def signatures(self, entry: Entry) -> tuple[tuple[Signer, ...], dict[str, Any]]:
        """Verifies the people's signatures of a record by the people root at the record's time."""
        try:
            verified = dsse.verify_person(
                entry.record.envelope(), self.trust.people_root, entry.record.time, self.trust.relying_party
            )
        except AssayError as error:
            raise Problem(names.SIGNATURES, f"{error.reason}: {error.message}") from error
        with self.key_checked():
            for signer in verified.signers:
                self.keys.demand_person(signer, entry.index)
        return verified.signers, verified.predicate

    @contextmanager
    def key_checked(self) -> Iterator[None]:
        """Counts a check of a key that held. Which key may sign rests on the system's records: a gap leaves it open.

        Raises:
            Problem: the key did not hold.
        """
        try:
            yield
        except AssayError as error:
            raise Problem(names.KEYS, f"{error.reason}: {error.message}", missing=not self.whole("system")) from error
        self.findings.demand(names.KEYS, True, "")

    def holds(self, signer: Signer, role: str, unit: str) -> None:
        """Demands that the grants in force give the signer the role in the unit."""
        held = self.roles.holds(signer.subject, role, unit)
        message = f"{signer.subject} did not hold {role or 'a role'} in {unit}"
        self.findings.demand(names.ROLES, held, message, missing=not self.whole("system"))

    def whole(self, unit: str) -> bool:
        """True when the bundle shows the unit's chain without a gap, so that what is absent never happened."""
        return unit in self.gapless


Handler = Callable[[State, Entry], None]


def transition_of(record: Record) -> Mapping[str, Any]:
    """The change of state that a record states; empty without one."""
    return members(record.predicate, "transition")


def text(value: Mapping[str, Any], name: str) -> str:
    """The text at ``name``; empty for anything else."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def members(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object at ``name``; empty for anything else."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def parse_moment(value: object) -> datetime | None:
    """Reads RFC 3339 in UTC; None for anything else."""
    if not isinstance(value, str) or not value.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
