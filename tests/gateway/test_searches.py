"""What computes long, asked for by one caller, holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from assay.v1 import lineage_pb2, policy_pb2
from gateway import lineage_service, precedents
from gateway.evidence import EvidenceService
from gateway.precedents import Precedents
from gateway.store.searches import Searches
from tests.gateway.conftest import House
from tests.gateway.test_evidence import export

UNIT = "units/credit"


class Hold:
    """Something that computes until it is let go."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.begun.set()
        self.let_go.wait(30)
        self.under_way -= 1
        raise TimeoutError("it was let go")


async def search(house: House, _: Path) -> Any:
    service = Precedents(house.app.settings, house.app.store, house.app.authorizer)
    return await service.list_precedents(await house.caller("cora"), policy_pb2.ListPrecedentsRequest(parent=UNIT))


async def bundle(house: House, folder: Path) -> Any:
    return await export(house, "anna", UNIT, [], folder / "bundle.zip")


async def lineage(house: House, _: Path) -> Any:
    asked = lineage_pb2.GetLineageRequest(name=f"{UNIT}/datasets/rows")
    return await house.app.lineage.get_lineage(await house.caller("cora"), asked)


@pytest.mark.parametrize(
    ("ask", "where"),
    [
        (search, (precedents, "_page")),
        (bundle, (EvidenceService, "_export")),
        (lineage, (lineage_service, "_datasets")),
    ],
)
async def test_it_takes_no_thread_that_others_read_with(
    house: House,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[House, Path], Awaitable[Any]],
    where: tuple[Any, str],
) -> None:
    await house.upload("rita")
    hold = Hold()
    monkeypatch.setattr(*where, hold)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    asking = asyncio.ensure_future(ask(house, tmp_path))
    try:
        while not hold.begun.is_set():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert await house.app.store.fetch(lambda connection: "a row") == "a row"
    finally:
        hold.let_go.set()
    with pytest.raises(TimeoutError):
        await asking


async def test_one_subject_has_one_under_way_also_once_it_gave_one_up() -> None:
    searches, hold = Searches(), Hold()
    first = asyncio.create_task(searches.run("rita", hold))
    while not hold.begun.is_set():
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    others = [asyncio.create_task(searches.run("rita", hold)) for _ in range(5)]
    async with asyncio.timeout(20):
        assert await searches.run("carl", lambda: "found") == "found"
    assert not any(other.done() for other in others)
    hold.let_go.set()
    await asyncio.gather(*others, return_exceptions=True)
    assert hold.most == 1
