"""Exit codes, and how a call that failed becomes an error that a person can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import typer
from rich.console import Console

from assay import status
from assay.errors import AssayError, InvalidInputError, unusable

# Documented in docs/cli.md; a code never changes its meaning.
EXIT_CODES = {
    "OK": 0,
    "INTERNAL": 1,
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 4,
    "PERMISSION_DENIED": 5,
    "UNAUTHENTICATED": 5,
    "FAILED_PRECONDITION": 6,
    "ABORTED": 7,
    "ALREADY_EXISTS": 7,
    "RESOURCE_EXHAUSTED": 8,
    "UNAVAILABLE": 9,
    "DEADLINE_EXCEEDED": 9,
    "CANCELLED": 9,
    "DATA_LOSS": 10,
}
EXIT_REFUSED = EXIT_CODES["FAILED_PRECONDITION"]
EXIT_FAILED = EXIT_CODES["INTERNAL"]


def from_call(failed: Any) -> AssayError:
    """The error of a failed call: as the gateway sent it, or what is known where gRPC itself ended the call."""
    code, sent = failed.code().name, status.read(failed)
    error = sent or AssayError(code, failed.details() or code)
    error.code = code  # also one that no error of ours has, such as DEADLINE_EXCEEDED
    if code == "UNAVAILABLE" and not error.remedy:
        error.remedy = (
            "is `assay serve` running, and is the address right? A refused certificate looks the same from here"
        )
    if code == "RESOURCE_EXHAUSTED" and sent is None:
        error.remedy = "the gateway has too many calls under way; try again"
        if "larger than max" in error.message:
            error.remedy = "a message may have 4 MiB; rows go in as a stream: assay dataset upload"
    return error


@contextmanager
def exit_on_error(code: int | None = None) -> Iterator[None]:
    """Prints an error's diagnostics to stderr and exits with its documented code, or with ``code`` if that is given.

    What cannot be opened, or does not fit where it goes, is the caller's input: one line, no trace. A database that
    fails is named too. Any other exception is a fault of ours and passes.
    """
    try:
        yield
    except grpc.RpcError as error:
        _fail(from_call(error), code)
    except AssayError as error:
        _fail(error, code)
    except OSError as error:
        if error.errno == errno.EPIPE:  # who read the output has read enough
            raise
        _fail(unusable(error), code)
    except UnicodeEncodeError as error:
        _fail(InvalidInputError("BAD_VALUE", f"{error.object[:100]!r} is not UTF-8"), code)
    except RecursionError:
        _fail(InvalidInputError("BAD_VALUE", "the input is nested too deeply"), code)
    except (ValueError, OverflowError) as error:
        # What was typed or read and does not fit: a number beyond its field, a file that is no text.
        _fail(InvalidInputError("BAD_VALUE", f"{type(error).__name__}: {error}"), code)
    except Exception as error:
        from audit.ledger.database_errors import explain  # most commands ask no database, and need no library of one

        named = explain(error)
        if named is None:
            raise
        _fail(named, code)


def _fail(error: AssayError, code: int | None) -> None:
    Console(stderr=True, soft_wrap=True).print(error.diagnostics(), style="red", markup=False, highlight=False)
    raise typer.Exit(EXIT_CODES.get(error.code, 1) if code is None else code)
