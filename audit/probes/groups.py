"""Which group of an attribute a row belongs to, and what a comparison of groups leaves out, in words.

A group that nobody compares must not look like one that was found equal, so it is named among what was not tested. How
many rows it has is not told: of a handful, that alone may point at a person. Groups that are too small to be compared
are compared together: else who names a group in many small parts takes it out of every comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from assay.groups import as_one, few, name_of
from audit.probes.corpus import RowText
from audit.probes.inputs import PrivateRows, Row


def groups_of(texts: Sequence[RowText], attribute: str) -> tuple[str, ...]:
    """Group of each row, such as ``race=black`` or ``race=black,sex=female``; empty where it tells none.

    Args:
        texts: the rows.
        attribute: one attribute, or several as ``race,sex``.
    """
    return _of_rows([t.row for t in texts], attribute)


def lacking(what: str, attribute: str, rows: PrivateRows) -> list[str]:
    """A sentence about groups of which the test has no row, though other rows that the audit was handed are of them.

    The audit is handed the whole selection split and a sample of the train split; of a group that stands in neither it
    cannot know.
    """
    tested = set(_of_rows(rows.test, attribute))
    missing = sorted(set(_of_rows((*rows.selection, *rows.train), attribute)) - tested - {""})
    return [f"{what}: no test row, though selection or training rows are of: {'; '.join(missing)}"] if missing else []


def method_of(method: str, groups: Sequence[str], attribute: str) -> str:
    """The method of a comparison, which tells whether groups are compared together."""
    return f"{method}; groups too small to be compared as one" if as_one(attribute) in groups else method


def left_out(
    what: str, groups: Sequence[str], least: int, rows: str = "test rows", *, together: bool = True
) -> list[str]:
    """Sentences about groups with too few rows, and about rows that tell no group.

    Args:
        what: probe and attribute, such as ``proxy probe [race]``.
        groups: of each row, as :func:`groups_of` gives them.
        least: fewest rows of a group that is compared.
        rows: which rows they are.
        together: the probe compares the small groups together where they are enough.
    """
    small, unknown = few(Counter(groups), least), groups.count("")
    compared = ", compared together" if together and sum(group in small for group in groups) >= least else ""
    out = [f"{what}: fewer than {least} {rows}{compared}: {'; '.join(sorted(small))}"] if small else []
    return [*out, f"{what}: {unknown} of {len(groups)} {rows} tell no group"] if unknown else out


def _of_rows(rows: Sequence[Row], attribute: str) -> tuple[str, ...]:
    return tuple(name_of(row.groups, attribute) for row in rows)
