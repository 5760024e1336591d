"""Which group of an attribute a row belongs to, and what a comparison of groups leaves out, in words.

A group that nobody compares must not look like one that was found equal, so it is named among what was not tested. How
many rows it has is not told: of a handful, that alone may point at a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from audit.probes.corpus import RowText


def groups_of(texts: Sequence[RowText], attribute: str) -> tuple[str, ...]:
    """Group of each row, such as ``race=black`` or ``race=black,sex=female``; empty where it tells none.

    Args:
        texts: the rows.
        attribute: one attribute, or two as ``race,sex``.
    """
    names = attribute.split(",")
    known = ([t.row.groups.get(name, "") for name in names] for t in texts)
    return tuple(",".join(f"{n}={g}" for n, g in zip(names, row, strict=True)) if all(row) else "" for row in known)


def left_out(what: str, groups: Sequence[str], least: int, rows: str = "test rows") -> list[str]:
    """Sentences about groups with too few rows, and about rows that tell no group.

    Args:
        what: probe and attribute, such as ``proxy probe [race]``.
        groups: of each row, as :func:`groups_of` gives them.
        least: fewest rows of a group that is compared.
        rows: which rows they are.
    """
    sizes = Counter(groups)
    unknown = sizes.pop("", 0)
    few = sorted(group for group, size in sizes.items() if size < least)
    out = [f"{what}: fewer than {least} {rows}: {'; '.join(few)}"] if few else []
    return [*out, f"{what}: {unknown} of {len(groups)} {rows} tell no group"] if unknown else out
