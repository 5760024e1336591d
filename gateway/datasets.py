"""Datasets: streamed or fetched in, hashed, encrypted, recorded. The gateway never reads a row."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, func, select

from assay import canonical
from assay.errors import AlreadyExistsError, ExhaustedError, IntegrityError, InvalidInputError
from assay.v1 import dataset_pb2
from audit.ledger.payloads import ScopeKeys
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import pages, requests, stores, words
from gateway.caller import Caller, not_found
from gateway.erasures import erased_by, retention_end
from gateway.jobs.views import from_json, to_json
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import disk, rows
from gateway.store.blobs import Blob, BlobStore, BlobWriter
from gateway.store.database import Store
from gateway.store.tables import DatasetRow, ErasureRow

_UPLOAD, _IMPORT = "UploadDataset", "ImportDataset"
_PROGRESS_SECONDS = 1.0
IMPORTS_AT_ONCE = 2
"""Files that one unit fetches from stores at the same time."""


@dataclass(frozen=True)
class _Made:
    """What came in whole: by which method, with what digest of the request, from where; ``source`` empty: uploaded.

    ``file`` is sealed and invisible.
    """

    method: str
    header: dataset_pb2.UploadDatasetHeader
    content: str
    file: BlobWriter
    source: str = ""


@dataclass(frozen=True)
class DatasetService:
    """Domain service of datasets."""

    settings: Settings
    store: Store
    blobs: BlobStore
    keys: ScopeKeys
    _imports: defaultdict[str, threading.Semaphore] = field(
        default_factory=lambda: defaultdict(partial(threading.Semaphore, IMPORTS_AT_ONCE)), repr=False
    )

    async def upload_dataset(
        self, caller: Caller, messages: AsyncIterator[dataset_pb2.UploadDatasetRequest]
    ) -> dataset_pb2.UploadDatasetResponse:
        """Takes header, chunks and trailer; stores all of it or nothing.

        Raises:
            InvalidInputError: ``UPLOAD_ORDER`` for messages out of order or a missing trailer, ``DATASET_EMPTY`` for
                no bytes.
            IntegrityError: ``DIGEST_MISMATCH`` when the bytes are not those that the trailer names.
            ExhaustedError: ``DATASET_TOO_LARGE``, or ``UNIT_BYTES`` for a unit that has stored as much as it may.
            UnavailableError: ``DISK_FULL``.
            AlreadyExistsError: ``DATASET_EXISTS`` or ``REQUEST_ID``.
            NotFoundError: ``NOT_FOUND`` for a unit that is not there or not the caller's.
        """
        header = await _header(messages)
        unit = self._unit(caller, header)
        with disk.named():
            writer = await asyncio.to_thread(self.blobs.writer, unit)
            try:
                await self._receive(writer, messages, await self._stored(unit))
                made = _Made(_UPLOAD, header, requests.digest(header, writer.digest()), writer)
                dataset = await self._commit(caller, made)
            finally:
                writer.abandon()
        return dataset_pb2.UploadDatasetResponse(dataset=dataset)

    async def import_dataset(
        self, caller: Caller, request: dataset_pb2.ImportDatasetRequest
    ) -> AsyncIterator[dataset_pb2.ImportDatasetResponse]:
        """Fetches a file from a store that the operator allows; yields progress, and at last the dataset.

        A repeat of an answered request is answered without asking the store again.

        Raises:
            PermissionDeniedError: ``STORE_NOT_ALLOWED``, ``STORE_NETWORK``.
            UnavailableError: ``STORE_UNREACHABLE``, ``STORE_ANSWER``, ``STORE_SLOW``.
            ExhaustedError: ``IMPORTS_BUSY`` while the unit has :data:`IMPORTS_AT_ONCE` under way.
            Others: those of :meth:`upload_dataset`.
        """
        header = request.header
        unit = self._unit(caller, header)
        address = stores.allowed(self.settings.stores, unit, request.source)
        content = requests.digest(header, f"{request.source} {request.sha256}")
        known = await self.store.fetch(lambda c: self._answered(c, caller, _IMPORT, header, content))
        if known is not None:
            yield dataset_pb2.ImportDatasetResponse(dataset=known)
            return
        with self._thread(unit) as thread, disk.named():
            stored = await self._stored(unit)
            writer = await asyncio.to_thread(self.blobs.writer, unit)
            try:
                async with aclosing(self._fetch(writer, address, thread, stored)) as told:
                    async for progress in told:
                        yield dataset_pb2.ImportDatasetResponse(progress=progress)
                size = (await asyncio.to_thread(_seal, writer, request.sha256)).size
                whole = dataset_pb2.ImportProgress(received_bytes=size, total_bytes=size)
                # Behind it is what cannot be undone: the gate admits the caller anew before each answer.
                yield dataset_pb2.ImportDatasetResponse(progress=whole)
                made = _Made(_IMPORT, header, content, writer, request.source)
                dataset = await self._commit(caller, made)
            finally:
                writer.abandon()
        yield dataset_pb2.ImportDatasetResponse(dataset=dataset)

    async def get_dataset(
        self, caller: Caller, request: dataset_pb2.GetDatasetRequest
    ) -> dataset_pb2.GetDatasetResponse:
        """What is known of a dataset; never its rows.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        caller.require_unit(unit_of(request.name), request.name)

        def read(connection: Connection) -> dataset_pb2.Dataset:
            row = rows.get(connection, DatasetRow, name=request.name)
            if row is None:
                raise not_found(request.name)
            return self._whole(connection, row)

        return dataset_pb2.GetDatasetResponse(dataset=await self.store.fetch(read))

    async def list_datasets(
        self, caller: Caller, request: dataset_pb2.ListDatasetsRequest
    ) -> dataset_pb2.ListDatasetsResponse:
        """A unit's datasets, newest first.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in, or that never was.
            InvalidInputError: ``PAGE_TOKEN``.
        """
        unit = unit_of(request.parent)
        caller.require_unit(unit, request.parent)
        await self.store.require_unit(unit, request.parent)
        listing = pages.Listing.of(f"datasets {request.parent}", request)
        where = [rows.table(DatasetRow).c.unit == unit]

        def read(c: Connection) -> dataset_pb2.ListDatasetsResponse:
            show = partial(self._whole, c)
            datasets, token = listing.read(
                c, DatasetRow, show, time="created_us", name="name", newest_first=True, where=where
            )
            return dataset_pb2.ListDatasetsResponse(datasets=datasets, next_page_token=token)

        return await self.store.fetch(read)

    def _unit(self, caller: Caller, header: dataset_pb2.UploadDatasetHeader) -> str:
        unit = unit_of(header.parent)
        caller.require_unit(unit, header.parent)
        if unit not in self.settings.units:
            raise not_found(header.parent)
        return unit

    @contextmanager
    def _thread(self, unit: str) -> Iterator[ThreadPoolExecutor]:
        """A thread of one import's own: a store that hangs blocks none that other calls and the pipeline need.

        Nobody can end a thread that waits, so an import that was given up counts until its thread comes back.
        """
        places = self._imports[unit]
        if not places.acquire(blocking=False):
            raise ExhaustedError(
                "IMPORTS_BUSY",
                f"{IMPORTS_AT_ONCE} files of units/{unit} are being fetched from stores",
                remedy="try again when one of them has come in or has failed",
            )
        thread = ThreadPoolExecutor(1, "import")
        try:
            yield thread
        finally:
            thread.submit(places.release)
            thread.shutdown(wait=False)

    async def _fetch(
        self, writer: BlobWriter, address: stores.Address, thread: ThreadPoolExecutor, stored: int
    ) -> AsyncGenerator[dataset_pb2.ImportProgress, None]:
        limits, loop = self.settings.limits, asyncio.get_running_loop()
        begin: Callable[[], stores.Download] = partial(
            stores.Download,
            address,
            self.settings.folder,
            max_bytes=limits.max_dataset_bytes,
            seconds=limits.store_seconds,
        )
        coming = await loop.run_in_executor(thread, begin)
        try:
            size, shown, chunks = 0, time.monotonic(), coming.chunks()
            while chunk := await loop.run_in_executor(thread, next, chunks, b""):
                size += len(chunk)
                await self._keep(writer, chunk, size, stored)
                if time.monotonic() - shown >= _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    yield dataset_pb2.ImportProgress(received_bytes=size, total_bytes=coming.total)
            if not size:
                raise _empty()
        finally:
            # There too, since it waits for a read that is under way.
            thread.submit(coming.close)

    async def _stored(self, unit: str) -> int:
        return await self.store.fetch(lambda c: _stored(c, unit))

    async def _keep(self, writer: BlobWriter, chunk: bytes, size: int, stored: int) -> None:
        """Writes a chunk with which the file has ``size`` bytes, beside ``stored`` bytes of the unit's others."""
        cap = self.settings.limits.max_dataset_bytes
        if size > cap:
            raise ExhaustedError("DATASET_TOO_LARGE", f"the file has more than {cap} bytes", remedy="split it")
        self._demand_unit_room(stored + size)

        def write() -> None:
            disk.demand_room(self.settings.data, len(chunk))
            writer.write(chunk)

        await asyncio.to_thread(write)

    def _demand_unit_room(self, stored: int) -> None:
        cap = self.settings.limits.max_unit_bytes
        if stored > cap:
            raise ExhaustedError(
                "UNIT_BYTES",
                f"the files of the unit's datasets would have more than {cap} bytes",
                remedy="have datasets erased that nobody needs; the operator may raise limits.max_unit_bytes",
            )

    async def _receive(
        self, writer: BlobWriter, messages: AsyncIterator[dataset_pb2.UploadDatasetRequest], stored: int
    ) -> None:
        size = 0
        async for message in messages:
            part = message.WhichOneof("part")
            if part == "chunk":
                size += len(message.chunk)
                await self._keep(writer, message.chunk, size, stored)
            elif part == "trailer":
                if not size:
                    raise _empty()
                async for _ in messages:
                    raise _out_of_order("something followed the trailer")
                await asyncio.to_thread(_seal, writer, message.trailer.sha256)
                return
            else:
                raise _out_of_order("a second header")
        raise _out_of_order("the trailer with the digest is missing; the upload was cut short")

    def _answered(
        self, c: Connection, caller: Caller, method: str, header: dataset_pb2.UploadDatasetHeader, content: str
    ) -> dataset_pb2.Dataset | None:
        before = requests.answered(c, caller.subject, method, header.request_id, content)
        known = rows.get(c, DatasetRow, name=before) if before else None
        return self._whole(c, known) if known is not None else None

    async def _commit(self, caller: Caller, made: _Made) -> dataset_pb2.Dataset:
        """Registers; a file that became visible and is named by no row goes at the next start."""
        mark = await asyncio.to_thread(self.blobs.mark, unit_of(made.header.parent), [made.file.digest()])
        try:
            dataset = await self.store.commit(lambda uow: self._register(uow, caller, made))
        except Exception:
            if not made.file.visible:
                mark.unlink()
            raise
        mark.unlink()
        return dataset

    def _register(self, uow: UnitOfWork, caller: Caller, made: _Made) -> dataset_pb2.Dataset:
        """Answers a request that was answered before; else records the dataset, and only then shows its file.

        A batch of the ledger's that fails after this unit leaves a file that no row names; :meth:`_commit` marked it.
        """
        c, header, blob = uow.connection, made.header, made.file.seal()
        name = f"{header.parent}/datasets/{header.dataset_id}"
        before = self._answered(c, caller, made.method, header, made.content)
        if before is not None:
            return before
        if rows.get(c, DatasetRow, name=name) is not None:
            raise AlreadyExistsError("DATASET_EXISTS", f"{name} exists", remedy="choose another dataset_id")
        unit = unit_of(header.parent)
        sheet, origin, kept = dataset_pb2.Datasheet(), header.datasheet.provenance, ""
        sheet.CopyFrom(header.datasheet)
        sheet.ClearField("provenance")
        predicate = {
            "dataset": name,
            "format": dataset_pb2.DatasetFormat.Name(header.format),
            "datasheet": canonical.from_message(sheet),
            "sha256": blob.sha256,
            "size_bytes": blob.size,
            "actor": caller.subject,
            "trace_id": caller.trace_id,
        }
        if made.source:
            predicate["source"] = made.source
        if origin:
            commitment = words.keep(c, self.keys, unit, name, origin)
            predicate["provenance_commitment"], kept = commitment, words.reference(commitment)
            sheet.provenance = words.masked(origin)
        index = uow.append(RecordDraft(unit, "dataset.created", "dataset", predicate, [("dataset", blob.sha256)]))
        days = timedelta(days=sheet.retention_days)
        row = DatasetRow(
            name=name,
            unit=unit,
            format=header.format,
            datasheet=to_json(sheet),
            provenance=kept,
            sha256=blob.sha256,
            size_bytes=blob.size,
            creator=caller.subject,
            created_us=rows.micros(uow.now),
            record_index=index,
            retention_end_us=rows.micros(uow.now + days) if days else 0,
        )
        rows.insert(c, row)
        # Others may have come in beside it.
        self._demand_unit_room(_stored(c, unit))
        requests.remember(c, caller.subject, made.method, header.request_id, made.content, name)
        answer = self._whole(c, row)
        made.file.finish()
        return answer

    def _whole(self, connection: Connection, row: DatasetRow) -> dataset_pb2.Dataset:
        """A row as the contract's message, with what has become of its rows."""
        message = message_of(connection, self.keys, row)
        erasure = rows.get(connection, ErasureRow, resource=row.name)
        index = erased_by(erasure) if erasure is not None else None
        if index is not None:
            message.erased_index = index
        return message


