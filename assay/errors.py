"""The one error root.

Every failure that a caller may see is an :class:`AssayError`: a gRPC status name, a stable machine reason, a sentence
for people and, where there is one, the remedy. :mod:`assay.status` maps ``code`` to a gRPC status and back, and
``gateway.cli`` maps it to an exit code; nothing else decides either.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FieldViolation:
    """One thing wrong with the input: which field (or row), why, and what to do."""

    field: str
    description: str


class AssayError(Exception):
    """A refusal or fault with a stable reason.

    Attributes:
        code: gRPC status name, such as ``INVALID_ARGUMENT``.
        reason: stable UPPER_SNAKE_CASE word for machines.
        message: one sentence for people; never row content, never a secret.
        remedy: what the caller can do; may be empty.
        violations: the fields or rules at fault.
        metadata: short string facts for machines.
    """

    code: str = "INTERNAL"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        remedy: str = "",
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})

    def diagnostics(self) -> str:
        """Returns the text for a person: what, where, and how to mend it."""
        lines = [f"{self.reason}: {self.message}"]
        lines += [f"  {v.field}: {v.description}" for v in self.violations]
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class InvalidInputError(AssayError):
    """The request or file is malformed."""

    code = "INVALID_ARGUMENT"


class PreconditionError(AssayError):
    """The state of things, or policy, forbids it."""

    code = "FAILED_PRECONDITION"


class NotFoundError(AssayError):
    """No such resource, or the caller may not know of it."""

    code = "NOT_FOUND"


class AlreadyExistsError(AssayError):
    """The name or request id is taken by something else."""

    code = "ALREADY_EXISTS"


class PermissionDeniedError(AssayError):
    """The authenticated caller may not do this."""

    code = "PERMISSION_DENIED"


class UnauthenticatedError(AssayError):
    """The caller proved no identity."""

    code = "UNAUTHENTICATED"


class AbortedError(AssayError):
    """The resource changed meanwhile; read it again and decide again."""

    code = "ABORTED"


class ExhaustedError(AssayError):
    """A cap was reached."""

    code = "RESOURCE_EXHAUSTED"


class UnavailableError(AssayError):
    """A part is not there just now; the same call may succeed later."""

    code = "UNAVAILABLE"


class IntegrityError(AssayError):
    """Bytes, a signature or a proof do not agree."""

    code = "DATA_LOSS"


class InternalError(AssayError):
    """A fault of ours; details are in the log, not in the message."""

    code = "INTERNAL"


@dataclass(frozen=True)
class Refusal:
    """What the ledger keeps of a refusal: no message text from outside, only stable words."""

    code: str
    reason: str
    fields: tuple[str, ...] = field(default_factory=tuple)

    @classmethod
    def of(cls, error: AssayError) -> Refusal:
        """Takes the recordable part of an error."""
        return cls(error.code, error.reason, tuple(v.field for v in error.violations[:20]))


def unusable(error: OSError) -> InvalidInputError:
    """``FILE``: a file or folder that the system does not let us use, as a person can act on it."""
    remedy = "run this as the user whose files they are" if isinstance(error, PermissionError) else ""
    return InvalidInputError("FILE", f"{error.filename or 'a file'}: {error.strerror or error}", remedy=remedy)


def no_room(error: BaseException) -> bool:
    """Whether something could not be written because its disk, or a quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def origin(error: BaseException) -> list[str]:
    """One line for each exception of the chain and each place it passed, the outermost first, without any text.

    ``["gateway/jobs/service.py:80 create", "ValueError", "caused by KeyError", ...]``; of our own errors the type comes
    with the reason.
    """
    lines: list[str] = []
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    for number, link in enumerate(chain):
        places = traceback.extract_tb(link.__traceback__)
        lines += [f"{'/'.join(p.filename.split('/')[-3:])}:{p.lineno} {p.name}" for p in places]
        reason = f" {link.reason}" if isinstance(link, AssayError) else ""
        lines.append(f"{'caused by ' if number else ''}{type(link).__name__}{reason}")
    return lines
