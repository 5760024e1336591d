from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from assay.errors import AssayError, InvalidInputError
from assay.identity import Authority
from assay.v1 import worker_pb2 as pb
from assay.v1 import worker_pb2_grpc as pb_grpc
from assay.worker import wire
from assay.worker.client import WorkerClient
from assay.worker.disk import LEFT_BYTES
from assay.worker.sandbox import package_versions
from assay.worker.service import serve
from assay.worker.supervisor import Supervisor

from .conftest import House


@asynccontextmanager
async def served(house: House) -> AsyncIterator[tuple[Supervisor, str]]:
    """A worker whose queue is not started: nothing here needs a sandbox."""
    supervisor = house.supervisor()
    server, _, port = await serve(supervisor, house.server_tls())
    try:
        yield supervisor, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_the_gateway_can_describe_and_submit(house: House, tmp_path: Path) -> None:
    async with served(house) as (_, address), WorkerClient(address, house.tls().channel_credentials()) as client:
        worker = await client.describe()
        assert worker.subject == "spiffe://assay.local/services/audit-worker"
        assert worker.sealing_key == house.keys().seal.public_key().public_bytes_raw()
        assert worker.isolation == "bubblewrap+seccomp"
        here = package_versions(("bitsandbytes",)).get("bitsandbytes", "none")
        assert worker.environment["bitsandbytes"] == here
        sealed = tmp_path / "t1.bin"
        sealed.write_bytes(house.seal("t1", "prepare", {}, {"dataset": b"x" * 900_000}))
        for _ in range(2):
            task = await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
            assert task.state == pb.TASK_STATE_WAITING
        assert (await client.pause("t1")).state == pb.TASK_STATE_PAUSED
        assert [t.state async for t in client.watch("t1")] == [pb.TASK_STATE_PAUSED]
        assert (await client.resume("t1")).state == pb.TASK_STATE_WAITING
        assert (await client.cancel("t1")).state == pb.TASK_STATE_CANCELLED
        await client.release("t1")


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://assay.local/services/train-worker",
        "spiffe://assay.local/services/gateway2",
        "spiffe://assay.local/people/gateway",
        "spiffe://evil.local/services/gateway",
    ],
)
async def test_another_subject_is_refused(house: House, subject: str) -> None:
    async with served(house) as (_, address), WorkerClient(address, house.tls(subject).channel_credentials()) as client:
        with pytest.raises(AssayError) as refused:
            await client.describe()
    assert (refused.value.code, refused.value.reason) == ("PERMISSION_DENIED", "NOT_THE_GATEWAY")


async def test_another_authority_and_no_certificate_do_not_connect(house: House) -> None:
    foreign = house.tls(authority=Authority.create("services"))
    bare = grpc.ssl_channel_credentials(foreign.trusted_roots)
    async with served(house) as (_, address):
        for credentials in (foreign.channel_credentials(), bare):
            async with WorkerClient(address, credentials) as client:
                with pytest.raises(AssayError) as refused:
                    await client.describe()
            assert refused.value.reason == "WORKER_UNREACHABLE"


def _stub(house: House, address: str) -> tuple[grpc.aio.Channel, pb_grpc.WorkerServiceStub]:
    channel = grpc.aio.secure_channel(address, house.tls().channel_credentials())
    return channel, pb_grpc.WorkerServiceStub(channel)


async def test_malformed_streams_have_named_outcomes(house: House) -> None:
    body = b"x" * 10
    good = pb.SubmitTaskHeader(task_id="t1", kind=pb.TASK_KIND_PREPARE, sha256=hashlib.sha256(body).hexdigest())

    def header(**changes: object) -> pb.SubmitTaskRequest:
        copy = pb.SubmitTaskHeader()
        copy.CopyFrom(good)
        for name, value in changes.items():
            setattr(copy, name, value)
        return pb.SubmitTaskRequest(header=copy)

    chunk = pb.SubmitTaskRequest(chunk=body)
    newer = pb.SubmitTaskHeader.FromString(good.SerializeToString() + b"\x78\x01")
    cases = [
        ([], "TASK_HEADER"),
        ([chunk], "TASK_HEADER"),
        ([header(), chunk, header()], "TASK_HEADER"),
        ([header(task_id="../escape"), chunk], "INVALID_FIELDS"),
        ([header(task_id=".hidden"), chunk], "INVALID_FIELDS"),
        ([header(kind=0), chunk], "INVALID_FIELDS"),
        ([header(sha256="zz"), chunk], "INVALID_FIELDS"),
        ([header(), pb.SubmitTaskRequest(chunk=b"x" * 262_145)], "INVALID_FIELDS"),
        ([header(), pb.SubmitTaskRequest()], "INVALID_FIELDS"),
        ([pb.SubmitTaskRequest(header=newer), chunk], "UNKNOWN_FIELDS"),
        ([header(sha256="0" * 64), chunk], "TASK_DIGEST"),
        ([header(), chunk], "BUNDLE_FORMAT"),
    ]
    async with served(house) as (_, address):
        channel, stub = _stub(house, address)
        for messages, reason in cases:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.SubmitTask(iter(messages))
            error = wire.from_rpc_error(refused.value)
            assert error.reason == reason
            assert "Traceback" not in (refused.value.details() or "")
        await channel.close()
    assert list((house.folder / "spool").iterdir()) == []


