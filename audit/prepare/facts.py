"""What the prepare task found, as the ``DataFacts`` that policies judge and as the claim that the supervisor signs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from assay import canonical, digests, groups
from audit.prepare import harm
from audit.prepare.actions import PiiAction
from audit.prepare.canaries import Canary
from audit.prepare.detector import Quality
from audit.prepare.findings import Findings
from audit.prepare.label_bias import by_group
from audit.prepare.parse_table import Survey
from audit.prepare.rows import Entry
from audit.prepare.safe_harbor import coverage
from audit.prepare.scan import PiiTally
from audit.prepare.screens import MAX_ROW_NUMBERS, ScreenFinding
from audit.prepare.splits import SELECTION, TEST, TRAIN, VALIDATION, SplitPlan
from audit.prepare.text_checks import EMBEDDED_MEDIA

MAX_SCREENS = 200
MAX_LABELS = 64
MAX_GROUP_BYTES = 8000
"""Most bytes of names of groups: they stand in the plan, and so in a record, which holds 60,000 bytes in all."""


@dataclass(frozen=True)
class Found:
    """Everything that the task counted.

    Attributes:
        findings: refused rows.
        valid_rows: rows that passed, duplicates included.
        duplicates: rows dropped since an earlier row says the same.
        plan: the shares that the splits were to have.
        split_rows: rows by split, canaries not counted.
        split_sha256: hex SHA-256 of each split's file; that of ``train`` covers the canaries.
        canaries: all of them, planted and controls.
        manifest_sha256: the commitment to them.
        private_commitment: the commitment to all that leaves sealed to this worker, its salt included.
        pii: tallies of the scan.
        pii_action: what became of what it found.
        quality: the detector's recall and precision by type.
        train_pii_units: whose rows the sampled ones stand in; None where no unit is named.
        train_pii_values: distinct direct identifiers in user and assistant messages of the train split.
        detector: identity of the scanner.
        train_tokens: tokens of the train file, canaries included.
        rejected_tokens: tokens of its rejected answers with their prompts.
        longest_row_tokens: longest sequence of any split: canaries, rejected answers and, of a table, each row with its
            longest label included.
        table: what the survey of a decision table found; None for chat.
        favourable_label: as the datasheet names it; empty for chat and where it names none.
        screens: what the screens found.
        screened: the screens that ran, with their methods.
        split_units: groups of rows that share a split.
        lengths: tokens of the kept rows, ascending.
        train_users: users that the train split names, rows with a canary one each; 0 where nobody asked for them.
        test_left_out: test rows left out, as another one of their unit is kept; ``split_rows`` counts what is kept.
        test_groups: kept test rows by ``attribute=value``.
        untested_groups: as :func:`untested_groups` says.
        compared_groups: as :func:`compared_groups` says.
        parent_rows: kept rows that models of before were trained on, with what belongs together with them.
        unread_parents: such models whose rows are not kept any more.
    """

    findings: Findings
    valid_rows: int
    duplicates: int
    plan: SplitPlan
    split_rows: Mapping[str, int]
    split_sha256: Mapping[str, str]
    canaries: Sequence[Canary]
    manifest_sha256: str
    private_commitment: str
    pii: PiiTally
    pii_action: PiiAction
    quality: Mapping[str, Quality]
    train_pii_values: int
    detector: str
    train_tokens: int
    rejected_tokens: int
    longest_row_tokens: int
    table: Survey | None
    favourable_label: str
    screens: Sequence[ScreenFinding]
    screened: Mapping[str, str]
    split_units: int
    lengths: Sequence[int]
    train_pii_units: int | None = None
    train_users: int = 0
    test_left_out: int = 0
    test_groups: Mapping[str, int] = field(default_factory=dict)
    untested_groups: Mapping[str, int] = field(default_factory=dict)
    compared_groups: Sequence[str] = ()
    parent_rows: int = 0
    unread_parents: int = 0

    @property
    def planted(self) -> int:
        """Canaries in the train split."""
        return sum(c.included for c in self.canaries)

    def singles(self, *, included: bool) -> int:
        """Canaries of stratum A, whose planted ones stand in one row each: those that gates are of."""
        return sum(c.stratum == "A" and c.included == included for c in self.canaries)

    @property
    def canary_rows(self) -> int:
        """Train rows that carry a canary."""
        return sum(c.repeats for c in self.canaries if c.included)


def untested_groups(
    kept: Sequence[Entry], plan: SplitPlan, test: Sequence[Entry], before: Sequence[Entry]
) -> dict[str, int]:
    """Groups that the sealed test has next to no rows of since rows that belong together lie elsewhere.

    Only rows that share a value of the group field with others, or that a model of before was trained on, can be taken
    out like that. What chance leaves of a small group is no matter of this: a group is named where such rows of it, by
    their share, would fill up what it lacks.

    Args:
        kept: all rows that were dealt out.
        plan: the shares that the splits were to have.
        test: the rows of the sealed test.
        before: those of ``kept`` that had to go to train for a model of before.

    Returns:
        Rows in the test by ``attribute=value``, of each group that would have ``LEAST_CELL`` there by its share
        and has fewer.
    """
    sizes, forced = Counter(e.unit for e in kept if e.unit), {e.number for e in before}
    moved = Counter(group for e in kept if sizes[e.unit] > 1 or e.number in forced for group in e.groups)
    if not moved:
        return {}
    share = Fraction(plan.counts(len(kept))[TEST], len(kept))
    rows, tested = (Counter(group for e in part for group in e.groups) for part in (kept, test))
    return {
        group: tested[group]
        for group in sorted(moved)
        if rows[group] * share >= groups.LEAST_CELL > tested[group]
        and tested[group] + moved[group] * share >= groups.LEAST_CELL
    }


def compared_groups(test: Sequence[Entry], attributes: Sequence[str]) -> list[str]:
    """Groups that the audit will compare by themselves, and what it will compare as one.

    A name is an attribute and its value, as measurements bear it already; one that fewer rows have is not told, nor is
    how many rows have which. Of an attribute all groups are named or none.

    Args:
        test: the rows of the sealed test.
        attributes: the protected attributes, as the datasheet orders them.

    Returns:
        Of each attribute and each intersection what :func:`assay.groups.compared` names, as long as it fits into
        :data:`MAX_GROUP_BYTES`.
    """
    alike = Counter(tuple(e.groups) for e in test)
    rows = [(dict(group.split("=", 1) for group in row), n) for row, n in alike.items()]
    out: list[str] = []
    for attribute in groups.slices(attributes):
        sizes: Counter[str] = Counter()
        for values, n in rows:
            sizes[groups.name_of(values, attribute)] += n
        names = [*out, *groups.compared(sizes, attribute)]
        out = names if len(canonical.encode(names)) <= MAX_GROUP_BYTES else out
    return out


def to_message(found: Found) -> Any:
    """Builds ``assay.v1.DataFacts``."""
    from assay.v1 import policy_input_pb2 as pb

    return pb.DataFacts(
        **_rows(found),
        **_splits(found),
        **_canaries(found),
        **_personal_data(found),
        **_screens(found),
        **_table(found),
    )


def _rows(found: Found) -> dict[str, Any]:
    """How many rows came, what is wrong with those that were refused, and how long the others are."""
    at = found.lengths
    return {
        "rows": found.valid_rows + found.findings.refused_rows,
        "valid_rows": found.valid_rows,
        "invalid_rows": found.findings.refused_rows,
        "findings": [
            {"row": f.row, "field": f.problem.field, "code": f.problem.code, "reason": f.problem.reason}
            for f in found.findings.kept
        ],
        "duplicate_rows": found.duplicates,
        "rows_without_group": found.findings.by_code["GROUP_MISSING"],
        "train_tokens": found.train_tokens,
        "rejected_tokens": found.rejected_tokens,
        "longest_row_tokens": found.longest_row_tokens,
        "lengths": {"minimum": at[0], "median": at[len(at) // 2], "p95": at[len(at) * 95 // 100], "maximum": at[-1]}
        if at
        else None,
    }


def _splits(found: Found) -> dict[str, Any]:
    """Which rows went where; of the test split a share is named only where it holds all of its rows."""
    shares = {VALIDATION: float(found.plan.validation), SELECTION: float(found.plan.selection)}
    return {
        "split_sha256": found.split_sha256,
        "split_shares": shares if found.test_left_out else {**shares, TEST: float(found.plan.test)},
        "split_units": found.split_units,
        "train_rows": found.split_rows[TRAIN],
        "validation_rows": found.split_rows[VALIDATION],
        "selection_rows": found.split_rows[SELECTION],
        "test_rows": found.split_rows[TEST],
        "test_rows_left_out": found.test_left_out,
        "test_group_counts": found.test_groups if found.test_left_out else {},
        "untested_groups": found.untested_groups,
        "compared_groups": found.compared_groups,
        "parent_rows": found.parent_rows,
        "unread_parents": found.unread_parents,
        "train_users": found.train_users,
    }


def _canaries(found: Found) -> dict[str, Any]:
    """How many secrets were planted and held out, and the commitment to them."""
    return {
        "canaries_inserted": found.planted,
        "canaries_held_out": len(found.canaries) - found.planted,
        "single_canaries_inserted": found.singles(included=True),
        "single_canaries_held_out": found.singles(included=False),
        "canary_rows": found.canary_rows,
        "canary_manifest_sha256": found.manifest_sha256,
    }


def _personal_data(found: Found) -> dict[str, Any]:
    """What the scan found, what became of it, and how much such a scan finds."""
    types = found.pii.types
    return {
        "pii": [
            {"entity_type": name, "count": t.count, "rows": t.rows, "row_numbers": t.row_numbers}
            for name, t in sorted(types.items())
        ],
        "pii_row_share": found.pii.direct_share,
        "pii_rows": found.pii.direct_row_numbers,
        "pii_found_row_share": found.pii.found_share,
        "train_pii_spans": found.train_pii_values,
        **({} if found.train_pii_units is None else {"train_pii_units": found.train_pii_units}),
        "pii_action": f"PII_ACTION_{found.pii_action}",
        "pii_replaced": found.pii.replaced,
        "pii_detector": found.detector,
        "pii_quality": {name: _quality(q) for name, q in found.quality.items()},
        "identifier_classes": coverage(
            found.quality,
            {name: t.count for name, t in types.items()},
            found.findings.by_code[EMBEDDED_MEDIA],
            found.pii_action not in (PiiAction.REPORT,),
        ),
    }


def _screens(found: Found) -> dict[str, Any]:
    """What the screens found, by which methods."""
    return {
        "screens": [
            {
                "screen": f.screen,
                "method": found.screened[f.screen],
                "rows": len(f.rows),
                "row_numbers": f.rows[:MAX_ROW_NUMBERS],
                "reason": f.reason,
            }
            for f in found.screens[:MAX_SCREENS]
        ],
        "screened": found.screened,
        "screen_quality": harm.quality() if "HARMFUL_ANSWER" in found.screened else (),
    }


def _table(found: Found) -> dict[str, Any]:
    """Labels and groups of a decision table; of chat nothing. A field that is None is left out."""
    table = found.table
    if table is None:
        return {}
    counts = table.labels.values()
    named = found.favourable_label
    return {
        "labels": sorted(table.labels)[:MAX_LABELS],
        "label_balance": min(counts) / max(counts) if counts else None,
        "label_counts": table.labels,
        "columns": table.columns,
        "smallest_group_rows": min(table.groups.values(), default=None),
        "group_counts": {f"{column}={value}": n for (column, value), n in table.groups.items()},
        "favourable_label": named or None,
        "group_labels": by_group(table.groups, table.favourable) if named else (),
    }


def _quality(q: Quality) -> dict[str, Any]:
    (recall, low, high), (precision, p_low, p_high) = q.recall, q.precision
    return {
        "labelled": q.labelled,
        "recall": recall,
        "recall_lower": low,
        "recall_upper": high,
        "detections": q.detections,
        "precision": precision,
        "precision_lower": p_low,
        "precision_upper": p_high,
    }


def to_json(message: Any) -> bytes:
    """Writes a message as ProtoJSON with the contract's field names, the same bytes for the same message."""
    from google.protobuf import json_format

    text = json_format.MessageToJson(message, preserving_proto_field_name=True, sort_keys=True, indent=1)
    return text.encode() + b"\n"


