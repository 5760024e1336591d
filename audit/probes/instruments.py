"""What an audit measures with beside model and processor: code, libraries, detector, sets, by version or digest.

A re-run under another of them may give another number and be none the worse: the report names them, so that
:mod:`audit.probes.compare` can say which differs.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import assay
import audit
from assay import digests
from assay.pii import RULES_VERSION, PiiConfig
from assay.worker import lock
from audit.probes import sets

LIBRARIES = (
    *("assay", "numpy", "scipy", "scikit-learn", "transformers", "tokenizers", "peft", "dp-accounting"),
    *("presidio-analyzer", "spacy", "phonenumbers"),
)
SOURCES = "sources"
"""Digest of the code that measures; the version of an editable installation does not tell."""


def identities(folder: Path) -> dict[str, str]:
    """Versions of the libraries, the detector's rules and model, and how many evaluation sets there are, with a digest.

    Args:
        folder: of the evaluation sets.
    """
    there = {name: digests.sha256_file(folder / name) for name in sorted(sets.FILES) if (folder / name).is_file()}
    whole = digests.sha256_bytes(json.dumps(there, sort_keys=True).encode())
    code = lock.sources([Path(package.__path__[0]) for package in (assay, audit)])
    return {
        **{name: _version(name) for name in LIBRARIES},
        SOURCES: digests.sha256_bytes(json.dumps(code, sort_keys=True).encode()),
        "pii_rules": str(RULES_VERSION),
        "pii_model_sha256": PiiConfig().ner_sha256,
        "evaluation_sets": f"{len(there)} of {len(sets.FILES)}, sha256 {whole}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
