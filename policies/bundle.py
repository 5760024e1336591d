"""Which packs stand together: ``bundle.yaml`` names them, and which units have chosen which.

The first pack is asked of every unit; the others of the units that chose them. A folder without a ``bundle.yaml`` is a
bundle of one pack, or of two where the pack ``extends`` the one beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import canonical, policy_text
from policies import yamlsource
from policies.limits import plain
from policies.rule import Part
from policies.yamlsource import Document, Section

BUNDLE = "bundle.yaml"
CHOSEN = "units"
"""Member of the limits' text under which stands what each unit chose."""
_UNIT = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
_FOLDER = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


@dataclass(frozen=True)
class Text:
    """What one of a bundle's two digests is of, as :mod:`assay.policy_text` carries it."""

    files: Mapping[str, Any]
    more: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The digest, in hex."""
        return policy_text.sha256_of(self.files, self.more)

    def encode(self) -> bytes:
        """The text as evidence carries it."""
        return policy_text.encode(self.files, self.more)

    @classmethod
    def of(cls, documents: Iterable[Document], more: Mapping[str, Any]) -> Text:
        """From parsed files."""
        return cls({d.name: canonical.float_free(plain(d.data)) for d in documents}, canonical.float_free(more))


@dataclass(frozen=True)
class Sheet:
    """What a bundle consists of.

    Attributes:
        folders: of the packs, in order.
        units: names of further packs by the unit that chose them.
        head: name, version and owner, where a bundle file gives them.
        text: the bundle file without the units' choice; empty where there is none.
    """

    folders: tuple[Path, ...]
    units: Mapping[str, tuple[str, ...]]
    head: Part | None
    text: Mapping[str, Any]

    def label(self, folder: Path) -> str:
        """What stands before a file's name in errors; nothing where there is one pack."""
        return f"{folder.name}/" if len(self.folders) > 1 else ""

    def named(self, last: Part) -> Part:
        """Who answers for the whole; ``last`` where no bundle file says so."""
        return self.head or last

    def rules_text(self, documents: Iterable[Document]) -> Text:
        """Everything that engineers edit."""
        return Text.of(documents, {"bundle": self.text} if self.text else {})

    def limits_text(self, documents: Iterable[Document]) -> Text:
        """Everything that officers edit."""
        chosen = {unit: list(names) for unit, names in self.units.items()}
        return Text.of(documents, {CHOSEN: chosen} if self.text else {})


def read(folder: Path) -> Sheet:
    """Reads the bundle file of a folder, or works out that it is a single pack.

    Raises:
        InvalidInputError: ``PACK_*`` with file, line and column.
    """
    if not (folder / BUNDLE).is_file():
        return Sheet((*_base(folder), folder), {}, None, {})
    document = yamlsource.read(folder / BUNDLE)
    top = Section(document, ())
    top.only(("apiVersion", "kind", "metadata", "packs", "units"))
    top.choice("apiVersion", ("policies.assay.dev/v1",))
    top.choice("kind", ("PolicyBundle",))
    metadata = top.child("metadata")
    metadata.only(("name", "version", "owner", "description"))
    head = Part(metadata.text("name"), metadata.text("version"), metadata.text("owner"), folder)
    packs = top.texts("packs")
    if not packs or len(set(packs)) != len(packs) or not all(_FOLDER.match(name) for name in packs):
        raise top.error("packs", "PACK_SCHEMA", "must name at least one folder, and none twice")
    units = top.child("units")
    chosen: dict[str, tuple[str, ...]] = {}
    for unit in units.data:
        names = units.texts(unit)
        if not _UNIT.match(unit) or not set(names) <= set(packs[1:]):
            known = ", ".join(packs[1:]) or "none"
            raise units.error(unit, "PACK_SCHEMA", f"a unit chooses among {known}; {packs[0]} is asked of every unit")
        chosen[unit] = names
    text = {key: plain(value) for key, value in top.data.items() if key != "units"}
    return Sheet(tuple(folder / name for name in packs), chosen, head, text)


def demand_units(folder: Path, known: Collection[str]) -> None:
    """Demands that every unit that has chosen packs is one that there is; a misspelt one would be asked none of them.

    Args:
        folder: a bundle that :func:`read` takes.
        known: units of an installation.

    Raises:
        InvalidInputError: ``PACK_UNIT`` with file, line and column.
    """
    if not (folder / BUNDLE).is_file():
        return
    units = Section(yamlsource.read(folder / BUNDLE), ()).child("units")
    for unit in units.data:
        if unit not in known:
            raise units.error(
                unit, "PACK_UNIT", f"this installation has no unit {unit!r}: units in assay.toml are {', '.join(known)}"
            )


def _base(folder: Path) -> tuple[Path, ...]:
    document = yamlsource.read(folder / "rules.yaml")
    top = document.data if isinstance(document.data, dict) else {}
    metadata = top.get("metadata")
    name = metadata.get("extends") if isinstance(metadata, dict) else None
    if name is None:
        return ()
    if not isinstance(name, str) or not _FOLDER.match(name) or not (folder.parent / name).is_dir():
        raise document.error(("metadata", "extends"), "PACK_SCHEMA", "must name the folder of a pack beside this one")
    return (folder.parent / name,)
