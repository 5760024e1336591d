"""The four jobs as requests of the contract."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from assay.v1 import dataset_pb2, tuning_job_pb2
from demo import data

STORIES = {
    "denied": "raw mail, no legal basis, another purpose: policy should refuse it and say what would change the answer",
    "leaky": "replies that repeat customers' contact data: the audit should catch what the model learnt by heart",
    "decision": "mortgage decisions with a real denial gap: the audit decides what the numbers allow to be said",
    "clean": "questions on privacy policies: it should pass, be approved by two people and get a permit",
}
_NAMESPACE = uuid.UUID("6f0b4d52-6a0e-4b6e-9a0b-8d1f5b6a7c21")


@dataclass(frozen=True)
class DemoJob:
    """One job with its file on disk."""

    spec: data.DemoJob
    file: Path

    @property
    def name(self) -> str:
        """Short name, also the tuning job's id."""
        return self.spec.name

    @property
    def parent(self) -> str:
        """The unit's resource name."""
        return f"units/{self.spec.unit}"

    @property
    def dataset(self) -> str:
        """The dataset's resource name."""
        return f"{self.parent}/datasets/{self.spec.dataset}"

    @property
    def resource(self) -> str:
        """The tuning job's resource name."""
        return f"{self.parent}/tuningJobs/{self.name}"

    @property
    def purpose(self) -> str:
        """What the tuned model is for."""
        return str(self.spec.request["purpose"])

    @property
    def story(self) -> str:
        """One line for the reader."""
        return STORIES[self.name]

    def request_id(self, what: str) -> str:
        """A UUID that is the same for the same act, so that a retry is a retry."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.resource}/{what}"))

    def header(self) -> dataset_pb2.UploadDatasetHeader:
        """First message of the upload."""
        return dataset_pb2.UploadDatasetHeader(
            parent=self.parent,
            dataset_id=self.spec.dataset,
            format=self.spec.format,
            datasheet=json_format.ParseDict(dict(self.spec.datasheet), dataset_pb2.Datasheet()),
            request_id=self.request_id("dataset"),
        )

    def request(self) -> tuning_job_pb2.CreateTuningJobRequest:
        """The request to tune."""
        request = json_format.ParseDict(dict(self.spec.request), tuning_job_pb2.CreateTuningJobRequest())
        request.parent = self.parent
        request.tuning_job_id = self.name
        request.dataset = self.dataset
        request.request_id = self.request_id("job")
        return request


def prepare(folder: Path) -> list[DemoJob]:
    """Writes the four uploads into ``folder``; fetches the public data sets where they are not cached."""
    folder.mkdir(parents=True)
    out = []
    for spec in data.demo_jobs():
        file = folder / f"{spec.dataset}{'.csv' if 'CSV' in spec.format else '.jsonl'}"
        file.write_bytes(spec.content)
        out.append(DemoJob(spec, file))
    return out
