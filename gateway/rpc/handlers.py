"""The same gates before every RPC, whatever its shape, and then the domain.

An error becomes a status in exactly one place, :meth:`Gate.open`, which also has the refusal recorded.

On the wire every call is a stream of messages, of which a method's shape allows one or many. All are taken as streams
here: for a method that takes one message gRPC itself would wait for that, as long as the caller likes and before any
gate, and callers who send none would hold every place that there is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from assay import contract, status
from assay.certificates import key_id
from assay.errors import AssayError, ExhaustedError, InvalidInputError
from assay.identity import peer_certificate, subject_of
from gateway.application import Application
from gateway.caller import Caller
from gateway.rpc import errors
from gateway.rpc.interceptors import authenticate, authorise, deadline
from gateway.rpc.routes import Route
from gateway.telemetry import Telemetry

log = logging.getLogger("gateway.rpc")
_READS = ("Get", "List", "Watch", "Download", "Check")
_LASTING = ("Watch", "Import", "Replay")
"""They last for hours or days, in which who asked may lose the role, or the key to a thief: each answer is admitted."""
FIRST_MESSAGE_SECONDS = 30.0
"""How long a call that was opened waits for what it asks."""


class Gate:
    """What stands before the domain."""

    def __init__(self, app: Application, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry
        self._people = app.settings.people_prefix
        self._most = app.settings.limits.calls_at_once
        self._open: Counter[str] = Counter()
        # Acts whose callers have gone; the loop itself holds tasks only weakly.
        self._left: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def open(self, route: Route, context: Any) -> AsyncIterator[_Call]:
        """Times and traces a call; turns its error into a status and has the refusal recorded.

        No key has more than ``limits.calls_at_once`` open: nobody shall hold every place that the server has. Counted
        by name, whoever had a certificate of that name, as one of the other root, would hold its owner's places.
        """
        started, code = time.monotonic(), "OK"
        with (
            self._telemetry.server_span(route.path, context.invocation_metadata()) as trace_id,
            ExitStack() as spans,
        ):
            call = _Call(self, route, context, trace_id, spans)
            try:
                certificate = peer_certificate(context)
                call.subject = subject_of(certificate)
                call.keyid = key_id(certificate.public_key())
                with self._place(call.keyid):
                    yield call
            except AssayError as error:
                code = error.code
                await self._refuse(call, error)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception:
                code = "INTERNAL"
                log.exception("unexpected fault", extra={"rpc": route.path})
                await self._refuse(call, errors.unexpected())
            finally:
                self._telemetry.rpc_done(route.path, code, time.monotonic() - started)

    @contextmanager
    def _place(self, keyid: str) -> Iterator[None]:
        if self._open[keyid] >= self._most:
            raise ExhaustedError(
                "TOO_MANY_CALLS",
                f"{self._most} calls of yours are under way",
                remedy="let some of them end; the operator may raise limits.calls_at_once",
            )
        with self._counted(keyid):
            yield

    @contextmanager
    def _counted(self, keyid: str) -> Iterator[None]:
        self._open[keyid] += 1
        try:
            yield
        finally:
            self._open[keyid] -= 1
            if not self._open[keyid]:
                del self._open[keyid]

    def enter(self, call: _Call) -> None:
        """Passes the gates that need no request, before anything is waited for."""
        deadline.require(call.context)
        authenticate.person(call.context, call.subject, self._app.identities, self._people)

    async def admit(self, call: _Call, request: Message) -> Caller:
        """Passes the gates for one request."""
        self.enter(call)
        caller = await self._app.identities.caller(call.subject, call.trace_id)
        contract.check(request)
        authorise.require(caller, call.route.method.name, request, self._app.authorizer)
        caller = await self._under_the_jobs_trace(call, caller, request)
        call.trace_id = caller.trace_id
        return caller

    async def outcome(self, call: _Call, answering: Coroutine[Any, Any, Any]) -> Any:
        """What the domain answers.

        Whoever goes away meanwhile does not stop an act half-way, and its refusal is recorded all the same. Until then
        it has its place.
        """
        if call.route.method.name.startswith(_READS):
            return await answering
        act = asyncio.ensure_future(answering)
        try:
            return await asyncio.shield(act)
        except asyncio.CancelledError:
            place = ExitStack()
            place.enter_context(self._counted(call.keyid))
            left = asyncio.ensure_future(self._left_alone(call, act, place))
            self._left.add(left)
            left.add_done_callback(self._left.discard)
            raise

    async def _left_alone(self, call: _Call, act: asyncio.Future[Any], place: ExitStack) -> None:
        with place:
            try:
                await act
            except AssayError as error:
                await self._record(call, error)
            except Exception:
                log.exception("unexpected fault", extra={"rpc": call.route.path})

    async def _under_the_jobs_trace(self, call: _Call, caller: Caller, request: Message) -> Caller:
        """An act on a job becomes a span, and a record, of the trace that asked for the job; reading does not."""
        if call.route.method.name.startswith(_READS):
            return caller
        trace_id = await self._app.jobs.trace_of(authorise.name_of(request))
        if not trace_id or trace_id == caller.trace_id:
            return caller
        call.spans.enter_context(self._telemetry.job_span(call.route.path, trace_id))
        return dataclasses.replace(caller, trace_id=trace_id)

    async def _record(self, call: _Call, error: AssayError) -> None:
        if errors.is_refusal(error) and call.subject:
            await self._app.refusals.record(call.subject, call.route.path, error, call.trace_id)

    async def _refuse(self, call: _Call, error: AssayError) -> None:
        await self._record(call, error)
        log.info("refused", extra={"rpc": call.route.path, "code": error.code, "reason": error.reason})
        await call.context.abort_with_status(status.to_status(error, errors.DOMAIN))


class _Call:
    """One call on its way through the gate.

    ``subject`` is who the certificate says calls, and ``keyid`` by which key; empty until that is read.
    """

    def __init__(self, gate: Gate, route: Route, context: Any, trace_id: str, spans: ExitStack) -> None:
        self.gate = gate
        self.route = route
        self.context = context
        self.trace_id = trace_id
        self.spans = spans
        self.subject = self.keyid = ""

    def enter(self) -> None:
        """See :meth:`Gate.enter`."""
        self.gate.enter(self)

    async def first(self, requests: AsyncIterator[Message]) -> Message:
        """What the call asks.

        Raises:
            InvalidInputError: ``EMPTY_STREAM``, or ``MESSAGE_LATE`` past :data:`FIRST_MESSAGE_SECONDS`.
        """
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                message = await anext(aiter(requests), None)
        except TimeoutError:
            raise InvalidInputError(
                "MESSAGE_LATE",
                f"no message came within {FIRST_MESSAGE_SECONDS:g} s",
                remedy="open the call when there is something to send",
            ) from None
        if message is None:
            # Also of one over the cap, which the transport itself refuses; it says so to the caller, and not to us.
            raise InvalidInputError("EMPTY_STREAM", "no whole message came", remedy="send a request, or a header first")
        return message

    async def admit(self, request: Message) -> Caller:
        """See :meth:`Gate.admit`."""
        return await self.gate.admit(self, request)


def handler(route: Route, gate: Gate) -> Any:
    """Builds the gRPC handler of one RPC."""
    if route.method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(_answers(route, gate), **_wire(route.method))
    answer = _answer_to_stream if route.method.client_streaming else _answer
    return grpc.stream_unary_rpc_method_handler(answer(route, gate), **_wire(route.method))


def open_handler(route: Route, gate: Gate) -> Any:
    """Builds the handler of an RPC of gRPC's own, such as its health check: any certificate may ask, and be counted."""
    if route.method.server_streaming:

        async def stream(requests: AsyncIterator[Message], context: Any) -> None:
            async with gate.open(route, context), aclosing(route.function(requests, context)) as responses:
                async for response in responses:
                    await _send(context, response)

        return grpc.stream_stream_rpc_method_handler(stream, **_wire(route.method))

    async def handle(requests: AsyncIterator[Message], context: Any) -> Any:
        async with gate.open(route, context) as call:
            return await route.function(await call.first(requests), context)

    return grpc.stream_unary_rpc_method_handler(handle, **_wire(route.method))


