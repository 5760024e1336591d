"""A witness's folder: its key, its settings ``witness.toml``, its TLS files, its memory and its evidence."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from assay.errors import AlreadyExistsError, AssayError, InvalidInputError
from assay.identity import Authority, check_address, pem, write_key
from audit.ledger.cosignature import CosignatureVerifier
from audit.ledger.note import Verifier

TRANSPORTS = ("mtls", "tls", "http")
_REQUIRED = {"name", "listen", "logs"}
_KNOWN = _REQUIRED | {"transport", "clients"}


@dataclass(frozen=True)
class WitnessSettings:
    """What an operator of a witness may set.

    Attributes:
        folder: where everything of this witness lies.
        name: what its cosignatures carry.
        listen: address.
        logs: verifier keys by origin; a log that rotates its key has two.
        transport: ``mtls`` (clients show a certificate under ``clients-ca.crt``), ``tls`` (anybody, over TLS) or
            ``http`` (plain, for a proxy that ends TLS, or the loopback).
        clients: subjects that may ask for cosignatures over ``mtls``; empty for every holder of a certificate.
    """

    folder: Path
    name: str
    listen: str
    logs: Mapping[str, tuple[Verifier, ...]]
    transport: str = "mtls"
    clients: tuple[str, ...] = ()

    @property
    def key(self) -> Path:
        """The Ed25519 key that cosigns, and does nothing else."""
        return self.folder / "witness.key"

    @property
    def database(self) -> Path:
        """What was last cosigned."""
        return self.folder / "witness.db"

    @property
    def evidence(self) -> Path:
        """Files of contradictions."""
        return self.folder / "evidence"

    @classmethod
    def load(cls, folder: Path) -> WitnessSettings:
        """Reads ``folder/witness.toml``.

        Raises:
            InvalidInputError: ``WITNESS_SETTINGS`` naming the field.
        """
        path = folder / "witness.toml"
        try:
            raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            remedy = "run `assay witness init DIR`, or pass the right folder"
            raise InvalidInputError("WITNESS_SETTINGS", f"cannot read {path.name}", remedy=remedy) from error
        unknown, missing = sorted(raw.keys() - _KNOWN), sorted(_REQUIRED - raw.keys())
        if unknown or missing:
            raise _bad(", ".join([*unknown, *missing]), "unknown or missing")
        clients = raw.get("clients", [])
        if not isinstance(clients, list) or not all(isinstance(c, str) for c in clients):
            raise _bad("clients", "not a list of subjects")
        if raw.get("transport", "mtls") not in TRANSPORTS:
            raise _bad("transport", f"not one of {', '.join(TRANSPORTS)}")
        listen, name = raw["listen"], raw["name"]
        _check_listen(listen)
        if not isinstance(name, str):
            raise _bad("name", "not a text")
        return cls(folder, name, listen, _logs(raw["logs"]), raw.get("transport", "mtls"), tuple(clients))


def create(
    folder: Path,
    *,
    name: str,
    listen: str,
    logs: Sequence[Verifier],
    transport: str,
    clients: Sequence[str] = (),
    clients_root: bytes = b"",
    hosts: Sequence[str] = (),
) -> WitnessSettings:
    """Makes a witness of its own party: its key, a root and a server certificate under it, settings.

    Args:
        folder: new or empty.
        name: what its cosignatures carry: a schema-less URL of whoever runs it.
        listen: address.
        logs: keys of the logs that it follows; each key's name is its log's origin.
        transport: see :class:`WitnessSettings`.
        clients: see :class:`WitnessSettings`.
        clients_root: PEM of the root under which clients' certificates lie; needed for ``mtls``.
        hosts: names and addresses by which clients reach it, besides the loopback's.

    Raises:
        AlreadyExistsError: ``WITNESS_EXISTS``.
        InvalidInputError: ``CLIENTS_ROOT``, ``NOTE_MALFORMED`` or ``WITNESS_SETTINGS``.
    """
    _check_listen(listen)
    if folder.exists() and any(folder.iterdir()):
        raise AlreadyExistsError(
            "WITNESS_EXISTS", f"{folder} is not empty", remedy="choose another folder; keys are never replaced"
        )
    if transport == "mtls" and not clients_root:
        raise InvalidInputError(
            "CLIENTS_ROOT",
            "mtls needs the root of the clients' certificates",
            remedy="pass --clients-root services-ca.crt of the log's operator, or --transport tls",
        )
    key = ed25519.Ed25519PrivateKey.generate()
    CosignatureVerifier.of(name, key.public_key())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_key(folder / "witness.key", key)
    if transport != "http":
        authority, tls = Authority.create(f"Root of witness {name}"), ec.generate_private_key(ec.SECP256R1())
        write_key(folder / "tls.key", tls)
        certificate = authority.issue(f"spiffe://{name}", tls.public_key(), server=True, days=3650, hosts=hosts)
        (folder / "tls.crt").write_bytes(pem(certificate))
        (folder / "witness-ca.crt").write_bytes(pem(authority.certificate))
    if clients_root:
        (folder / "clients-ca.crt").write_bytes(clients_root)
    (folder / "witness.toml").write_text(toml(name, listen, [log.vkey() for log in logs], transport, clients))
    return WitnessSettings.load(folder)


def toml(name: str, listen: str, logs: Sequence[str], transport: str, clients: Sequence[str]) -> str:
    """The text of ``witness.toml``; ``logs`` are verifier keys whose names are origins."""
    known = "\n".join(f"{json.dumps(vkey.split('+', 1)[0])} = [{json.dumps(vkey)}]" for vkey in logs)
    return f"""\
# A witness. Run it where whoever runs the log cannot change it: `assay witness serve DIR`.
name = {json.dumps(name)}
listen = {json.dumps(listen)}
transport = {json.dumps(transport)}   # mtls, tls (any client) or http (plain: behind a proxy that ends TLS)
clients = {json.dumps(list(clients))}

[logs]                              # keys by origin; while a log rotates its key, both stand here
{known}
"""


def _check_listen(value: object) -> None:
    try:
        check_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _bad("listen", str(error)) from error


def _logs(value: object) -> dict[str, tuple[Verifier, ...]]:
    if not isinstance(value, dict) or not value:
        raise _bad("logs", "names no log")
    out: dict[str, tuple[Verifier, ...]] = {}
    for origin, keys in value.items():
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
            raise _bad(f"logs.{origin}", "not a list of keys")
        try:
            out[origin] = tuple(Verifier.parse(key) for key in keys)
        except AssayError as error:
            raise _bad(f"logs.{origin}", error.message) from error
    return out


def _bad(field: str, why: str) -> InvalidInputError:
    return InvalidInputError("WITNESS_SETTINGS", f"witness.toml: {field[:200]}: {why}")
