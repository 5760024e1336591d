"""The log over HTTP in the layout of c2sp.org/tlog-tiles, read-only, so that monitors we did not write can follow it.

``/checkpoint`` is the newest published note. Hash tiles hold hashes only, of records with 128 bits of entropy, and are
for everybody. Entry bundles hold the records of every unit and are for auditors. Nothing is served of what lies beyond
the published checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from assay.errors import NotFoundError, PermissionDeniedError
from audit.ledger.edge import TILE_WIDTH
from audit.ledger.httpd import Answer, Request
from audit.ledger.ledger import Ledger
from audit.ledger.publication import Publication

_TILE = re.compile(
    r"/tile/(?P<level>0|[1-9]|[1-5][0-9]|6[0-3]|entries)/"
    r"(?P<n>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_FOREVER = "max-age=31536000, immutable"


@dataclass(frozen=True)
class Tiles:
    """Answers requests for the log's checkpoint, tiles and entries.

    Attributes:
        ledger: started.
        publication: what of it may be shown.
        is_auditor: tells whether who shows this certificate may read every unit's records; asked only of who shows one.
    """

    ledger: Ledger
    publication: Publication
    is_auditor: Callable[[Request], bool]

    def handle(self, request: Request) -> Answer:
        """Answers one request.

        Raises:
            NotFoundError: ``NOT_FOUND`` for what is not there, or not spelled in the one way that it is spelled.
            PermissionDeniedError: ``AUDITORS_ONLY`` for entries.
            UnavailableError: ``QUORUM_NOT_MET`` before the first checkpoint was published.
        """
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"read only\n", headers={"Allow": "GET, HEAD"})
        if request.path == "/checkpoint":
            return Answer(200, self.publication.latest()[1], headers={"Cache-Control": "no-cache"})
        match = _TILE.fullmatch(request.path)
        if match is None:
            raise _nothing()
        entries = match["level"] == "entries"
        if entries and not (request.subject and self.is_auditor(request)):
            raise PermissionDeniedError("AUDITORS_ONLY", "records of all units are for auditors, by their certificate")
        n, level = index_of(match["n"]), 0 if entries else int(match["level"])
        width = int(match["width"] or TILE_WIDTH)
        there = (self.publication.latest()[0] >> (8 * level)) - n * TILE_WIDTH
        if width > there or (match["width"] and width >= TILE_WIDTH):
            raise _nothing()
        body = self._entries(n, width) if entries else self.ledger.tile(level, n, width)
        caching = f"{'private' if entries else 'public'}, {_FOREVER}"
        return Answer(200, body, "application/octet-stream", {"Cache-Control": caching})

    def _entries(self, n: int, width: int) -> bytes:
        """The bundle's records, each with its length in two bytes before it."""
        first = n * TILE_WIDTH
        found = self.ledger.records(None, None, first - 1, width)
        return b"".join(len(record.body).to_bytes(2) + record.body for record in found)


def index_of(text: str) -> int:
    """The number that ``x001/x234/067`` spells; it has exactly one spelling.

    Raises:
        NotFoundError: ``NOT_FOUND`` for another one.
    """
    if text.startswith("x000/"):
        raise _nothing()
    return int(text.replace("x", "").replace("/", ""))


def _nothing() -> NotFoundError:
    return NotFoundError("NOT_FOUND", "there is no such resource in the published log")
