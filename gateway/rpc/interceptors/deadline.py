"""Every call has a deadline: a client that waits for ever holds a slot for ever."""

from __future__ import annotations

from typing import Any

from assay.errors import InvalidInputError

MAX_SECONDS = 7 * 24 * 3600


def require(context: Any) -> None:
    """Refuses a call without a deadline, or with one in another week.

    Raises:
        InvalidInputError: ``DEADLINE_REQUIRED``.
    """
    remaining = context.time_remaining()
    if remaining is None or remaining > MAX_SECONDS:
        raise InvalidInputError(
            "DEADLINE_REQUIRED", "the call carries no deadline", remedy="set a timeout of at most seven days"
        )
