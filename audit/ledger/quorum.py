"""Which witnesses must have cosigned a checkpoint before it counts: policy files of c2sp.org/tlog-policy.

A policy has ``log``, ``witness``, ``group`` and exactly one ``quorum`` line. A group is met by at least k of its
members, each a witness or an earlier group; every name is a member at most once, so that a witness counts once.
``quorum none`` asks for nobody. Reading is strict: a line that is not understood might ask for more than is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from assay.errors import AssayError, InvalidInputError
from audit.ledger.cosignature import CLOCK_SKEW, CosignatureVerifier
from audit.ledger.note import SignedNote, Verifier

NONE = "none"
KEYS = ("log", "witness", "group", "quorum")
MAX_TEXT = 65_536
MAX_LINES = 256

_THRESHOLD = re.compile(r"[1-9][0-9]{0,3}")
_URL = re.compile(r"https?://[!-~]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Log:
    """A log that the policy knows, and where it can be read; the address may be empty."""

    verifier: Verifier
    url: str = ""


@dataclass(frozen=True)
class Witness:
    """A witness by its name in the policy, its key, and where it is asked; the address may be empty."""

    name: str
    verifier: CosignatureVerifier
    url: str = ""


@dataclass(frozen=True)
class Group:
    """Met when at least ``threshold`` of its members are."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Cosigned:
    """What a policy says of one note.

    Attributes:
        times: the policy's witnesses that cosigned it, by their names in the policy, each with its time.
        ahead: likewise, those whose time is still to come: they do not count.
        met: whether the witnesses in ``times`` are a quorum.
        since: newest moment by which a quorum had signed, so that one witness alone cannot make old evidence look
            fresh; None when the quorum is not met or asks for nobody.
    """

    times: Mapping[str, datetime]
    ahead: Mapping[str, datetime]
    met: bool
    since: datetime | None


