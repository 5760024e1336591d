"""What of the facts about the rows is shown: no size of a small group, and no labels that subtraction gives away.

A group of a few rows is a few people, and totals stand beside the groups: with one group left blank, what the others
leave of the total is that group's own cell. So more is kept back than the small groups, as statistical offices do
(complementary suppression; Hundepool and others, Statistical Disclosure Control, 2012, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.groups import LEAST_CELL

FEW = f"fewer than {LEAST_CELL} rows"
BESIDE = "kept back, as a smaller group could be worked out from it"

Facts = Mapping[str, Any]


def kept_back(data: Facts) -> dict[str, str]:
    """Groups as ``attribute=value`` of which rows and labels are not told, and why, smallest first.

    Args:
        data: JSON of ``assay.v1.DataFacts``.
    """
    labels = {_name(found): found for found in data.get("group_labels", [])}
    sizes = {name: int(found.get("rows", 0)) for name, found in labels.items()}
    sizes |= {name: int(n) for name, n in data.get("group_counts", {}).items()}
    attributes: dict[str, list[str]] = {}
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        attribute = labels.get(name, {}).get("attribute") or name.partition("=")[0]
        attributes.setdefault(attribute, []).append(name)
    out: dict[str, str] = {}
    for names in attributes.values():
        few = [name for name in names if sizes[name] < LEAST_CELL]
        # The reference goes last: ratio and rate of any other group tell its own.
        others = sorted(names[len(few) :], key=lambda name: bool(labels.get(name, {}).get("reference")))
        beside = 0
        while few and beside < len(others) and not _open(data, labels, sizes, few, others, beside):
            beside += 1
        out |= dict.fromkeys(few, FEW) | dict.fromkeys(others[:beside], BESIDE)
    return out


def shown(data: Facts) -> dict[str, Any]:
    """The facts without what is kept back; a number that is not told is 0, and one that may be left out is absent."""
    back = kept_back(data)
    told = dict(data)
    if back:
        told["group_counts"] = {name: 0 if name in back else n for name, n in data.get("group_counts", {}).items()}
        told["group_labels"] = [_told(found, back) for found in data.get("group_labels", [])]
        told.pop("smallest_group_rows", None)
    if back or any(int(n) < LEAST_CELL for n in data.get("test_group_counts", {}).values()):
        told.pop("test_group_counts", None)
    if "untested_groups" in data:
        told["untested_groups"] = dict.fromkeys(data["untested_groups"], 0)
    return told


def _open(
    data: Facts,
    labels: Mapping[str, Facts],
    sizes: Mapping[str, int],
    few: Sequence[str],
    others: Sequence[str],
    beside: int,
) -> bool:
    """Whether what the groups that are told leave of the totals allows any size and any labels of each small group."""
    most, told = LEAST_CELL - 1, others[beside:]
    counts = {label: int(n) for label, n in data.get("label_counts", {}).items()}
    left = sum(counts.values()) - sum(sizes[name] for name in told)
    room = left - most >= len(few) - 1 + LEAST_CELL * beside and (beside > 0 or left - 1 <= most * (len(few) - 1))
    if not labels:
        return room
    favourable = counts.get(data.get("favourable_label", ""), 0)
    favourable -= sum(int(labels.get(name, {}).get("favourable", 0)) for name in told)
    return room and most <= favourable <= left - most


def _told(found: Facts, back: Mapping[str, str]) -> dict[str, Any]:
    why = back.get(_name(found))
    if why is None:
        return dict(found)
    return {"attribute": found.get("attribute"), "value": found.get("value"), "inconclusive": why}


def _name(found: Facts) -> str:
    return f"{found.get('attribute')}={found.get('value')}"
