"""The signature of an issued card: PAdES baseline B by pyHanko, one signature over the whole file."""

from __future__ import annotations

import io

from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import signers
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko.sign.validation.status import SignatureCoverageLevel
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.registry import SimpleCertificateStore

from assay.errors import IntegrityError

FIELD = "Assay"


def sign(pdf: bytes, key_pem: bytes, certificate_pem: bytes) -> bytes:
    """Signs the whole file; anything appended later is outside the signature and is refused by :func:`verify`."""
    key = serialization.load_pem_private_key(key_pem, None)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = x509.load_pem_x509_certificate(certificate_pem).public_bytes(serialization.Encoding.DER)
    signer = signers.SimpleSigner(
        signing_cert=asn1_x509.Certificate.load(certificate),
        signing_key=asn1_keys.PrivateKeyInfo.load(der),
        cert_registry=SimpleCertificateStore(),  # type: ignore[no-untyped-call]
    )
    meta = signers.PdfSignatureMetadata(
        field_name=FIELD, md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES, reason="Model card issued"
    )
    out = io.BytesIO()
    signers.sign_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)), meta, signer=signer, output=out)
    return out.getvalue()


def verify(pdf: bytes, certificate_der: bytes) -> None:
    """Checks that the one signature is by that certificate and covers the whole file.

    Raises:
        IntegrityError: ``CARD_SIGNATURE``.
    """
    try:
        found = PdfFileReader(io.BytesIO(pdf)).embedded_signatures
        trusted = asn1_x509.Certificate.load(certificate_der)
        context = ValidationContext(trust_roots=[trusted], allow_fetching=False)
        # Another certificate is not even tried: the library would log a stack trace about its missing path.
        own = len(found) == 1 and found[0].signer_cert.dump() == certificate_der
        status = validate_pdf_signature(found[0], context) if own else None
    except Exception as error:
        raise IntegrityError("CARD_SIGNATURE", "the PDF's signature cannot be read") from error
    if not found:
        raise IntegrityError(
            "CARD_SIGNATURE", "the PDF carries no signature", remedy="a card is signed when two people have approved it"
        )
    if (
        status is None
        or not status.bottom_line
        or status.coverage is not SignatureCoverageLevel.ENTIRE_FILE
        or status.signing_cert.dump() != certificate_der
    ):
        raise IntegrityError("CARD_SIGNATURE", "the PDF was changed after it was signed, or signed by another key")