@dataclass(frozen=True)
class QuorumPolicy:
    """A policy as read; names are unique over witnesses and groups."""

    logs: tuple[Log, ...] = ()
    witnesses: Mapping[str, Witness] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = NONE

    @classmethod
    def parse(cls, text: str) -> QuorumPolicy:
        """Reads a policy file.

        Raises:
            InvalidInputError: ``POLICY_MALFORMED`` naming the line.
        """
        if len(text) > MAX_TEXT or _FORBIDDEN.search(text):
            raise InvalidInputError("POLICY_MALFORMED", "the policy is too long or has control characters")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), 1):
            words = [word for word in re.split(r"[ \t]+", line) if word]
            if not words or words[0].startswith("#"):
                continue
            try:
                reader.take(words)
            except AssayError as error:
                raise InvalidInputError("POLICY_MALFORMED", f"line {number}: {error.message}") from error
        if reader.quorum is None:
            raise InvalidInputError("POLICY_MALFORMED", "there is no quorum line")
        return cls(tuple(reader.logs), reader.witnesses, reader.groups, reader.quorum)

    @property
    def asks_nobody(self) -> bool:
        """True for ``quorum none``."""
        return self.quorum == NONE

    def met_by(self, names: Iterable[str]) -> bool:
        """Tells whether these witnesses, by their names in the policy, are a quorum."""
        return self.asks_nobody or self._holds(self.quorum, frozenset(names))

    def judge(self, note: SignedNote, now: datetime | None = None) -> Cosigned:
        """Verifies every known witness's line of a note, and counts.

        Args:
            note: a checkpoint's.
            now: aware time; a line of more than :data:`CLOCK_SKEW` later does not count. None where it is only asked
                who has seen the tree, whatever their clocks said.

        Raises:
            IntegrityError: ``COSIGNATURE_BAD`` or ``NOTE_SIGNATURE_BAD`` when a known witness's line does not verify
                or is doubled; lines of unknown keys are passed over.
        """
        found = ((name, witness.verifier.open(note)) for name, witness in self.witnesses.items())
        signed = {name: time for name, time in found if time is not None}
        ahead = {name: time for name, time in signed.items() if now is not None and time - now > CLOCK_SKEW}
        times = {name: time for name, time in signed.items() if name not in ahead}
        met = self.met_by(times)
        since = None
        if met and not self.asks_nobody:
            moments = sorted(set(times.values()), reverse=True)
            since = next(t for t in moments if self.met_by(name for name, time in times.items() if time >= t))
        return Cosigned(times, ahead, met, since)

    def same_quorum(self, other: QuorumPolicy) -> bool:
        """Tells whether both ask the same keys in the same way; logs, addresses and the order of lines aside."""
        mine, others = (
            sorted(line for line in policy.text(addresses=False).splitlines() if not line.startswith("log "))
            for policy in (self, other)
        )
        return mine == others

    def describe(self) -> str:
        """The quorum in words, for reports."""
        if self.asks_nobody:
            return NONE
        group = self.groups.get(self.quorum)
        if group is None:
            return self.witnesses[self.quorum].verifier.name
        return f"{group.threshold} of {len(group.members)} ({self.quorum})"

    def text(self, *, addresses: bool = True) -> str:
        """The policy as a file; without ``addresses`` it shows nobody where logs and witnesses are asked."""

        def line(*words: str) -> str:
            return " ".join(word for word in words if word)

        lines = [line("log", log.verifier.vkey(), log.url if addresses else "") for log in self.logs]
        lines += [
            line("witness", w.name, w.verifier.vkey(), w.url if addresses else "") for w in self.witnesses.values()
        ]
        lines += [line("group", g.name, str(g.threshold), *g.members) for g in self.groups.values()]
        return "\n".join([*lines, f"quorum {self.quorum}"]) + "\n"

    def _holds(self, name: str, cosigners: frozenset[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigners
        return sum(self._holds(member, cosigners) for member in group.members) >= group.threshold


class _Reader:
    """Takes a policy's lines in order; whatever a line refers to stands before it."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: dict[str, Witness] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._keys: set[bytes] = set()
        self._placed: set[str] = set()
        self._lines = 0

    def take(self, words: list[str]) -> None:
        """Reads one line's words."""
        self._lines += 1
        if self._lines > MAX_LINES:
            raise _bad("the policy has too many lines")
        key, *rest = words
        if key == "log" and len(rest) in (1, 2):
            verifier = Verifier.parse(rest[0])
            self._claim_key(verifier.public_key.public_bytes_raw())
            self.logs.append(Log(verifier, _url(rest[1:])))
        elif key == "witness" and len(rest) in (2, 3):
            witness = Witness(self._new_name(rest[0]), CosignatureVerifier.parse(rest[1]), _url(rest[2:]))
            self._claim_key(witness.verifier.public_key.public_bytes_raw())
            self.witnesses[witness.name] = witness
        elif key == "group" and len(rest) >= 3:
            self.groups[rest[0]] = self._group(self._new_name(rest[0]), rest[1], tuple(rest[2:]))
        elif key == "quorum" and len(rest) == 1:
            if self.quorum is not None:
                raise _bad("a second quorum")
            if rest[0] != NONE and rest[0] not in self.witnesses and rest[0] not in self.groups:
                raise _bad("the quorum is not defined before")
            self.quorum = rest[0]
        else:
            raise _bad("not a log, witness, group or quorum line")

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> Group:
        known = {"any": 1, "all": len(members)}.get(threshold)
        if known is None and not _THRESHOLD.fullmatch(threshold):
            raise _bad("the threshold is not any, all or a number")
        count = known or int(threshold)
        if count > len(members):
            raise _bad("the threshold is larger than the group")
        for member in members:
            if member == name or (member not in self.witnesses and member not in self.groups):
                raise _bad("a member is not defined before")
            if member in self._placed:
                raise _bad("a name is a member twice")
            self._placed.add(member)
        return Group(name, count, members)

    def _new_name(self, name: str) -> str:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise _bad("the name is taken")
        return name

    def _claim_key(self, raw: bytes) -> None:
        """One key, one role: a cosignature does not say whose it is."""
        if raw in self._keys:
            raise _bad("a key stands twice")
        self._keys.add(raw)


def _url(words: list[str]) -> str:
    if words and not _URL.fullmatch(words[0]):
        raise _bad("the address is no URL")
    return words[0] if words else ""


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError("POLICY_MALFORMED", message)
