"""RFC 3161 time stamps of a checkpoint: another party's word that it existed by a moment.

A bundle may carry ``timestamps/NAME.tsr``, each a time-stamp response over the SHA-256 of the checkpoint note. The
trust file names the authority's certificate, or the root that issued it; what a token itself carries is believed only
if it leads there. A time stamp shows that the records existed by then, never that there are no later ones.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from assay import canonical
from assay.certificates import CERTIFICATE_ERRORS
from assay.errors import IntegrityError
from audit.ledger import evidence
from audit.verify.der import INTEGER, OCTETS, OID, SEQUENCE, SET, TIME, Node, malformed, read, write

_SIGNED_DATA, _TST_INFO = bytes.fromhex("2a864886f70d010702"), bytes.fromhex("2a864886f70d0109100104")
_CONTENT_TYPE, _MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010903"), bytes.fromhex("2a864886f70d010904")
_SIGNING_CERT, _SIGNING_CERT_V2 = bytes.fromhex("2a864886f70d010910020c"), bytes.fromhex("2a864886f70d010910022f")
_SHA256 = bytes.fromhex("608648016503040201")
_PSS = bytes.fromhex("2a864886f70d01010a")
_DIGESTS: dict[bytes, hashes.HashAlgorithm] = {
    _SHA256: hashes.SHA256(),
    bytes.fromhex("608648016503040202"): hashes.SHA384(),
    bytes.fromhex("608648016503040203"): hashes.SHA512(),
}
_EXPLICIT, _CERTIFICATES = 0xA0, 0xA0


@dataclass(frozen=True)
class Token:
    """A time-stamp token taken apart, nothing of it verified.

    Attributes:
        info: the bytes of its TSTInfo.
        imprint: SHA-256 that it stamps.
        time: when.
        attributes: signed attributes by OID; each holds one value.
        signed: the exact bytes under the signature.
        digest: hash of the signature.
        signature: the signature.
        certificates: DER certificates that came along.
    """

    info: bytes
    imprint: bytes
    time: datetime
    attributes: dict[bytes, Node]
    signed: bytes
    digest: hashes.HashAlgorithm
    signature: bytes
    certificates: tuple[bytes, ...]


def request(checkpoint: bytes, nonce: int | None = None) -> bytes:
    """A time-stamp request over a checkpoint note; asks for the authority's certificate to come along."""
    number = secrets.randbits(63) if nonce is None else nonce
    imprint = write(SEQUENCE, _algorithm(_SHA256), write(OCTETS, hashlib.sha256(checkpoint).digest()))
    parts = (write(INTEGER, b"\1"), imprint, write(INTEGER, number.to_bytes(8)), write(0x01, b"\xff"))
    return write(SEQUENCE, *parts)


def attach(bundle: bytes, name: str, response: bytes) -> bytes:
    """The bundle with a time stamp of its checkpoint beside it; nothing else changes.

    Raises:
        InvalidInputError: ``TIMESTAMP_MALFORMED``, ``TIMESTAMP_REFUSED``, ``ATTACHMENT_NAME`` or ``BUNDLE_MALFORMED``.
        IntegrityError: ``TIMESTAMP_IMPRINT`` when it stamps something else.
    """
    files = evidence.read_zip(bundle)
    for path in (evidence.CHECKPOINT, evidence.MANIFEST):
        if path not in files:
            raise evidence.malformed(f"{path} is missing")
    _stamps(open_response(response), files[evidence.CHECKPOINT])
    files[evidence.timestamp_path(name)] = response
    said = canonical.decode(files.pop(evidence.MANIFEST))
    root = bytes.fromhex(said["root"])
    header = evidence.Header(said["log"], said["size"], root, said["scope"], said["unit"], said["quorum"])
    files[evidence.MANIFEST] = evidence.manifest(header, files)
    return evidence.zip_bytes(files)


