"""``python -m assay.worker --dir DIR``: one worker as a process. Logs JSON lines to stderr; SIGTERM ends it."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grpc_health.v1 import health_pb2

from assay import logs, provenance, spans
from assay.errors import AssayError, PreconditionError, unusable
from assay.identity import service_tls
from assay.worker import lock
from assay.worker.sandbox import TaskModule, diagnose
from assay.worker.service import beyond, serve
from assay.worker.settings import TASK_MODULES, WorkerKeys, WorkerSettings
from assay.worker.supervisor import Supervisor

_EXIT_REFUSED = 78
_GRACE_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Runs a worker until a signal ends it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m assay.worker", description="One isolated worker of Assay.")
    parser.add_argument("--dir", type=Path, required=True, help="the worker's directory, made by `assay init`")
    folder = parser.parse_args(arguments).dir
    logs.to_stderr()
    try:
        asyncio.run(run(folder.resolve()))
    except (AssayError, PermissionError) as error:
        named = error if isinstance(error, AssayError) else unusable(error)
        print(named.diagnostics(), file=sys.stderr)
        return _EXIT_REFUSED
    return 0


@contextmanager
def _alone(spool: Path) -> Iterator[None]:
    """Holds the spool: a second worker would take a running attempt for one that a crash left, and end it.

    Raises:
        PreconditionError: ``WORKER_RUNS``.
    """
    spool.mkdir(mode=0o700, exist_ok=True)
    held = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PreconditionError(
                "WORKER_RUNS", f"another worker serves {spool.parent}", remedy="stop it first, or start another folder"
            ) from error
        yield
    finally:
        os.close(held)


async def run(folder: Path, table: Mapping[str, TaskModule] | None = None) -> None:
    """Serves until a signal.

    Args:
        folder: the worker's directory.
        table: which module runs for which kind; the installed :data:`assay.worker.settings.TASK_MODULES` by default.

    Raises:
        AssayError: settings, keys, isolation, spool or address are not as they must be.
    """
    with _alone(folder / "spool"):
        await _serve(folder, table)


async def _serve(folder: Path, table: Mapping[str, TaskModule] | None) -> None:
    settings, keys = WorkerSettings.load(folder), WorkerKeys.load(folder)
    for name, ok, detail, remedy in diagnose():
        if not ok:
            raise PreconditionError("ISOLATION_MISSING", f"{name}: {detail}", remedy=remedy)
    if "train" in settings.kinds and settings.ray is None:
        provenance.demand_room(lock.packages())
    modules = table or {str(kind): TaskModule.installed(TASK_MODULES[kind]) for kind in settings.kinds}
    traces = spans.export(folder / "telemetry", settings.subject.rpartition("/")[2])
    supervisor = Supervisor(folder, settings, keys, modules)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await supervisor.start()
    try:
        server, health, port = await serve(supervisor, service_tls(folder))
        facts = {"subject": settings.subject, "port": port, "kinds": list(settings.kinds), **beyond(settings)}
        logging.getLogger("assay.worker").info("worker serves", extra={"facts": facts})
        await stop.wait()
        await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.stop(1.0)
    finally:
        await supervisor.stop(_GRACE_SECONDS)
        traces.shutdown()


if __name__ == "__main__":
    sys.exit(main())
