"""Asks the witnesses for every new checkpoint, publishes what a quorum cosigned, and stops a log that has forked.

One thread, the newest checkpoint only: what is committed while it asks goes with the next question. A witness that does
not answer is asked again later and later, and holds nobody up whose quorum is met without it. A witness that refuses
is looked into: if what it remembers is signed by this log and is not in this log's history, the log has been rolled
back or has forked; both notes are written to a file and the ledger signs nothing more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from assay.errors import AssayError, IntegrityError, UnavailableError
from audit.ledger import fork
from audit.ledger.cosignature import CLOCK_SKEW, read_lines, with_lines
from audit.ledger.fork import Evidence
from audit.ledger.ledger import Ledger
from audit.ledger.note import NoteSignature, SignedNote
from audit.ledger.publication import PublishedNotes, not_met
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.client import Reply, WitnessClient

PAUSE_SECONDS = 0.05
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
REFRESH = timedelta(hours=1)
_logger = logging.getLogger(__name__)


@dataclass
class _Asked:
    """A witness, what it is known to have cosigned last, and what went wrong lately."""

    client: WitnessClient
    size: int = 0
    failures: int = 0
    not_before: float = 0.0
    trouble: str = ""

    @property
    def name(self) -> str:
        """Its name in the policy."""
        return self.client.witness.name

    def worked(self, size: int) -> None:
        """It cosigned."""
        self.size, self.failures, self.not_before, self.trouble = size, 0, 0.0, ""

    def failed(self, why: str) -> None:
        """It did not; it is asked again later, each time after twice as long."""
        if why != self.trouble:
            _logger.warning("witness %s: %s", self.name, why)
        self.trouble = why
        self.not_before = time.monotonic() + min(FIRST_RETRY_SECONDS * 2.0**self.failures, LAST_RETRY_SECONDS)
        self.failures = min(self.failures + 1, 16)


class _Contradiction(Exception):
    """The log is not what it was; carries the evidence."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence.kind)
        self.evidence = evidence


