"""The prepare task: reads ``inputs/dataset``, writes splits, private files and facts, and returns the claim.

Outputs: ``facts.json`` (``assay.v1.DataFacts``), ``train.jsonl`` with the planted canaries, ``validation.jsonl``,
``selection.jsonl``, and ``private/`` with ``test.jsonl``, ``train_sample.jsonl``, ``selection.jsonl`` with labels and
groups, ``canaries.json``, ``pii.jsonl``, ``identifiers.jsonl`` and ``salt``, which leave only sealed to this worker;
where the datasheet names a group field and the gateway sent the unit's key, ``subjects.idx`` (:mod:`assay.subjects`).
The same order, file and key give the same bytes, so a task that was killed starts over and ends as it would have.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from assay import digests
from assay.dp_sgd import USER
from assay.pii import PiiConfig, PiiScanner
from assay.pii_pool import ScannerPool
from assay.subjects import INDEX_FILE, KEY_FILE, IndexMaker
from audit.prepare import facts as facts_of
from audit.prepare.actions import Actor
from audit.prepare.canaries import Canary, CanaryNumbers, Carrier, Weights, derive, manifest
from audit.prepare.carriers import SharedContent
from audit.prepare.detector import Quality, quality_of
from audit.prepare.findings import Findings
from audit.prepare.lines import FileLimits
from audit.prepare.order import CHAT, COMPLETION, PARQUET, PREFERENCE, TABLES, PrepareOrder
from audit.prepare.parents import Parents, Recogniser
from audit.prepare.parse_chat import RowParser, parse_chat, parse_json_lines
from audit.prepare.parse_pairs import parse_completion, parse_preference
from audit.prepare.parse_table import Survey, render_rows, survey
from audit.prepare.rows import Entry, Row, Spool, json_line, training_line
from audit.prepare.scan import PiiTally, SpanSample, scan_rows
from audit.prepare.screening import Screened, collisions, leaks, methods, screen
from audit.prepare.splits import (
    NAMES,
    SELECTION,
    TEST,
    TRAIN,
    VALIDATION,
    drop_duplicates,
    keyed_order,
    one_of_each,
    split,
    with_their_units,
)
from audit.prepare.tokens import TokenCounter
from audit.prepare.unpack import plain

if TYPE_CHECKING:
    from assay.worker.task import TaskContext

TRAIN_SAMPLE = 200
MAX_CANARY_SHARE = {True: 1 / 2, False: 1 / 3}
"""Most of the final train rows that may be canaries, for chat and for tables, whose one task they must not drown."""

_PARSERS: Mapping[str, RowParser] = {CHAT: parse_chat, COMPLETION: parse_completion, PREFERENCE: parse_preference}
_STEPS = 4
_MANY_ROWS = 5000


@dataclass(frozen=True)
class _Intake:
    """What parsing left behind."""

    findings: Findings
    entries: list[Entry]
    table: Survey | None


@dataclass(frozen=True)
class _Scanned:
    """What the scan left behind: rows after the action, what they share, tallies, and the detector with its figures."""

    entries: list[Entry]
    carrier: Carrier
    tally: PiiTally
    detector: str
    quality: Mapping[str, Quality]
    recogniser: Recogniser | None


@dataclass(frozen=True)
class _Tokens:
    train: int
    rejected: int
    longest: int
    lengths: Sequence[int]


def run(context: TaskContext) -> dict[str, Any]:
    """Prepares a dataset.

    Args:
        context: order as in :class:`audit.prepare.order.PrepareOrder`; ``inputs/dataset``; ``secret`` of this job.

    Returns:
        The claim: counts, digests and shares, without floats.

    Raises:
        AssayError: a named reason when the file as a whole cannot be read as what it claims to be. Bad rows raise
            nothing.
    """
    order = PrepareOrder.parse(context.order)
    parents = Parents.among(context.inputs, order.parents)
    counter = TokenCounter(context.models, order.base_model)
    upload = context.inputs / "dataset"
    private = context.outputs / "private"
    private.mkdir(parents=True, exist_ok=True)
    with Spool(context.work / "rows.spool") as raw, Spool(context.work / "scanned.spool") as spool:
        context.progress(0, _STEPS, "reading rows")
        dataset = plain(upload, context.work)
        subjects = _subjects(context, order)
        intake = _read(dataset, order, raw, counter, subjects)
        if subjects is not None:
            subjects.write(context.outputs / INDEX_FILE)
        scanned = _scan(context, order, raw, spool, intake, parents)
        unique, duplicates = drop_duplicates(scanned.entries)
        screened = screen(spool, scanned.entries, unique, order.format in TABLES, parents.rows())
        trained = _trained(scanned, screened, unique, order.format in TABLES, context.secret)
        splits = split(unique, order.splits, context.secret, order.seed, screened.tied, trained)
        in_test = len(splits[TEST])
        splits[TEST] = one_of_each(splits[TEST], context.secret, TEST)
        sample = _sample(context, spool, splits, scanned.carrier.system)
        context.progress(2, _STEPS, "planting canaries")
        numbers = _canary_numbers(order, len(splits[TRAIN]))
        canaries = derive(context.secret, numbers, replace(scanned.carrier, weights=_weights(spool, splits[TRAIN])))
        screens = [*screened.findings, *leaks(unique, screened.root, splits, order.format in TABLES)]
        screens += collisions(spool, unique, canaries)
        users = _write_splits(context, spool, splits, canaries, intake, order)
        (private / "canaries.json").write_bytes(manifest(canaries))
        _write_lines(private / "pii.jsonl", map(json_line, sample.items(parents.holding)))
        identifiers = sample.train_values()
        _write_lines(private / "identifiers.jsonl", (json_line({"entity_type": t, "value": v}) for t, v in identifiers))
        # The log keeps a digest of this folder for ever: without the job's key nobody can try out what stood in it.
        (private / "salt").write_bytes(hmac.digest(context.secret, b"assay/private/v1", hashlib.sha256))
        context.progress(3, _STEPS, "counting tokens")
        tokens = _count_tokens(spool, splits, canaries, counter, sorted(intake.table.labels) if intake.table else ())
    found = facts_of.Found(
        findings=intake.findings,
        valid_rows=len(scanned.entries),
        duplicates=duplicates,
        plan=order.splits,
        split_rows={name: len(splits[name]) for name in NAMES},
        split_sha256={name: digests.sha256_file(_split_path(context.outputs, name)) for name in NAMES},
        canaries=canaries,
        manifest_sha256=digests.sha256_file(private / "canaries.json"),
        private_commitment=digests.folder_manifest(private).sha256,
        pii=scanned.tally,
        pii_action=order.pii_action,
        quality=scanned.quality,
        train_pii_values=len(identifiers),
        train_pii_units=sample.train_units(),
        detector=scanned.detector,
        train_tokens=tokens.train,
        rejected_tokens=tokens.rejected,
        longest_row_tokens=tokens.longest,
        table=intake.table,
        favourable_label=order.columns.favourable if intake.table is not None else "",
        screens=screens,
        screened=methods(order.format in TABLES),
        split_units=screened.units,
        lengths=tokens.lengths,
        train_users=users,
        test_left_out=in_test - len(splits[TEST]),
        test_groups=Counter(group for e in splits[TEST] for group in e.groups),
        untested_groups=facts_of.untested_groups(unique, order.splits, splits[TEST], [unique[i] for i in trained]),
        compared_groups=facts_of.compared_groups(splits[TEST], order.columns.sensitive),
        parent_rows=len(trained),
        unread_parents=order.unread_parents,
    )
    message = facts_of.to_message(found)
    (context.outputs / "facts.json").write_bytes(facts_of.to_json(message))
    context.progress(_STEPS, _STEPS, "done", seconds_left=0.0)
    return facts_of.claim(found, upload, context.outputs / "facts.json", order.seed)


def _subjects(context: TaskContext, order: PrepareOrder) -> IndexMaker | None:
    """What takes rows down by keyed handle, under the unit's key; None where the datasheet names no group field."""
    key = context.inputs / KEY_FILE
    return IndexMaker(key.read_bytes()) if order.group_field and key.is_file() else None


