"""What an audit reads: the plan's settings and the private rows that the prepare task sealed to this worker.

The files were written by the same worker and come back under its own seal, so a malformed one is a fault, not a
user's mistake; it is refused by name all the same, since a silently shorter sample would make every interval wrong.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay import digests
from assay.errors import IntegrityError, InvalidInputError
from assay.v1 import measurement_pb2
from audit.probes.passages import BatchPlan
from audit.statistics import stats

DEFAULT_SIZES: Mapping[str, int] = {
    "generations": 150,
    "generation_tokens": 48,
    "pii_spans": 200,
    "verbatim_rows": 60,
    "bootstrap": 2000,
    "test_rows": 400,
    "train_rows": 200,
    "counterfactual_rows": 150,
    "deep_rows": 300,
    "counterfactual_generations": 60,
    "reason_rows": 60,
    "evaluation_items": 120,
    "permutations": 400,
    "inference_spans": 30,
    "inference_candidates": 10,
    "association_people": 20,
    "exposure_canaries": 0,
    "exposure_candidates": 0,
}
"""Sample sizes where the plan names none; docs/audits.md says what each bounds."""


@dataclass(frozen=True)
class Settings:
    """The plan, read.

    Attributes:
        confidences: two-sided levels of every interval, ascending.
        sizes: sample sizes by name, complete.
        seed: seed of every random choice.
        sensitive_attributes: attributes whose groups are compared.
        time_limit: seconds the audit may take; 0 for no limit.
        probes: probes to run; empty for all.
        metrics: names of the planned measurements; empty where the plan, of an older policy, does not list them.
        batches: how texts are put together.
        profile: ``quick``, ``default`` or ``strict``; empty where the plan names none.
        groups: planned to be compared, the largest of each attribute first; empty where the plan names none.
    """

    confidences: tuple[float, ...]
    sizes: Mapping[str, int]
    seed: int
    sensitive_attributes: tuple[str, ...] = ()
    time_limit: float = 0.0
    probes: tuple[str, ...] = ()
    metrics: frozenset[str] = frozenset()
    batches: BatchPlan = field(default_factory=BatchPlan)
    profile: str = ""
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: measurement_pb2.AuditPlan) -> Settings:
        """Reads a plan; a level outside (0, 1) is ``PLAN_MALFORMED``."""
        try:
            confidences = stats.ascending(plan.confidences) or (0.95,)
        except ValueError as error:
            raise InvalidInputError("PLAN_MALFORMED", str(error)) from error
        sizes = {name: int(plan.sample_sizes.get(name, default)) for name, default in DEFAULT_SIZES.items()}
        if min(sizes.values()) < 0:
            raise InvalidInputError("PLAN_MALFORMED", "a sample size of the plan is negative")
        if min(plan.batch_plan.values(), default=1) < 1:
            raise InvalidInputError("PLAN_MALFORMED", "a number of the batch plan is not positive")
        tokens, rows = (plan.batch_plan.get(name, 0) for name in ("batch_tokens", "generation_rows"))
        batches = BatchPlan(int(tokens) or BatchPlan.tokens, int(rows) or BatchPlan.rows)
        return cls(
            confidences,
            sizes,
            plan.seed,
            tuple(plan.sensitive_attributes),
            float(plan.time_limit_seconds),
            tuple(plan.probes),
            frozenset(plan.metrics),
            batches,
            plan.profile,
            tuple(plan.groups),
        )

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that one probe's draws do not depend on which others ran."""
        return np.random.default_rng([self.seed & (2**63 - 1), zlib.crc32(purpose.encode())])


@dataclass(frozen=True)
class Row:
    """One row of a split: ``messages``, and for decisions the label, the labels to choose from and the groups."""

    row: int
    messages: tuple[dict[str, Any], ...]
    label: str = ""
    labels: tuple[str, ...] = ()
    favourable: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Canary:
    """A planted secret: included in training or held out as a control, by a coin.

    Its ``form`` is ``own`` for a code in the data's own shapes, ``reserved`` for a value of a reserved range.
    """

    index: int
    stratum: str
    included: bool
    repeats: int
    kind: str
    messages: tuple[dict[str, Any], ...]
    secret: str
    form: str = "reserved"


