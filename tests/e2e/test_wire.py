"""What clients get for bad input, over the real wire."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import socket
import uuid
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from e2e_world import BASE_MODEL, Bank, State, chat_rows, header, request

from assay.errors import UnauthenticatedError
from assay.identity import Authority, TlsFiles, load_p256, person_tls
from assay.installation import enrol, person_subject
from assay.v1 import audit_pb2, dataset_pb2, identity_pb2, policy_pb2, tuning_job_pb2, tuning_job_pb2_grpc
from gateway.cli.errors import from_call
from gateway.cli.session import open_session


def refused(call, *, code: str, reason: str | None = None):
    """Runs a call that must be refused; returns the error, after checking that no trace of ours is in it."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error = from_call(raised.value)
    assert error.code == code, error.diagnostics()
    assert reason is None or error.reason == reason, error.diagnostics()
    assert "Traceback" not in error.diagnostics() and ".py" not in error.diagnostics()
    return error


def rows_of(*rows: object) -> bytes:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows).encode() + b"\n"


def test_field_errors_name_the_field(bank: Bank):
    with bank.as_person("rita") as rita:
        bad = request("UPPER", "d", "support", method="magic")
        error = refused(lambda: rita.jobs.CreateTuningJob(bad), code="INVALID_ARGUMENT", reason="INVALID_FIELDS")
    assert {v.field for v in error.violations} >= {"tuning_job_id", "method"}


def test_another_units_job_does_not_exist(bank: Bank):
    enrol(bank.layout, "eve")
    with bank.as_person("oscar") as oscar:
        from gateway.cli.signing import sign
        from gateway.statements import grant_statement

        statement = grant_statement(person_subject("assay.local", "eve"), "ROLE_REQUESTER", "credit", "eve-credit")
        oscar.identity.GrantRole(identity_pb2.GrantRoleRequest(envelope=sign(oscar, statement)))
    bank.layout.person("eve").joinpath("client.toml").write_text(f'address = "{bank.address}"\n')
    with bank.as_person("eve") as eve:
        there = tuning_job_pb2.GetTuningJobRequest(name="units/support/tuningJobs/whatever")
        refused(lambda: eve.jobs.GetTuningJob(there), code="NOT_FOUND")
        refused(lambda: eve.jobs.CreateTuningJob(request("j", "d", "support")), code="NOT_FOUND")


def test_a_role_that_may_not_is_told_so_and_the_refusal_is_recorded(bank: Bank):
    with bank.as_person("dana") as dana:
        refused(lambda: dana.jobs.CreateTuningJob(request("j", "d", "support")), code="PERMISSION_DENIED")
    assert ("people/dana", "PERMISSION_DENIED") in {(who, code) for who, code, _ in recorded(bank)}


def recorded(bank: Bank) -> set[tuple[str, str, str]]:
    """Refusals in the ledger: subject without its domain, code, reason."""
    found: set[tuple[str, str, str]] = set()
    asked = audit_pb2.ListRecordsRequest(parent="units/-", page_size=200)
    with bank.as_person("anna") as anna:
        while True:
            page = anna.audit.ListRecords(asked)
            told = [json.loads(r.body)["statement"]["predicate"] for r in page.records if r.type == "request.refused"]
            found |= {("/".join(p["actor"].split("/")[-2:]), p["code"], p["reason"]) for p in told}
            if not page.next_page_token:
                return found
            asked.page_token = page.next_page_token


def test_no_plaintext_and_no_stranger(bank: Bank):
    with grpc.insecure_channel(bank.address) as channel:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        name = tuning_job_pb2.GetTuningJobRequest(name="units/support/tuningJobs/a")
        refused(lambda: stub.GetTuningJob(name, timeout=5), code="UNAVAILABLE")
    ca = (bank.layout.authority / "services-ca.crt").read_bytes()
    with grpc.secure_channel(bank.address, grpc.ssl_channel_credentials(ca)) as channel:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        refused(lambda: stub.GetTuningJob(name, timeout=5), code="UNAVAILABLE")


