"""An error crosses the wire whole, whatever its kind; what gRPC itself says is nobody's error."""

from __future__ import annotations

import inspect
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from assay import errors, status
from assay.errors import AssayError, FieldViolation, InvalidInputError, PreconditionError

VIOLATIONS = [FieldViolation("rows[3].messages", "is empty"), FieldViolation("rows[9]", "is no object")]


class Failed:
    """A failed call as the client's library shows it."""

    def __init__(self, sent: Any) -> None:
        self._sent = sent

    def code(self) -> grpc.StatusCode:
        """The call's status."""
        return self._sent.code  # type: ignore[no-any-return]

    def details(self) -> str:
        """The call's message."""
        return self._sent.details  # type: ignore[no-any-return]

    def trailing_metadata(self) -> Any:
        """What came after the answer."""
        return self._sent.trailing_metadata


def crossed(error: AssayError) -> AssayError:
    """The error at the other end."""
    read = status.read(Failed(status.to_status(error, "assay.test")))
    assert read is not None
    return read


def test_the_table_has_every_error() -> None:
    kinds = {v for v in vars(errors).values() if inspect.isclass(v) and issubclass(v, AssayError)} - {AssayError}
    assert set(status.KINDS.values()) == kinds
    assert all(kind.code == code for code, kind in status.KINDS.items())


@pytest.mark.parametrize("kind", status.KINDS.values(), ids=status.KINDS)
def test_an_error_crosses_whole(kind: type[AssayError]) -> None:
    error = kind("A_REASON", "a sentence", remedy="do it", violations=VIOLATIONS, metadata={"row": "3"})
    read = crossed(error)
    assert type(read) is kind
    assert (read.code, vars(read)) == (error.code, vars(error))
    bare = crossed(kind("A_REASON", "a sentence"))
    assert (bare.remedy, bare.violations, bare.metadata) == ("", (), {})


def sent(error: AssayError) -> status_pb2.Status:
    found = rpc_status.from_call(Failed(status.to_status(error, "assay.test")))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [InvalidInputError, PreconditionError])
def test_details_are_those_of_aip_193(kind: type[AssayError]) -> None:
    info, listed = sent(kind("A_REASON", "x", violations=VIOLATIONS, metadata={"row": "3"})).details
    said = error_details_pb2.ErrorInfo()
    assert info.Unpack(said)
    assert (said.reason, said.domain, dict(said.metadata)) == ("A_REASON", "assay.test", {"row": "3"})
    wanted = error_details_pb2.BadRequest if kind is InvalidInputError else error_details_pb2.PreconditionFailure
    assert listed.Is(wanted.DESCRIPTOR)


def test_an_error_of_no_known_code_is_internal() -> None:
    error = AssayError("A_REASON", "x")
    error.code = "TEAPOT"
    assert sent(error).code == code_pb2.INTERNAL


def test_a_status_of_somebody_else_is_no_error_of_ours() -> None:
    bare = status_pb2.Status(code=code_pb2.NOT_FOUND, message="x")
    assert status.read(Failed(rpc_status.to_status(bare))) is None
    ours = sent(InvalidInputError("A_REASON", "x"))
    ours.code = code_pb2.DEADLINE_EXCEEDED
    assert status.read(Failed(rpc_status.to_status(ours))) is None


def test_details_of_another_status_are_not_believed() -> None:
    other = status.to_status(InvalidInputError("A_REASON", "x"), "assay.test")
    call = Failed(other)
    call.code = lambda: grpc.StatusCode.NOT_FOUND  # type: ignore[method-assign]
    assert status.read(call) is None


def test_a_call_that_grpc_ended_has_no_error() -> None:
    bare = rpc_status.to_status(status_pb2.Status(code=code_pb2.UNAVAILABLE, message="connection refused"))
    call = Failed(bare)
    call.trailing_metadata = lambda: None  # type: ignore[method-assign]
    assert status.read(call) is None
