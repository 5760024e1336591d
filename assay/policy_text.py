"""The text behind a policy's digests: parsed files as canonical JSON, to be hashed without YAML and without an engine.

Who publishes a policy signs two digests, of its rules and of its limits, and every decision names both. An evidence
bundle carries what they are of in this shape, so that whoever checks it reads the rules themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical
from assay.digests import sha256_bytes
from assay.errors import InvalidInputError


def sha256_of(files: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    """Hex SHA-256 by which publications, decisions and verdicts name the rules, or the limits, of a policy.

    Args:
        files: what each file says, by its name; float-free.
        more: what ``bundle.yaml`` adds: its own text to the rules, what units chose to the limits.
    """
    by_file = {name: sha256_bytes(canonical.encode(data)) for name, data in files.items()}
    if len(by_file) == 1 and not more:
        return next(iter(by_file.values()))
    return sha256_bytes(canonical.encode({**by_file, **more}))


def encode(files: Mapping[str, Any], more: Mapping[str, Any]) -> bytes:
    """The text as it is carried."""
    return canonical.encode({"files": files, "more": more})


def sha256_of_text(data: bytes) -> str:
    """The digest that a carried text is of.

    Raises:
        InvalidInputError: ``POLICY_TEXT`` for bytes that :func:`encode` did not write, ``NOT_CANONICAL``.
    """
    value = canonical.decode(data)
    if not isinstance(value, dict) or value.keys() != {"files", "more"}:
        raise InvalidInputError("POLICY_TEXT", "the text of a policy has the members files and more, and no other")
    if not all(isinstance(part, dict) for part in value.values()) or value["files"].keys() & value["more"].keys():
        raise InvalidInputError("POLICY_TEXT", "the files of a policy's text are not told apart by their names")
    return sha256_of(value["files"], value["more"])