def _wire(method: MethodDescriptor) -> dict[str, Any]:
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    return {
        "request_deserializer": partial(_parsed, request_class),
        "response_serializer": response_class.SerializeToString,
    }


def _parsed(request_class: type[Message], data: bytes) -> Message:
    """The message that a caller's bytes are; gRPC raises what this raises where the message is waited for.

    Raises:
        InvalidInputError: ``MESSAGE_MALFORMED``.
    """
    try:
        return request_class.FromString(data)
    except DecodeError:
        raise InvalidInputError(
            "MESSAGE_MALFORMED",
            f"the bytes are no {request_class.DESCRIPTOR.name}",
            remedy="use a client made from the protos of this version",
        ) from None


def _answer(route: Route, gate: Gate) -> Any:
    async def handle(requests: AsyncIterator[Message], context: Any) -> Any:
        async with gate.open(route, context) as call:
            call.enter()
            request = await call.first(requests)
            return await gate.outcome(call, route.function(await call.admit(request), request))

    return handle


def _answers(route: Route, gate: Gate) -> Any:
    # It writes and does not yield: gRPC leaves a generator of a cancelled call to the garbage collector, which ends it
    # in another task, with its place held until then.
    async def handle(requests: AsyncIterator[Message], context: Any) -> None:
        async with gate.open(route, context) as call:
            call.enter()
            request = await call.first(requests)
            async with aclosing(route.function(await call.admit(request), request)) as responses:
                async for response in responses:
                    if route.method.name.startswith(_LASTING):
                        await call.admit(request)
                    await _send(context, response)

    return handle


async def _send(context: Any, response: Message) -> None:
    """Sends one of many answers.

    Raises:
        CancelledError: the caller has gone, which gRPC may know only as an answer that could not be sent.
    """
    try:
        await context.write(response)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _answer_to_stream(route: Route, gate: Gate) -> Any:
    async def handle(requests: AsyncIterator[Message], context: Any) -> Any:
        async with gate.open(route, context) as call:
            call.enter()
            first = await call.first(requests)
            return await route.function(await call.admit(first), _validated(call, first, requests))

    return handle


async def _validated(call: _Call, first: Message, rest: AsyncIterator[Message]) -> AsyncIterator[Message]:
    yield first
    async for request in rest:
        contract.check(request)
        yield request
    # It may have come for hours, in which the caller may have lost the role.
    await call.admit(first)
