"""A gateway process without its wire: ``tiny_gateway.py DIR [POINT [ACT]]`` runs the pipeline until every job rests.

At POINT, such as ``training.ordered:before``, it ends itself with SIGKILL (``dying.py``). With ACT, what a person or
the clock does by its name in ``acts.py``, it does that instead.
"""

import asyncio
import sys
from pathlib import Path


async def main() -> None:
    from gateway.application import Application
    from gateway.settings import Settings
    from gateway.store import rows
    from gateway.store.tables import JobRow

    app = Application.open(Settings.load(Path(sys.argv[1])))
    if len(sys.argv) > 3:
        from assay.identity import Layout
        from tests.gateway.acts import ACTS
        from tests.gateway.conftest import House

        await ACTS[sys.argv[3]].act(House(app, Layout(Path(sys.argv[1]))))
        await app.close()
        return
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
        from tests.gateway.dying import arm

        arm(sys.argv[2])
    asyncio.run(main())
