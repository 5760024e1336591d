"""A gateway process without its wire: ``tiny_gateway.py DIR [POINT]`` runs the pipeline until every job rests.

At POINT, such as ``queue:before`` or ``render:after``, it ends itself with SIGKILL: right before or right after that
commit.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Plants the end at a commit."""
    from gateway.admission.cards import CardOffice
    from gateway.admission.office import Office

    event, when = point.split(":")
    change, record = Office.change, CardOffice._record

    async def dying_change(self: Any, job: Any, what: Any, **more: Any) -> None:
        if (what, when) == (event, "before"):
            die()
        await change(self, job, what, **more)
        if (what, when) == (event, "after"):
            die()

    async def dying_record(self: Any, *arguments: Any) -> None:
        if (event, when) == ("render", "before"):
            die()
        await record(self, *arguments)
        if (event, when) == ("render", "after"):
            die()

    Office.change = dying_change  # type: ignore[method-assign]
    CardOffice._record = dying_record  # type: ignore[method-assign]


async def main() -> None:
    from gateway.application import Application
    from gateway.settings import Settings
    from gateway.store import rows
    from gateway.store.tables import JobRow

    app = Application.open(Settings.load(Path(sys.argv[1])))
    running = asyncio.create_task(app.pipeline.run())
    while app.store.read(lambda c: rows.select_all(c, JobRow, needs_work=True)):
        await asyncio.sleep(0.05)
    # The last commit is seen here before whoever awaits it goes on: let an end planted right after it come.
    await asyncio.sleep(1.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await app.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        arm(sys.argv[2])
    asyncio.run(main())
