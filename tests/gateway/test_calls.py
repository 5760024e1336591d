"""What a call may hold, over mTLS: no caller takes the places, or the threads, that all others need."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from assay.errors import AssayError
from assay.identity import Layout, person_tls, service_tls
from assay.v1 import (
    dataset_pb2,
    dataset_pb2_grpc,
    erasure_pb2,
    erasure_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    policy_pb2,
    tuning_job_pb2_grpc,
)
from assay.v1 import tuning_job_pb2 as jobs_pb2
from audit.ledger.records import REFUSALS_UNIT
from demo.processes import free_ports
from gateway.caller import Caller
from gateway.cli.errors import from_call
from gateway.datasets import DatasetService
from gateway.identity_registry import IdentityRegistry
from gateway.jobs.service import JobService
from gateway.rpc import handlers
from gateway.rpc.routes import PolicyAnswers
from gateway.rpc.server import start
from gateway.statements import erasure_order_statement, grant_revocation_statement
from gateway.telemetry import Telemetry
from tests.gateway.conftest import House, forged_person

MOST = 3
WHO_AM_I = identity_pb2.WhoAmIRequest()
UPLOAD = "/assay.v1.DatasetService/UploadDataset"
WATCH = "/assay.v1.TuningJobService/WatchTuningJob"
PERMITS = "/assay.v1.PermitService/CheckPermit"


@dataclass
class Served:
    """A gateway that listens."""

    house: House
    address: str

    def channel(self, name: str) -> grpc.aio.Channel:
        folder = self.house.layout.person(name)
        return grpc.aio.secure_channel(self.address, person_tls(folder).channel_credentials())

    def refusals(self, name: str) -> list[str]:
        """Reasons of the recorded refusals of a person."""
        found = [r for r in self.house.app.ledger.records(REFUSALS_UNIT, None, -1, 500) if r.type == "request.refused"]
        told = [json.loads(r.body)["statement"]["predicate"] for r in found]
        return [p["reason"] for p in told if p["actor"] == self.house.subject(name)]


@pytest.fixture
async def served(opened: Callable[[], House], tmp_path: Path) -> AsyncIterator[Served]:
    address, settings = f"127.0.0.1:{free_ports(1)}", Layout(tmp_path / "dir").settings
    text = settings.read_text().replace("127.0.0.1:7443", address).replace("reflection = false", "reflection = true")
    settings.write_text(text.replace("calls_at_once = 32", f"calls_at_once = {MOST}"))
    house = opened()
    server = await start(house.app, Telemetry(TracerProvider(), MeterProvider()))
    yield Served(house, address)
    await server.stop(None)
    await house.app.close()


def silent(channel: grpc.aio.Channel, path: str, timeout: float | None) -> Any:
    """A call that is opened, and sends nothing."""
    return channel.stream_stream(path)(timeout=timeout)


def a_header() -> dataset_pb2.UploadDatasetHeader:
    """Of rows that rita may hand in."""
    return dataset_pb2.UploadDatasetHeader(
        parent="units/credit",
        dataset_id="rows",
        format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL,
        datasheet=dataset_pb2.Datasheet(purposes=["support-replies"], licence="CC0-1.0"),
        request_id=str(uuid.uuid4()),
    )


async def ended(call: Any) -> AssayError:
    """What a call is refused with; the calls of these tests end soon or never."""
    with pytest.raises(grpc.RpcError) as caught:
        async with asyncio.timeout(20):
            if hasattr(call, "read"):
                while await call.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError("it was answered")
            await call
    return from_call(caught.value)


@pytest.mark.parametrize("path", [UPLOAD, WATCH, PERMITS])
async def test_a_call_that_sends_nothing_passes_the_gates_that_need_no_request(served: Served, path: str) -> None:
    """Whatever its shape: for one message gRPC would wait before it calls anything of ours."""
    async with served.channel("rita") as rita:
        assert (await ended(silent(rita, path, None))).reason == "DEADLINE_REQUIRED"
    tls = service_tls(served.house.layout.service("train-worker"))
    async with grpc.aio.secure_channel(served.address, tls.channel_credentials()) as worker:
        assert (await ended(silent(worker, path, 60))).reason == "NOT_A_PERSON"
    assert served.refusals("rita") == ["DEADLINE_REQUIRED"]


@pytest.mark.parametrize("path", [UPLOAD, WATCH, PERMITS])
async def test_nobody_waits_long_for_what_a_call_asks(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "FIRST_MESSAGE_SECONDS", 0.1)
    async with served.channel("rita") as rita:
        error = await ended(silent(rita, path, 3600))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MESSAGE_LATE")
    assert served.refusals("rita") == ["MESSAGE_LATE"]


async def test_a_call_that_ends_without_a_message_is_told_so(served: Served) -> None:
    async with served.channel("rita") as rita:
        for path in (UPLOAD, WATCH, PERMITS):
            call = silent(rita, path, 60)
            await call.done_writing()
            assert (await ended(call)).reason == "EMPTY_STREAM"


async def test_one_caller_has_so_many_calls_open_and_others_their_own(served: Served) -> None:
    await served.house.upload("rita")
    await served.house.app.jobs.create_tuning_job(await served.house.caller("rita"), served.house.request())
    watched = jobs_pb2.WatchTuningJobRequest(name="units/credit/tuningJobs/first")
    async with served.channel("rita") as rita, served.channel("anna") as anna:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(rita)
        watches = [stub.WatchTuningJob(watched, timeout=600) for _ in range(MOST)]
        for watch in watches:
            assert (await watch.read()).tuning_job.name == watched.name
        me = identity_pb2_grpc.IdentityServiceStub(rita)
        for call in (me.WhoAmI(WHO_AM_I, timeout=60), silent(rita, UPLOAD, 60)):
            error = await ended(call)
            assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
            assert "limits.calls_at_once" in error.remedy
        assert served.refusals("rita") == ["TOO_MANY_CALLS"] * 2
        answer = await identity_pb2_grpc.IdentityServiceStub(anna).WhoAmI(WHO_AM_I, timeout=60)
        assert answer.subject == served.house.subject("anna")
        for watch in watches:
            watch.cancel()
        async with asyncio.timeout(20):
            while True:  # The gateway hears of a cancelled call a little later.
                try:
                    await me.WhoAmI(WHO_AM_I, timeout=60)
                    break
                except grpc.RpcError:
                    await asyncio.sleep(0.05)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before ``served``: a watch has always more to tell than its caller reads."""

    async def watch(*_: Any) -> AsyncIterator[jobs_pb2.WatchTuningJobResponse]:
        while True:
            yield jobs_pb2.WatchTuningJobResponse(tuning_job=jobs_pb2.TuningJob(purpose="x" * (1 << 20)))

    monkeypatch.setattr(JobService, "watch_tuning_job", watch)


