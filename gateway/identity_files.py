"""Whose certificates lie in an installation and until when they hold, and how new ones take their place.

A service's TLS key signs nothing that anybody keeps, so a renewal makes a new key with the new certificate. A person's
key also signs statements, and records are judged by which key signed them: a renewal certifies the *same* key and
subject anew, so that records, grants and key events stay as they are; it needs the old certificate, never the key. A
person's new key is :mod:`gateway.key_rotation`'s, with an operator's order and a record.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from assay import durable, installation
from assay.errors import InvalidInputError, PreconditionError
from assay.identity import (
    EVERY_INTERFACE,
    LOOPBACK,
    SERVERS,
    Authority,
    Layout,
    check_address,
    check_name,
    host_of,
    hosts_of,
    load_certificate,
    pem,
    private_pem,
    subject_of,
)
from gateway.settings import Settings

RENEW_WITHIN = dt.timedelta(days=30)
VALID, ENDS_SOON, ENDED, OTHER_KEY = "valid", "ends soon", "ended", "another key"
_PEOPLE = "people/"
_ROOTS = {"services-root": "services-ca", "people-root": "people-ca"}


@dataclass(frozen=True)
class Held:
    """A certificate of the installation.

    Attributes:
        name: ``gateway``, ``train-worker``, ``audit-worker``, ``witness``, ``people/NAME``, ``pdf``, ``services-root``
            or ``people-root``.
        path: of the certificate.
        key: of its private key, which may lie on another machine.
        certificate: as it lies there.
    """

    name: str
    path: Path
    key: Path
    certificate: x509.Certificate

    @property
    def subject(self) -> str:
        """What it names: a subject, or a root's common name."""
        if self.name in _ROOTS:
            return self.certificate.subject.rfc4514_string()
        return subject_of(self.certificate)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts that it names besides the loopback."""
        return tuple(host for host in hosts_of(self.certificate) if host not in LOOPBACK)

    @property
    def until(self) -> dt.datetime:
        """When it ends, in UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def renewable(self) -> bool:
        """Tells whether :func:`renew` makes a new one."""
        return _renewable(self.name)

    def state(self, now: dt.datetime) -> str:
        """``valid``, ``ends soon``, ``ended``, or ``another key`` where a service's key is not the certificate's."""
        if self.until < now:
            return ENDED
        if self.name in SERVERS and not self._fits():
            return OTHER_KEY
        return ENDS_SOON if self.until < now + RENEW_WITHIN else VALID

    def remedy(self, directory: Path) -> str:
        """The command that mends what its state says."""
        if self.renewable:
            restart = "" if self.name.startswith(_PEOPLE) else f", then start {self.name} again"
            return f"assay identity renew {directory} {self.name}{restart}"
        if self.name == "pdf":
            return f"assay key rotate pdf {directory} --as FOLDER"
        return "begin a log that continues this one: docs/keys.md, log key and roots"

    def _fits(self) -> bool:
        try:
            key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        except OSError:
            return True  # It lies elsewhere.
        except (ValueError, TypeError):
            return False
        return key.public_key() == self.certificate.public_key()


def held(layout: Layout, names: Sequence[str] = ()) -> list[Held]:
    """Every certificate that lies in the installation: services, witness, people, card signer, roots.

    Args:
        layout: of the installation.
        names: reads these alone, so that nobody else's damaged file stands in their way.

    Raises:
        InvalidInputError: ``KEY_MISSING`` when one cannot be read, ``IDENTITY_UNKNOWN``, or ``NO_CERTIFICATES`` where
            there is none: a directory that was mistyped must not look like one whose certificates all hold.
    """
    places = {name: (path, key) for name, path, key in _places(layout) if path.exists()}
    if not places:
        raise InvalidInputError(
            "NO_CERTIFICATES", f"no certificate lies in {layout.root}", remedy="pass the installation's directory"
        )
    for name in names:
        if name not in places:
            renewable = ", ".join(filter(_renewable, places)) or "none lies in this directory"
            raise InvalidInputError(
                "IDENTITY_UNKNOWN", f"there is no certificate of {name[:60]!r} here", remedy=f"one of: {renewable}"
            )
    return [Held(name, *places[name], load_certificate(places[name][0])) for name in dict.fromkeys(names or places)]


def of_services(layout: Layout) -> list[Held]:
    """Every certificate that is no person's.

    Raises:
        InvalidInputError: ``KEY_MISSING`` when one cannot be read, or ``NO_CERTIFICATES``.
    """
    return held(layout, [name for name, path, _ in _places(layout) if path.exists() and not name.startswith(_PEOPLE)])