class Publisher:
    """The published side of a witnessed log; see :class:`audit.ledger.publication.Publication`.

    Args:
        ledger: started.
        policy: who must cosign.
        clients: one for each witness of the policy.
        notes: what was published.
        evidence: folder for contradictions.
        clock: aware time.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: QuorumPolicy,
        clients: Sequence[WitnessClient],
        notes: PublishedNotes,
        evidence: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.policy = policy
        self._ledger = ledger
        self._asked = [_Asked(client) for client in clients]
        self._notes = notes
        self._evidence = evidence
        self._clock = clock
        self._halted = ""
        self._published = notes.latest()[0]
        self._waiting: list[tuple[int, Future[None]]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._asked_for = -1
        self._unsubscribe = ledger.subscribe(lambda size: self._wake())
        self._thread = threading.Thread(target=self._loop, name="publisher", daemon=True)

    def start(self) -> None:
        """Starts asking."""
        self._thread.start()

    def close(self) -> None:
        """Stops asking; who still waits hears that the quorum was not met."""
        self._unsubscribe()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(30)
        for asked in self._asked:
            asked.client.close()
        self._fail_waiting()
        self._notes.close()

    @property
    def state(self) -> str:
        """Empty while all is well; else a reason and what is the matter."""
        if self._halted or self._published == self._ledger.size:
            return self._halted
        return f"QUORUM_NOT_MET: {self._troubles()}"

    def latest(self) -> tuple[int, bytes]:
        """Size and note of the newest published checkpoint.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET``.
        """
        size, note = self._notes.latest()
        if not note:
            raise self._not_met()
        return size, note

    def at(self, size: int) -> bytes:
        """The note published for exactly ``size`` records, or nothing."""
        return self._notes.at(size)

    def covering(self, index: int) -> tuple[int, bytes]:
        """Size and note of the first published checkpoint that includes ``index``.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET``.
        """
        size, note = self._notes.covering(index)
        if not note:
            raise self._not_met()
        return size, note

    def covered(self, index: int) -> Future[None]:
        """Resolves when a published checkpoint includes ``index``; fails when the log stops or this is closed."""
        future: Future[None] = Future()
        with self._changed:
            if index < self._published:
                future.set_result(None)
            elif self._closing or self._halted:
                future.set_exception(self._not_met())
            else:
                self._waiting.append((index, future))
        return future

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _loop(self) -> None:
        while self._sleep():
            try:
                self._round()
            except _Contradiction as found:
                self._halt(found.evidence)
                return
            except Exception:
                _logger.exception("the publisher failed; it goes on")
                time.sleep(1.0)
            time.sleep(PAUSE_SECONDS)

    def _sleep(self) -> bool:
        """Waits until there is something to ask; False when it is time to end."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                if self._ledger.size != self._asked_for:
                    return True
                retries = [a.not_before for a in self._asked if a.failures]
                due = min([*retries, now + REFRESH.total_seconds() / 10])
                if due <= now:
                    return True
                self._changed.wait(due - now)
                if self._ledger.size == self._asked_for and time.monotonic() >= due:
                    return True
        return False

    def _round(self) -> None:
        """Asks for the newest checkpoint whoever has not cosigned it, or not lately."""
        size, note = self._ledger.head()
        self._asked_for = size
        signed = SignedNote.parse(self._notes.at(size) or note)
        clock = self._clock()
        cosigned, old = self.policy.judge(signed, clock), clock - REFRESH
        told = 0 if size > self._published else len(signed.signatures)
        now = time.monotonic()
        due = [a for a in self._asked if a.not_before <= now and cosigned.times.get(a.name, old) <= old]
        fresh = 0
        for asked in sorted(due, key=lambda a: a.failures):
            line = self._ask(asked, size, signed)
            if line is None:
                continue
            signed, fresh = with_lines(signed, [line]), fresh + 1
            if told == 0 and self.policy.judge(signed, clock).met:
                self._publish(size, signed)
                told, fresh = len(signed.signatures), 0
        if told and fresh:
            self._publish(size, signed)

    def _publish(self, size: int, note: SignedNote) -> None:
        self._notes.add(size, note.encode())
        with self._changed:
            self._published = size
            ready = [future for index, future in self._waiting if index < size]
            self._waiting = [(index, future) for index, future in self._waiting if index >= size]
        for future in ready:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _ask(self, asked: _Asked, size: int, note: SignedNote) -> NoteSignature | None:
        """The witness's line for a note; None when it gives none just now.

        Raises:
            _Contradiction: what the witness remembers is signed by this log and is not in its history.
        """
        try:
            reply = self._submit(asked, size, note)
            if reply.status == 409 and 0 <= reply.seen_size <= size:
                asked.size = reply.seen_size
                reply = self._submit(asked, size, note)
            if reply.status == 200:
                line = self._line(asked, note, reply)
                asked.worked(size)
                return line
            if reply.status in (409, 422):
                self._look_into(asked, note)
            asked.failed(f"refused with {reply.status}: {reply.body[:200].decode('utf-8', 'replace').strip()}")
        except AssayError as error:
            asked.failed(f"{error.reason}: {error.message}")
        return None

    def _submit(self, asked: _Asked, size: int, note: SignedNote) -> Reply:
        old = min(asked.size, size)
        proof = self._ledger.consistency_proof(old, size) if 0 < old < size else []
        return asked.client.add_checkpoint(old, proof, note.encode())

    def _line(self, asked: _Asked, note: SignedNote, reply: Reply) -> NoteSignature:
        """The one line of the answer that is this witness's; others are ignored, as the specification demands.

        Raises:
            IntegrityError: ``COSIGNATURE_BAD``; ``COSIGNATURE_FUTURE`` for a time to come, which no verifier counts.
        """
        key = asked.client.witness.verifier
        answer = SignedNote(note.text, read_lines(note.text, reply.body))
        line = answer.by(key.name, key.key_id)
        time = key.open(answer)
        if line is None or time is None:
            raise IntegrityError("COSIGNATURE_BAD", "the answer holds no cosignature of this witness")
        if time - self._clock() > CLOCK_SKEW:
            # Without the time itself, which is another at every try: each new trouble is said in the log.
            minutes = CLOCK_SKEW // timedelta(minutes=1)
            raise IntegrityError(
                "COSIGNATURE_FUTURE",
                f"its clock is more than {minutes} minutes ahead of this machine's; one of them is wrong",
            )
        return line

    def _look_into(self, asked: _Asked, note: SignedNote) -> None:
        """Asks what the witness remembers, and compares it with the log."""
        remembered = asked.client.newest(self._ledger.origin)
        held = asked.client.fork(self._ledger.origin)
        notes = [remembered] if remembered else []
        if held:
            claimed = Evidence.parse(held)
            if fork.proves_split(claimed, [self._ledger.verifier]):
                # The two notes hold by themselves. What else a witness wrote beside them, the kind before all, would
                # decide how the file is called and whether the next start heeds it.
                remark = f"witness {asked.name} holds two roots of one size"
                raise _Contradiction(
                    Evidence(fork.FORKED, self._ledger.origin, self._clock(), claimed.notes, remark=remark)
                )
        found = contradiction(self._ledger, notes, self._clock(), note.encode())
        if found is not None:
            raise _Contradiction(found)
        asked.size = 0

    def _halt(self, evidence: Evidence) -> None:
        path = evidence.write(self._evidence)
        self._ledger.stop(evidence.kind)
        with self._changed:
            self._halted = f"{evidence.kind}: both notes are in {path.name}"
        _logger.critical("the log stops: %s; evidence in %s", evidence.kind, path)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(self._not_met())

    def _troubles(self) -> str:
        return "; ".join(f"{a.name}: {a.trouble}" for a in self._asked if a.trouble) or "the witnesses are being asked"

    def _not_met(self) -> UnavailableError:
        return not_met(self.policy, self._halted or self._troubles())


