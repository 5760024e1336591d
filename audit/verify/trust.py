"""The trust file: whom a verifier believes about what. It must come from outside whatever is verified.

One fact a line, ``key value``; blank lines and lines that begin with ``#`` say nothing. An unknown or doubled key is
refused, since a typing error must not quietly trust less or more than was meant. The lines ``log``, ``witness``,
``group`` and ``quorum`` are a policy of c2sp.org/tlog-policy with exactly one log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from assay.certificates import CERTIFICATE_ERRORS
from assay.dsse import from_base64
from assay.errors import AssayError, InvalidInputError
from assay.key_events import ED25519_NAMES, demand_apart
from assay.webauthn import RelyingParty
from audit.ledger.note import Verifier
from audit.ledger.quorum import KEYS as POLICY_KEYS
from audit.ledger.quorum import QuorumPolicy

if TYPE_CHECKING:
    from audit.ledger.mldsa import MLDSAVerifier

MAX_TEXT = 65_536
T = TypeVar("T")
_REQUIRED = (
    "origin",
    "log",
    "quorum",
    "train-worker",
    "audit-worker",
    "permit",
    "people-root",
    "services-root",
    "pdf",
)
_OPTIONAL = ("max-age", "operator", "log-ml-dsa", "tsa", "webauthn-origin", "webauthn-id")
_REPEATED = ("witness ", "group ")
_HEX_KEY = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class TrustFile:
    """Whom to believe about what.

    Attributes:
        origin: name of the log.
        log: key that signs checkpoints.
        quorum: which witnesses must have cosigned a checkpoint.
        train_worker: key that signs training statements.
        audit_worker: key that signs preparation and audit statements.
        permit: key that signs permits and work orders.
        people_root: root of people's certificates.
        services_root: root of services' certificates.
        pdf: certificate of the card's signature.
        max_age: how old the evidence may be: the quorum's newest time, or the newest record's where nobody
            cosigns; None for no limit.
        operator: subject that may sign the first grants; empty to take the first signer of the log.
        log_ml_dsa: second key that must sign checkpoints; None for none.
        tsa: certificate, or root, of the time-stamping authority that must stamp checkpoints; None for none.
        relying_party: for whom people's WebAuthn assertions must have been made; None to accept no assertion.
    """

    origin: str
    log: Verifier
    quorum: QuorumPolicy
    train_worker: Ed25519PublicKey
    audit_worker: Ed25519PublicKey
    permit: Ed25519PublicKey
    people_root: x509.Certificate
    services_root: x509.Certificate
    pdf: x509.Certificate
    max_age: timedelta | None = None
    operator: str = ""
    log_ml_dsa: MLDSAVerifier | None = None
    tsa: x509.Certificate | None = None
    relying_party: RelyingParty | None = None

    @classmethod
    def load(cls, path: Path) -> TrustFile:
        """Reads a trust file from disk, at most 64 KiB of it.

        Raises:
            InvalidInputError: ``TRUST_MALFORMED`` when it cannot be read, or what :meth:`parse` says.
        """
        try:
            with path.open("rb") as stream:
                text = stream.read(MAX_TEXT + 1).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError("TRUST_MALFORMED", f"{path} cannot be read as text") from error
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> TrustFile:
        """Reads a trust file.

        Raises:
            InvalidInputError: ``TRUST_MALFORMED`` with the line, ``TRUST_UNSUPPORTED``, or ``KEY_SHARED`` when log,
                witnesses, workers and permits have not a key each.
        """
        facts, lines = _facts(text)
        log = _read("log", lambda: Verifier.parse(facts["log"]))
        try:
            quorum = QuorumPolicy.parse("\n".join(lines))
        except InvalidInputError as error:
            raise InvalidInputError("TRUST_MALFORMED", f"log, witness, group and quorum: {error.message}") from error
        if log.name != facts["origin"]:
            raise _malformed("log", "its name is not the origin")
        age = facts.get("max-age")
        if age is not None and not _SECONDS.fullmatch(age):
            raise _malformed("max-age", "not a number of seconds")
        signers = {name: _key(facts, name) for name in ED25519_NAMES}
        cosigners = {f"witness {w.name}": w.verifier.public_key for w in quorum.witnesses.values()}
        apart = {"log": log.public_key, **cosigners, **signers}
        demand_apart(
            {name: key.public_bytes_raw() for name, key in apart.items()},
            "put each one's own first key there; where they really shared one, no rotation mends it: begin a log that "
            "continues this one, with a key each (docs/ledger.md)",
        )
        return cls(
            origin=facts["origin"],
            log=log,
            quorum=quorum,
            train_worker=signers["train-worker"],
            audit_worker=signers["audit-worker"],
            permit=signers["permit"],
            people_root=_certificate(facts, "people-root"),
            services_root=_certificate(facts, "services-root"),
            pdf=_certificate(facts, "pdf"),
            max_age=None if age is None else timedelta(seconds=int(age)),
            operator=facts.get("operator", ""),
            log_ml_dsa=_ml_dsa(facts),
            tsa=_certificate(facts, "tsa") if "tsa" in facts else None,
            relying_party=_relying_party(facts),
        )


def _facts(text: str) -> tuple[dict[str, str], list[str]]:
    """The facts by key, and the policy's lines, blank where a line is of another kind so that numbers stay true."""
    if len(text) > MAX_TEXT:
        raise InvalidInputError("TRUST_MALFORMED", "the trust file is too long")
    facts: dict[str, str] = {}
    policy: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        policy.append(line if line.partition(" ")[0] in POLICY_KEYS else "")
        if policy[-1].startswith(_REPEATED):
            continue
        if not line or line.startswith("#"):
            continue
        key, _, value = line.partition(" ")
        if key not in _REQUIRED + _OPTIONAL or key in facts or not value or value != value.strip():
            raise InvalidInputError("TRUST_MALFORMED", f"line {number}: unknown, doubled or empty key")
        facts[key] = value
    missing = [key for key in _REQUIRED if key not in facts]
    if missing:
        raise InvalidInputError("TRUST_MALFORMED", f"missing: {', '.join(missing)}")
    return facts, policy


