"""Erasures as the log tells them: ordered by a person or due by a datasheet, then executed; what became of payloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from audit.ledger.commitment import commitments_of
from audit.ledger.evidence import Entry
from audit.verify.report import FAILED, PASSED, Report

PAYLOADS = "payloads outside the log"
RETENTION_ENDED = "retention-ended"
MOST_DAYS = 36_500


@dataclass
class Erasures:
    """Orders and retentions by index, and the record that says a payload is gone by commitment."""

    orders: dict[int, tuple[str, str]] = field(default_factory=dict)
    kept: dict[int, tuple[str, str, datetime, timedelta]] = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)

    def see(self, entry: Entry) -> None:
        """Notes the commitments that a record names."""
        for commitment in commitments_of(entry.record.predicate):
            self.named[commitment] = entry.index

    def order(self, entry: Entry) -> bool:
        """Notes an order; False when it is about another unit's resource."""
        resource = str(entry.record.predicate.get("resource"))
        self.orders[entry.index] = (entry.record.unit, resource)
        return resource.startswith(f"units/{entry.record.unit}/")

    def keep(self, entry: Entry) -> None:
        """Notes since when and how long a dataset's rows may be kept, where its datasheet says so."""
        record = entry.record
        sheet = record.predicate.get("datasheet")
        days = sheet.get("retention_days") if isinstance(sheet, dict) else None
        if type(days) is int and 0 < days <= MOST_DAYS:
            name = str(record.predicate.get("dataset"))
            self.kept[entry.index] = (record.unit, name, record.time, timedelta(days=days))

    def execute(self, entry: Entry) -> bool:
        """Notes what was erased; False when no such order came before it, and no retention was over."""
        predicate = entry.record.predicate
        commitments = predicate.get("commitments")
        for commitment in commitments if isinstance(commitments, list) else ():
            self.erased[str(commitment)] = entry.index
        index = predicate.get("order_index")
        wanted = (entry.record.unit, str(predicate.get("resource")))
        if type(index) is not int:
            return False
        if predicate.get("reason_code") == RETENTION_ENDED and index in self.kept:
            *resource, begun, retention = self.kept[index]
            return tuple(resource) == wanted and entry.record.time - begun >= retention
        return self.orders.get(index) == wanted

    def report(self, disclosed: Mapping[str, bytes], report: Report) -> None:
        """Says of every payload that the records name whether it is here, erased or not disclosed."""
        if not self.named:
            return
        gone = {c: self.erased[c] for c in self.named if c in self.erased and c not in disclosed}
        for commitment in sorted(set(disclosed) & set(self.erased)):
            report.add(PAYLOADS, FAILED, f"a payload that record {self.erased[commitment]} says was erased is here")
        hidden = len(self.named) - len(gone) - len(disclosed)
        report.add(
            PAYLOADS, PASSED, f"{len(disclosed)} open their commitments, {len(gone)} erased, {hidden} not disclosed"
        )
        for commitment, index in sorted(gone.items(), key=lambda item: self.named[item[0]])[:20]:
            report.not_checked.append(f"payload erased: what record {self.named[commitment]} names, by record {index}")
