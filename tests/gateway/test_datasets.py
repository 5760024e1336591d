"""Uploads: all of it or nothing, once, and for one unit."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from assay.errors import (
    AlreadyExistsError,
    ExhaustedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from assay.v1 import dataset_pb2, erasure_pb2, model_pb2
from gateway.datasets import DatasetService
from gateway.statements import erasure_order_statement
from gateway.store import blobs, disk
from gateway.store.database import Store
from tests.gateway.conftest import House, messages
from tests.gateway.judged import MODEL, approved


def header(unit: str = "credit", dataset: str = "rows", request_id: str = "") -> dataset_pb2.UploadDatasetHeader:
    return dataset_pb2.UploadDatasetHeader(
        parent=f"units/{unit}",
        dataset_id=dataset,
        format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL,
        datasheet=dataset_pb2.Datasheet(licence="CC0-1.0"),
        request_id=request_id or str(uuid.uuid4()),
    )


async def test_an_upload_is_stored_recorded_and_readable(house: House) -> None:
    rita = await house.caller("rita")
    answer = await house.app.datasets.upload_dataset(rita, messages(header(), [b"one", b"two"]))
    found = await house.app.datasets.get_dataset(rita, dataset_pb2.GetDatasetRequest(name="units/credit/datasets/rows"))
    assert found.dataset == answer.dataset
    assert answer.dataset.size_bytes == 6
    with house.app.blobs.open("credit", answer.dataset.sha256) as stream:
        assert stream.read() == b"onetwo"
    record = house.app.ledger.record(answer.dataset.record_index)
    assert (record.unit, record.type) == ("credit", "dataset.created")
    assert answer.dataset.sha256.encode() in record.body and b"onetwo" not in record.body
    listed = await house.app.datasets.list_datasets(rita, dataset_pb2.ListDatasetsRequest(parent="units/credit"))
    assert list(listed.datasets) == [answer.dataset]


async def test_the_same_request_again_gets_the_same_dataset_and_no_second_record(house: House) -> None:
    rita, first = await house.caller("rita"), header()
    one = await house.app.datasets.upload_dataset(rita, messages(first, [b"rows"]))
    size = house.app.ledger.size
    assert await house.app.datasets.upload_dataset(rita, messages(first, [b"ro", b"ws"])) == one
    assert house.app.ledger.size == size
    with pytest.raises(AlreadyExistsError) as caught:
        await house.app.datasets.upload_dataset(rita, messages(first, [b"other rows"]))
    assert caught.value.reason == "REQUEST_ID"
    with pytest.raises(AlreadyExistsError) as caught:
        await house.app.datasets.upload_dataset(rita, messages(header(), [b"rows"]))
    assert caught.value.reason == "DATASET_EXISTS"
    # What was refused left no file behind, and took none away that a dataset names.
    assert not house.app.blobs.exists("credit", hashlib.sha256(b"other rows").hexdigest())
    assert house.app.blobs.exists("credit", one.dataset.sha256)


async def test_a_refused_upload_takes_nothing_away_that_the_unit_has(house: House) -> None:
    """Whoever may read a card may send its bytes."""
    await approved(house)
    carl = await house.caller("carl")
    for kind in (model_pb2.CARD_FORMAT_PDF, model_pb2.CARD_FORMAT_JSON):
        card = await download(house, kind)
        with pytest.raises(AlreadyExistsError):
            await house.app.datasets.upload_dataset(carl, messages(header(), [card]))
        assert await download(house, kind) == card


async def download(house: House, kind: Any) -> bytes:
    request = model_pb2.DownloadCardRequest(name=MODEL, format=kind)
    return b"".join([p.chunk async for p in house.app.models.download_card(await house.caller("rita"), request)])


@pytest.mark.parametrize("dataset", ["rows", "others"])
async def test_a_client_that_goes_away_before_the_answer_leaves_no_file_that_no_dataset_names(
    house: House, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    await house.upload("carl")
    gate, waits, real = threading.Event(), asyncio.Event(), Store.commit

    async def commit(self: Store, work: Any) -> Any:
        waits.set()
        return await real(self, work)

    monkeypatch.setattr(Store, "commit", commit)
    house.app.ledger.submit(lambda uow: gate.wait(30))
    carl, data = await house.caller("carl"), b"of a patient\n"
    upload = asyncio.create_task(house.app.datasets.upload_dataset(carl, messages(header(dataset=dataset), [data])))
    await waits.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    gate.set()
    await house.app.store.commit(lambda uow: None)
    known = await house.app.datasets.list_datasets(carl, dataset_pb2.ListDatasetsRequest(parent="units/credit"))
    sha256 = hashlib.sha256(data).hexdigest()
    assert house.app.blobs.exists("credit", sha256) == (sha256 in {d.sha256 for d in known.datasets})
    assert not list(house.layout.service("gateway").glob("data/blobs/tmp/*"))


async def refused(house: House, stream: object, kind: type[Exception], reason: str) -> None:
    size = house.app.ledger.size
    with pytest.raises(kind) as caught:
        await house.app.datasets.upload_dataset(await house.caller("rita"), stream)  # type: ignore[arg-type]
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert house.app.ledger.size == size
    assert not [p for p in house.layout.service("gateway").rglob("data/blobs/units/*/*") if p.name != "unit.salt"]
    assert not list(house.layout.service("gateway").glob("data/blobs/tmp/*"))


async def test_a_wrong_digest_stores_nothing(house: House) -> None:
    await refused(house, messages(header(), [b"rows"], "0" * 64), IntegrityError, "DIGEST_MISMATCH")


async def test_an_empty_file_stores_nothing(house: House) -> None:
    await refused(house, messages(header(), []), InvalidInputError, "DATASET_EMPTY")


async def test_a_cut_upload_stores_nothing(house: House) -> None:
    async def cut():  # type: ignore[no-untyped-def]
        yield dataset_pb2.UploadDatasetRequest(header=header())
        yield dataset_pb2.UploadDatasetRequest(chunk=b"rows")

    await refused(house, cut(), InvalidInputError, "UPLOAD_ORDER")


async def test_a_client_that_breaks_off_stores_nothing(house: House) -> None:
    async def broken():  # type: ignore[no-untyped-def]
        yield dataset_pb2.UploadDatasetRequest(header=header())
        yield dataset_pb2.UploadDatasetRequest(chunk=b"rows")
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await house.app.datasets.upload_dataset(await house.caller("rita"), broken())
    assert not list(house.layout.service("gateway").glob("data/blobs/tmp/*"))


async def test_a_start_clears_what_a_killed_gateway_left(opened: Callable[[], House]) -> None:
    first = opened()
    first.app.blobs.writer("credit").write(b"half")
    await first.app.close()
    second = opened()
    assert not list(second.layout.service("gateway").glob("data/blobs/tmp/*"))
    await second.app.close()


@pytest.mark.parametrize("order", ["chunk", "trailer", "two headers", "after"])
async def test_messages_out_of_order_store_nothing(house: House, order: str) -> None:
    good = [m async for m in messages(header(), [b"rows"])]
    streams = {
        "chunk": good[1:],
        "trailer": good[2:],
        "two headers": [good[0], good[0], *good[1:]],
        "after": [*good, good[1]],
    }

    async def stream():  # type: ignore[no-untyped-def]
        for message in streams[order]:
            yield message

    await refused(house, stream(), InvalidInputError, "UPLOAD_ORDER")


def limited(house: House, **limits: int) -> DatasetService:
    """The house's datasets under other limits."""
    changed = house.app.settings.limits.model_copy(update=limits)
    settings = house.app.settings.model_copy(update={"limits": changed})
    return dataclasses.replace(house.app.datasets, settings=settings)


