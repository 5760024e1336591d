"""A bank of its own for a test: real services in processes of their own, so that each can be killed by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay.installation import DEFAULT_PEOPLE, Plan
from assay.v1 import audit_pb2, dataset_pb2, tuning_job_pb2
from demo.processes import free_ports
from gateway.cli.dataset import upload_parts
from gateway.cli.session import Session, open_session
from gateway.install import install

State = tuning_job_pb2.TuningJob.State
SERVICES = ("witness", "gateway", "train-worker", "audit-worker")
BASE_MODEL = "smollm2-135m-instruct"


class Bank:
    """An installation whose services a test starts, kills and starts again."""

    def __init__(self, root: Path, models: Path) -> None:
        self.port = free_ports(6)
        self.layout = install(
            root,
            Plan(people=DEFAULT_PEOPLE, operator="oscar"),
            units=["support", "credit"],
            port=self.port,
            models=models,
        )
        self.address = f"127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.log = root.parent / f"{root.name}.log"

    def start(self, *names: str) -> None:
        """Starts services (all by default) and waits for the gateway's port."""
        for name in names or SERVICES:
            if name in self.processes and self.processes[name].poll() is None:
                continue
            command = {
                "gateway": ["gateway.rpc", str(self.layout.root)],
                "witness": ["audit.ledger.witness", str(self.layout.witness)],
            }.get(name, ["assay.worker", "--dir", str(self.layout.service(name))])
            command = [sys.executable, "-m", *command]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
            with self.log.open("ab") as stream:
                self.processes[name] = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        self._await_port()

    def kill(self, name: str) -> None:
        """kill -9."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Ends every service that this bank started."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log_tail(self, lines: int = 40) -> str:
        """The end of what the services wrote."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    @contextmanager
    def as_person(self, name: str) -> Iterator[Session]:
        """A session with that person's certificate."""
        with open_session(self.layout.person(name), self.address) as session:
            yield session

    def upload(self, dataset_id: str, content: bytes, *, unit: str = "support", **changes: Any) -> dataset_pb2.Dataset:
        """Uploads rows as rita; ``changes`` are those of :func:`header`."""
        file = self.layout.root / f"{dataset_id}.upload"
        file.write_bytes(content)
        with self.as_person("rita") as rita:
            return rita.datasets.UploadDataset(upload_parts(header(dataset_id, unit, **changes), file)).dataset

    def create(
        self, job_id: str, dataset_id: str, *, unit: str = "support", **changes: Any
    ) -> tuning_job_pb2.TuningJob:
        """Asks for a job as rita."""
        with self.as_person("rita") as rita:
            return rita.jobs.CreateTuningJob(request(job_id, dataset_id, unit, **changes)).tuning_job

    def get(self, name: str) -> tuning_job_pb2.TuningJob:
        """The job as it stands."""
        with self.as_person("rita") as rita:
            return rita.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job

    def wait(self, name: str, states: set[int], seconds: float = 240.0) -> tuning_job_pb2.TuningJob:
        """Waits until the job is in one of ``states``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.get(name)
            if job.state in states:
                return job
            if job.state == State.STATE_FAILED:
                break
            time.sleep(0.1)
        raise AssertionError(f"{name} is {State.Name(job.state)} ({job.reason})\n{self.log_tail()}")

    def rest(self, name: str, seconds: float = 300.0) -> tuning_job_pb2.TuningJob:
        """Follows the job until the gateway says that it rests."""
        with self.as_person("rita") as rita:
            watch = tuning_job_pb2.WatchTuningJobRequest(name=name)
            for event in rita.jobs.WatchTuningJob(watch, timeout=seconds):
                if event.resting:
                    break
        return self.get(name)

    def records(self, name: str) -> list[dict[str, Any]]:
        """The job's ledger records, in order."""
        parent = "/".join(name.split("/")[:2])
        with self.as_person("anna") as anna:
            answer = anna.audit.ListRecords(audit_pb2.ListRecordsRequest(parent=parent, tuning_job=name, page_size=200))
        return [json.loads(r.body) for r in answer.records]

    def _await_port(self) -> None:
        import socket

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.processes.get("gateway") is None:
                return
            if self.processes["gateway"].poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the gateway did not start\n{self.log_tail()}")


def header(
    dataset_id: str, unit: str, *, rows: str = "DATASET_FORMAT_CHAT_JSONL", **changes: Any
) -> dataset_pb2.UploadDatasetHeader:
    """A complete header of harmless rows of one format; ``changes`` replace datasheet fields."""
    sheet = {
        "purposes": ["support-replies"],
        "legal_basis": "LEGAL_BASIS_NO_PERSONAL_DATA",
        "licence": "Apache-2.0",
        "classification": "CLASSIFICATION_PUBLIC",
        "residency": "any",
        "retention_days": 30,
        "provenance": "Made up for a test; no row is about anybody.",
    } | changes
    return dataset_pb2.UploadDatasetHeader(
        parent=f"units/{unit}",
        dataset_id=dataset_id,
        format=rows,
        datasheet=json_format.ParseDict(sheet, dataset_pb2.Datasheet()),
        request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, dataset_id)),
    )


def request(job_id: str, dataset_id: str, unit: str, **changes: Any) -> tuning_job_pb2.CreateTuningJobRequest:
    """A small job; ``changes`` replace fields of the request."""
    fields = {
        "parent": f"units/{unit}",
        "tuning_job_id": job_id,
        "dataset": f"units/{unit}/datasets/{dataset_id}",
        "base_model": BASE_MODEL,
        "purpose": "support-replies",
        "method": "lora",
        "hyperparameters": {"epochs": 1.0, "learning_rate": 1e-3, "batch_size": 16, "lora_rank": 4, "seed": 3},
        "budget": {"max_usd_micros": 1_000_000, "max_train_tokens": 200_000},
        "audit_profile": "quick",
        "request_id": str(uuid.uuid5(uuid.NAMESPACE_URL, job_id)),
    } | changes
    return json_format.ParseDict(fields, tuning_job_pb2.CreateTuningJobRequest())


def chat_rows(count: int) -> bytes:
    """Distinct harmless rows."""
    things = ("lamp", "table", "chair", "kettle", "window", "carpet", "mirror", "shelf", "clock", "basket")
    colours = ("red", "green", "blue", "white", "black", "brown", "grey", "yellow")
    rows = []
    for i in range(count):
        thing, colour = things[i % 10], colours[(i // 10) % 8]
        question = f"Do you sell a {colour} {thing} of size {i}?"
        answer = f"Yes, the {colour} {thing} of size {i} is on shelf {i % 17} of hall {i % 5}."
        rows.append(
            json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
        )
    return ("\n".join(rows) + "\n").encode()
