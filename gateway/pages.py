"""Pages: sizes are coerced, tokens are opaque and only good for the listing that gave them.

A page is weighed too: it ends early rather than outgrow what a client of gRPC takes, and its token leads on.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from assay.errors import InvalidInputError
from gateway.store import rows
from gateway.store.rows import Position
from gateway.store.tables import Row

DEFAULT_SIZE = 50
MAX_SIZE = 200
MAX_BYTES = 3 << 20
"""Of a page's entries; clients of gRPC take messages of 4 MiB."""
M = TypeVar("M", bound=Message)
T = TypeVar("T")
R = TypeVar("R", bound=Row)


class Request(Protocol):
    """What every request for a page says."""

    page_size: int
    page_token: str


@dataclass(frozen=True)
class Listing:
    """A listing as one request asks for it.

    Attributes:
        name: of the listing, with what narrows it; a token is good for this name alone.
        after: where the page before ended; None for the first.
        limit: rows on the page.
    """

    name: str
    after: Position | None
    limit: int

    @classmethod
    def of(cls, name: str, request: Request) -> Listing:
        """Reads size and token of a request.

        Raises:
            InvalidInputError: ``PAGE_TOKEN``.
        """
        return cls(name, position(name, request.page_token), size(request.page_size))

    def read(
        self,
        connection: Connection,
        kind: type[R],
        show: Callable[[R], M],
        *,
        time: str,
        name: str,
        newest_first: bool,
        where: Sequence[Any],
    ) -> tuple[list[M], str]:
        """Reads the page from rows in order of two columns; returns what :meth:`page` does."""
        found = rows.page(
            connection,
            kind,
            time=time,
            name=name,
            size=self.limit,
            after=self.after,
            newest_first=newest_first,
            where=where,
        )
        return self.page(found, show, lambda row: Position(getattr(row, time), getattr(row, name)))

    def page(
        self, found: Sequence[T], show: Callable[[T], M], position_of: Callable[[T], Position]
    ) -> tuple[list[M], str]:
        """Shows what was found as far as it has room on the page: one entry at least, then up to :data:`MAX_BYTES`.

        Args:
            found: up to ``limit + 1`` entries after ``after``; the one too many tells that a next page exists.
            show: an entry as the contract's message.
            position_of: where an entry stands in the listing.

        Returns:
            The page's messages, and the next page's token; empty for the last page.
        """
        shown = fitting(map(show, found[: self.limit]))
        return shown, token(self.name, position_of(found[len(shown) - 1])) if len(found) > len(shown) else ""


def fitting(messages: Iterable[M], used: int = 0) -> list[M]:
    """As many of the messages, from the first on, as a page has room for on which so many bytes are used.

    The first has room on an empty page, however large it is.
    """
    shown: list[M] = []
    for message in messages:
        size_bytes = message.ByteSize()
        used += size_bytes
        if used > MAX_BYTES and used > size_bytes:
            break
        shown.append(message)
    return shown


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
        raise bad_token() from error
    # What no database column holds comes from no listing: a time beyond 63 bits, a NUL or half a surrogate pair.
    timed = type(time_us) is int and 0 <= time_us < 1 << 63
    if mark != _mark(listing) or not timed or not isinstance(name, str) or not name.isprintable():
        raise bad_token()
    return Position(time_us, name)


def _mark(listing: str) -> str:
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def bad_token() -> InvalidInputError:
    """What a damaged token, or one of another listing, is refused with."""
    return InvalidInputError("PAGE_TOKEN", "page_token is not from this listing", remedy="start again without a token")