@pytest.mark.parametrize("where", ["write", "seal"])
async def test_a_full_disk_is_named_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs._FileWriter, where, full)
    await refused(house, messages(header(), [b"rows"]), UnavailableError, "DISK_FULL")


async def test_no_upload_takes_the_last_of_the_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RESERVE_BYTES", 1 << 60)
    await refused(house, messages(header(), [b"rows"]), UnavailableError, "DISK_FULL")


async def test_a_unit_stores_so_much_and_what_was_erased_counts_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    rita, small = await house.caller("rita"), limited(house, max_unit_bytes=10)

    async def upload(name: str, data: bytes, unit: str = "credit") -> None:
        await small.upload_dataset(rita, messages(header(unit, name), [data]))

    async def full(name: str, data: bytes) -> None:
        with pytest.raises(ExhaustedError) as caught:
            await upload(name, data)
        assert caught.value.reason == "UNIT_BYTES" and "limits.max_unit_bytes" in caught.value.remedy

    await upload("one", b"12345")
    await upload("twin", b"12345")
    await full("two", b"123456")
    await upload("theirs", b"123456", "claims")
    # Of two that come in at once, the one that is registered last is one too many.
    monkeypatch.setattr(DatasetService, "_stored", lambda self, unit: asyncio.sleep(0, 0))
    await full("two", b"123456")
    monkeypatch.undo()
    assert not house.app.blobs.exists("credit", hashlib.sha256(b"123456").hexdigest())
    for name in ("one", "twin"):
        envelope = house.sign("cora", erasure_order_statement(f"units/credit/datasets/{name}", "data-subject-request"))
        order = erasure_pb2.EraseResourceRequest(name=f"units/credit/datasets/{name}", envelope=envelope)
        await house.app.erasures.erase_resource(await house.caller("cora"), order)
    await upload("two", b"123456")


