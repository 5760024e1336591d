"""What replaying the log found: how often each check held, and where it did not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from audit.verify.report import FAILED, MISSING, PASSED, Report

SIGNATURES = "people's signatures"
ROLES = "roles held when signing"
DUTIES = "separation of duties"
EVIDENCE = "approvals bind card and evidence"
TRANSITIONS = "transitions of jobs"
WORKERS = "workers' statements"
AGREEMENT = "a job's records agree"
PERMITS = "permits"
ERASURES = "erasures follow a signed order or the end of a retention"
KEYS = "keys in force when signing"
END = "a frozen log has ended"
TIME = "time does not run backwards"
CHECKS = (TIME, SIGNATURES, KEYS, ROLES, DUTIES, EVIDENCE, TRANSITIONS, AGREEMENT, WORKERS, PERMITS, ERASURES, END)

SHOWN = 20


class Problem(Exception):
    """One check that does not hold for one record; ``missing`` when something is absent rather than false."""

    def __init__(self, check: str, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.check = check
        self.message = message
        self.missing = missing


@dataclass
class Findings:
    """Counts and problems of one replay."""

    held: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[int, Problem]] = field(default_factory=list)

    def demand(self, check: str, holds: bool, message: str, *, missing: bool = False) -> None:
        """Counts a check that holds.

        Raises:
            Problem: it does not.
        """
        if not holds:
            raise Problem(check, message, missing=missing)
        self.held[check] += 1

    def note(self, index: int, problem: Problem) -> None:
        """Keeps a problem of the record at ``index``."""
        self.problems.append((index, problem))

    def report(self, report: Report) -> None:
        """Adds one line a check that held throughout, and one a problem (at most 20 a check, the rest counted)."""
        for check in CHECKS:
            found = [(index, p) for index, p in self.problems if p.check == check]
            for index, problem in found[:SHOWN]:
                report.add(check, MISSING if problem.missing else FAILED, f"record {index}: {problem.message}")
            if len(found) > SHOWN:
                worst = MISSING if all(p.missing for _, p in found[SHOWN:]) else FAILED
                report.add(check, worst, f"and {len(found) - SHOWN} more")
            if not found:
                report.add(check, PASSED, f"{self.held[check]} checked")
