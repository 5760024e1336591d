"""Who is calling, and the channel that proves it."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import randbits
from typing import Annotated, Any

import grpc
import typer
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.propagate import inject

from assay.errors import InvalidInputError, UnauthenticatedError
from assay.identity import load_certificate, person_tls, subject_of
from assay.v1 import (
    approval_pb2_grpc,
    audit_pb2_grpc,
    dataset_pb2_grpc,
    erasure_pb2_grpc,
    identity_pb2_grpc,
    lineage_pb2_grpc,
    model_pb2_grpc,
    permit_pb2_grpc,
    policy_pb2_grpc,
    tuning_job_pb2_grpc,
)

IdentityOption = Annotated[
    Path | None,
    typer.Option(
        "--as", envvar="ASSAY_IDENTITY", help="Your folder with person.key and person.crt.", show_default=False
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", envvar="ASSAY_ADDRESS", help="host:port of the gateway; default: client.toml.", show_default=False
    ),
]

DEADLINE_SECONDS = 60.0
STREAM_DEADLINE_SECONDS = 6 * 3600.0
KEEPALIVE_MS = 300_000


class Session:
    """An open channel as one person, with a stub for each service."""

    def __init__(self, folder: Path, address: str, subject: str, channel: grpc.Channel) -> None:
        self.folder = folder
        self.address = address
        self.subject = subject
        self.datasets: Any = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.jobs: Any = tuning_job_pb2_grpc.TuningJobServiceStub(channel)
        self.policies: Any = policy_pb2_grpc.PolicyServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.approvals: Any = approval_pb2_grpc.ApprovalServiceStub(channel)
        self.permits: Any = permit_pb2_grpc.PermitServiceStub(channel)
        self.audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
        self.erasures: Any = erasure_pb2_grpc.ErasureServiceStub(channel)
        self.lineage: Any = lineage_pb2_grpc.LineageServiceStub(channel)
        self.identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)


class _Context(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the trace context and a deadline to every call; the gateway refuses calls without one."""

    def __init__(self, trace_context: Context) -> None:
        self._trace_context = trace_context

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_context(details, DEADLINE_SECONDS), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_context(details, STREAM_DEADLINE_SECONDS), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._with_context(details, STREAM_DEADLINE_SECONDS), requests)

    def _with_context(self, details: Any, seconds: float) -> _Details:
        carrier: dict[str, str] = {}
        inject(carrier, self._trace_context)
        metadata = [*(details.metadata or ()), *carrier.items()]
        return _Details(
            details.method, details.timeout or seconds, metadata, details.credentials,
            details.wait_for_ready, getattr(details, "compression", None),
        )  # fmt: skip


def _trace_context() -> Context:
    """The trace in force, or a new one, so that all calls of one command are of one trace; no span of it is written."""
    if trace.get_current_span().get_span_context().is_valid:
        return get_current()
    made = trace.SpanContext(randbits(128) or 1, randbits(64) or 1, False, trace.TraceFlags(trace.TraceFlags.SAMPLED))
    return trace.set_span_in_context(trace.NonRecordingSpan(made))


@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


def identity_folder(folder: Path | None) -> Path:
    """The folder of whoever calls or signs.

    Raises:
        InvalidInputError: ``NO_IDENTITY``: none was named, or what was named is no folder.
    """
    if folder is None or not folder.is_dir():
        raise InvalidInputError(
            "NO_IDENTITY", "no identity given" if folder is None else f"there is no folder {folder}",
            remedy="pass --as DIR/people/NAME or set ASSAY_IDENTITY; `assay init` and `assay identity enrol` make such "
            "folders",
        )  # fmt: skip
    return folder


def typed_identity(context: typer.Context, folder: Path | None, *others: Path | None) -> Path | None:
    """The identity for an order, which has one source.

    One of the environment stands there for all commands of a person, and is not meant where another source was typed.
    """
    source = context.get_parameter_source("identity")
    of_environment = source is not None and source.name == "ENVIRONMENT"
    return None if of_environment and any(other is not None for other in others) else folder


@contextmanager
def open_session(folder: Path | None, address: str | None) -> Iterator[Session]:
    """Opens a channel with the person's own certificate.

    Raises:
        InvalidInputError: ``NO_IDENTITY``, ``NO_ADDRESS``, ``CLIENT_SETTINGS``, or what
            :func:`assay.identity.person_tls` says.
        UnauthenticatedError: ``CERTIFICATE_EXPIRED``; the gateway would end the handshake without a word.
    """
    folder = identity_folder(folder)
    target = address or _address_of(folder)
    tls = person_tls(folder)
    certificate = load_certificate(folder / "person.crt")
    subject, ended = subject_of(certificate), certificate.not_valid_after_utc
    if ended < dt.datetime.now(dt.UTC):
        raise UnauthenticatedError(
            "CERTIFICATE_EXPIRED",
            f"{folder / 'person.crt'} was valid until {ended:%Y-%m-%d %H:%M} UTC",
            remedy=f"whoever holds the authority's key makes a new one: assay identity renew DIR people/{folder.name}",
        )
    options = [("grpc.keepalive_time_ms", KEEPALIVE_MS), ("grpc.enable_retries", 1)]
    with grpc.secure_channel(target, tls.channel_credentials(), options) as channel:
        yield Session(folder, target, subject, grpc.intercept_channel(channel, _Context(_trace_context())))


def _address_of(folder: Path) -> str:
    path = folder / "client.toml"
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
        address = str(settings.pop("address"))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            "NO_ADDRESS", f"{path} names no gateway", remedy="pass --address host:port or set ASSAY_ADDRESS"
        ) from error
    if settings:
        raise InvalidInputError(
            "CLIENT_SETTINGS", f"{path}: {next(iter(settings))[:200]}: unknown", remedy="address is its one key"
        )
    return address
