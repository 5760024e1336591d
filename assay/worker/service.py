"""The gRPC servicer of a worker: thin, over mTLS, and deaf to everybody but the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from opentelemetry import trace
from opentelemetry.propagate import extract

from assay import contract
from assay.errors import (
    AssayError,
    ExhaustedError,
    IntegrityError,
    InternalError,
    InvalidInputError,
    PermissionDeniedError,
    no_room,
)
from assay.identity import TlsFiles, peer_subject
from assay.v1 import tuning_job_pb2
from assay.v1 import worker_pb2 as pb
from assay.v1 import worker_pb2_grpc as pb_grpc
from assay.worker import disk, wire
from assay.worker.sandbox import package_versions
from assay.worker.settings import WorkerSettings
from assay.worker.spool import State
from assay.worker.statement import environment
from assay.worker.supervisor import Snapshot, Supervisor

_LOG = logging.getLogger("assay.worker")
_TRACER = trace.get_tracer("assay.worker")
_CHUNK = 1 << 18
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SERVICE = "assay.v1.WorkerService"
BEYOND = ("bitsandbytes",)
_QUEUED = "waits for a device slot: the tasks before it are not done yet"


class WorkerServicer(pb_grpc.WorkerServiceServicer):
    """Validates, calls one method of the supervisor, maps one error."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def DescribeWorker(self, request: pb.DescribeWorkerRequest, context: Any) -> pb.DescribeWorkerResponse:
        """Who the worker is and what it holds."""
        async with self._call(context, "DescribeWorker", request):
            settings, keys = self._supervisor.settings, self._supervisor.keys
            worker = pb.Worker(
                subject=settings.subject,
                kinds=[_kind_number(kind) for kind in settings.kinds],
                sealing_key=keys.seal.public_key().public_bytes_raw(),
                statement_key=keys.statement.public_key().public_bytes_raw(),
                slots=settings.slots,
                tasks=[task_message(snapshot) for snapshot in self._supervisor.tasks() if not snapshot.record.released],
                isolation=settings.isolation,
                environment={**environment(), **beyond(settings)},
            )
        return pb.DescribeWorkerResponse(worker=worker)

    async def SubmitTask(
        self, request_iterator: AsyncIterator[pb.SubmitTaskRequest], context: Any
    ) -> pb.SubmitTaskResponse:
        """Hands in a sealed task; idempotent by task id."""
        async with self._call(context, "SubmitTask"):
            header = await self._header(request_iterator)
            kind = _kind_name(header.kind)
            snapshot = await self._supervisor.known(header.task_id, kind, header.sha256)
            if snapshot is None:
                path = self._supervisor.incoming()
                try:
                    await self._receive(request_iterator, header.sha256, path)
                    snapshot = await self._supervisor.submit(
                        header.task_id, kind, header.sha256, path, _traceparent(context)
                    )
                finally:
                    path.unlink(missing_ok=True)
        return pb.SubmitTaskResponse(task=task_message(snapshot))

    async def WatchTask(self, request: pb.WatchTaskRequest, context: Any) -> AsyncIterator[pb.WatchTaskResponse]:
        """Streams progress until the task ends or pauses."""
        async with self._call(context, "WatchTask", request):
            async for snapshot in self._supervisor.watch(request.task_id):
                yield pb.WatchTaskResponse(task=task_message(snapshot))

    async def FetchResult(self, request: pb.FetchResultRequest, context: Any) -> AsyncIterator[pb.FetchResultResponse]:
        """Streams the sealed result."""
        async with self._call(context, "FetchResult", request):
            with self._supervisor.result(request.task_id).open("rb") as stream:
                while chunk := await asyncio.to_thread(stream.read, _CHUNK):
                    yield pb.FetchResultResponse(chunk=chunk)

    async def PauseTask(self, request: pb.PauseTaskRequest, context: Any) -> pb.PauseTaskResponse:
        """Stops at the next checkpoint."""
        async with self._call(context, "PauseTask", request):
            snapshot = self._supervisor.pause(request.task_id)
        return pb.PauseTaskResponse(task=task_message(snapshot))

    async def ResumeTask(self, request: pb.ResumeTaskRequest, context: Any) -> pb.ResumeTaskResponse:
        """Goes on from the checkpoint."""
        async with self._call(context, "ResumeTask", request):
            snapshot = self._supervisor.resume(request.task_id)
        return pb.ResumeTaskResponse(task=task_message(snapshot))

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Any) -> pb.CancelTaskResponse:
        """Ends a task."""
        async with self._call(context, "CancelTask", request):
            # Shielded: a client that hangs up must not leave a half-cancelled task.
            snapshot = await asyncio.shield(self._supervisor.cancel(request.task_id))
        return pb.CancelTaskResponse(task=task_message(snapshot))

    async def ReleaseTask(self, request: pb.ReleaseTaskRequest, context: Any) -> pb.ReleaseTaskResponse:
        """Lets the worker forget a stored result."""
        async with self._call(context, "ReleaseTask", request):
            await asyncio.shield(self._supervisor.release(request.task_id))
        return pb.ReleaseTaskResponse()

    @contextlib.asynccontextmanager
    async def _call(self, context: Any, method: str, request: Message | None = None) -> AsyncIterator[None]:
        try:
            if peer_subject(context) != self._supervisor.settings.gateway_subject:
                raise PermissionDeniedError("NOT_THE_GATEWAY", "only the gateway may speak to a worker")
            if request is not None:
                contract.check(request)
            parent = extract({"traceparent": _traceparent(context)})
            with _TRACER.start_as_current_span(f"{_SERVICE}/{method}", context=parent):
                yield
        except AssayError as error:
            await wire.abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            _LOG.exception("call failed", extra={"facts": {"method": method}})
            await wire.abort(context, _told(error))

    async def _header(self, requests: AsyncIterator[pb.SubmitTaskRequest]) -> pb.SubmitTaskHeader:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInputError("TASK_HEADER", "the first message must be the header")
        contract.check(first)
        return first.header

    async def _receive(self, requests: AsyncIterator[pb.SubmitTaskRequest], sha256: str, path: Path) -> None:
        digest, left = hashlib.sha256(), self._supervisor.settings.max_task_bytes
        with path.open("xb") as stream:
            path.chmod(0o600)
            async for request in requests:
                contract.check(request)
                if request.WhichOneof("part") != "chunk":
                    raise InvalidInputError("TASK_HEADER", "only the first message may be a header")
                left -= len(request.chunk)
                if left < 0:
                    raise ExhaustedError(
                        "TASK_TOO_LARGE",
                        "the sealed task is larger than this worker takes",
                        remedy="raise max_task_bytes of its worker.toml, or ask for a new job with fewer rows",
                    )
                digest.update(request.chunk)
                await asyncio.to_thread(_append, stream, request.chunk)
        if digest.hexdigest() != sha256:
            raise IntegrityError("TASK_DIGEST", "the bytes received do not have the digest in the header")