@pytest.mark.parametrize("kind", ["expired", "another-root"])
def test_an_expired_or_foreign_certificate_is_refused(bank: Bank, kind: str):
    people = Authority.load(bank.layout.authority / "people-ca.key", bank.layout.authority / "people-ca.crt")
    authority = people if kind == "expired" else Authority.create("elsewhere")
    key = ec.generate_private_key(ec.SECP256R1())
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=400 if kind == "expired" else 1)
    leaf = authority.issue(
        "spiffe://assay.local/people/rita", key.public_key(), server=False, days=30, not_before=start
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    roots = (bank.layout.person("rita") / "services-ca.crt").read_bytes()
    tls = TlsFiles(pem, leaf.public_bytes(serialization.Encoding.PEM), roots)
    with grpc.secure_channel(bank.address, tls.channel_credentials()) as channel:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        name = tuning_job_pb2.GetTuningJobRequest(name="units/support/tuningJobs/a")
        refused(lambda: stub.GetTuningJob(name, timeout=5), code="UNAVAILABLE")


def test_an_expired_certificate_is_named_before_a_call(bank: Bank, tmp_path: Path):
    """The handshake only ends, so the client says why."""
    people = Authority.load(bank.layout.authority / "people-ca.key", bank.layout.authority / "people-ca.crt")
    folder = Path(shutil.copytree(bank.layout.person("rita"), tmp_path / "rita"))
    public, start = load_p256(folder / "person.key").public_key(), dt.datetime.now(dt.UTC) - dt.timedelta(days=31)
    leaf = people.issue("spiffe://assay.local/people/rita", public, server=False, days=30, not_before=start)
    (folder / "person.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(UnauthenticatedError) as raised, open_session(folder, bank.address):
        pass
    assert raised.value.reason == "CERTIFICATE_EXPIRED" and "person.crt was valid until" in raised.value.message
    assert "assay identity renew DIR people/rita" in raised.value.remedy


def test_a_service_is_no_person(bank: Bank):
    from assay.identity import service_tls

    tls = service_tls(bank.layout.service("train-worker"))
    with grpc.secure_channel(bank.address, tls.channel_credentials()) as channel:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        name = tuning_job_pb2.GetTuningJobRequest(name="units/support/tuningJobs/a")
        refused(lambda: stub.GetTuningJob(name, timeout=5), code="UNAUTHENTICATED", reason="NOT_A_PERSON")
    assert ("services/train-worker", "UNAUTHENTICATED", "NOT_A_PERSON") in recorded(bank)


def test_a_call_without_a_deadline_is_refused(bank: Bank):
    tls = person_tls(bank.layout.person("rita"))
    with grpc.secure_channel(bank.address, tls.channel_credentials()) as channel:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        name = tuning_job_pb2.GetTuningJobRequest(name="units/support/tuningJobs/a")
        refused(lambda: stub.GetTuningJob(name), code="INVALID_ARGUMENT", reason="DEADLINE_REQUIRED")
    assert ("people/rita", "INVALID_ARGUMENT", "DEADLINE_REQUIRED") in recorded(bank)


def test_a_stream_of_nothing_is_refused(bank: Bank):
    with bank.as_person("rita") as rita:
        refused(lambda: rita.datasets.UploadDataset(iter(())), code="INVALID_ARGUMENT", reason="EMPTY_STREAM")
    assert ("people/rita", "INVALID_ARGUMENT", "EMPTY_STREAM") in recorded(bank)


def test_an_empty_file_is_refused(bank: Bank):
    parts = [
        dataset_pb2.UploadDatasetRequest(header=header(f"none-{uuid.uuid4().hex[:8]}", "support")),
        dataset_pb2.UploadDatasetRequest(trailer=dataset_pb2.UploadDatasetTrailer(sha256="0" * 64)),
    ]
    with bank.as_person("rita") as rita:
        refused(lambda: rita.datasets.UploadDataset(iter(parts)), code="INVALID_ARGUMENT", reason="DATASET_EMPTY")


def test_a_message_over_four_mebibytes_is_refused(bank: Bank):
    with bank.as_person("rita") as rita:
        big = policy_pb2.EvaluatePolicyRequest()
        big.intake.request.purpose = "x" * (5 << 20)
        error = refused(lambda: rita.policies.EvaluatePolicy(big), code="RESOURCE_EXHAUSTED")
    assert "4 MiB" in error.remedy


def test_a_second_gateway_on_the_port_does_not_start(bank: Bank):
    with socket.socket() as taken:
        with pytest.raises(OSError):
            taken.bind(("127.0.0.1", bank.port))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xff\xfe{\x00}\x00", "UNREADABLE_ENCODING"),
        (b"caf\xe9 is latin-1\n", "UNREADABLE_ENCODING"),
    ],
)
def test_a_file_that_is_no_dataset_is_denied_with_its_fault(bank: Bank, content: bytes, fault: str):
    name = f"bad-{uuid.uuid4().hex[:8]}"
    bank.upload(name, content)
    job = bank.rest(bank.create(name, name).name)
    assert job.state == State.STATE_DENIED
    assert fault in job.reason


