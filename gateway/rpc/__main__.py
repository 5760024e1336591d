"""The gateway process: ``python -m gateway.rpc DIR``."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from assay.errors import AssayError
from gateway.application import Application
from gateway.rpc import server
from gateway.settings import Settings
from gateway.telemetry import Telemetry

GRACE_SECONDS = 5.0


async def run(directory: Path) -> None:
    """Serves until SIGTERM or SIGINT; running calls get a few seconds, jobs go on at the next start."""
    settings = Settings.load(directory)
    telemetry = Telemetry.open(settings.folder / "telemetry", settings.metrics)
    app = Application.open(settings)
    telemetry.observe(app.pipeline.stats, lambda: app.ledger.size)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await server.start(app, telemetry)
    pipeline = asyncio.create_task(app.pipeline.run(), name="pipeline")
    ended = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({pipeline, ended}, return_when=asyncio.FIRST_COMPLETED)
        if pipeline.done():
            pipeline.result()
    finally:
        ended.cancel()
        pipeline.cancel()
        await asyncio.gather(pipeline, ended, return_exceptions=True)
        await port.stop(GRACE_SECONDS)
        await app.close()
        telemetry.close()


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
