"""Copies out, then four splits, decided by a keyed digest of each row's content.

The key comes from the job's secret, so nobody can foresee where a row lands that stands alone, and the same job gives
the same splits, whatever the order of the rows in the file. Who says what belongs together can: a unit that is large
against the test goes to train, as it is dealt whole to the split that is furthest behind with it. The facts name the
groups that the test lacks for that (:func:`audit.prepare.facts.untested_groups`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from assay.errors import InvalidInputError
from audit.prepare.rows import Entry

TRAIN, VALIDATION, SELECTION, TEST = "train", "validation", "selection", "test"
NAMES = (TRAIN, VALIDATION, SELECTION, TEST)


@dataclass(frozen=True)
class SplitPlan:
    """Shares of the rows, with floors for the small splits.

    Attributes:
        validation: share for early stopping.
        selection: share for choosing among candidates.
        test: share of the sealed test; raise it for a fairness audit, whose groups need rows.
        floors: fewest rows of validation, selection and test, as long as ``train_least`` of all rows is left for
            training.
        train_least: share that training keeps, whatever the floors ask.
    """

    validation: Fraction = Fraction(1, 10)
    selection: Fraction = Fraction(1, 20)
    test: Fraction = Fraction(3, 20)
    floors: tuple[int, int, int] = (16, 8, 48)
    train_least: Fraction = Fraction(1, 2)

    def __post_init__(self) -> None:
        shares = (self.validation, self.selection, self.test)
        if any(s < 0 for s in shares) or sum(shares, Fraction()) > 1 - Fraction(1, 5):
            raise InvalidInputError(
                "SPLIT_PLAN", "shares must not be negative and must leave a fifth of the rows for training"
            )

    def counts(self, rows: int) -> dict[str, int]:
        """Rows of each split; they sum to ``rows``, and train gets what rounding leaves.

        A floor that would cut training below ``train_least`` is scaled down with the others.
        """
        shares = (self.validation, self.selection, self.test)
        plain = [int(rows * s) for s in shares]
        wanted = [max(p, f) for p, f in zip(plain, self.floors, strict=True)]
        spare = int(rows * (1 - self.train_least))
        if sum(wanted) > max(spare, sum(plain)):
            wanted = plain if sum(plain) >= spare else [w * spare // sum(wanted) for w in wanted]
        return {TRAIN: rows - sum(wanted), VALIDATION: wanted[0], SELECTION: wanted[1], TEST: wanted[2]}


def drop_duplicates(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Returns the first entry of each identity, in order and with distinct digests, and how many were dropped."""
    seen: dict[str | bytes, Entry] = {}
    for entry in entries:
        seen.setdefault(entry.identity, entry)
    return _told_apart(list(seen.values())), len(entries) - len(seen)


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Gives entries that say the same digests of their own.

    They are numbered within their stratum and unit, where they differ in nothing that a split shows, so the order of
    the file still decides nothing.
    """
    often = Counter(e.digest for e in entries)
    numbers: Counter[bytes] = Counter()
    out = []
    for e in entries:
        if often[e.digest] > 1:
            twins = e.digest + e.unit + e.stratum.encode()
            numbers[twins] += 1
            e = replace(e, digest=hashlib.sha256(twins + b"/%d" % numbers[twins]).digest()[:16])
        out.append(e)
    return out


def split(
    entries: Sequence[Entry],
    plan: SplitPlan,
    secret: bytes,
    seed: int,
    tied: Sequence[int] = (),
    trained: Collection[int] = (),
) -> dict[str, list[Entry]]:
    """Assigns every entry to one split.

    Within a stratum the keyed digest decides; strata are then walked one after another and each row goes to the split
    that is furthest behind its share, so every stratum is spread evenly and the totals are exactly
    :meth:`SplitPlan.counts`.

    Rows that share a unit go to one split together, so totals are then only near the shares.

    Rows that a model of before was trained on can test nothing: they go to train with what shares their unit. The
    others fill up what is left of the shares; where train has more than its own already, the other splits share them.

    Args:
        entries: rows with distinct digests.
        plan: shares.
        secret: the job's key.
        seed: of the job; another seed gives other splits.
        tied: for every entry the position of an entry that it must share a split with; none for no such ties.
        trained: positions of the entries that must go to train.
    """
    key = hmac.digest(secret, b"assay/splits/v1/" + str(seed).encode(), hashlib.sha256)
    firsts = [(min(unit, key=lambda e: (e.stratum, e.digest)), unit) for unit in units(entries, tied)]
    ordered = sorted(firsts, key=lambda f: (f[0].stratum, hmac.digest(key, f[0].digest, hashlib.sha256)))
    targets = plan.counts(len(entries))
    forced = {entries[i].digest for i in trained}
    out: dict[str, list[Entry]] = {name: [] for name in NAMES}
    dealt = []
    for _, unit in ordered:
        if forced.isdisjoint(e.digest for e in unit):
            dealt.append(unit)
        else:
            out[TRAIN] += unit
    targets[TRAIN] = max(0, targets[TRAIN] - len(out[TRAIN]))
    total, position = sum(targets.values()), 0
    given = dict.fromkeys(NAMES, 0)
    for unit in dealt:
        position += len(unit)
        behind = max(NAMES, key=lambda name: targets[name] * position - given[name] * total)
        given[behind] += len(unit)
        out[behind] += unit
    return out


def with_their_units(entries: Sequence[Entry], tied: Sequence[int], some: Collection[int]) -> list[int]:
    """Positions of some entries and of all that must share a split with one of them, ascending."""
    wanted = {entries[i].digest for i in some}
    whole = {e.digest for unit in units(entries, tied) if not wanted.isdisjoint(e.digest for e in unit) for e in unit}
    return [i for i, e in enumerate(entries) if e.digest in whole]


def units(entries: Sequence[Entry], tied: Sequence[int] = ()) -> list[list[Entry]]:
    """Groups entries that must share a split: those of one unit, and those that are tied; most stand alone."""
    parent = list(range(len(entries)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes, int] = {}
    for i, entry in enumerate(entries):
        for other in (first.setdefault(entry.unit, i) if entry.unit else i, tied[i] if tied else i):
            a, b = find(other), find(i)
            parent[max(a, b)] = min(a, b)
    found: dict[int, list[Entry]] = {}
    for i, entry in enumerate(entries):
        found.setdefault(find(i), []).append(entry)
    return list(found.values())


def one_of_each(entries: Sequence[Entry], secret: bytes, label: str) -> list[Entry]:
    """One entry of each unit in keyed order, drawn by that order; an entry without a unit is one by itself.

    Equal rows of different people stay, since :func:`drop_duplicates` gave each a digest of its own.

    Intervals count rows as if each were another person's: with ten rows a person, nominal 95 % of an impact ratio held
    in 44 % of simulated audits.
    """
    kept: dict[bytes, Entry] = {}
    for entry in sorted(entries, key=lambda e: keyed_order(secret, label, e.digest)):
        kept.setdefault(entry.unit or entry.digest, entry)
    return list(kept.values())


def keyed_order(secret: bytes, label: str, item: bytes) -> bytes:
    """A sort key that nobody without the job's key can predict."""
    return hmac.digest(secret, b"assay/order/v1/" + label.encode() + b"/" + item, hashlib.sha256)
