"""A real installation in a folder: identities, ledger, database, services; no worker listens."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from assay import canonical, dsse, installation
from assay.identity import Authority, Layout, load_p256, pem, write_key
from assay.v1 import dataset_pb2, identity_pb2, policy_pb2, tuning_job_pb2
from audit.ledger import dialect
from audit.ledger.schema import RECORDS
from gateway.application import Application
from gateway.caller import Caller
from gateway.publications import publish
from gateway.settings import Settings, default_toml
from gateway.store.migrations import migrate
from policies.engine import PolicyEngine
from tests.audit.ledger.record_schemas import schema_faults
from tests.gateway.workers import Workers
from tests.postgres_server import MIGRATOR

BASE = {
    "id": "smollm2-135m-instruct",
    "licence": "Apache-2.0",
    "sha256": "ba" * 32,
    "parameters": 134515008,
    "provenance": "a stand-in of the tests",
    "source": {"repository": "HuggingFaceTB/SmolLM2-135M-Instruct"},
}


def publish_by_two(layout: Layout, policy: policy_pb2.Policy, *people: str) -> None:
    """A publication signed by the founding operator and a compliance officer, unless others are named."""
    for name in people or ("oscar", "cora"):
        publish(layout, layout.person(name), policy)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, engine: PolicyEngine) -> Path:
    """Made once; making keys is slow."""
    root = tmp_path_factory.mktemp("installation") / "dir"
    people = (*installation.DEFAULT_PEOPLE, installation.Person("olga", "ROLE_OPERATOR"),
              installation.Person("carl", "ROLE_REQUESTER", "credit"),
              installation.Person("mia", "ROLE_COMPLIANCE_OFFICER", "claims"))  # fmt: skip
    layout = installation.create(root, installation.Plan(people, "oscar"))
    layout.settings.write_text(default_toml())
    (layout.service("gateway") / "base_models.json").write_text(json.dumps([BASE]))
    publish_by_two(layout, engine.policy())
    return root


@dataclass
class House:
    """An open application and its people."""

    app: Application
    layout: Layout

    def subject(self, name: str) -> str:
        return installation.person_subject("assay.local", name)

    async def caller(self, name: str) -> Caller:
        return await self.app.identities.caller(self.subject(name), "0af7651916cd43dd8448eb211c80319c")

    def sign(self, name: str, statement: dict[str, Any]) -> identity_pb2.Envelope:
        folder = self.layout.person(name)
        certificate = x509.load_pem_x509_certificate((folder / "person.crt").read_bytes())
        key = load_p256(folder / "person.key")
        return dsse.envelope_to_proto(dsse.sign_person(canonical.encode(statement), key, certificate))

    async def upload(self, name: str, unit: str = "credit", dataset: str = "rows", data: bytes = b"x\n" * 100) -> str:
        header = dataset_pb2.UploadDatasetHeader(
            parent=f"units/{unit}",
            dataset_id=dataset,
            format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL,
            datasheet=dataset_pb2.Datasheet(purposes=["support-replies"], licence="CC0-1.0"),
            request_id=str(uuid.uuid4()),
        )
        answer = await self.app.datasets.upload_dataset(await self.caller(name), messages(header, [data]))
        return answer.dataset.name

    def request(self, unit: str = "credit", job: str = "first", dataset: str = "rows", **fields: Any) -> Any:
        values = {
            "parent": f"units/{unit}",
            "tuning_job_id": job,
            "dataset": dataset if "/" in dataset else f"units/{unit}/datasets/{dataset}",
            "base_model": BASE["id"],
            "purpose": "support-replies",
            "method": "lora",
            "budget": tuning_job_pb2.Budget(max_usd_micros=50_000_000, max_train_tokens=40_000),
            "audit_profile": "quick",
            "request_id": str(uuid.uuid4()),
        }
        return tuning_job_pb2.CreateTuningJobRequest(**{**values, **fields})

    def types(self, job: str) -> list[str]:
        return [r.type for r in self.app.ledger.records(None, job, -1, 500)]


def forged_person(layout: Layout, name: str, folder: Path) -> Path:
    """A person's folder with another key, which the services root has certified for that person's name."""
    shutil.copytree(layout.person(name), folder)
    authority = Authority.load(layout.authority / "services-ca.key", layout.authority / "services-ca.crt")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = installation.person_subject("assay.local", name)
    (folder / "person.crt").write_bytes(pem(authority.issue(subject, key.public_key(), server=False)))
    (folder / "person.key").unlink()
    write_key(folder / "person.key", key)
    return folder


async def messages(
    header: dataset_pb2.UploadDatasetHeader, chunks: list[bytes], sha256: str | None = None
) -> AsyncIterator[dataset_pb2.UploadDatasetRequest]:
    yield dataset_pb2.UploadDatasetRequest(header=header)
    for chunk in chunks:
        yield dataset_pb2.UploadDatasetRequest(chunk=chunk)
    trailer = dataset_pb2.UploadDatasetTrailer(sha256=sha256 or hashlib.sha256(b"".join(chunks)).hexdigest())
    yield dataset_pb2.UploadDatasetRequest(trailer=trailer)


@pytest.fixture(scope="session")
def engine() -> PolicyEngine:
    """Loaded once; a pack runs its own tests when it is loaded."""
    return PolicyEngine.load()


@pytest.fixture
def postgres_url() -> str:
    """Where rows and ledger lie; empty for a file. A module that overrides it with `either_database` runs on both."""
    return ""


@pytest.fixture(params=["sqlite", "postgresql"])
def either_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Empty for a file, and then the address of a PostgreSQL database that was migrated."""
    yield from _database(request)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def either_database_slowly(request: pytest.FixtureRequest) -> Iterator[str]:
    """As ``either_database``, for a module that takes long: PostgreSQL among the slow tests."""
    yield from _database(request)


def _database(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    cluster = request.getfixturevalue("postgres").cluster
    name = cluster.create_database()
    migration = dialect.connect_for_migration(cluster.url(name, MIGRATOR))
    migrate(migration)
    migration.dispose()
    yield cluster.url(name)
    cluster.drop_database(name)


@pytest.fixture
def opened(pristine: Path, engine: PolicyEngine, tmp_path: Path, postgres_url: str) -> Iterator[Callable[[], House]]:
    """Opens the same installation again and again, as restarts do."""
    root = tmp_path / "dir"
    shutil.copytree(pristine, root)
    if postgres_url:
        Layout(root).settings.write_text(default_toml(postgres_url=postgres_url))
    yield lambda: House(Application.open(Settings.load(root), engine), Layout(root))


@pytest.fixture
async def house(opened: Callable[[], House]) -> AsyncIterator[House]:
    made = opened()
    yield made
    await made.app.close()
    assert schema_violations(made.app) == []


@pytest.fixture
async def workers(pristine: Path, tmp_path: Path, postgres_url: str) -> AsyncIterator[Workers]:
    """Real workers beside an installation of their own."""
    root = tmp_path / "dir"
    shutil.copytree(pristine, root)
    made = Workers(Layout(root))
    made.configure(postgres_url)
    await made.start()
    yield made
    await made.stop()


def schema_violations(app: Application) -> list[str]:
    """What the published schemas have against anything that a test made the gateway record."""
    engine = dialect.connect(app.settings.database_url)
    with engine.connect() as connection:
        bodies = [bytes(body) for body in connection.execute(select(RECORDS.c.body).order_by(RECORDS.c.idx)).scalars()]
    engine.dispose()
    return [fault for body in bodies for fault in schema_faults(body)]


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