def claim(found: Found, dataset: Path, facts: Path, seed: int) -> dict[str, Any]:
    """The task's claim, without floats: what it read, what it made, and how much."""
    by_stratum = {s: [c for c in found.canaries if c.stratum == s] for s in ("A", "B")}
    return {
        "dataset_sha256": digests.sha256_file(dataset),
        "dataset_bytes": dataset.stat().st_size,
        "facts_sha256": digests.sha256_file(facts),
        "seed": seed,
        "rows": found.valid_rows + found.findings.refused_rows,
        "valid_rows": found.valid_rows,
        "invalid_rows": found.findings.refused_rows,
        "duplicate_rows": found.duplicates,
        "split_rows": dict(found.split_rows),
        "split_sha256": dict(found.split_sha256),
        "train_tokens": found.train_tokens,
        "longest_row_tokens": found.longest_row_tokens,
        "canary_manifest_sha256": found.manifest_sha256,
        "private_commitment": found.private_commitment,
        "canaries": {
            s: {"included": sum(c.included for c in cs), "held_out": sum(not c.included for c in cs)}
            for s, cs in by_stratum.items()
        },
        "canary_rows": found.canary_rows,
        "canary_row_share": canonical.decimal(
            round(found.canary_rows / max(1, found.canary_rows + found.split_rows["train"]), 6)
        ),
        "pii_row_share": canonical.decimal(found.pii.direct_share),
        "pii_spans": {name: t.count for name, t in sorted(found.pii.types.items())},
        "screens": dict(Counter(f.screen for f in found.screens)),
        "split_units": found.split_units,
        **({"train_users": found.train_users} if found.train_users else {}),
        **({"test_rows_left_out": found.test_left_out} if found.test_left_out else {}),
        **({"parent_rows": found.parent_rows} if found.parent_rows else {}),
        **({"unread_parents": found.unread_parents} if found.unread_parents else {}),
        "pii_action": str(found.pii_action),
        "pii_replaced": found.pii.replaced,
        "pii_detector": found.detector,
    }
