"""The port for monitors: the published log over HTTPS, read-only; records of all units for auditors only."""

from __future__ import annotations

import asyncio
import contextlib

from assay.errors import PermissionDeniedError, UnauthenticatedError
from assay.identity import service_tls
from audit.ledger.httpd import Answer, Request, Server, tls_context
from audit.ledger.tiles import Tiles
from gateway.application import Application
from gateway.caller import ALL_UNITS, Caller
from gateway.identity_registry import grants_of

AUDITOR = "ROLE_AUDITOR"
METHOD = "HTTP tile/entries"


def open_monitors(app: Application, listen: str) -> Server:
    """Binds the port; the server is not yet started. Call it on the event loop that serves.

    Anybody may connect: checkpoint and hashes are what monitors live on. Who shows a certificate under the people or
    services root is known by its subject, and an auditor by the grants in force at that moment, by a certificate of the
    people root, and by a key that no key event has ended: a stolen one reads nothing here either.

    Raises:
        UnavailableError: ``PORT_TAKEN``.
    """
    loop = asyncio.get_running_loop()

    def is_auditor(request: Request) -> bool:
        if request.certificate is None or not request.subject.startswith(app.settings.people_prefix):
            return False
        app.identities.people.admit(request.certificate)
        held = app.store.read(lambda connection: grants_of(connection, request.subject))
        return Caller(request.subject, frozenset((g.role, g.unit) for g in held)).holds(AUDITOR, ALL_UNITS)

    tiles = Tiles(app.ledger, app.store.publication, is_auditor)

    def handle(request: Request) -> Answer:
        try:
            return tiles.handle(request)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            if request.subject:
                record = app.refusals.record(request.subject, METHOD, error)
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    asyncio.run_coroutine_threadsafe(record, loop)
            raise

    folder = app.settings.folder
    roots = service_tls(folder, ("people-ca.crt", "services-ca.crt")).trusted_roots
    return Server(listen, handle, tls_context(folder, roots, demand=False))
