"""Pages: sizes are coerced, tokens are opaque and only good for the listing that gave them."""

from __future__ import annotations

import base64
import hashlib
import json

from assay.errors import InvalidInputError
from gateway.store.rows import Position

DEFAULT_SIZE = 50
MAX_SIZE = 200


def size(asked: int) -> int:
    """Rows on a page: 0 means 50, more than 200 is coerced to 200."""
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def token(listing: str, last: Position) -> str:
    """The token of the page after ``last``."""
    text = json.dumps([_mark(listing), last.time_us, last.name], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position(listing: str, text: str) -> Position | None:
    """Reads a token; an empty one is the first page.

    Raises:
        InvalidInputError: ``PAGE_TOKEN`` for a damaged token or one of another listing.
    """
    if not text:
        return None
    try:
        mark, time_us, name = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError, RecursionError) as error:
        raise _bad() from error
    # What no database column holds comes from no listing: a time beyond 63 bits, a NUL or half a surrogate pair.
    timed = type(time_us) is int and 0 <= time_us < 1 << 63
    if mark != _mark(listing) or not timed or not isinstance(name, str) or not name.isprintable():
        raise _bad()
    return Position(time_us, name)


def _mark(listing: str) -> str:
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _bad() -> InvalidInputError:
    return InvalidInputError("PAGE_TOKEN", "page_token is not from this listing", remedy="start again without a token")
