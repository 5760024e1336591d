"""Re-performance kits: what an audit read and reported and how that was judged, sealed for one outside auditor.

The rows of an audit are personal and lie encrypted to the audit worker alone, so no evidence bundle carries them. Who
runs the installation makes a kit on request, on the machine that holds the gateway's and the audit worker's folders;
it is signed with the audit worker's key, and nobody but the named recipient can open it. The gateway may run meanwhile;
one that starts meanwhile clears all scratch, so that nobody killed leaves rows in the clear, and the making ends.
An erasure cannot reach a kit that was handed over: docs/audits.md says what to agree on before. So none is made of rows
that were to be erased by now, and what lies beside the gateway's rows tells who was given which (:data:`KITS`).
"""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import Connection

from assay import bundle, canonical, durable
from assay.errors import NotFoundError, PreconditionError
from assay.v1 import policy_input_pb2, policy_pb2
from assay.worker.settings import WorkerKeys
from audit.ledger import dialect
from audit.verify.keys import AUDIT_WORKER
from audit.verify.trust import TrustFile
from gateway import database_file, key_registry, rejudging
from gateway.admission.exchange import ADAPTER_FOLDER, PRIVATE_FILE
from gateway.admission.office import Known
from gateway.admission.release import REPORT_FILE, audit_order
from gateway.erasures import demand_not_erased, demand_usable
from gateway.history import RELEASE_QUESTION
from gateway.jobs import views
from gateway.settings import Settings
from gateway.statements import rfc3339
from gateway.store import jobs, rows
from gateway.store.blobs import FileBlobStore, copy_out, read_master_key
from gateway.store.tables import JobRow, ModelRow

KIND = "reperform-kit"
KITS = "kits"
"""Folder beside the gateway's rows: a file a kit, by the kit's digest. The log is the running gateway's to write."""


@dataclass(frozen=True)
class _Audited:
    job: JobRow
    known: Known
    model: ModelRow
    report_sha256: str
    signers: list[Ed25519PublicKey]


def make_kit(settings: Settings, job: str, recipient: X25519PublicKey, out: Path) -> str:
    """Writes the kit of an audited job and returns the hex SHA-256 of its bytes.

    Args:
        settings: of the installation.
        job: ``units/UNIT/tuningJobs/ID``.
        recipient: the auditor's key.
        out: file to write; made by a rename when it is whole.

    Raises:
        NotFoundError: ``JOB_NOT_FOUND``.
        PreconditionError: ``JOB_NOT_AUDITED`` when there is no report; ``ERASED``, ``SUBJECT_ERASED`` or
            ``RETENTION_OVER`` when the rows, or the job, are erased or were to be; or what
            :func:`gateway.database_file.demand` says.
        IntegrityError: a ``BUNDLE_`` reason when the sealed rows cannot be opened with the worker's present sealing
            key, or a stored file is damaged or erased.
        InvalidInputError: ``TRUST_MALFORMED`` when the installation's trust file cannot be read, ``KEY_TYPE`` when
            ``units.key`` is no key.
    """
    database_file.demand(settings)
    engine = dialect.connect(settings.database_url)
    try:
        with engine.connect() as connection:
            found = _read(connection, settings, job)
    finally:
        engine.dispose()
    order = canonical.float_free(audit_order(settings, found.job, found.known, found.model))
    keys = WorkerKeys.load(settings.layout.service("audit-worker"))
    blobs = FileBlobStore(settings.data / "blobs", read_master_key(settings.folder / "units.key"))
    with blobs.scratch() as scratch:
        files = _collect(found, blobs, scratch) | _judged(settings, found)
        with (scratch / PRIVATE_FILE).open("rb") as sealed:
            # The worker signed them when it prepared the job, perhaps by a key that was rotated since; their digest is
            # the one in its statement then, so that any key that it ever had will do.
            own = bundle.claimed_signer(sealed, found.signers)
            bundle.unseal(sealed, keys.seal, own, scratch / "private", max_bytes=settings.limits.max_result_bytes)
        private = (p for p in (scratch / "private").rglob("*") if p.is_file())
        files |= {f"inputs/private/{p.relative_to(scratch / 'private').as_posix()}": p for p in private}
        manifest = {"kind": KIND, "job": job, "order": order, "report_sha256": found.report_sha256}
        with durable.replacing(out) as stream:
            sha256 = bundle.seal(files, manifest, recipient, keys.statement, stream)
            # Before the kit is there: none goes out that nothing tells of.
            _note(settings, job, recipient, sha256)
    return sha256


def _note(settings: Settings, job: str, recipient: X25519PublicKey, sha256: str) -> None:
    """Keeps who is given a kit, when and by whom: recipients are asked for (GDPR Art. 15(1)(c), 30(1)(d))."""
    folder = settings.data / KITS
    folder.mkdir(mode=0o700, exist_ok=True)
    told = {
        "time": rfc3339(datetime.now(UTC)),
        "job": job,
        "recipient": recipient.public_bytes_raw().hex(),
        "sha256": sha256,
        "made_by": _account(),
    }
    durable.write(folder / f"{sha256}.json", canonical.encode(told) + b"\n", mode=0o600)
    durable.sync(folder.parent)


def _account() -> str:
    """Whose process this is, by name where the machine knows one; what the environment says would be anybody's word."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _read(connection: Connection, settings: Settings, name: str) -> _Audited:
    job = jobs.get(connection, name)
    if job is None:
        raise NotFoundError("JOB_NOT_FOUND", f"there is no job {name}")
    demand_not_erased(connection, name)
    dataset = demand_usable(connection, views.request_of(job).dataset, datetime.now(UTC))
    known = jobs.facts(connection, name)
    model = rows.get(connection, ModelRow, name=job.model) if job.model else None
    if model is None or "audit.report" not in known:
        raise PreconditionError("JOB_NOT_AUDITED", f"{name} has no audit report yet")
    terms = key_registry.load(connection, TrustFile.load(settings.layout.trust)).terms[AUDIT_WORKER]
    signers = [term.public.key for term in terms if isinstance(term.public.key, Ed25519PublicKey)]
    return _Audited(job, Known(dataset, known), model, known["audit.report"], signers)


def _collect(found: _Audited, blobs: FileBlobStore, scratch: Path) -> dict[str, Path | bytes]:
    """Copies the stored files in the clear into the scratch folder; returns those that the kit holds as they are."""
    stored: dict[str, str] = {
        f"inputs/{ADAPTER_FOLDER}/{f['path']}": f["sha256"] for f in json.loads(found.model.files)
    }
    stored |= {"inputs/selection.jsonl": found.known.text("prepare.selection.jsonl"), REPORT_FILE: found.report_sha256}
    out: dict[str, Path | bytes] = {}
    for number, (path, sha256) in enumerate(sorted(stored.items())):
        plain = scratch / f"{number}.part"
        copy_out(blobs, found.job.unit, sha256, plain)
        out[path] = plain
    copy_out(blobs, found.job.unit, found.known.text(f"prepare.{PRIVATE_FILE}"), scratch / PRIVATE_FILE)
    return out


def _judged(settings: Settings, found: _Audited) -> dict[str, Path | bytes]:
    """Question and verdict of release with their rules; nothing for a job that was judged before they were kept."""
    if RELEASE_QUESTION not in found.known.facts:
        return {}
    question = views.from_json(found.known.text(RELEASE_QUESTION), policy_input_pb2.ReleaseInput)
    return rejudging.enclose(settings, question, views.from_json(found.job.verdict, policy_pb2.Verdict))