def _read(
    dataset: Path, order: PrepareOrder, spool: Spool, counter: TokenCounter, subjects: IndexMaker | None
) -> _Intake:
    """Parses the file to the spool; what the base model's template cannot carry is refused like a malformed row."""
    note, forbidden = subjects.note if subjects is not None else None, counter.control_tokens
    findings, limits, table = Findings(), FileLimits(), None
    if order.format in TABLES:
        with _source(dataset, order) as source:
            table = survey(source, order.columns, findings, forbidden, limits)
    with _source(dataset, order) as source:
        rows: Iterator[Row] = (
            parse_json_lines(source, findings, forbidden, limits, _PARSERS[order.format], order.group_field, note)  # type: ignore[arg-type]
            if table is None
            else render_rows(source, table, order.columns, forbidden, limits, note)
        )
        entries = []
        for row in rows:
            if problems := counter.problems(row):
                findings.refuse(row.number, problems)
            else:
                entries.append(spool.append(row))
    return _Intake(findings, entries, table)


@contextmanager
def _source(dataset: Path, order: PrepareOrder) -> Iterator[BinaryIO | Path]:
    """An open file; for Parquet, which is not read from front to back, its path."""
    if order.format == PARQUET:
        yield dataset
        return
    with dataset.open("rb") as stream:
        yield stream


