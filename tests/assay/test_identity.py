"""Certificates name subjects; keys stay private and where they belong."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from assay import canonical, dsse, installation
from assay.errors import AlreadyExistsError, InvalidInputError, UnauthenticatedError
from assay.identity import Authority, load_ed25519, load_p256, person_tls, read_private, service_tls, subject_of
from assay.installation import DEFAULT_PEOPLE, Plan


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("bank") / "here"
    return installation.create(root, Plan(people=DEFAULT_PEOPLE, operator="oscar"))


def test_every_key_is_private_and_no_service_holds_a_persons_or_the_authoritys(layout):
    keys = list(layout.root.glob("**/*.key"))
    assert len(keys) == 2 + 6 + (6 + 3 + 4)
    assert all(stat.S_IMODE(k.stat().st_mode) == 0o600 for k in keys)
    for service in ("gateway", "train-worker", "audit-worker"):
        names = {p.name for p in layout.service(service).glob("**/*.key")}
        assert not names & {"person.key", "people-ca.key", "services-ca.key"}
    assert not list(layout.service("train-worker").glob("canary.key"))


def test_people_and_services_lie_under_different_roots(layout):
    person = x509.load_pem_x509_certificate((layout.person("rita") / "person.crt").read_bytes())
    service = x509.load_pem_x509_certificate((layout.service("gateway") / "tls.crt").read_bytes())
    assert subject_of(person) == "spiffe://assay.local/people/rita"
    assert subject_of(service) == "spiffe://assay.local/services/gateway"
    people = x509.load_pem_x509_certificate((layout.authority / "people-ca.crt").read_bytes())
    person.verify_directly_issued_by(people)
    with pytest.raises(Exception):  # noqa: B017 - cryptography raises by kind of mismatch
        service.verify_directly_issued_by(people)


def test_the_first_grants_are_signed_by_the_operator(layout):
    root = x509.load_pem_x509_certificate((layout.authority / "people-ca.crt").read_bytes())
    envelopes = json.loads(layout.bootstrap_grants.read_text())
    assert len(envelopes) == len(DEFAULT_PEOPLE)
    import datetime as dt

    for envelope, person in zip(envelopes, DEFAULT_PEOPLE, strict=True):
        verified = dsse.verify_person(envelope, root, dt.datetime.now(dt.UTC))
        assert [s.subject for s in verified.signers] == ["spiffe://assay.local/people/oscar"]
        assert verified.statement["predicate"]["role"] == person.role
        assert canonical.encode(verified.statement) == verified.payload


def test_the_trust_file_names_every_public_key_once(layout):
    lines = [line.split(" ", 1)[0] for line in layout.trust.read_text().splitlines() if not line.startswith("#")]
    assert lines == [
        "origin", "log", "quorum", "train-worker", "audit-worker", "permit", "people-root", "services-root", "pdf",
        "operator",
    ]  # fmt: skip
    assert "PRIVATE" not in layout.trust.read_text()


def test_nothing_is_replaced(layout):
    with pytest.raises(AlreadyExistsError) as error:
        installation.create(layout.root, Plan(people=DEFAULT_PEOPLE, operator="oscar"))
    assert error.value.reason == "INSTALLATION_EXISTS"
    with pytest.raises(AlreadyExistsError):
        installation.enrol(layout, "rita")


def test_a_failed_creation_leaves_nothing(tmp_path: Path):
    with pytest.raises((InvalidInputError, OSError)):
        installation.create(tmp_path / "x", Plan(people=DEFAULT_PEOPLE, operator="nobody"))
    assert list(tmp_path.iterdir()) == []


def test_a_later_person_gets_a_folder_of_its_own(layout):
    folder = installation.enrol(layout, "vera")
    assert person_tls(folder).certificate.startswith(b"-----BEGIN CERTIFICATE")
    assert load_p256(folder / "person.key").curve.name == "secp256r1"


def test_an_exposed_key_is_refused(tmp_path: Path):
    key = tmp_path / "a.key"
    key.write_bytes(b"x")
    key.chmod(0o644)
    with pytest.raises(InvalidInputError) as error:
        read_private(key)
    assert error.value.reason == "KEY_EXPOSED" and "chmod" in error.value.remedy
    with pytest.raises(InvalidInputError) as error:
        read_private(tmp_path / "none.key")
    assert error.value.reason == "KEY_MISSING"


def test_a_key_of_another_kind_is_refused(layout):
    with pytest.raises(InvalidInputError) as error:
        load_ed25519(layout.person("rita") / "person.key")
    assert error.value.reason == "KEY_TYPE"
    with pytest.raises(InvalidInputError):
        load_p256(layout.service("gateway") / "log.key")


def test_a_certificate_without_a_subject_names_nobody():
    authority = Authority.create("x")
    with pytest.raises(UnauthenticatedError) as error:
        subject_of(authority.certificate)
    assert error.value.reason == "NO_SUBJECT"
    leaf = authority.issue("https://not-spiffe", ec.generate_private_key(ec.SECP256R1()).public_key(), server=False)
    with pytest.raises(UnauthenticatedError):
        subject_of(leaf)


@pytest.mark.parametrize("name", ["", "Rita", "../rita", "a" * 40, "1a", "a b"])
def test_names_that_could_leave_the_folder_are_refused(layout, name):
    with pytest.raises(InvalidInputError):
        installation.enrol(layout, name)


def test_service_tls_trusts_only_the_roots_it_names(layout):
    folder = layout.service("gateway")
    assert service_tls(folder).trusted_roots.count(b"BEGIN CERTIFICATE") == 1
    assert service_tls(folder, ("people-ca.crt", "services-ca.crt")).trusted_roots.count(b"BEGIN CERTIFICATE") == 2
