"""The signature of an issued card: holds for the file as it was signed, by that certificate, and for nothing else."""

from __future__ import annotations

import io

import pypdf
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

from assay import canonical
from assay.errors import IntegrityError
from assay.identity import Authority
from audit.cards import build_card, render_pdf, seal
from tests.audit.cards import samples

SUBJECT = "spiffe://assay.local/services/gateway/cards"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("services")


@pytest.fixture(scope="module")
def signer(authority: Authority) -> tuple[bytes, bytes]:
    return new_signer(authority)


@pytest.fixture(scope="module")
def signed(signer: tuple[bytes, bytes]) -> bytes:
    return render_pdf(build_card(samples.rich()), issued=samples.approvals(), signer=signer)


def new_signer(authority: Authority) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(SUBJECT, key.public_key(), server=False)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


def der(signer: tuple[bytes, bytes]) -> bytes:
    return x509.load_pem_x509_certificate(signer[1]).public_bytes(serialization.Encoding.DER)


def refused(pdf: bytes, certificate: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        seal.verify(pdf, certificate)
    assert caught.value.reason == "CARD_SIGNATURE"


def test_a_signed_card_verifies_and_keeps_its_twin(signed: bytes, signer: tuple[bytes, bytes]) -> None:
    seal.verify(signed, der(signer))
    held = pypdf.PdfReader(io.BytesIO(signed)).attachments
    assert held["card.json"] == [canonical.encode(build_card(samples.rich()))]


def test_signing_only_appends(signed: bytes) -> None:
    assert signed.startswith(render_pdf(build_card(samples.rich()), issued=samples.approvals()))


def test_one_flipped_bit_is_refused_wherever_it_is(signed: bytes, signer: tuple[bytes, bytes]) -> None:
    certificate = der(signer)
    places = [*range(20, len(signed), len(signed) // 40), len(signed) - 8, signed.index(b"/ByteRange") + 14]
    for place in places:
        changed = bytearray(signed)
        changed[place] ^= 1
        refused(bytes(changed), certificate)


def test_an_appended_revision_is_refused(signed: bytes, signer: tuple[bytes, bytes]) -> None:
    writer = IncrementalPdfFileWriter(io.BytesIO(signed))
    writer.set_info(None)
    writer.root["/PageMode"] = writer.root["/PageMode"]
    writer.update_root()
    out = io.BytesIO()
    writer.write(out)
    assert out.getvalue().startswith(signed) and len(out.getvalue()) > len(signed)
    refused(out.getvalue(), der(signer))


@pytest.mark.parametrize("tail", [b"\n", b"%comment\n", b"x" * 2000])
def test_appended_bytes_are_refused(signed: bytes, signer: tuple[bytes, bytes], tail: bytes) -> None:
    refused(signed + tail, der(signer))


def test_another_certificate_is_refused_even_of_the_same_name_and_root(signed: bytes, authority: Authority) -> None:
    refused(signed, der(new_signer(authority)))


def test_the_root_that_issued_the_certificate_does_not_stand_for_it(signed: bytes, authority: Authority) -> None:
    refused(signed, authority.certificate.public_bytes(serialization.Encoding.DER))


def test_an_unsigned_card_is_refused(signer: tuple[bytes, bytes]) -> None:
    refused(render_pdf(build_card(samples.small())), der(signer))


def test_a_second_signature_is_refused(
    signed: bytes, signer: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "FIELD", "Other")
    refused(seal.sign(signed, *signer), der(signer))


@pytest.mark.parametrize("junk", [b"", b"%PDF-1.7", b"not a pdf", b"\x00" * 4096])
def test_what_is_no_pdf_is_refused(junk: bytes, signer: tuple[bytes, bytes]) -> None:
    refused(junk, der(signer))


def test_a_cut_card_is_refused(signed: bytes, signer: tuple[bytes, bytes]) -> None:
    for size in (len(signed) // 2, len(signed) - 1):
        refused(signed[:size], der(signer))


def test_a_certificate_that_is_none_is_refused(signed: bytes) -> None:
    refused(signed, b"junk")