def verify(response: bytes, checkpoint: bytes, authority: x509.Certificate) -> datetime:
    """Verifies a time stamp of a checkpoint note and returns its time.

    Args:
        response: a TimeStampResp in DER.
        checkpoint: the note's exact bytes.
        authority: the authority's own certificate, or that of the root which issued it.

    Raises:
        InvalidInputError: ``TIMESTAMP_MALFORMED``, ``TIMESTAMP_REFUSED`` or ``TIMESTAMP_UNSUPPORTED``.
        IntegrityError: ``TIMESTAMP_IMPRINT``, ``TIMESTAMP_AUTHORITY``, ``TIMESTAMP_EXPIRED`` or
            ``TIMESTAMP_SIGNATURE``.
    """
    token = open_response(response)
    _stamps(token, checkpoint)
    try:
        signer = _signer(token, authority)
        for certificate in (authority, signer):
            if not certificate.not_valid_before_utc <= token.time <= certificate.not_valid_after_utc:
                raise IntegrityError("TIMESTAMP_EXPIRED", "a certificate of the authority was not valid at that time")
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if list(usage) != [ExtendedKeyUsageOID.TIME_STAMPING]:
            raise IntegrityError("TIMESTAMP_AUTHORITY", "the certificate is not for time stamps alone")
        _signature(token, signer)
    except (*CERTIFICATE_ERRORS, x509.ExtensionNotFound) as error:
        raise IntegrityError("TIMESTAMP_AUTHORITY", "the authority's certificate cannot be used") from error
    return token.time


def open_response(data: bytes) -> Token:
    """Takes a response apart.

    Raises:
        InvalidInputError: ``TIMESTAMP_MALFORMED``, ``TIMESTAMP_REFUSED`` or ``TIMESTAMP_UNSUPPORTED``.
    """
    if len(data) > evidence.MAX_TIMESTAMP:
        raise malformed("too long")
    status, *granted = read(data).children(SEQUENCE)
    if status.children(INTEGER)[0].body not in (b"\0", b"\1") or len(granted) != 1:
        raise malformed("the authority refused", "TIMESTAMP_REFUSED")
    kind, content = granted[0].children(OID, _EXPLICIT)[:2]
    signed = content.child(SEQUENCE).children(INTEGER, SET, SEQUENCE)
    inner, explicit = signed[2].children(OID, _EXPLICIT)[:2]
    if kind.body != _SIGNED_DATA or inner.body != _TST_INFO:
        raise malformed("not a signed TSTInfo")
    info = explicit.child(OCTETS).body
    certificates = [c.whole for node in signed[3:-1] if node.tag == _CERTIFICATES for c in node.children()]
    if signed[-1].tag != SET or len(certificates) > 8:
        raise malformed("no signer, or too many certificates")
    signer = signed[-1].child(SEQUENCE).children(INTEGER, SEQUENCE, SEQUENCE, 0xA0, SEQUENCE, OCTETS)
    attributes = _attributes(signer[3])
    if signer[4].children(OID)[0].body == _PSS:
        raise malformed("RSASSA-PSS signatures are not supported", "TIMESTAMP_UNSUPPORTED")
    imprint, time = _info(info)
    return Token(
        info=info,
        imprint=imprint,
        time=time,
        attributes=attributes,
        signed=write(SET, signer[3].body),
        digest=_digest(signer[2]),
        signature=signer[5].body,
        certificates=tuple(certificates),
    )


def _info(info: bytes) -> tuple[bytes, datetime]:
    """What is stamped, and when."""
    _, _, imprint, _, time = read(info).children(INTEGER, OID, SEQUENCE, INTEGER, TIME)[:5]
    kind, stamped = imprint.children(SEQUENCE, OCTETS)[:2]
    if kind.children(OID)[0].body != _SHA256:
        raise malformed("the imprint is not SHA-256", "TIMESTAMP_UNSUPPORTED")
    text = time.body.decode("ascii", "replace")
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    if len(whole) != 14 or not whole.isdigit() or not text.endswith("Z") or (dot and not fraction.isdigit()):
        raise malformed("its time is malformed")
    try:
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise malformed("its time is malformed") from error
    return stamped.body, moment.replace(microsecond=int((fraction + "000000")[:6]))


