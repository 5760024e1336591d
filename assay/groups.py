"""Groups of protected attributes: how measurements and plans spell them, and which of them are compared.

A group of one attribute is ``race=black``, one of several ``race=black,sex=female``. Preparation names the groups that
will be compared, the plan fixes them, the audit compares, and policy asks whether a measurement is of a group that the
plan names: so all of them spell alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from assay.v1 import measurement_pb2

LEAST_CELL = 10
"""Fewest rows of a group of one attribute that is compared by itself, and told of."""

LEAST_INTERSECTION = 30
"""Fewest rows of a group of several attributes that is compared."""

_AS_ONE = ": other groups together"


def slices(attributes: Sequence[str]) -> Iterator[str]:
    """The attributes and their intersections: pairs, and where there are three these together, as ``race,sex,age``."""
    for size in range(1, 4 if len(attributes) == 3 else 3):
        yield from map(",".join, combinations(attributes, size))


def least_of(attribute: str) -> int:
    """Fewest rows of a group of this attribute, or intersection, that is compared by itself."""
    return LEAST_INTERSECTION if "," in attribute else LEAST_CELL


def name_of(values: Mapping[str, str], attribute: str) -> str:
    """Group of a row, such as ``race=black``; empty where the row tells none.

    Args:
        values: value of each protected attribute.
        attribute: one attribute, or several as ``race,sex``.
    """
    names = attribute.split(",")
    known = [values.get(name, "") for name in names]
    return ",".join(f"{n}={v}" for n, v in zip(names, known, strict=True)) if all(known) else ""


def as_one(attribute: str) -> str:
    """Name of the groups that are compared as one; :func:`name_of` gives no such name."""
    return f"{attribute}{_AS_ONE}"


def few(sizes: Mapping[str, int], least: int) -> set[str]:
    """Groups of fewer than ``least`` rows, given the rows of each."""
    return {group for group, size in sizes.items() if group and size < least}


def pooled(groups: Sequence[str], attribute: str, least: int) -> tuple[str, ...]:
    """Group of each row, the groups of fewer than ``least`` rows as one where together they have so many."""
    sizes = Counter(groups)
    small = few(sizes, least)
    enough = sum(sizes[group] for group in small) >= least
    return tuple(as_one(attribute) if enough and group in small else group for group in groups)


def compared(sizes: Mapping[str, int], attribute: str) -> list[str]:
    """What :func:`pooled` leaves to compare: the largest group, the others by name, and those that are one together.

    The largest comes first since counterfactual pairs put every other group in its place; of equally large ones it is
    the first by name.
    """
    least = least_of(attribute)
    small = few(sizes, least)
    own = sorted(group for group in sizes if group and group not in small)
    largest = max(own, key=lambda group: sizes[group], default="")
    own.sort(key=lambda group: group != largest)
    return own + [as_one(attribute)] * (sum(sizes[group] for group in small) >= least)


def unplanned(plan: measurement_pb2.AuditPlan, name: str, slice_: str) -> bool:
    """Whether a measurement is of a group that its plan does not name; never by a plan that names none.

    Args:
        plan: fixed before training.
        name: of the measurement.
        slice_: its slice.
    """
    if not plan.groups or not name.startswith("fairness.") or slice_ in plan.groups:
        return False
    return slice_.startswith(tuple(f"{a}=" for a in plan.sensitive_attributes)) or slice_.endswith(_AS_ONE)
