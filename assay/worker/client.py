"""The gateway's end of a worker's wire."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType

import grpc
from opentelemetry.propagate import inject

from assay import durable
from assay.digests import sha256_file
from assay.errors import IntegrityError
from assay.v1 import worker_pb2 as pb
from assay.v1 import worker_pb2_grpc as pb_grpc
from assay.worker import wire

_CHUNK = 1 << 18
_UNARY_SECONDS = 30.0
_CANCEL_SECONDS = 120.0
# A worker whose process or machine stands still keeps its connection: without pings a stream would wait for ever.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Of a ping of gRPC's own that was under way already: the keepalive then waits for that one.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class WorkerClient:
    """Calls one worker over mTLS. Every method raises :class:`~assay.errors.AssayError` and nothing else.

    A worker that cannot be reached is an UnavailableError ``WORKER_UNREACHABLE``; the same call may then be made again,
    since every method is idempotent.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials) -> None:
        self._channel = grpc.aio.secure_channel(address, credentials, options=_KEEPALIVE)
        self._stub = pb_grpc.WorkerServiceStub(self._channel)

    async def __aenter__(self) -> WorkerClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def describe(self) -> pb.Worker:
        """Who the worker is and what it holds."""
        with _mapped():
            request = pb.DescribeWorkerRequest()
            response = await self._stub.DescribeWorker(request, timeout=_UNARY_SECONDS, metadata=_metadata())
        return response.worker

    async def submit(self, task_id: str, kind: pb.TaskKind, sealed: Path, *, timeout: float | None = None) -> pb.Task:
        """Hands in a sealed task; handing in the same task again returns it as it is, and resumes it if it was paused.

        Raises:
            AlreadyExistsError: ``TASK_ID_TAKEN`` when the id was used for other content.
        """
        sha256 = await asyncio.to_thread(sha256_file, sealed)

        async def messages() -> AsyncIterator[pb.SubmitTaskRequest]:
            yield pb.SubmitTaskRequest(header=pb.SubmitTaskHeader(task_id=task_id, kind=kind, sha256=sha256))
            with sealed.open("rb") as stream:
                while chunk := await asyncio.to_thread(stream.read, _CHUNK):
                    yield pb.SubmitTaskRequest(chunk=chunk)

        with _mapped():
            response = await self._stub.SubmitTask(messages(), timeout=timeout, metadata=_metadata())
        return response.task

    async def watch(self, task_id: str, *, timeout: float | None = None) -> AsyncIterator[pb.Task]:
        """Yields the task now and on every change, until it ends or pauses."""
        with _mapped():
            call = self._stub.WatchTask(pb.WatchTaskRequest(task_id=task_id), timeout=timeout, metadata=_metadata())
            try:
                async for response in call:
                    yield response.task
            finally:
                call.cancel()

    async def fetch(self, task_id: str, into: Path, *, expected_sha256: str = "") -> str:
        """Writes the sealed result to ``into``, whole or not at all, and returns its hex SHA-256.

        Raises:
            PreconditionError: ``TASK_NOT_DONE`` or ``RESULT_RELEASED``.
            IntegrityError: ``RESULT_DIGEST`` when ``expected_sha256`` is given and differs.
        """
        digest, request = hashlib.sha256(), pb.FetchResultRequest(task_id=task_id)
        with _mapped(), durable.replacing(into) as stream:
            async for response in self._stub.FetchResult(request, metadata=_metadata()):
                digest.update(response.chunk)
                await asyncio.to_thread(stream.write, response.chunk)
            if expected_sha256 and digest.hexdigest() != expected_sha256:
                raise IntegrityError("RESULT_DIGEST", "the result does not have the digest that the worker named")
        return digest.hexdigest()

    async def pause(self, task_id: str) -> pb.Task:
        """Asks for a stop at the next checkpoint; :meth:`watch` tells when it happened."""
        with _mapped():
            request = pb.PauseTaskRequest(task_id=task_id)
            response = await self._stub.PauseTask(request, timeout=_UNARY_SECONDS, metadata=_metadata())
        return response.task

    async def resume(self, task_id: str) -> pb.Task:
        """Goes on from the checkpoint."""
        with _mapped():
            request = pb.ResumeTaskRequest(task_id=task_id)
            response = await self._stub.ResumeTask(request, timeout=_UNARY_SECONDS, metadata=_metadata())
        return response.task

    async def cancel(self, task_id: str) -> pb.Task:
        """Ends the task; its files are gone when this returns."""
        with _mapped():
            request = pb.CancelTaskRequest(task_id=task_id)
            response = await self._stub.CancelTask(request, timeout=_CANCEL_SECONDS, metadata=_metadata())
        return response.task

    async def release(self, task_id: str) -> None:
        """Tells the worker that the result is safely stored elsewhere."""
        with _mapped():
            request = pb.ReleaseTaskRequest(task_id=task_id)
            await self._stub.ReleaseTask(request, timeout=_UNARY_SECONDS, metadata=_metadata())


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise wire.from_rpc_error(error) from error


def _metadata() -> tuple[tuple[str, str], ...]:
    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple(carrier.items())
