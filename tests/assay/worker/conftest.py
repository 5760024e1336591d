"""A worker with real keys and certificates, a gateway's end to it, and sealed tasks."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import assay
from assay import bundle, canonical, dsse
from assay.digests import sha256_bytes
from assay.identity import Authority, TlsFiles, pem, raw_public, service_tls, write_key, write_secret
from assay.worker.folders import remove
from assay.worker.sandbox import TaskModule
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.supervisor import Snapshot, Supervisor

HERE = Path(__file__).parent
JOB = "units/credit/tuningJobs/j1"


def task_module(name: str) -> TaskModule:
    return TaskModule(f"sandbox_tasks.{name}", (Path(assay.__file__).parent, HERE / "sandbox_tasks"))


TABLE = {"prepare": task_module("steps"), "train": task_module("steps"), "audit": task_module("attacks")}


@dataclass(frozen=True)
class House:
    """A worker's folder and the gateway's keys."""

    root: Path
    services: Authority
    permit: Ed25519PrivateKey
    sealing: X25519PrivateKey
    folder: Path
    models: Path
    fields: dict[str, Any] = field(default_factory=dict)

    def settings(self, **changes: Any) -> WorkerSettings:
        return WorkerSettings.load(self.folder).model_copy(update=changes)

    def keys(self) -> WorkerKeys:
        return WorkerKeys.load(self.folder)

    def supervisor(self, table: dict[str, TaskModule] | None = None, **changes: Any) -> Supervisor:
        return Supervisor(self.folder, self.settings(**changes), self.keys(), table or TABLE)

    def tls(
        self, subject: str = "spiffe://assay.local/services/gateway", authority: Authority | None = None
    ) -> TlsFiles:
        from cryptography.hazmat.primitives import serialization as s

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (authority or self.services).issue(subject, key.public_key(), server=False)
        text = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        return TlsFiles(text, pem(certificate), pem(self.services.certificate))

    def server_tls(self) -> TlsFiles:
        return service_tls(self.folder)

    def seal(
        self,
        task_id: str,
        kind: str,
        order: dict[str, Any],
        files: dict[str, bytes] | None = None,
        *,
        job: str = JOB,
        signer: Ed25519PrivateKey | None = None,
        **manifest: Any,
    ) -> bytes:
        out = io.BytesIO()
        facts = {"task_id": task_id, "kind": kind, "job": job, "unit": "credit", "order": order, **manifest}
        recipient = self.keys().seal.public_key()
        bundle.seal(files or {"dataset": b"rows\n"}, facts, recipient, signer or self.permit, out)
        return out.getvalue()

    def work_order(
        self, files: dict[str, bytes], *, signer: Ed25519PrivateKey | None = None, **changes: Any
    ) -> dict[str, Any]:
        predicate = {
            "job": JOB,
            "train_sha256": sha256_bytes(files["train.jsonl"]),
            "validation_sha256": sha256_bytes(files["validation.jsonl"]),
            "base_model": "tiny",
            "base_sha256": sha256_bytes(b"tiny"),
            "steps": 1,
            **changes,
        }
        payload = canonical.encode(dsse.statement("work-order", predicate, []))
        return {"order": dsse.sign_service(payload, signer or self.permit)}

    def open_result(self, supervisor: Supervisor, task_id: str, into: Path) -> dict[str, Any]:
        with supervisor.result(task_id).open("rb") as stream:
            signer = self.keys().statement.public_key()
            return bundle.unseal(stream, self.sealing, signer, into, max_bytes=1 << 30)


@pytest.fixture
def nests(tmp_path: Path) -> Iterator[Path]:
    """A folder for trees that pytest cannot remove itself."""
    folder = tmp_path / "nests"
    folder.mkdir()
    yield folder
    remove(folder)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return make_house(tmp_path)


def make_house(root: Path) -> House:
    services = Authority.create("services")
    folder, models = root / "services" / "worker", root / "models"
    folder.mkdir(parents=True)
    models.mkdir()
    tls = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / "tls.key", tls)
    subject = "spiffe://assay.local/services/audit-worker"
    (folder / "tls.crt").write_bytes(pem(services.issue(subject, tls.public_key(), server=True)))
    (folder / "services-ca.crt").write_bytes(pem(services.certificate))
    write_key(folder / "statement.key", Ed25519PrivateKey.generate())
    write_key(folder / "seal.key", X25519PrivateKey.generate())
    write_secret(folder / "canary.key", b"11" * 32)
    permit, sealing = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = {"permit_key": raw_public(permit).hex(), "sealing_key": raw_public(sealing).hex()}
    (folder / "gateway.pub").write_text(json.dumps(public))
    (folder / "worker.toml").write_text(
        f'listen = "127.0.0.1:0"\nsubject = "{subject}"\nkinds = ["prepare", "train", "audit"]\n'
        f'slot_file = "../../slot"\nmodels_dir = "../../models"\n'
    )
    return House(root, services, permit, sealing, folder, models)


async def submit(supervisor: Supervisor, task_id: str, kind: str, sealed: bytes) -> Snapshot:
    path = supervisor.incoming()
    path.write_bytes(sealed)
    try:
        return await supervisor.submit(task_id, kind, sha256_bytes(sealed), path)
    finally:
        path.unlink(missing_ok=True)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for a state; the limit only keeps a broken test from hanging."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the awaited state did not come"
        await asyncio.sleep(0.02)


async def ended(supervisor: Supervisor, task_id: str) -> Snapshot:
    return [snapshot async for snapshot in supervisor.watch(task_id)][-1]


__all__ = ["JOB", "TABLE", "House", "ended", "make_house", "replace", "submit", "task_module", "until"]