@pytest.mark.usefixtures("endless")
async def test_a_call_that_is_cancelled_while_it_answers_ends_in_the_task_that_it_began_in(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Left to the garbage collector, its span would end in another task's context, which is logged as an error."""
    tasks: list[asyncio.Task[Any] | None] = []
    done, place = asyncio.Event(), handlers.Gate._place

    @contextmanager
    def noted(gate: handlers.Gate, keyid: str) -> Iterator[None]:
        tasks.append(asyncio.current_task())
        with place(gate, keyid):
            try:
                yield
            finally:
                tasks.append(asyncio.current_task())
                done.set()

    monkeypatch.setattr(handlers.Gate, "_place", noted)
    await served.house.upload("rita")
    await served.house.app.jobs.create_tuning_job(await served.house.caller("rita"), served.house.request())
    async with served.channel("rita") as rita:
        stub = tuning_job_pb2_grpc.TuningJobServiceStub(rita)
        watch = stub.WatchTuningJob(jobs_pb2.WatchTuningJobRequest(name="units/credit/tuningJobs/first"), timeout=600)
        await watch.read()
        await asyncio.sleep(0.2)  # In which the gateway fills what the transport takes ahead, and waits.
        watch.cancel()
        async with asyncio.timeout(20):
            await done.wait()
    begun, ended_ = tasks
    assert begun is ended_
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_health_check_is_answered_and_holds_no_place_for_long(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = service_tls(served.house.layout.service("train-worker"))
    async with grpc.aio.secure_channel(served.address, tls.channel_credentials()) as anybody:
        stub = health_pb2_grpc.HealthStub(anybody)
        for name in ("", "assay.v1.PermitService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert (await ended(stub.Check(health_pb2.HealthCheckRequest(service="other")))).code == "NOT_FOUND"
        assert (await ended(stub.Watch(health_pb2.HealthCheckRequest()))).code == "UNIMPLEMENTED"
        monkeypatch.setattr(handlers, "FIRST_MESSAGE_SECONDS", 0.1)
        assert (await ended(silent(anybody, "/grpc.health.v1.Health/Check", None))).reason == "MESSAGE_LATE"


async def test_reflection_counts_among_the_calls_that_are_open(served: Served) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with served.channel("rita") as rita:
        stub = reflection_pb2_grpc.ServerReflectionStub(rita)
        mirrors = [stub.ServerReflectionInfo() for _ in range(MOST)]
        for mirror in mirrors:
            await mirror.write(asked)
            told = {service.name for service in (await mirror.read()).list_services_response.service}
            assert {"assay.v1.PermitService", "grpc.health.v1.Health"} <= told
        assert (await ended(stub.ServerReflectionInfo())).reason == "TOO_MANY_CALLS"


async def test_whoever_has_a_certificate_of_anothers_name_takes_none_of_its_places(served: Served) -> None:
    """Reflection answers any certificate, and so one that the services root made for a person's name."""
    imposter = person_tls(forged_person(served.house.layout, "rita", served.house.layout.root / "imposter"))
    async with served.channel("rita") as rita:
        async with grpc.aio.secure_channel(served.address, imposter.channel_credentials()) as other:
            stub = reflection_pb2_grpc.ServerReflectionStub(other)
            mirrors = [stub.ServerReflectionInfo() for _ in range(MOST)]
            for mirror in mirrors:
                await mirror.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                await mirror.read()
            assert (await ended(stub.ServerReflectionInfo())).reason == "TOO_MANY_CALLS"
            answer = await identity_pb2_grpc.IdentityServiceStub(rita).WhoAmI(WHO_AM_I, timeout=60)
        assert answer.subject == served.house.subject("rita")


@pytest.mark.parametrize("path", [UPLOAD, WATCH, PERMITS])
async def test_bytes_that_are_no_message_are_refused_and_no_fault_of_ours(served: Served, path: str) -> None:
    async with served.channel("rita") as rita:
        call = silent(rita, path, 60)
        await call.write(b"\xff\xff\xff")
        error = await ended(call)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")
    assert "protos" in error.remedy
    assert served.refusals("rita") == ["MESSAGE_MALFORMED"]


@pytest.mark.parametrize("path", [UPLOAD, WATCH, PERMITS])
async def test_what_a_newer_client_asks_is_refused_and_recorded(served: Served, path: str) -> None:
    async with served.channel("rita") as rita:
        call = silent(rita, path, 60)
        await call.write(b"\x78\x01")
        error = await ended(call)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "UNKNOWN_FIELDS")
    assert [(v.field, v.description) for v in error.violations] == [("(message)", "not known here: field 15")]
    assert served.refusals("rita") == ["UNKNOWN_FIELDS"]


async def test_an_upload_that_turns_into_bytes_of_no_message_is_refused(served: Served) -> None:
    async with served.channel("rita") as rita:
        call = silent(rita, UPLOAD, 60)
        await call.write(dataset_pb2.UploadDatasetRequest(header=a_header()).SerializeToString())
        await call.write(b"\xff\xff\xff")
        assert (await ended(call)).reason == "MESSAGE_MALFORMED"


async def test_a_message_that_is_too_large_is_refused_by_the_transport(served: Served) -> None:
    """All that the gateway sees of it is that none came."""
    async with served.channel("rita") as rita:
        stub = dataset_pb2_grpc.DatasetServiceStub(rita)
        big = dataset_pb2.GetDatasetRequest(name="x" * (5 << 20))
        error = await ended(stub.GetDataset(big, timeout=60))
    assert error.code == "RESOURCE_EXHAUSTED" and "4 MiB" in error.remedy
    assert set(served.refusals("rita")) <= {"EMPTY_STREAM"}


async def test_a_question_to_policy_takes_no_thread_that_others_read_with(house: House) -> None:
    """Anybody with a role may ask it, of a plan and numbers of their own choice."""
    asked, answered = threading.Event(), threading.Event()

    class Slow:
        def judge(self, question: object) -> policy_pb2.Verdict:
            asked.set()
            answered.wait(30)
            return policy_pb2.Verdict()

    class Nothing:
        list_precedents = None

    answers: Any = PolicyAnswers(Slow(), Nothing())  # type: ignore[arg-type]
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    caller = await house.caller("rita")
    asking = asyncio.create_task(answers.evaluate_policy(caller, policy_pb2.EvaluatePolicyRequest()))
    try:
        while not asked.is_set():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert await house.app.store.fetch(lambda connection: "a row") == "a row"
    finally:
        answered.set()
    assert (await asking).HasField("verdict")


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Before ``served``: an import that tells how far it is, and then stores; what it did."""
    done: list[str] = []

    async def fetched(*_: Any) -> AsyncIterator[dataset_pb2.ImportDatasetResponse]:
        done.append("fetched")
        yield dataset_pb2.ImportDatasetResponse(progress=dataset_pb2.ImportProgress(received_bytes=1))
        done.append("stored")
        yield dataset_pb2.ImportDatasetResponse()

    monkeypatch.setattr(DatasetService, "import_dataset", fetched)
    return done


async def test_who_loses_the_role_while_a_file_is_fetched_stores_nothing(
    importing: list[str], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, roles = IdentityRegistry.caller, [True, False]

    async def asked(registry: IdentityRegistry, subject: str, trace_id: str) -> Caller:
        known = await caller(registry, subject, trace_id)
        return known if roles.pop(0) else dataclasses.replace(known, grants=frozenset())

    monkeypatch.setattr(IdentityRegistry, "caller", asked)
    wanted = dataset_pb2.ImportDatasetRequest(header=a_header(), source="https://store.example/rows", sha256="0" * 64)
    async with served.channel("rita") as rita:
        error = await ended(dataset_pb2_grpc.DatasetServiceStub(rita).ImportDataset(wanted, timeout=60))
    assert error.reason == "NOT_FOUND" and importing == ["fetched"]


async def test_an_act_that_was_given_up_keeps_its_place_to_its_end_and_its_refusal_is_recorded(served: Served) -> None:
    """Else whoever tries signatures of others sets a short deadline."""
    name, held = await served.house.upload("rita"), threading.Event()
    envelope = served.house.sign("vik", erasure_order_statement(name, "data-subject-request"))
    order = erasure_pb2.EraseResourceRequest(name=name, envelope=envelope)
    served.house.app.ledger.submit(lambda uow: held.wait(30))
    async with served.channel("cora") as cora:
        stub = erasure_pb2_grpc.ErasureServiceStub(cora)
        for call in [stub.EraseResource(order, timeout=2) for _ in range(MOST)]:
            assert (await ended(call)).code == "DEADLINE_EXCEEDED"
        await asyncio.sleep(0.2)  # In which the gateway hears of it.
        more = identity_pb2_grpc.IdentityServiceStub(cora).WhoAmI(WHO_AM_I, timeout=60)
        await asyncio.sleep(0.2)
        held.set()
        assert (await ended(more)).reason == "TOO_MANY_CALLS"
        async with asyncio.timeout(20):
            while sorted(served.refusals("cora")) != [*["SIGNER"] * MOST, "TOO_MANY_CALLS"]:
                await asyncio.sleep(0.05)
        await identity_pb2_grpc.IdentityServiceStub(cora).WhoAmI(WHO_AM_I, timeout=60)


async def test_a_name_too_long_to_be_said_again_is_cut(served: Served) -> None:
    """The answer's words are a header, of which clients take so much."""
    grant = "x" * 20_000
    envelope = served.house.sign("oscar", grant_revocation_statement(grant, "left"))
    async with served.channel("oscar") as oscar:
        stub = identity_pb2_grpc.IdentityServiceStub(oscar)
        request = identity_pb2.RevokeRoleRequest(name=f"roleGrants/{grant}", envelope=envelope)
        error = await ended(stub.RevokeRole(request, timeout=60))
    assert error.reason == "NOT_FOUND" and len(error.message) < 400