def contradiction(ledger: Ledger, notes: Iterable[bytes], now: datetime, ours: bytes = b"") -> Evidence | None:
    """Evidence against the log, if one of ``notes`` is signed by it and is not in its history.

    Args:
        ledger: started.
        notes: as others remember them.
        now: aware time.
        ours: the log's own note to set beside; its newest by default.
    """
    for note in notes:
        try:
            head = fork.read_head(note, [ledger.verifier])
        except AssayError:
            continue  # not this log's word: it proves nothing against it
        size, newest = ledger.head()
        if head.size > size:
            remark = f"others hold a checkpoint of {head.size} records; the log has {size}"
            return Evidence(fork.ROLLED_BACK, ledger.origin, now, (note, ours or newest), remark=remark)
        if ledger.root(head.size) != head.root:
            remark = f"another root at {head.size} records: others hold {head.root.hex()}"
            proof = tuple(ledger.consistency_proof(head.size, size)) if 0 < head.size < size else ()
            return Evidence(fork.FORKED, ledger.origin, now, (note, ours or newest), proof, remark)
    return None


def demand_one_history(ledger: Ledger, evidence: Path, published: Iterable[bytes], now: datetime) -> None:
    """Demands at start that everything this log is known to have signed is in its history.

    What is known are the newest published note and the notes in files of evidence. A log that was rolled back starts
    again by itself once its records are restored; one that has signed two histories never does.

    Raises:
        IntegrityError: ``LOG_ROLLED_BACK`` or ``LOG_FORKED``, naming the file.
    """
    for path in fork.found_in(evidence):
        try:
            notes = Evidence.parse(path.read_bytes()).notes
        except AssayError:
            _logger.warning("%s is no evidence", path.name)
            continue
        found = contradiction(ledger, notes, now)
        if found is not None:
            raise _contradicted(found, path)
    found = contradiction(ledger, published, now)
    if found is not None:
        raise _contradicted(found, found.write(evidence))


def _contradicted(found: Evidence, path: Path) -> IntegrityError:
    return IntegrityError(
        found.kind,
        f"{found.remark}; both notes are in {path.name}",
        remedy="restore every record, or open a new log under a new origin; docs/ledger.md says how",
        metadata={"evidence": path.name},
    )
