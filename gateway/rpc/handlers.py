"""The same gates before every RPC, whatever its shape, and then the domain.

An error becomes a status in exactly one place, :meth:`Gate.open`, which also has the refusal recorded.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from assay.errors import AssayError, InvalidInputError
from assay.identity import peer_subject
from gateway.application import Application
from gateway.caller import Caller
from gateway.rpc import errors
from gateway.rpc.interceptors import authenticate, authorise, deadline, validate
from gateway.rpc.routes import Route
from gateway.telemetry import Telemetry

log = logging.getLogger("gateway.rpc")
_READS = ("Get", "List", "Watch", "Download", "Check")


class Gate:
    """What stands before the domain."""

    def __init__(self, app: Application, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry
        self._people = app.settings.people_prefix

    @asynccontextmanager
    async def open(self, route: Route, context: Any) -> AsyncIterator[_Call]:
        """Times and traces a call; turns its error into a status and has the refusal recorded."""
        started, code = time.monotonic(), "OK"
        with (
            self._telemetry.server_span(route.path, context.invocation_metadata()) as trace_id,
            ExitStack() as spans,
        ):
            call = _Call(self, route, context, trace_id, spans)
            try:
                call.subject = peer_subject(context)
                yield call
            except AssayError as error:
                code = error.code
                await self._refuse(call, error)
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception:
                code = "INTERNAL"
                log.exception("unexpected fault", extra={"rpc": route.path})
                await self._refuse(call, errors.unexpected())
            finally:
                self._telemetry.rpc_done(route.path, code, time.monotonic() - started)

    async def admit(self, call: _Call, request: Message) -> Caller:
        """Passes the gates for one request."""
        deadline.require(call.context)
        identities = self._app.identities
        caller = await authenticate.caller(call.context, call.subject, identities, self._people, call.trace_id)
        validate.check(request)
        authorise.require(caller, call.route.method.name, request, self._app.authorizer)
        caller = await self._under_the_jobs_trace(call, caller, request)
        call.trace_id = caller.trace_id
        return caller

    async def _under_the_jobs_trace(self, call: _Call, caller: Caller, request: Message) -> Caller:
        """An act on a job becomes a span, and a record, of the trace that asked for the job; reading does not."""
        if call.route.method.name.startswith(_READS):
            return caller
        trace_id = await self._app.jobs.trace_of(authorise.name_of(request))
        if not trace_id or trace_id == caller.trace_id:
            return caller
        call.spans.enter_context(self._telemetry.job_span(call.route.path, trace_id))
        return dataclasses.replace(caller, trace_id=trace_id)

    async def _refuse(self, call: _Call, error: AssayError) -> None:
        if errors.is_refusal(error) and call.subject:
            await self._app.refusals.record(call.subject, call.route.path, error, call.trace_id)
        log.info("refused", extra={"rpc": call.route.path, "code": error.code, "reason": error.reason})
        await call.context.abort_with_status(rpc_status.to_status(errors.to_status(error)))


class _Call:
    """One call on its way through the gate; ``subject`` is who the certificate says calls, empty until that is read."""

    def __init__(self, gate: Gate, route: Route, context: Any, trace_id: str, spans: ExitStack) -> None:
        self.gate = gate
        self.route = route
        self.context = context
        self.trace_id = trace_id
        self.spans = spans
        self.subject = ""

    async def admit(self, request: Message) -> Caller:
        """See :meth:`Gate.admit`."""
        return await self.gate.admit(self, request)


def handler(route: Route, gate: Gate) -> Any:
    """Builds the gRPC handler of one RPC."""
    method: MethodDescriptor = route.method
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    wire: dict[str, Any] = {
        "request_deserializer": request_class.FromString,
        "response_serializer": response_class.SerializeToString,
    }
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(_stream_unary(route, gate), **wire)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_unary_stream(route, gate), **wire)
    return grpc.unary_unary_rpc_method_handler(_unary_unary(route, gate), **wire)


def _unary_unary(route: Route, gate: Gate) -> Any:
    async def handle(request: Message, context: Any) -> Any:
        async with gate.open(route, context) as call:
            return await route.function(await call.admit(request), request)

    return handle


def _unary_stream(route: Route, gate: Gate) -> Any:
    async def handle(request: Message, context: Any) -> AsyncIterator[Any]:
        async with gate.open(route, context) as call:
            async for response in route.function(await call.admit(request), request):
                if route.method.name.startswith("Watch"):
                    # For days, in which who watches may lose the role, or the key to a thief.
                    await call.admit(request)
                yield response

    return handle


def _stream_unary(route: Route, gate: Gate) -> Any:
    async def handle(requests: AsyncIterator[Message], context: Any) -> Any:
        async with gate.open(route, context) as call:
            first = await anext(aiter(requests), None)
            if first is None:
                raise InvalidInputError("EMPTY_STREAM", "the stream holds no message", remedy="send the header first")
            return await route.function(await call.admit(first), _validated(call, first, requests))

    return handle


async def _validated(call: _Call, first: Message, rest: AsyncIterator[Message]) -> AsyncIterator[Message]:
    yield first
    async for request in rest:
        validate.check(request)
        yield request
    # It may have come for hours, in which the caller may have lost the role.
    await call.admit(first)