def _scan(
    context: TaskContext, order: PrepareOrder, raw: Spool, spool: Spool, intake: _Intake, parents: Parents
) -> _Scanned:
    """Scans every valid row, before any canary exists, and does what the owner asked for about personal data."""
    total = len(intake.entries)
    recogniser = Recogniser(order.pii_action, context.secret, parents.seen()) if parents else None
    actor = recogniser or Actor(order.pii_action, context.secret)

    def progress(done: int, seconds_left: float) -> None:
        context.progress(1, _STEPS, f"scanning for personal data: {done} of {total} rows", seconds_left, rows=done)

    context.progress(1, _STEPS, "loading the detector of personal data")
    entries, tally = [], PiiTally()
    shared = SharedContent(intake.table.visible if intake.table is not None else (), order.columns.sensitive)
    detector = PiiScanner(PiiConfig())
    # A second copy of the detector pays from a few seconds of work on.
    with ScannerPool(detector, None if total >= _MANY_ROWS else 1) as scanner:
        for tally, acted in scan_rows(raw.read_all(intake.entries), total, scanner, actor, progress):  # noqa: B007
            if acted.problems:
                intake.findings.refuse(acted.row.number, acted.problems)
            else:
                entries.append(spool.append(acted.row))
                shared.note(acted.row)
    return _Scanned(entries, shared.carrier(), tally, detector.identity, quality_of(detector), recogniser)


def _trained(
    scanned: _Scanned, screened: Screened, unique: Sequence[Entry], table: bool, secret: bytes
) -> Sequence[int]:
    """Positions of the kept rows that models of before were trained on, and of all that belongs together with them."""
    if scanned.recogniser is None:
        return ()
    known = scanned.recogniser.positions(scanned.entries, unique, screened.common() if table else None, secret)
    return with_their_units(unique, screened.tied, {*known, *screened.met})


def _sample(
    context: TaskContext, spool: Spool, splits: Mapping[str, Sequence[Entry]], shared_system: str
) -> SpanSample:
    """Chooses the direct identifiers that the extraction probe will ask for."""
    sample = SpanSample(context.secret, shared_system)
    for name in (TRAIN, TEST):
        for row in spool.read_all(sorted(splits[name], key=lambda e: e.number)):
            sample.offer(row, name)
    return sample


def _canary_numbers(order: PrepareOrder, train_rows: int) -> CanaryNumbers:
    """The ordered numbers, scaled down together where canaries would make too large a share of the training rows."""
    share = MAX_CANARY_SHARE[order.format not in TABLES]
    return order.canaries.within(math.floor(train_rows * share / (1 - share)))


def _weights(spool: Spool, train: Sequence[Entry]) -> list[Weights]:
    """The weights of the train rows, sorted as they are written, so that the file's order decides nothing."""
    return sorted(map(Weights.of, spool.read_all(train)), key=repr)


