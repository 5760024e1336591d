"""The gateway process: ``python -m gateway.rpc DIR``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from assay.errors import AssayError
from gateway.application import Application
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
    sampler = asyncio.create_task(sample(app, gauges), name="gauges")
    ended = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({pipeline, ended}, return_when=asyncio.FIRST_COMPLETED)
        if pipeline.done():
            pipeline.result()
    finally:
        for task in (ended, sampler, pipeline):
            task.cancel()
        await asyncio.gather(pipeline, sampler, ended, return_exceptions=True)


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
        await asyncio.sleep(SAMPLE_SECONDS)


def main() -> int:
    """Entry point of the gateway process."""
    try:
        asyncio.run(run(Path(sys.argv[1])))
    except AssayError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
