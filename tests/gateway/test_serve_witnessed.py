"""Witness and gateway as processes of an installation as `assay init` makes it, tiny workers, one job to its permit."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

import assay
from assay.installation import DEFAULT_PEOPLE, Plan
from assay.modelfiles import BaseManifest
from assay.v1 import dataset_pb2, permit_pb2, tuning_job_pb2
from audit.ledger import fork
from audit.ledger.note import SignedNote
from audit.verify.permit import check_permit
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from demo.processes import free_ports
from gateway import install as installing
from gateway.cli.approval import decide_as
from gateway.cli.audit import export_bundle
from gateway.cli.dataset import upload_parts
from gateway.cli.output import as_dict
from gateway.cli.session import Session, open_session
from tests.gateway.conftest import BASE, now
from tests.gateway.test_pipeline import SHEET
from tests.gateway.workers import KINDS, Workers, rows

pytestmark = pytest.mark.isolation
ROOT = Path(assay.__file__).parent.parent
State = tuning_job_pb2.TuningJob.State


@contextmanager
def process(*words: str, port: int, host: str = "127.0.0.1") -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    try:
        for _ in range(1200):
            assert made.poll() is None, made.stderr.read().decode() if made.stderr else ""
            try:
                socket.create_connection((host, port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield made
    finally:
        made.terminate()
        made.wait(60)


def told(session: Session, name: str) -> tuning_job_pb2.TuningJob:
    for event in session.jobs.WatchTuningJob(tuning_job_pb2.WatchTuningJobRequest(name=name), timeout=120):
        if event.resting:
            break
    return session.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job


def the_whole_way(layout: object, address: str, tmp_path: Path) -> None:
    """One job, two approvals, a permit and a bundle, all over the wire; both verify offline under the quorum."""
    people = layout.root / "people"  # type: ignore[attr-defined]
    trust = TrustFile.parse(layout.trust.read_text())  # type: ignore[attr-defined]
    file = tmp_path / "rows"
    file.write_bytes(rows())
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="rows", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=SHEET,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    with open_session(people / "rita", address) as rita:
        rita.datasets.UploadDataset(upload_parts(header, file))
        request = tuning_job_pb2.CreateTuningJobRequest(
            parent="units/credit", tuning_job_id="first", dataset="units/credit/datasets/rows",
            base_model=str(BASE["id"]), purpose="support-replies", method="lora", audit_profile="quick",
            budget=tuning_job_pb2.Budget(max_usd_micros=50_000_000, max_train_tokens=40_000),
            request_id=str(uuid.uuid4()),
        )  # fmt: skip
        job = rita.jobs.CreateTuningJob(request).tuning_job
        job = told(rita, job.name)
        assert job.state == State.STATE_AWAITING_APPROVAL, job
    for person in ("cora", "vik"):
        with open_session(people / person, address) as session:
            decided = decide_as(session, job.name, grant=True, reason="read")
    assert decided.tuning_job.state == State.STATE_APPROVED
    with open_session(people / "dana", address) as dana:
        asked = permit_pb2.IssuePermitRequest(
            model=job.model, purpose="support-replies", environment="staging", request_id=str(uuid.uuid4())
        )
        permit = dana.permits.IssuePermit(asked).permit
    shown = as_dict(permit)
    arguments = (permit.adapter_sha256, permit.base_sha256, "support-replies", "staging", now(), trust)
    assert check_permit(shown, *arguments).allowed, check_permit(shown, *arguments)
    bundle = tmp_path / "b.zip"
    with open_session(people / "anna", address) as anna:
        export_bundle(anna, "units/-", [], bundle)
    report = verify_bundle(bundle, trust, now())
    assert report.verdict == "valid" and not any("QUORUM" in s for s in report.stamps), report.text()


def published(layout: object, port: int) -> bytes:
    root = layout.service("gateway") / "services-ca.crt"  # type: ignore[attr-defined]
    context = ssl.create_default_context(cafile=str(root))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    connection.request("GET", "/checkpoint")
    return connection.getresponse().read()


async def test_an_installation_with_its_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models" / str(BASE["id"])
    models.mkdir(parents=True)
    (models / "manifest.json").write_text("{}")
    monkeypatch.setattr(installing, "read_base_manifest", lambda path: BaseManifest(**BASE, files=()))
    port = free_ports(6)
    layout = installing.install(
        tmp_path / "bank", Plan(DEFAULT_PEOPLE, "oscar"), units=["credit"], port=port, models=tmp_path / "models"
    )
    workers = Workers(layout)
    workers.gates.mkdir()
    for offset, (name, kinds) in enumerate(KINDS.items(), 1):
        (layout.service(name) / "worker.toml").write_text(
            f'listen = "127.0.0.1:{port + offset}"\nsubject = "spiffe://assay.local/services/{name}"\n'
            f'kinds = [{kinds}]\nslot_file = "../{name}.slot"\nmodels_dir = "{workers.gates}"\nwatts_per_core = 10.0\n'
        )
    await workers.start()
    try:
        with ExitStack() as stack:
            witness = stack.enter_context(process("audit.ledger.witness", str(layout.witness), port=port + 5))
            stack.enter_context(process("gateway.rpc", str(layout.root), port=port))
            await asyncio.to_thread(the_whole_way, layout, f"127.0.0.1:{port}", tmp_path)
            note = await asyncio.to_thread(published, layout, port + 4)
            trust = TrustFile.parse(layout.trust.read_text())
            assert (
                trust.quorum.judge(SignedNote.parse(note)).met and fork.head_of(SignedNote.parse(note).text).size > 10
            )
            print(json.dumps({"witness_rss_mib": round(psutil.Process(witness.pid).memory_info().rss / 2**20, 1)}))
    finally:
        await workers.stop()