def _ml_dsa(facts: dict[str, str]) -> MLDSAVerifier | None:
    """The second log key. Its module is imported here, so that an older ``cryptography`` does for all the rest."""
    if "log-ml-dsa" not in facts:
        return None
    try:
        from audit.ledger.mldsa import MLDSAVerifier
    except ImportError as error:
        remedy = "pip install -U cryptography, or leave the line out of the trust file"
        raise InvalidInputError("TRUST_UNSUPPORTED", "log-ml-dsa needs cryptography 50", remedy=remedy) from error
    verifier = _read("log-ml-dsa", lambda: MLDSAVerifier.parse(facts["log-ml-dsa"]))
    if verifier.name != facts["origin"]:
        raise _malformed("log-ml-dsa", "its name is not the origin")
    return verifier


def _relying_party(facts: dict[str, str]) -> RelyingParty | None:
    if "webauthn-origin" not in facts:
        if "webauthn-id" in facts:
            raise _malformed("webauthn-id", "there is no webauthn-origin")
        return None
    return _read("webauthn-origin", lambda: RelyingParty.parse(facts["webauthn-origin"], facts.get("webauthn-id", "")))


def _key(facts: dict[str, str], name: str) -> Ed25519PublicKey:
    if not _HEX_KEY.fullmatch(facts[name]):
        raise _malformed(name, "not 64 lower-case hex digits")
    return _read(name, lambda: Ed25519PublicKey.from_public_bytes(bytes.fromhex(facts[name])))


def _certificate(facts: dict[str, str], name: str) -> x509.Certificate:
    return _read(name, lambda: x509.load_der_x509_certificate(from_base64(facts[name])))


def _read(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (AssayError, *CERTIFICATE_ERRORS) as error:
        raise _malformed(name, "cannot be read") from error


def _malformed(name: str, why: str) -> InvalidInputError:
    return InvalidInputError("TRUST_MALFORMED", f"{name}: {why}")
