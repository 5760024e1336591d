"""The witness process: ``python -m audit.ledger.witness DIR``; ends with SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from assay import logs
from assay.errors import AssayError, unusable
from assay.identity import load_ed25519
from audit.ledger.httpd import Answer, Limits, Request, Server, tls_context
from audit.ledger.witness.service import FORK_FOUND, MAX_BODY, Witness
from audit.ledger.witness.settings import WitnessSettings
from audit.ledger.witness.store import WitnessStore

_logger = logging.getLogger("audit.ledger.witness")


def open_server(settings: WitnessSettings) -> tuple[Server, WitnessStore]:
    """Puts a witness together; the server is not yet started.

    Raises:
        AssayError: what is wrong with key, certificates or port.
    """
    key = load_ed25519(settings.key)
    tls = None
    if settings.transport != "http":
        roots = (settings.folder / "clients-ca.crt").read_bytes() if settings.transport == "mtls" else b""
        tls = tls_context(settings.folder, roots, demand=True)
    store = WitnessStore(settings.database)
    witness = Witness(settings.name, key, settings.logs, store, settings.evidence)

    def handle(request: Request) -> Answer:
        welcome = settings.transport != "mtls" or not settings.clients or request.subject in settings.clients
        if request.method == "POST" and not welcome:
            return Answer(403, b"the certificate is not one of this witness's clients\n")
        return witness.handle(request)

    try:
        return Server(settings.listen, handle, tls, Limits(max_body=MAX_BODY)), store
    except BaseException:
        store.close()
        raise


def run(folder: Path) -> None:
    """Serves until it is told to end.

    Raises:
        AssayError: it cannot start.
    """
    # Signals stay for sigwait below, in every thread that is started from here on.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    settings = WitnessSettings.load(folder)
    server, store = open_server(settings)
    server.start()
    facts: dict[str, object] = {"name": settings.name, "listen": settings.listen, "logs": sorted(settings.logs)}
    _logger.info("witness serves", extra={"facts": facts})
    for origin in settings.logs:
        if name := store.seen(origin).fork:
            facts = {"origin": origin, "folder": str(settings.evidence), "evidence": name}
            _logger.critical(FORK_FOUND, extra={"facts": facts})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.close()
    store.close()


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2:
        print("usage: python -m audit.ledger.witness DIR", file=sys.stderr)
        return 2
    logs.to_stderr()
    try:
        run(Path(sys.argv[1]))
    except (AssayError, PermissionError) as error:
        named = error if isinstance(error, AssayError) else unusable(error)
        print(named.diagnostics(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
