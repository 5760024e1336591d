"""Identities: certificates that name a subject, keys that stay where they belong.

A certificate under one of two roots names a *subject*, a SPIFFE-style URI in its SAN. The people root signs people, the
services root signs services, so that neither root, and no key under it, can pose as the other kind. A server that
trusts both asks under which of them a caller's certificate lies. What a subject may do is not in its certificate: roles
are grants in the ledger.

:class:`Layout` is the one place that knows where each key lies; :mod:`assay.installation` fills it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from assay.errors import InvalidInputError, PreconditionError, UnauthenticatedError, unusable

if TYPE_CHECKING:
    import grpc

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey | x25519.X25519PrivateKey

SERVICES = ("gateway", "train-worker", "audit-worker")
SERVERS = (*SERVICES, "witness")
"""All that hold a server's certificate."""
LEAF_DAYS = 397
"""How long the certificate of a service or a person holds."""
LOOPBACK = ("localhost", "127.0.0.1")
"""Hosts that every service's certificate names."""
EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound
"""Hosts to listen on that nobody can ask for."""
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
_ADDRESS = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class Layout:
    """Where everything of an installation lies, relative to its directory."""

    root: Path

    @property
    def settings(self) -> Path:
        """Settings of the gateway, ``assay.toml``."""
        return self.root / "assay.toml"

    @property
    def trust(self) -> Path:
        """What a verifier must be given from outside a bundle."""
        return self.root / "trust.txt"

    @property
    def authority(self) -> Path:
        """The operator's folder with both root keys; no service reads it."""
        return self.root / "authority"

    @property
    def bootstrap_grants(self) -> Path:
        """First role grants, signed by the operator."""
        return self.root / "bootstrap" / "grants.json"

    @property
    def policy_publication(self) -> Path:
        """The newest publication of a policy, signed by a person; the gateway records it when it starts under it."""
        return self.root / "bootstrap" / "policy.json"

    @property
    def continuation(self) -> Path:
        """Which old log this one continues, signed by an operator; there is none for a log of its own."""
        return self.root / "bootstrap" / "continues.json"

    @property
    def anchor(self) -> Path:
        """The ledger's anchor, outside the gateway's data directory."""
        return self.root / "anchor"

    @property
    def witness(self) -> Path:
        """The embedded default's witness: its own folder, key and memory; another party's machine in production."""
        return self.root / "witness"

    @property
    def witness_policy(self) -> Path:
        """The log's own copy of the quorum policy, with the addresses at which it asks."""
        return self.service("gateway") / "witness-policy.txt"

    def person(self, name: str) -> Path:
        """A person's own folder."""
        return self.root / "people" / name

    def service(self, name: str) -> Path:
        """A service's folder."""
        return self.root / "services" / name


@dataclass(frozen=True)
class TlsFiles:
    """PEM bytes for one end of an mTLS connection."""

    key: bytes
    certificate: bytes
    trusted_roots: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a client that shows its certificate."""
        import grpc

        return grpc.ssl_channel_credentials(self.trusted_roots, self.key, self.certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials of a server that demands a client certificate under ``trusted_roots``."""
        import grpc

        return grpc.ssl_server_credentials([(self.key, self.certificate)], self.trusted_roots, require_client_auth=True)


def service_tls(folder: Path, roots: tuple[str, ...] = ("services-ca.crt",)) -> TlsFiles:
    """Reads a service's TLS files; ``roots`` names the root certificates whose holders it accepts.

    Raises:
        InvalidInputError: ``KEY_MISSING``, ``KEY_EXPOSED``, ``KEY_MALFORMED`` or ``KEY_OF_ANOTHER``.
    """
    return _tls(folder / "tls.key", folder / "tls.crt", [folder / name for name in roots])