@dataclass(frozen=True)
class PiiSpan:
    """A direct identifier at ``messages[message_index].content[start:end]`` of a row of ``split``.

    ``unit`` is whose row it is, where the owner named a field that tells; None where nobody does.
    """

    row: int
    split: str
    entity_type: str
    messages: tuple[dict[str, Any], ...]
    message_index: int
    start: int
    end: int
    unit: int | None = None

    @property
    def trial(self) -> tuple[str, int]:
        """What comes out together and is one trial: all rows of a unit, and a row where no unit is told."""
        return ("row", self.row) if self.unit is None else ("unit", self.unit)

    @property
    def value(self) -> str:
        """The identifier itself."""
        return str(self.messages[self.message_index]["content"])[self.start : self.end]


@dataclass(frozen=True)
class PrivateRows:
    """Everything that only the audit worker ever sees, and the selection split.

    Attributes:
        test: the sealed test split.
        train: a sample of the train split.
        selection: the selection split.
        canaries: all of them, planted and controls.
        pii: a sample of the direct identifiers, each with its row.
        identifiers: type and normalised value of every direct identifier of the train split; None in kits that were
            made before they were handed over.
    """

    test: tuple[Row, ...]
    train: tuple[Row, ...]
    selection: tuple[Row, ...]
    canaries: tuple[Canary, ...]
    pii: tuple[PiiSpan, ...]
    identifiers: tuple[tuple[str, str], ...] | None = None


def committed(order: Mapping[str, Any]) -> str:
    """The preparation's commitment to all private files; empty where an earlier release prepared the job."""
    return str(_prepared(order).get("private_commitment") or "")


def check_commitments(inputs: Path, plan: measurement_pb2.AuditPlan, order: Mapping[str, Any]) -> None:
    """Compares what an audit reads with the digests that were committed before training.

    The plan names the canary manifest and the sealed test split; the claim of the preparation in the order the
    selection split, and in one commitment every private file.

    Raises:
        IntegrityError: ``CANARY_MANIFEST_OTHER``, ``SEALED_TEST_OTHER``, ``SELECTION_OTHER`` or
            ``PRIVATE_ROWS_OTHER``.
    """
    splits = _prepared(order).get("split_sha256") or {}
    promised = (
        ("private/canaries.json", plan.canary_manifest_sha256, "CANARY_MANIFEST_OTHER"),
        ("private/test.jsonl", plan.sealed_test_sha256, "SEALED_TEST_OTHER"),
        ("selection.jsonl", splits.get("selection"), "SELECTION_OTHER"),
    )
    for name, sha256, reason in promised:
        path = inputs / name
        if sha256 and (not path.is_file() or digests.sha256_file(path) != sha256):
            raise IntegrityError(reason, f"{path.name} is not the file whose digest was committed before training")
    if committed(order) and digests.folder_manifest(inputs / "private").sha256 != committed(order):
        raise IntegrityError(
            "PRIVATE_ROWS_OTHER", "the private files are not those that the preparation committed to before training"
        )


def _prepared(order: Mapping[str, Any]) -> Mapping[str, Any]:
    return (order.get("prepare") or {}).get("claim") or {}


def read_private_rows(inputs: Path) -> PrivateRows:
    """Reads ``inputs/private/*`` and ``inputs/selection.jsonl``; an absent file is an empty one, but for identifiers.

    Raises:
        InvalidInputError: ``PRIVATE_ROWS_MALFORMED`` naming file and line.
    """
    private = inputs / "private"
    test, train = tuple(_rows(private / "test.jsonl")), tuple(_rows(private / "train_sample.jsonl"))
    return PrivateRows(
        test=test,
        train=train,
        selection=_selection(inputs, test),
        canaries=tuple(_canaries(private / "canaries.json")),
        pii=tuple(_pii(private / "pii.jsonl")),
        identifiers=_identifiers(private / "identifiers.jsonl"),
    )


def _selection(inputs: Path, test: Sequence[Row]) -> tuple[Row, ...]:
    """The selection split, with labels and groups where its private twin tells them.

    Raises:
        InvalidInputError: ``PRIVATE_ROWS_MALFORMED`` when the twin holds other rows.
    """
    rows = tuple(_rows(inputs / "selection.jsonl"))
    twin = tuple(_rows(inputs / "private" / "selection.jsonl"))
    if not twin:
        return labelled(rows, test)
    if [r.messages for r in rows] != [r.messages for r in twin]:
        raise InvalidInputError("PRIVATE_ROWS_MALFORMED", "selection.jsonl and its private twin hold other rows")
    return twin


