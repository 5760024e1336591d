from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import InvalidInputError
from audit.verify.trust import TrustFile
from tests.audit.ledger.ledger_world import ORIGIN, refused


def trust_with(told: tuple[bytes, TrustFile, Path], change: Callable[[str], str]) -> Any:
    return TrustFile.parse(change((told[2] / "trust.txt").read_text()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace("quorum none", "quorum 2of3"), "TRUST_MALFORMED"),
        (lambda t: t.replace("quorum none\n", ""), "TRUST_MALFORMED"),
        (lambda t: t + "quorum none\n", "TRUST_MALFORMED"),
        (lambda t: t + "unknown x\n", "TRUST_MALFORMED"),
        (lambda t: t + "max-age -1\n", "TRUST_MALFORMED"),
        (lambda t: t + "max-age 1e9\n", "TRUST_MALFORMED"),
        (lambda t: t + "operator\n", "TRUST_MALFORMED"),
        (lambda t: t.replace("origin assay", "origin other"), "TRUST_MALFORMED"),
        (lambda t: t.replace("log assay", "log xassay"), "TRUST_MALFORMED"),
        (lambda t: t.replace("permit ", "permit 00"), "TRUST_MALFORMED"),
        (lambda t: t.replace("people-root M", "people-root N"), "TRUST_MALFORMED"),
        (lambda t: t.replace("people-root ", "people-root ="), "TRUST_MALFORMED"),
        (lambda t: "#" * 70_000 + t, "TRUST_MALFORMED"),
        (lambda t: "", "TRUST_MALFORMED"),
    ],
    ids=range(14),
)
def test_trust_files_that_are_refused(
    told: tuple[bytes, TrustFile, Path], change: Callable[[str], str], reason: str
) -> None:
    refused(reason, lambda: trust_with(told, change))


def _key_of(text: str, name: str) -> str:
    """An Ed25519 key of a trust file, as 64 hex digits."""
    value = next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[-1]
    return value if len(value) == 64 else base64.b64decode(value.rsplit("+", 1)[-1])[1:].hex()


WORKERS = ("train-worker", "audit-worker", "permit")


@pytest.mark.parametrize(("name", "other"), [(a, b) for a in WORKERS for b in (*WORKERS, "log") if a != b])
def test_no_key_has_two_purposes(told: tuple[bytes, TrustFile, Path], name: str, other: str) -> None:
    """A trainer that is its own auditor proves nothing."""

    def change(text: str) -> str:
        return text.replace(_key_of(text, name), _key_of(text, other))

    with pytest.raises(InvalidInputError) as caught:
        trust_with(told, change)
    assert caught.value.reason == "KEY_SHARED" and caught.value.remedy
    assert name in caught.value.message and other in caught.value.message


def test_trust_file_may_be_commented_and_spaced(told: tuple[bytes, TrustFile, Path]) -> None:
    trust = trust_with(told, lambda t: "\n# hello\n\n" + t.replace("\n", "\r\n") + "  \n")
    assert trust.origin == ORIGIN