def test_rows_at_fault_are_named_with_field_and_reason(bank: Bank):
    good = chat_rows(120).decode().splitlines()
    bad = [
        {"messages": [{"role": "wizard", "content": "hi"}, {"role": "assistant", "content": "no"}]},
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "weight": NaN}',
        "not json at all",
    ]
    name = f"rows-{uuid.uuid4().hex[:8]}"
    bank.upload(name, rows_of(*good, *bad))
    job = bank.rest(bank.create(name, name).name)
    assert job.state == State.STATE_DENIED
    found = {f.row: (f.field, f.code) for f in job.data.findings}
    assert set(found) == {121, 122, 123}
    assert "role" in found[121][0]
    assert all(f.reason for f in job.data.findings)
    assert not any("wizard" in f.reason for f in job.data.findings)


def test_the_same_request_twice_is_one_job_and_another_body_is_refused(bank: Bank):
    name = f"same-{uuid.uuid4().hex[:8]}"
    bank.upload(name, chat_rows(20))
    first, second = bank.create(name, name), bank.create(name, name)
    assert first.name == second.name
    with bank.as_person("rita") as rita:
        other = request(name, name, "support", purpose="another-purpose")
        refused(lambda: rita.jobs.CreateTuningJob(other), code="ALREADY_EXISTS")
    bank.rest(first.name)


def test_a_digest_that_does_not_fit_stores_nothing(bank: Bank):
    name = f"torn-{uuid.uuid4().hex[:8]}"
    parts = [
        dataset_pb2.UploadDatasetRequest(header=header(name, "support")),
        dataset_pb2.UploadDatasetRequest(chunk=chat_rows(3)),
        dataset_pb2.UploadDatasetRequest(trailer=dataset_pb2.UploadDatasetTrailer(sha256="0" * 64)),
    ]
    with bank.as_person("rita") as rita:
        refused(lambda: rita.datasets.UploadDataset(iter(parts)), code="DATA_LOSS", reason="DIGEST_MISMATCH")
        assert ("people/rita", "DATA_LOSS", "DIGEST_MISMATCH") in recorded(bank)
        there = dataset_pb2.GetDatasetRequest(name=f"units/support/datasets/{name}")
        refused(lambda: rita.datasets.GetDataset(there), code="NOT_FOUND")


def test_validate_only_stores_nothing_and_answers(bank: Bank):
    name = f"dry-{uuid.uuid4().hex[:8]}"
    bank.upload(name, chat_rows(20))
    job = bank.create(name, name, validate_only=True, purpose="marketing-profiles")
    assert job.HasField("decision") and not job.decision.allowed
    with bank.as_person("rita") as rita:
        there = tuning_job_pb2.GetTuningJobRequest(name=f"units/support/tuningJobs/{name}")
        refused(lambda: rita.jobs.GetTuningJob(there), code="NOT_FOUND")


def test_a_base_model_that_nobody_installed_is_refused(bank: Bank):
    name = f"base-{uuid.uuid4().hex[:8]}"
    bank.upload(name, chat_rows(20))
    with bank.as_person("rita") as rita:
        bad = request(name, name, "support", base_model="somebody-elses-model")
        error = refused(lambda: rita.jobs.CreateTuningJob(bad), code="INVALID_ARGUMENT")
    assert BASE_MODEL in error.diagnostics()
