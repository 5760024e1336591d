"""Who searched for which data subject, and when; and the cap on it, since whoever may search can try out values.

A file beside the gateway's other files, a line of JSON a search. It is no record of the ledger: there the handle of
everybody who was ever asked about would stand for ever, for every reader of records, also of people of whom nothing is
held. Nor is it the log on stderr, which holds no personal data.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from assay import durable
from assay.errors import ExhaustedError, UnavailableError
from gateway.caller import Caller
from gateway.names import unit_of
from gateway.statements import rfc3339
from gateway.subjects import handle_in

FILE = "searches.jsonl"


class SearchLog:
    """The file, and how often each caller has searched on this day (UTC).

    Args:
        path: of the file; it begins with the first search, and may be moved away at any time.
        most: searches of one caller in a day.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        self._day = ""
        self._today: Counter[str] = Counter()

    def note(self, caller: Caller, name: str) -> None:
        """Writes down a search for a subject, by its resource name, before it is made; not for the event loop.

        Raises:
            ExhaustedError: ``TOO_MANY_SEARCHES`` once the caller has made the day's.
            UnavailableError: ``SEARCH_NOT_WRITTEN``: then none is made.
        """
        time = rfc3339(dt.datetime.now(dt.UTC))
        line = {
            "time": time,
            "caller": caller.subject,
            "unit": unit_of(name),
            "handle": handle_in(name).hex(),
            "trace_id": caller.trace_id,
        }
        with self._lock:
            try:
                self._turn_to(time[:10])
                if self._today[caller.subject] >= self._most:
                    raise ExhaustedError(
                        "TOO_MANY_SEARCHES",
                        f"you have searched for {self._most} data subjects today (UTC)",
                        remedy="go on tomorrow; the operator may raise limits.subject_searches_per_day",
                    )
                self._append(json.dumps(line))
            except OSError as error:
                raise UnavailableError(
                    "SEARCH_NOT_WRITTEN",
                    f"{FILE} of the gateway cannot be read and written ({error.strerror}), so nothing was searched",
                    remedy="the operator frees space on the gateway's disk, or makes the file the gateway's own",
                ) from error
            self._today[caller.subject] += 1

    def _turn_to(self, day: str) -> None:
        """Counts what a new day, or a process before this one, has in the file of that day."""
        if day == self._day:
            return
        self._today.clear()
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            with suppress(ValueError, LookupError, TypeError, AttributeError):  # A crash cut it off.
                found = json.loads(line)
                self._today[found["caller"]] += found["time"].startswith(day)
        self._day = day

    def _append(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            whole = not size or stream.read(1) == b"\n"
            stream.write(("" if whole else "\n").encode() + line.encode() + b"\n")
            durable.flush(stream)
        if not size:
            durable.sync(self._path.parent)
