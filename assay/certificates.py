"""Certificates that name a person, and keys by their digest: what a signature's certificate must be to count."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from assay.digests import sha256_bytes
from assay.errors import IntegrityError, InvalidInputError

_E = TypeVar("_E", bound=x509.ExtensionType)

# The parser decodes lazily, so that any of these may come from any part of a stranger's certificate.
CERTIFICATE_ERRORS = (
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    OverflowError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

TRUST_DOMAIN = r"[a-z0-9][a-z0-9.-]{0,253}"
PERSON = re.compile(rf"spiffe://{TRUST_DOMAIN}/people/[a-z0-9][a-z0-9._-]{{0,62}}")


def key_id(key: Any) -> str:
    """Hex SHA-256 of a public key's SubjectPublicKeyInfo, the key id of P-256 keys."""
    der: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256_bytes(der)


def read_certificate(der: bytes) -> x509.Certificate:
    """Reads a certificate; of what it says there is one spelling only, also of the signature, which signs not itself.

    Raises:
        ValueError: among others of :data:`CERTIFICATE_ERRORS`.
    """
    certificate = x509.load_der_x509_certificate(der)
    # The parser takes a signature that is said to end inside its last byte, where those bits happen to be zero.
    if not der.endswith(b"\0" + certificate.signature):
        raise ValueError("the certificate's signature does not end at a byte's end")
    return certificate


def check_person(der: bytes, root: x509.Certificate, at: datetime | None) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Demands an end-entity P-256 certificate of one person directly under ``root``.

    Args:
        der: the certificate.
        root: the people root, given from outside.
        at: aware time at which both must have been valid; None where only whose key it was is asked.

    Returns:
        Subject and key.

    Raises:
        InvalidInputError: ``TIME_NAIVE``.
        IntegrityError: ``CERTIFICATE_BAD``.
    """
    try:
        cert = read_certificate(der)
        periods = [(c.not_valid_before_utc, c.not_valid_after_utc) for c in (root, cert)]
    except CERTIFICATE_ERRORS as error:
        raise _bad("a signature's certificate cannot be read") from error
    if at is not None:
        _check_periods(periods, at)
    key = check_issued(cert, root, "people root")
    try:
        names = _extension(cert, x509.SubjectAlternativeName)
    except CERTIFICATE_ERRORS as error:
        raise _bad("the certificate was not issued by the people root") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    if len(uris) != 1 or not PERSON.fullmatch(uris[0]):
        raise _bad("the certificate does not name exactly one person by URI")
    return uris[0], key


def check_issued(cert: x509.Certificate, root: x509.Certificate, root_name: str) -> ec.EllipticCurvePublicKey:
    """Demands an end-entity P-256 certificate that ``root`` issued; whose it is and when it holds is not looked at.

    Raises:
        IntegrityError: ``CERTIFICATE_BAD``.
    """
    try:
        cert.verify_directly_issued_by(root)
        basic = _extension(cert, x509.BasicConstraints)
        usage = _extension(cert, x509.KeyUsage)
        root_basic = _extension(root, x509.BasicConstraints)
        _extension(cert, x509.SubjectAlternativeName)
        key = cert.public_key()
    except CERTIFICATE_ERRORS as error:
        raise _bad(f"the certificate was not issued by the {root_name}") from error
    if root_basic is None or not root_basic.ca:
        raise _bad(f"the {root_name} is not a certificate authority")
    if basic is not None and basic.ca:
        raise _bad("a certificate authority cannot sign as a person")
    if usage is not None and not usage.digital_signature:
        raise _bad("the certificate's key usage forbids signatures")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad("the certificate's key is not P-256")
    return key


def _check_periods(periods: list[tuple[datetime, datetime]], at: datetime) -> None:
    if at.tzinfo is None:
        raise InvalidInputError("TIME_NAIVE", "the time asked about has no zone")
    for name, (begin, end) in zip(("people root", "certificate"), periods, strict=True):
        if not begin <= at <= end:
            raise _bad(f"the {name} was not valid at {at.isoformat()}")


def _extension(cert: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _bad(message: str) -> IntegrityError:
    return IntegrityError("CERTIFICATE_BAD", message)
