"""Opens the port: mTLS only, the 4 MiB cap kept, one server a port."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc import aio
from grpc_health.v1 import health, health_pb2

from assay.errors import UnavailableError
from assay.identity import service_tls
from gateway.application import Application
from gateway.rpc.handlers import Gate, handler, open_handler
from gateway.rpc.routes import Route, routes
from gateway.telemetry import Telemetry

MAX_MESSAGE_BYTES = 4 << 20
MAX_CONCURRENT_RPCS = 512
OPTIONS = [
    # Off, so that a second gateway on the port fails instead of silently taking half the traffic.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_connection_idle_ms", 3_600_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 60_000),
]


async def start(app: Application, telemetry: Telemetry) -> aio.Server:
    """Starts serving on ``settings.listen``.

    Raises:
        UnavailableError: ``PORT_TAKEN``.
    """
    server = aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
    gate = Gate(app, telemetry)
    table = routes(app)
    for service, found in table.items():
        handlers = {route.method.name: handler(route, gate) for route in found}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    check = health.aio.HealthServicer()  # type: ignore[attr-defined]
    # Not its Watch, which never ends: clients that ask for that take UNIMPLEMENTED for healthy.
    _add(server, gate, health_pb2.DESCRIPTOR.services_by_name["Health"], "Check", check)
    if app.settings.reflection:
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        names = [*(s.full_name for s in table), health.SERVICE_NAME, reflection.SERVICE_NAME]
        mirror = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
        described = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        _add(server, gate, described, "ServerReflectionInfo", mirror)
    tls = service_tls(app.settings.folder, ("people-ca.crt", "services-ca.crt"))
    try:
        bound = server.add_secure_port(app.settings.listen, tls.server_credentials())
    except RuntimeError:
        bound = 0
    if not bound:
        raise UnavailableError(
            "PORT_TAKEN",
            f"cannot listen on {app.settings.listen}",
            remedy="another gateway may run there; change `listen` in assay.toml",
        )
    await server.start()
    for name in ("", *(s.full_name for s in table)):
        await check.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server


def _add(server: aio.Server, gate: Gate, service: ServiceDescriptor, name: str, servicer: Any) -> None:
    """Adds one RPC of gRPC's own services."""
    route = Route(service.methods_by_name[name], getattr(servicer, name))
    handlers = {name: open_handler(route, gate)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