def message_of(connection: Connection, keys: ScopeKeys, row: DatasetRow) -> dataset_pb2.Dataset:
    """A row as the contract's message, with the words of its provenance as long as they may be read."""
    message = dataset_pb2.Dataset(
        name=row.name,
        format=dataset_pb2.DatasetFormat.Name(row.format),
        datasheet=from_json(row.datasheet, dataset_pb2.Datasheet),
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        creator=row.creator,
        create_time=rows.timestamp(row.created_us),
        record_index=row.record_index,
    )
    if row.provenance:
        message.datasheet.provenance = words.shown(connection, keys, row.provenance)
    end = retention_end(row)
    if end is not None:
        message.retention_end_time.FromDatetime(end)
    return message


def _stored(c: Connection, unit: str) -> int:
    """Bytes of a unit's files: two datasets of the same bytes share one, and an erased one has none."""
    data, erasure = rows.table(DatasetRow).c, rows.table(ErasureRow).c
    erased = select(erasure.resource).where(erasure.unit == unit, erasure.executed_index >= 0)
    files = select(data.sha256, data.size_bytes).where(data.unit == unit, data.name.not_in(erased)).distinct()
    return int(c.execute(select(func.coalesce(func.sum(files.subquery().c.size_bytes), 0))).scalar_one())


def _seal(writer: BlobWriter, claimed: str) -> Blob:
    """Ends a file that is what was announced."""
    if writer.digest() != claimed:
        raise IntegrityError(
            "DIGEST_MISMATCH",
            "the bytes received are not those that the digest names",
            remedy="send the file again",
        )
    return writer.seal()


async def _header(messages: AsyncIterator[dataset_pb2.UploadDatasetRequest]) -> dataset_pb2.UploadDatasetHeader:
    async for message in messages:
        if message.WhichOneof("part") == "header":
            return message.header
        break
    raise _out_of_order("the first message must be the header")


def _empty() -> InvalidInputError:
    return InvalidInputError("DATASET_EMPTY", "the file holds no bytes", remedy="send at least one row")


def _out_of_order(what: str) -> InvalidInputError:
    return InvalidInputError("UPLOAD_ORDER", what, remedy="send header, then chunks, then the trailer")