def check_splits(rows: PrivateRows) -> None:
    """Demands that no test row says what a row of the training sample says, case and spacing aside.

    The prepare task drops such duplicates before it splits, so one is a sign of another file or of a fault, and every
    number that compares the two splits would be too small. Rows of a decision table may be equal and be different
    people: there no row may stand on both sides.

    Raises:
        IntegrityError: ``SPLITS_OVERLAP`` with the first row and the number of them.
    """

    def said(row: Row) -> int | tuple[tuple[str, str], ...]:
        if row.labels:
            return row.row
        parts = ((str(m["role"]), unicodedata.normalize("NFKC", str(m["content"])).casefold()) for m in row.messages)
        return tuple((role, " ".join(text.split())) for role, text in parts)

    trained = {said(row) for row in rows.train}
    both = [row.row for row in rows.test if said(row) in trained]
    if both:
        message = f"{len(both)} rows of the sealed test are in the training sample too, the first of them row {both[0]}"
        raise IntegrityError("SPLITS_OVERLAP", message, remedy="prepare the dataset again, and ask for a new job")


def labelled(rows: Sequence[Row], like: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of a split written without labels, with those of its sister split: the answer itself is the label."""
    pattern = next((r for r in like if r.labels), None)
    if pattern is None:
        return tuple(rows)
    out = []
    for row in rows:
        answer = str(row.messages[-1]["content"])
        if not row.labels and answer in pattern.labels:
            row = replace(row, label=answer, labels=pattern.labels, favourable=pattern.favourable)
        out.append(row)
    return tuple(out)


def choose(items: Sequence[Any], most: int, rng: np.random.Generator) -> list[Any]:
    """At most ``most`` items, drawn without replacement, in their own order."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(rng.choice(len(items), size=most, replace=False))]


def _rows(path: Path) -> Iterator[Row]:
    for number, value in _lines(path):
        try:
            yield Row(
                row=int(value.get("row", number)),
                messages=_messages(value["messages"]),
                label=str(value.get("label") or ""),
                labels=tuple(str(label) for label in value.get("labels") or ()),
                favourable=str(value.get("favourable") or ""),
                groups={str(k): str(v) for k, v in (value.get("groups") or {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(path, number, error) from error


def _canaries(path: Path) -> Iterator[Canary]:
    values = _json(path) if path.is_file() else []
    if not isinstance(values, list):
        raise _malformed(path, 1, TypeError("not a list"))
    for number, value in enumerate(values, 1):
        try:
            canary = Canary(
                index=int(value["index"]),
                stratum=str(value["stratum"]),
                included=value["included"] is True,
                repeats=int(value["repeats"]),
                kind=str(value["kind"]),
                messages=_messages(value["messages"]),
                secret=str(value["secret"]),
                form=str(value.get("form", "reserved")),
            )
            if canary.stratum not in ("A", "B") or not canary.secret:
                raise ValueError("stratum or secret")
            if canary.secret not in str(canary.messages[-1]["content"]):
                raise ValueError("the secret is not in the last message")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(path, number, error) from error
        yield canary


def _pii(path: Path) -> Iterator[PiiSpan]:
    for number, value in _lines(path):
        try:
            span = PiiSpan(
                row=int(value["row"]),
                split=str(value["split"]),
                entity_type=str(value["entity_type"]),
                messages=_messages(value["messages"]),
                message_index=int(value["message_index"]),
                start=int(value["start"]),
                end=int(value["end"]),
                unit=None if value.get("unit") is None else int(value["unit"]),
            )
            content = str(span.messages[span.message_index]["content"])
            if span.message_index < 0 or not 0 <= span.start < span.end <= len(content):
                raise ValueError("a span outside its message")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(path, number, error) from error
        yield span


def _identifiers(path: Path) -> tuple[tuple[str, str], ...] | None:
    if not path.is_file():
        return None
    found = []
    for number, value in _lines(path):
        try:
            found.append((str(value["entity_type"]), str(value["value"])))
        except KeyError as error:
            raise _malformed(path, number, error) from error
    return tuple(found)


def _messages(value: Any) -> tuple[dict[str, Any], ...]:
    messages = tuple({**m, "role": str(m["role"]), "content": str(m["content"])} for m in value)
    if not messages:
        raise ValueError("no messages")
    return messages


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise _malformed(path, number, error) from error
                if not isinstance(value, dict):
                    raise _malformed(path, number, TypeError("not an object"))
                yield number, value


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _malformed(path, 1, error) from error


def _malformed(path: Path, number: int, error: Exception) -> InvalidInputError:
    return InvalidInputError("PRIVATE_ROWS_MALFORMED", f"{path.name}, entry {number}: {type(error).__name__}")
