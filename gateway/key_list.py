"""Every key of an installation: what it is for, which one it is, and since and until when it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from assay.certificates import key_id
from assay.identity import SERVICES, Layout, load_certificate
from audit.ledger import dialect
from audit.verify.keys import KeyTable, Term
from audit.verify.trust import TrustFile
from gateway import database_file, key_files, key_registry
from gateway.settings import Settings

PURPOSES = {
    "permit": "permits, work orders, sealed tasks",
    "pdf": "issued cards, signatures of downloaded adapters",
    "train-worker": "training statements",
    "audit-worker": "preparation and audit statements",
}
IN_FORCE, ROTATED, COMPROMISED, ELSEWHERE = "in force", "rotated", "compromised", "elsewhere"


@dataclass(frozen=True)
class ListedKey:
    """One key.

    Attributes:
        name: as `assay key rotate` has it, where that rotates it.
        purpose: what it signs or opens.
        keyid: its key id, or a note's key id for logs and witnesses; empty for a secret, whose digest tells too much.
        since: record index, or the day from which its certificate holds; empty when it is not known.
        until: likewise; empty while nothing ends it.
        state: ``in force``, ``rotated``, ``compromised``, or ``elsewhere`` for a key of which only a name is here.
    """

    name: str
    purpose: str
    keyid: str
    since: str
    until: str
    state: str


def listed(settings: Settings) -> list[ListedKey]:
    """All keys of the table in docs/keys.md but TLS keys, which `assay identity list` has. The gateway may run.

    Raises:
        InvalidInputError: ``TRUST_MALFORMED`` when the trust file cannot be read.
        PreconditionError: ``DATABASE_LOST``: which keys were rotated stood there.
    """
    trust = TrustFile.load(settings.layout.trust)
    table = KeyTable.of(trust)
    database_file.demand_not_lost(settings)
    if database_file.is_there(settings):
        engine = dialect.connect(settings.database_url)
        try:
            with engine.connect() as connection:
                table = key_registry.load(connection, trust)
        finally:
            engine.dispose()
    return [*_outside(trust), *_services(table), *_people(settings.layout, table), *_secrets(settings.layout)]


def _outside(trust: TrustFile) -> Iterator[ListedKey]:
    """Keys that stand in the trust file and are replaced there."""
    for name, purpose, certificate in (
        ("services-root", "service certificates", trust.services_root),
        ("people-root", "people's certificates", trust.people_root),
    ):
        yield _certified(name, purpose, certificate)
    yield ListedKey("log", "checkpoints", trust.log.vkey().split("+")[1], "record 0", "", IN_FORCE)
    if trust.log_ml_dsa is not None:
        yield ListedKey("log-ml-dsa", "checkpoints, post-quantum", "", "record 0", "", IN_FORCE)
    for name, witness in trust.quorum.witnesses.items():
        yield ListedKey(f"witness {name}", "cosignatures", witness.verifier.vkey().split("+")[1], "", "", ELSEWHERE)


def _services(table: KeyTable) -> Iterator[ListedKey]:
    for name, purpose in PURPOSES.items():
        for term in table.terms[name]:
            yield _term(name, purpose, term)


def _people(layout: Layout, table: KeyTable) -> Iterator[ListedKey]:
    for person, subject in key_files.people_of(layout).items():
        name, purpose = f"people/{person}", "calls and statements of a person"
        if subject in table.terms:
            for term in table.terms[subject]:
                yield _term(name, purpose, term)
        else:
            yield _certified(name, purpose, load_certificate(layout.person(person) / "person.crt"))


def _secrets(layout: Layout) -> Iterator[ListedKey]:
    """Keys that sign nothing: no digest of a secret is shown, of sealing keys the public half's."""
    gateway = layout.service("gateway")
    yield _file("units-root", "wraps the keys of datasets and adapters", gateway / "units.key")
    for service in SERVICES:
        yield _file(f"{service}-seal", "opens what was sealed to it", layout.service(service) / "seal.key")
    yield _file("canary", "derives each job's canaries", layout.service("audit-worker") / "canary.key")


def _term(name: str, purpose: str, term: Term) -> ListedKey:
    state = COMPROMISED if term.compromised is not None else IN_FORCE if term.end is None else ROTATED
    until = "" if term.end is None else f"record {term.end}"
    if term.suspect_from is not None:
        until += f", in doubt since record {term.suspect_from}"
    return ListedKey(name, purpose, term.public.keyid, f"record {term.begin}", until, state)


def _certified(name: str, purpose: str, certificate: x509.Certificate) -> ListedKey:
    begin, end = certificate.not_valid_before_utc.date(), certificate.not_valid_after_utc.date()
    return ListedKey(name, purpose, key_id(certificate.public_key()), str(begin), str(end), IN_FORCE)


def _file(name: str, purpose: str, path: Path) -> ListedKey:
    return ListedKey(name, purpose, "", "", "", IN_FORCE if path.exists() else ELSEWHERE)
