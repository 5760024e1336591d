"""Erasures as the log tells them: ordered by a person, then executed; and what became of each payload named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from audit.ledger.commitment import commitments_of
from audit.ledger.evidence import Entry
from audit.verify.report import FAILED, PASSED, Report

PAYLOADS = "payloads outside the log"


@dataclass
class Erasures:
    """Orders by index, and the record that says a payload is gone by commitment."""

    orders: dict[int, tuple[str, str]] = field(default_factory=dict)
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

    def execute(self, entry: Entry) -> bool:
        """Notes what was erased; False when no such order came before it."""
        predicate = entry.record.predicate
        commitments = predicate.get("commitments")
        for commitment in commitments if isinstance(commitments, list) else ():
            self.erased[str(commitment)] = entry.index
        index = predicate.get("order_index")
        wanted = (entry.record.unit, str(predicate.get("resource")))
        return type(index) is int and self.orders.get(index) == wanted

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