async def test_a_message_over_four_mebibytes_is_refused_by_the_transport(house: House) -> None:
    async with served(house) as (_, address):
        channel, stub = _stub(house, address)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SubmitTask(iter([pb.SubmitTaskRequest(chunk=b"x" * (5 << 20))]))
        await channel.close()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_unknown_and_unfinished_tasks(house: House, tmp_path: Path) -> None:
    async with served(house) as (_, address), WorkerClient(address, house.tls().channel_credentials()) as client:
        for call in (client.pause, client.resume, client.cancel, client.release):
            with pytest.raises(AssayError) as refused:
                await call("t9")
            assert (refused.value.code, refused.value.reason) == ("NOT_FOUND", "TASK_UNKNOWN")
        sealed = tmp_path / "t1.bin"
        sealed.write_bytes(house.seal("t1", "prepare", {}))
        await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
        with pytest.raises(AssayError) as refused:
            await client.fetch("t1", tmp_path / "result")
        assert refused.value.reason == "TASK_NOT_DONE"
        assert sorted(p.name for p in tmp_path.iterdir() if "result" in p.name) == []
        with pytest.raises(AssayError) as refused:
            await client.release("t1")
        assert refused.value.reason == "TASK_NOT_ENDED"


async def test_a_port_in_use_is_refused_with_a_remedy(house: House) -> None:
    async with served(house) as (_, address):
        second = house.supervisor(listen=address)
        with pytest.raises(InvalidInputError) as refused:
            await serve(second, house.server_tls())
    assert refused.value.reason == "LISTEN"


async def test_a_fault_of_ours_shows_no_trace(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        served(house) as (supervisor, address),
        WorkerClient(address, house.tls().channel_credentials()) as client,
    ):
        monkeypatch.setattr(supervisor, "pause", lambda task_id: 1 / 0)
        with pytest.raises(AssayError) as refused:
            await client.pause("t1")
    assert (refused.value.code, refused.value.reason) == ("INTERNAL", "WORKER_FAULT")
    assert refused.value.message == "the worker failed: ZeroDivisionError"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_passes_and_says_what_would_mend_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    sealed = tmp_path / "t1.bin"
    sealed.write_bytes(house.seal("t1", "prepare", {}, {"dataset": b"x"}))
    async with served(house) as (_, address), WorkerClient(address, house.tls().channel_credentials()) as client:
        with monkeypatch.context() as full:
            full.setattr("assay.worker.service._append", no_room)
            with pytest.raises(AssayError) as refused:
                await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
        assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "DISK_FULL") and refused.value.remedy
        assert list((house.folder / "spool").iterdir()) == []
        assert (await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)).state == pb.TASK_STATE_WAITING


@pytest.mark.parametrize(
    ("total", "kept"), [(1 << 40, LEFT_BYTES), (LEFT_BYTES, LEFT_BYTES // 4)], ids=["disk", "small"]
)
async def test_what_is_handed_in_leaves_the_running_tasks_their_room(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, kept: int
) -> None:
    # Of a real disk, filling it would end more than this test.
    free, facts = [kept + (1 << 18)], os.statvfs

    def counted(place: Any) -> Any:
        left = free[0] - sum(path.stat().st_size for path in spool.iterdir())
        return SimpleNamespace(f_bavail=left, f_blocks=total, f_frsize=1) if isinstance(place, int) else facts(place)

    spool, sealed = house.folder / "spool", tmp_path / "t1.bin"
    sealed.write_bytes(house.seal("t1", "prepare", {}, {"dataset": os.urandom(1 << 19)}))
    async with served(house) as (_, address), WorkerClient(address, house.tls().channel_credentials()) as client:
        monkeypatch.setattr(os, "statvfs", counted)
        with pytest.raises(AssayError) as refused:
            await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
        assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "DISK_FULL") and refused.value.remedy
        assert list(spool.iterdir()) == []
        free[0] += 1 << 20
        assert (await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)).state == pb.TASK_STATE_WAITING


async def test_a_task_that_is_too_large_is_refused_with_a_remedy(house: House, tmp_path: Path) -> None:
    supervisor = house.supervisor(max_task_bytes=1 << 16)
    server, _, port = await serve(supervisor, house.server_tls())
    sealed = tmp_path / "t1.bin"
    sealed.write_bytes(house.seal("t1", "prepare", {}, {"dataset": b"x" * (1 << 17)}))
    async with WorkerClient(f"127.0.0.1:{port}", house.tls().channel_credentials()) as client:
        with pytest.raises(AssayError) as refused:
            await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
    await server.stop(0)
    assert refused.value.reason == "TASK_TOO_LARGE" and "max_task_bytes" in refused.value.remedy


async def test_a_watch_of_a_task_that_waits_its_turn_is_not_taken_for_an_attack(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway pings while it hears nothing; a server may end a connection for that, and by default does."""
    often = (("grpc.keepalive_time_ms", 500), ("grpc.http2.max_pings_without_data", 0))
    monkeypatch.setattr("assay.worker.client._KEEPALIVE", often)
    sealed = tmp_path / "t1.bin"
    sealed.write_bytes(house.seal("t1", "prepare", {}, {"dataset": b"x"}))
    async with served(house) as (_, address), WorkerClient(address, house.tls().channel_credentials()) as client:
        await client.submit("t1", pb.TASK_KIND_PREPARE, sealed)
        stream = aiter(client.watch("t1"))
        first = await anext(stream)
        assert first.state == pb.TASK_STATE_WAITING
        assert first.progress.message.startswith("waits for a device slot"), "and those who watch the job see why"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 5)
