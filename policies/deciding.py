"""Which engine decides, as every decision and verdict records it: the implementation of CEL, and our own code.

Rules and limits have digests of their own. But what a use is, which artefacts count, and what becomes of an answer is
said by modules here: the same question under the same rules may be answered otherwise by another release, and whoever
asks again years later must be able to tell that from another number.
"""

from __future__ import annotations

from pathlib import Path

from assay import canonical, digests
from policies import cel

MODULES = (
    *("artefacts", "asking", "cel", "engine", "fused", "gates", "inputs", "limits", "metrics", "planning"),
    *("reading", "rule", "statistics", "uses", "verdicts"),
)
"""Modules that turn a question into outcomes. Those that only load, check, test, compare or explain rules are not."""
_KEPT = 16


def digest_of(folder: Path) -> str:
    """The beginning of the SHA-256 of what the modules in a folder say, byte by byte."""
    told = {name: digests.sha256_file(folder / f"{name}.py") for name in MODULES}
    return digests.sha256_bytes(canonical.encode(told))[:_KEPT]


ENGINE = f"{cel.ENGINE}, assay {digest_of(Path(__file__).parent)}"
"""Such as ``cel-expr-python 0.1.3, assay 0123456789abcdef``."""
