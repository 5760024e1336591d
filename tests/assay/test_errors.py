"""The error root: every error names a gRPC status, and a refusal carries no text from outside."""

import inspect

import grpc
import pytest

from assay import errors
from assay.errors import AssayError, FieldViolation, InvalidInputError, Refusal

_ALL = [v for v in vars(errors).values() if inspect.isclass(v) and issubclass(v, AssayError)]


@pytest.mark.parametrize("kind", _ALL)
def test_every_code_is_a_grpc_status(kind: type[AssayError]) -> None:
    assert kind.code in grpc.StatusCode.__members__
    assert kind.code != "OK"


def test_codes_tell_the_classes_apart() -> None:
    codes = [kind.code for kind in _ALL if kind is not AssayError]
    assert len(codes) == len(set(codes))


def test_diagnostics_say_what_where_and_how_to_mend_it() -> None:
    error = InvalidInputError(
        "BAD_ROWS",
        "2 rows are malformed",
        remedy="mend them",
        violations=[FieldViolation("rows[3].messages", "is empty")],
    )
    assert error.diagnostics().splitlines() == [
        "BAD_ROWS: 2 rows are malformed",
        "  rows[3].messages: is empty",
        "  remedy: mend them",
    ]
    assert str(error) == "2 rows are malformed"


def test_diagnostics_without_remedy_is_one_line() -> None:
    assert AssayError("X", "y").diagnostics() == "X: y"


def test_metadata_is_a_copy() -> None:
    given = {"row": "3"}
    error = AssayError("X", "y", metadata=given)
    given["row"] = "4"
    assert error.metadata == {"row": "3"}


def test_a_refusal_keeps_stable_words_only_and_a_bounded_number_of_fields() -> None:
    violations = [FieldViolation(f"rows[{i}]", "holds jane@example.org") for i in range(50)]
    refusal = Refusal.of(InvalidInputError("BAD_ROWS", "jane@example.org is bad", violations=violations))
    assert (refusal.code, refusal.reason, len(refusal.fields)) == ("INVALID_ARGUMENT", "BAD_ROWS", 20)
    assert "jane" not in repr(refusal)