def _write_splits(
    context: TaskContext,
    spool: Spool,
    splits: Mapping[str, Sequence[Entry]],
    canaries: Sequence[Canary],
    intake: _Intake,
    order: PrepareOrder,
) -> int:
    """Writes the four splits and the sample of train rows; every file in an order that only the job's key gives.

    Returns how many users the train split names, 0 where the order does not ask for them.
    """
    key = context.secret
    ordered = {n: sorted(splits[n], key=lambda e, n=n: keyed_order(key, n, e.digest)) for n in NAMES}  # type: ignore[misc]
    planted = [(c, copy) for c in canaries if c.included for copy in range(c.repeats)]
    lines: list[tuple[bytes, Entry | Canary]] = [(keyed_order(key, TRAIN, e.digest), e) for e in splits[TRAIN]]
    lines += [(keyed_order(key, TRAIN, f"canary/{c.index}/{copy}".encode()), c) for c, copy in planted]
    lines.sort(key=lambda line: line[0])
    users = (
        _users([item for _, item in lines]) if order.privacy_unit == USER and order.group_field else [0] * len(lines)
    )
    _write_lines(
        _split_path(context.outputs, TRAIN),
        (
            training_line(item.messages, item.weight, user=user)
            if isinstance(item, Canary)
            else spool.read(item).training_json(user)
            for (_, item), user in zip(lines, users, strict=True)
        ),
    )
    for name in (VALIDATION, SELECTION):
        _write_lines(_split_path(context.outputs, name), (r.training_json() for r in spool.read_all(ordered[name])))
    labels = sorted(intake.table.labels) if intake.table is not None else []
    for path, entries in (
        (_split_path(context.outputs, TEST), ordered[TEST]),
        # The split itself goes without groups, as training rows do; the audit compares groups on it.
        (context.outputs / "private" / "selection.jsonl", ordered[SELECTION]),
        (context.outputs / "private" / "train_sample.jsonl", one_of_each(splits[TRAIN], key, TRAIN)[:TRAIN_SAMPLE]),
    ):
        _write_lines(path, (_private_line(r, labels, order.columns.favourable) for r in spool.read_all(entries)))
    return max(users, default=0)


def _users(rows: Sequence[Entry | Canary]) -> list[int]:
    """Whose each row is: users numbered from 1 as they come, which says nothing more; a canary's row is its own."""
    known: dict[bytes | int, int] = {}
    keys = [at if isinstance(row, Canary) else row.unit for at, row in enumerate(rows)]
    return [known.setdefault(key, len(known) + 1) for key in keys]


def _private_line(row: Row, labels: Sequence[str], favourable: str) -> bytes:
    value: dict[str, Any] = {"row": row.number, "messages": list(row.messages)}
    if labels:
        value |= {"label": row.label, "labels": list(labels), "favourable": favourable, "groups": dict(row.groups)}
    return json_line(value)


def _count_tokens(
    spool: Spool,
    splits: Mapping[str, Sequence[Entry]],
    canaries: Sequence[Canary],
    counter: TokenCounter,
    labels: Sequence[str],
) -> _Tokens:
    train, rejected, longest, lengths, longest_label = 0, 0, 0, [], ""
    for name in NAMES:
        for row in spool.read_all(splits[name]):
            count = counter.count(row.messages)
            lengths.append(count)
            longest = max(longest, count)
            train += count if name == TRAIN else 0
            if labels and not longest_label:
                # An answer begins a turn: how many tokens it takes does not depend on the prompt.
                longest_label = counter.longest_answer(row, labels)
            # A row is compared with its rejected answer, or chosen among all labels.
            if other := row.rejected or longest_label:
                count = counter.count(row.answered(other))
                longest = max(longest, count)
                rejected += count if row.rejected and name == TRAIN else 0
    for canary in canaries:
        if canary.included:
            count = counter.count(canary.messages)
            longest, train = max(longest, count), train + canary.repeats * count
    return _Tokens(train, rejected, longest, sorted(lengths))


def _split_path(outputs: Path, name: str) -> Path:
    return outputs / "private" / "test.jsonl" if name == TEST else outputs / f"{name}.jsonl"


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    with path.open("wb") as out:
        out.writelines(lines)
