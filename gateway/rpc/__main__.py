"""The gateway process: ``python -m gateway.rpc DIR``."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from assay.errors import AssayError, UnavailableError, unusable
from audit.ledger.database_errors import explain
from gateway.application import Application
from gateway.identity_files import VALID, of_services
from gateway.monitors import open_monitors
from gateway.rpc import server
from gateway.settings import Settings
from gateway.telemetry import Gauges, Telemetry

GRACE_SECONDS = 5.0
SAMPLE_SECONDS = 5.0
_LOG = logging.getLogger("assay.gateway")


async def run(directory: Path) -> None:
    """Serves until SIGTERM or SIGINT; running calls get a few seconds, jobs go on at the next start."""
    settings = Settings.load(directory)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry.open(settings.folder / "telemetry", settings.metrics)
        stack.callback(telemetry.close)
        app = Application.open(settings)
        stack.push_async_callback(app.close)
        await _serve(stack, app, telemetry)


async def _serve(stack: AsyncExitStack, app: Application, telemetry: Telemetry) -> None:
    gauges, listen = Gauges(), app.settings.log_http
    telemetry.observe(gauges)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await server.start(app, telemetry)
    stack.push_async_callback(port.stop, GRACE_SECONDS)
    if listen:
        monitors = open_monitors(app, listen)
        monitors.start()
        stack.push_async_callback(asyncio.to_thread, monitors.close)
    pipeline = asyncio.create_task(app.pipeline.run(), name="pipeline")
    watchers = [asyncio.create_task(sample(app, gauges)), asyncio.create_task(watch_certificates(app.settings, gauges))]
    ended = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({pipeline, ended}, return_when=asyncio.FIRST_COMPLETED)
        if pipeline.done():
            pipeline.result()
    finally:
        for task in (ended, pipeline, *watchers):
            task.cancel()
        await asyncio.gather(ended, pipeline, *watchers, return_exceptions=True)


async def sample(app: Application, gauges: Gauges) -> None:
    """Refreshes what the gauges show; a scrape reads the last sample and touches no database.

    Refusals that were only counted are told on the way, so that a process that is killed forgets a minute at most.
    """
    while True:
        try:
            await app.refusals.settle()
            stats = await app.pipeline.stats()
        except Exception:
            _LOG.exception("no sample was taken")
        else:
            gauges.jobs_by_state = dict(stats.jobs_by_state)
            gauges.in_flight, gauges.worker_errors = stats.in_flight, stats.worker_errors
            gauges.ledger_records = app.ledger.size
            with suppress(UnavailableError):  # before the witnesses have seen the first record
                gauges.ledger_published = app.store.publication.latest()[0]
        await asyncio.sleep(SAMPLE_SECONDS)


async def watch_certificates(settings: Settings, gauges: Gauges) -> None:
    """Shows until when certificates hold, and warns, at the start and then daily, of what ends soon or has ended."""
    for hour in itertools.count():
        try:
            found = await asyncio.to_thread(of_services, settings.layout)
        except (AssayError, OSError) as error:
            _LOG.warning("certificates cannot be read: %s", getattr(error, "reason", type(error).__name__))
        else:
            gauges.certificate_ends = {one.name: one.until.timestamp() for one in found}
            troubled = [(one, state) for one in found if (state := one.state(dt.datetime.now(dt.UTC))) != VALID]
            for one, state in troubled if hour % 24 == 0 else ():
                remedy = one.remedy(settings.directory)
                _LOG.warning("certificate of %s: %s, until %s; %s", one.name, state, f"{one.until:%Y-%m-%d}", remedy)
        await asyncio.sleep(3600)


def main() -> int:
    """Entry point of the gateway process."""
    try:
        asyncio.run(run(Path(sys.argv[1])))
    except AssayError as error:
        return _ended(error)
    except PermissionError as error:
        return _ended(unusable(error))
    except Exception as error:
        named = explain(error)
        if named is None:
            raise
        return _ended(named)
    return 0


def _ended(error: AssayError) -> int:
    print(error.diagnostics(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