async def test_a_file_over_the_cap_is_refused_while_it_comes(house: House) -> None:
    small = limited(house, max_dataset_bytes=10)
    sent = 0

    async def endless():  # type: ignore[no-untyped-def]
        nonlocal sent
        yield dataset_pb2.UploadDatasetRequest(header=header())
        while True:
            sent += 1
            yield dataset_pb2.UploadDatasetRequest(chunk=b"12345")

    with pytest.raises(ExhaustedError):
        await small.upload_dataset(await house.caller("rita"), endless())
    assert sent == 3


async def test_another_unit_looks_like_nothing_there(house: House) -> None:
    await house.upload("rita", "claims")
    carl = await house.caller("carl")
    for name in ("units/claims/datasets/rows", "units/claims/datasets/none", "units/nowhere/datasets/rows"):
        with pytest.raises(NotFoundError) as caught:
            await house.app.datasets.get_dataset(carl, dataset_pb2.GetDatasetRequest(name=name))
        assert caught.value.message == f"{name} does not exist, or you hold no role in its unit"
    for unit in ("claims", "nowhere", "system"):
        with pytest.raises(NotFoundError):
            await house.app.datasets.upload_dataset(carl, messages(header(unit), [b"rows"]))
    with pytest.raises(NotFoundError):
        await house.app.datasets.upload_dataset(await house.caller("rita"), messages(header("nowhere"), [b"rows"]))


async def test_pages_cover_everything_once_and_tokens_are_for_one_listing(house: House) -> None:
    rita = await house.caller("rita")
    for i in range(5):
        await house.upload("rita", dataset=f"d{i}")
    await house.upload("rita", "claims")
    seen, token = [], ""
    while True:
        request = dataset_pb2.ListDatasetsRequest(parent="units/credit", page_size=2, page_token=token)
        page = await house.app.datasets.list_datasets(rita, request)
        seen += [d.name for d in page.datasets]
        token = page.next_page_token
        if not token:
            break
        foreign = dataset_pb2.ListDatasetsRequest(parent="units/claims", page_token=token)
        with pytest.raises(InvalidInputError):
            await house.app.datasets.list_datasets(rita, foreign)
    assert seen == [f"units/credit/datasets/d{i}" for i in (4, 3, 2, 1, 0)]
    for bad in ("x", "AAAA", "%%%", "W10"):
        with pytest.raises(InvalidInputError):
            await house.app.datasets.list_datasets(
                rita, dataset_pb2.ListDatasetsRequest(parent="units/credit", page_token=bad)
            )