def _attributes(node: Node) -> dict[bytes, Node]:
    found: dict[bytes, Node] = {}
    for attribute in node.children():
        kind, values = attribute.children(OID, SET)[:2]
        if kind.body in found:
            raise malformed("an attribute is doubled")
        if not values.body:
            raise malformed("an attribute has no value")
        found[kind.body] = values.children()[0]
    return found


def _stamps(token: Token, checkpoint: bytes) -> None:
    if token.imprint != hashlib.sha256(checkpoint).digest():
        raise IntegrityError("TIMESTAMP_IMPRINT", "the time stamp is of something else than this checkpoint")


def _signer(token: Token, authority: x509.Certificate) -> x509.Certificate:
    """The certificate that the signed attributes name: the trusted one, or one that it issued."""
    candidates = [authority, *(x509.load_der_x509_certificate(der) for der in token.certificates)]
    for certificate in candidates:
        if not _names(token, certificate):
            continue
        if certificate != authority:
            try:
                certificate.verify_directly_issued_by(authority)
            except CERTIFICATE_ERRORS as error:
                message = "it is signed by another authority than the trust file names"
                raise IntegrityError("TIMESTAMP_AUTHORITY", message) from error
        return certificate
    raise IntegrityError("TIMESTAMP_AUTHORITY", "it is signed by another authority than the trust file names")


def _names(token: Token, certificate: x509.Certificate) -> bool:
    """Whether the signing-certificate attribute (ESS, RFC 2634 or 5035) holds this certificate's hash."""
    der = certificate.public_bytes(Encoding.DER)
    newer = token.attributes.get(_SIGNING_CERT_V2)
    older = token.attributes.get(_SIGNING_CERT)
    if newer is not None:
        parts = newer.children(SEQUENCE)[0].children(SEQUENCE)[0].children()
        algorithm = _digest(parts.pop(0)) if parts and parts[0].tag == SEQUENCE else hashes.SHA256()
        return bool(parts) and parts[0].body == hashlib.new(algorithm.name, der).digest()
    if older is not None:
        hashed = older.children(SEQUENCE)[0].children(SEQUENCE)[0].children(OCTETS)[0].body
        return hashed == hashlib.sha1(der, usedforsecurity=False).digest()
    raise malformed("it does not name its signer's certificate")


def _signature(token: Token, signer: x509.Certificate) -> None:
    attributes = token.attributes
    kind, digest = attributes.get(_CONTENT_TYPE), attributes.get(_MESSAGE_DIGEST)
    if kind is None or kind.body != _TST_INFO or digest is None:
        raise malformed("its signed attributes do not cover what it says")
    bad = IntegrityError("TIMESTAMP_SIGNATURE", "the authority's signature does not verify")
    if digest.body != hashlib.new(token.digest.name, token.info).digest():
        raise bad
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(token.signature, token.signed, padding.PKCS1v15(), token.digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(token.signature, token.signed, ec.ECDSA(token.digest))
        else:
            raise malformed("the authority's key is neither RSA nor on a curve", "TIMESTAMP_UNSUPPORTED")
    except InvalidSignature as error:
        raise bad from error


def _digest(algorithm: Node) -> hashes.HashAlgorithm:
    found = _DIGESTS.get(algorithm.children(OID)[0].body)
    if found is None:
        raise malformed("its hash is none of SHA-256, SHA-384 and SHA-512", "TIMESTAMP_UNSUPPORTED")
    return found


def _algorithm(oid: bytes) -> bytes:
    return write(SEQUENCE, write(OID, oid), b"\x05\x00")