def beyond(settings: WorkerSettings) -> dict[str, str]:
    """Versions of what a method may need beyond every train worker's libraries, ``none`` for what is not here.

    Nothing of a worker whose attempts run on other machines.
    """
    if "train" not in settings.kinds or settings.ray is not None:
        return {}
    return {name: "none" for name in BEYOND} | package_versions(BEYOND)


def task_message(snapshot: Snapshot) -> pb.Task:
    """A task as the wire shows it."""
    record, progress = snapshot.record, snapshot.progress
    task = pb.Task(
        task_id=record.task_id,
        kind=_kind_number(record.kind),
        state=f"TASK_STATE_{record.state}",
        progress=tuning_job_pb2.Progress(
            stage=record.kind,
            step=progress.step,
            steps=progress.steps,
            metrics=progress.metrics,
            seconds_left=progress.seconds_left,
            message=_QUEUED if record.state is State.WAITING else progress.message,
        ),
        reason=record.reason,
        attempts=record.attempts,
        result_sha256=record.result_sha256,
        meter=tuning_job_pb2.Meter(**asdict(record.meter)),
    )
    task.accept_time.FromJsonString(record.accepted)
    return task


async def serve(supervisor: Supervisor, tls: TlsFiles) -> tuple[grpc.aio.Server, HealthServicer, int]:
    """Binds and starts the server; returns it with its health servicer and the port.

    Raises:
        InvalidInputError: ``LISTEN`` when the address cannot be bound, such as one in use.
    """
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 4 << 20),
        # The gateway pings while it waits for a task, which the default takes for an attack: it would end the watch.
        ("grpc.http2.max_ping_strikes", 0),
    ]
    server = grpc.aio.server(options=options)
    pb_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(supervisor), server)
    health_servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    credentials = grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)], root_certificates=tls.trusted_roots, require_client_auth=True
    )
    listen = supervisor.settings.listen
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise InvalidInputError("LISTEN", f"cannot listen on {listen}", remedy="is another worker running?") from error
    await server.start()
    for name in ("", _SERVICE):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, health_servicer, port


def _told(error: Exception) -> AssayError:
    """What the gateway hears of a fault: its kind and no words of it; a full disk is somebody's to mend, and passes."""
    if no_room(error):
        return disk.full("is full")
    return InternalError("WORKER_FAULT", f"the worker failed: {type(error).__name__}")


def _append(stream: BinaryIO, chunk: bytes) -> None:
    disk.demand_room(stream.fileno(), len(chunk))
    stream.write(chunk)


def _traceparent(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str) and _TRACEPARENT.fullmatch(value):
            return value
    return ""


def _kind_name(number: int) -> str:
    return pb.TaskKind.Name(number).removeprefix("TASK_KIND_").lower()


def _kind_number(name: str) -> pb.TaskKind:
    return pb.TaskKind.Value(f"TASK_KIND_{name.upper()}")  # type: ignore[return-value]