def person_tls(folder: Path) -> TlsFiles:
    """Reads a person's TLS files; the server must lie under the services root.

    Raises:
        InvalidInputError: ``KEY_MISSING``, ``KEY_EXPOSED``, ``KEY_MALFORMED`` or ``KEY_OF_ANOTHER``.
    """
    return _tls(folder / "person.key", folder / "person.crt", [folder / "services-ca.crt"])


def _tls(key: Path, certificate: Path, roots: Sequence[Path]) -> TlsFiles:
    private, leaf = load_p256(key), load_certificate(certificate)
    # gRPC would end every handshake without a word.
    if private.public_key() != leaf.public_key():
        raise InvalidInputError(
            "KEY_OF_ANOTHER",
            f"{key} is not the key of {certificate.name} beside it",
            remedy="put the two back that were made together, or have them made anew (docs/keys.md, certificates)",
        )
    for root in roots:
        load_certificate(root)
    return TlsFiles(read_private(key), certificate.read_bytes(), b"".join(root.read_bytes() for root in roots))


def read_private(path: Path) -> bytes:
    """Reads a private key file.

    Raises:
        InvalidInputError: ``KEY_MISSING``, ``FILE`` when this user may not read it, or ``KEY_EXPOSED`` when group or
            others may.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except PermissionError as error:
        raise unusable(error) from error
    except OSError as error:
        raise InvalidInputError(
            "KEY_MISSING", f"cannot read key {path.name}", remedy="run `assay init DIR` or pass the right folder"
        ) from error
    if mode & 0o077:
        raise InvalidInputError("KEY_EXPOSED", f"{path.name} can be read by others", remedy=f"chmod 600 {path.name}")
    return data


def load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Loads an Ed25519 key from PEM; see :func:`read_private` and ``KEY_MALFORMED``, ``KEY_TYPE`` for its errors."""
    key = _read_pem(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not an Ed25519 key")
    return key


def load_mldsa44(path: Path) -> mldsa.MLDSA44PrivateKey:
    """Loads an ML-DSA-44 key from PEM, as :func:`load_ed25519` does."""
    key = _read_pem(path)
    if not isinstance(key, mldsa.MLDSA44PrivateKey):
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not an ML-DSA-44 key")
    return key


def load_x25519(path: Path) -> x25519.X25519PrivateKey:
    """Loads an X25519 key from PEM, as :func:`load_ed25519` does."""
    key = _read_pem(path)
    if not isinstance(key, x25519.X25519PrivateKey):
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not an X25519 key")
    return key


def load_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """Loads a P-256 key from PEM, as :func:`load_ed25519` does."""
    key = _read_pem(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not a P-256 key")
    return key


def _read_pem(path: Path) -> Any:
    data = read_private(path)
    try:
        return serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInputError(
            "KEY_MALFORMED",
            f"{path} holds no private key in PEM without a passphrase",
            remedy="put the file back as `assay init` or a rotation wrote it (docs/keys.md)",
        ) from error


def raw_public(key: ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey) -> bytes:
    """The 32 bytes of the public half."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def subject_of(certificate: x509.Certificate) -> str:
    """The subject that a certificate names: its single URI SAN.

    Raises:
        UnauthenticatedError: ``NO_SUBJECT`` when there is none or more than one.
    """
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        uris = []
    else:
        uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise UnauthenticatedError("NO_SUBJECT", "the certificate names no subject")
    return str(uris[0])


def peer_subject(context: Any) -> str:
    """The subject of the other end of a gRPC call, from its verified certificate.

    Args:
        context: a ``grpc.aio.ServicerContext`` of an mTLS server.

    Raises:
        UnauthenticatedError: when the transport proved no identity.
    """
    return subject_of(peer_certificate(context))


def peer_certificate(context: Any) -> x509.Certificate:
    """The verified certificate of the other end of a gRPC call.

    Raises:
        UnauthenticatedError: ``NO_CERTIFICATE``.
    """
    pems = context.auth_context().get("x509_pem_cert", [])
    if len(pems) != 1:
        raise UnauthenticatedError("NO_CERTIFICATE", "the call carries no client certificate")
    return x509.load_pem_x509_certificate(pems[0])


def write_key(path: Path, key: PrivateKey) -> None:
    """Writes a private key as PKCS 8 PEM, readable by its owner only; refuses to replace one."""
    write_secret(path, private_pem(key))


def private_pem(key: PrivateKey) -> bytes:
    """A private key as PKCS 8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_secret(path: Path, data: bytes) -> None:
    """Creates a file that only its owner reads; an existing file is never replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)


def check_name(name: str) -> str:
    """Checks a person's, unit's or service's short name.

    Raises:
        InvalidInputError: ``BAD_NAME``.
    """
    if not _NAME.match(name):
        raise InvalidInputError("BAD_NAME", f"{name!r} is not a short lower-case name", remedy="use a-z, 0-9 and -")
    return name


@dataclass(frozen=True)
class Authority:
    """A root: its key and its self-signed certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, common_name: str, days: int = 3650) -> Authority:
        """Makes a new P-256 root that may sign leaves and no further roots."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key: Path, certificate: Path) -> Authority:
        """Reads a root from its two files.

        Raises:
            InvalidInputError: ``KEY_MISSING``, ``KEY_EXPOSED`` or ``KEY_TYPE``.
        """
        return cls(load_p256(key), load_certificate(certificate))

    def issue(
        self,
        subject: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        server: bool,
        days: int = LEAF_DAYS,
        not_before: dt.datetime | None = None,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        """Signs a leaf that names ``subject`` and ends in ``days`` days, or with the root if that ends before.

        Args:
            subject: URI that it names.
            public_key: whose it is.
            server: adds server authentication for the loopback and ``hosts``.
            days: of validity.
            not_before: aware time from which it holds; five minutes ago by default, for clocks that are behind.
            hosts: further DNS names and IP addresses of a server.

        Raises:
            InvalidInputError: ``BAD_HOST``.
            PreconditionError: ``ROOT_ENDED``.
        """
        start = not_before or dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
        root_end = self.certificate.not_valid_after_utc
        if root_end <= start:
            raise PreconditionError(
                "ROOT_ENDED", f"the root was valid until {root_end:%Y-%m-%d}", remedy="docs/keys.md: log key, roots"
            )
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            names += [_host(host) for host in dict.fromkeys((*LOOPBACK, *hosts))]
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        common_name = subject.rsplit("/", 1)[-1]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(min(start + dt.timedelta(days=days), root_end))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_certificate(path: Path) -> x509.Certificate:
    """Reads a certificate from PEM.

    Raises:
        InvalidInputError: ``KEY_MISSING``, or ``FILE`` when this user may not read it.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except PermissionError as error:
        raise unusable(error) from error
    except (OSError, ValueError) as error:
        raise InvalidInputError("KEY_MISSING", f"cannot read certificate {path}", remedy="put it back") from error


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses that a server's certificate names, the loopback's included."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*san.get_values_for_type(x509.DNSName), *map(str, san.get_values_for_type(x509.IPAddress)))


def check_address(address: str) -> str:
    """Checks ``host:port``, with an IPv6 host in brackets.

    Raises:
        ValueError: it is none, or its port is above 65,535.
    """
    if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65_535:
        raise ValueError("not host:port, such as 127.0.0.1:7443 or [::1]:7443, with a port of at most 65535")
    return address


def host_of(address: str) -> str:
    """The host of ``host:port`` in the spelling of :func:`hosts_of`: lower case, IPv6 short and without brackets."""
    host = address.rpartition(":")[0].strip("[]").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    # Read as an address above or not at all: no client takes "10.0.0.300" for a name.
    if not _HOST_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise InvalidInputError(
            "BAD_HOST",
            f"{name[:100]!r} is neither a host's name nor an address",
            remedy="for example gw.bank.example or 10.0.0.7, without scheme, port or *",
        )
    return x509.DNSName(name.lower())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=not signs_certificates,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