def renew(layout: Layout, names: Sequence[str] = (), hosts: Sequence[str] = ()) -> list[Held]:
    """Makes new certificates, and for services new TLS keys; needs the roots' keys in ``authority/``.

    Subjects stay, and so do a service's hosts unless others are given. All is looked at before anything is replaced.
    Nothing revokes the old certificates: who holds one and its key may use it until it ends.

    Args:
        layout: of the installation; a person's key need not lie there, nor a service's old one.
        names: whose; by default of all that end within :data:`RENEW_WITHIN` or do not go with their key.
        hosts: names and addresses of the services in ``names`` besides the loopback's, in place of the old ones.

    Returns:
        The new certificates.

    Raises:
        InvalidInputError: ``IDENTITY_UNKNOWN``, ``IDENTITY_NOT_RENEWED`` for a root or the card signer,
            ``HOSTS_OF_WHOM`` for hosts of no service, ``BAD_HOST``, ``KEY_MISSING`` without the root's key, or what
            :func:`held` says.
        PreconditionError: ``OTHER_AUTHORITY`` when another root issued the old certificate; ``ROOT_ENDED``.
    """
    chosen = _chosen(layout, names)
    if hosts and not (names and all(one.name in SERVERS for one in chosen)):
        raise InvalidInputError(
            "HOSTS_OF_WHOM", "--host: only a service that is named has hosts", remedy=f"name {', '.join(SERVERS)}"
        )
    made = [_reissue(layout, one, hosts or one.hosts) for one in chosen]
    for one, (key, certificate) in zip(chosen, made, strict=True):
        # A service that starts between the two fails and is started again; after a crash there, renewing mends it.
        if key is not None:
            durable.write(one.key, private_pem(key), mode=0o600)
        durable.write(one.path, pem(certificate))
    return [Held(one.name, one.path, one.key, certificate) for one, (_, certificate) in zip(chosen, made, strict=True)]


def enrol(settings: Settings, name: str, address: str = "") -> Held:
    """Makes the folder of a person who comes after `assay init`: key, certificate, and where the gateway is.

    The certificate alone allows nothing: an operator's grants do, which the ledger records.

    Args:
        settings: of the installation.
        name: of the person.
        address: host and port by which the person reaches the gateway; by default where it listens.

    Raises:
        AlreadyExistsError: ``PERSON_EXISTS``.
        InvalidInputError: ``BAD_NAME``, ``ADDRESS``, or the people root's key cannot be read.
    """
    address = address or settings.listen
    try:
        nobodys = host_of(check_address(address)) in EVERY_INTERFACE
    except ValueError:
        nobodys = True
    if nobodys:
        raise InvalidInputError(
            "ADDRESS",
            f"{address[:100]!r} is no address to reach the gateway at",
            remedy="pass --address HOST:PORT, a host that the gateway's certificate names",
        )
    layout, trust_domain = settings.layout, settings.trust_domain
    folder = installation.enrol(layout, check_name(name), trust_domain=trust_domain, address=address)
    path = folder / "person.crt"
    return Held(f"{_PEOPLE}{name}", path, path.with_suffix(".key"), load_certificate(path))


def _places(layout: Layout) -> Iterator[tuple[str, Path, Path]]:
    """Names, certificates and keys, whether they lie here or not."""
    for name in SERVERS:
        folder = layout.witness if name == "witness" else layout.service(name)
        yield name, folder / "tls.crt", folder / "tls.key"
    for path in sorted((layout.root / "people").glob("*/person.crt")):
        yield f"{_PEOPLE}{path.parent.name}", path, path.with_suffix(".key")
    gateway = layout.service("gateway")
    yield "pdf", gateway / "pdf.crt", gateway / "pdf.key"
    for name, root in _ROOTS.items():
        # The gateway's copy where the authority lies on its own machine.
        folder = next((f for f in (layout.authority, gateway) if (f / f"{root}.crt").exists()), layout.authority)
        yield name, folder / f"{root}.crt", layout.authority / f"{root}.key"


def _renewable(name: str) -> bool:
    return name in SERVERS or name.startswith(_PEOPLE)


def _chosen(layout: Layout, names: Sequence[str]) -> list[Held]:
    found = held(layout, names)
    if not names:
        now = dt.datetime.now(dt.UTC)
        return [one for one in found if one.renewable and one.state(now) != VALID]
    for one in found:
        if not one.renewable:
            raise InvalidInputError(
                "IDENTITY_NOT_RENEWED", f"{one.name} is replaced in another way", remedy=one.remedy(Path("DIR"))
            )
    return found


def _reissue(
    layout: Layout, old: Held, hosts: Sequence[str]
) -> tuple[ec.EllipticCurvePrivateKey | None, x509.Certificate]:
    """A new certificate for the same subject; with a new key for a service, for the same key of a person."""
    person = old.name.startswith(_PEOPLE)
    root = "people-ca" if person else "services-ca"
    authority = Authority.load(layout.authority / f"{root}.key", layout.authority / f"{root}.crt")
    try:
        old.certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise PreconditionError(
            "OTHER_AUTHORITY",
            f"the certificate of {old.name} is not of this authority",
            remedy="run it with the authority of its own installation; a witness of another party renews its own",
        ) from error
    if person:
        public = old.certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101 - this authority certifies no other
        return None, authority.issue(old.subject, public, server=False)
    key = ec.generate_private_key(ec.SECP256R1())
    return key, authority.issue(old.subject, key.public_key(), server=True, hosts=hosts)
