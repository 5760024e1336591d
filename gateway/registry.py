"""Tuned models: what they are made of, their cards, and their files once they are approved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric import ec

from assay import model_signature
from assay.digests import FileDigest, Manifest
from assay.errors import PreconditionError
from assay.v1 import model_pb2
from gateway import pages
from gateway.caller import Caller, not_found
from gateway.jobs.transitions import State
from gateway.names import unit_of
from gateway.store import jobs, rows
from gateway.store.blobs import BlobStore
from gateway.store.database import Store
from gateway.store.tables import ModelRow

_CHUNK = 256 << 10


@dataclass(frozen=True)
class ModelRegistry:
    """Domain service of models; ``signer`` is the PDF key, which signs adapters as they leave."""

    store: Store
    blobs: BlobStore
    signer: ec.EllipticCurvePrivateKey

    async def get_model(self, caller: Caller, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        """One model.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        return model_pb2.GetModelResponse(model=message_of(await self._row(caller, request.name)))

    async def list_models(self, caller: Caller, request: model_pb2.ListModelsRequest) -> model_pb2.ListModelsResponse:
        """A unit's models, newest first.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in, or that never was.
            InvalidInputError: ``PAGE_TOKEN``.
        """
        unit = unit_of(request.parent)
        caller.require_unit(unit, request.parent)
        await self.store.require_unit(unit, request.parent)
        listing = pages.Listing.of(f"models {request.parent}", request)
        where = [rows.table(ModelRow).c.unit == unit]
        shown, token = await self.store.fetch(
            lambda c: listing.read(
                c, ModelRow, message_of, time="created_us", name="name", newest_first=True, where=where
            )
        )
        return model_pb2.ListModelsResponse(models=shown, next_page_token=token)

    async def download_card(
        self, caller: Caller, request: model_pb2.DownloadCardRequest
    ) -> AsyncIterator[model_pb2.DownloadCardResponse]:
        """Yields the card: as issued if it was, else as rendered. Approvals sign the JSON twin's digest.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``NO_CARD`` before one is rendered.
        """
        row = await self._row(caller, request.name)
        if not row.card_version:
            raise PreconditionError(
                "NO_CARD", f"{request.name} has no card yet", remedy="wait for the release decision"
            )
        as_json = request.format == model_pb2.CARD_FORMAT_JSON
        sha256 = row.card_sha256 if as_json else row.issued_pdf_sha256 or row.card_pdf_sha256
        with await asyncio.to_thread(self.blobs.open, row.unit, sha256) as stream:
            async for chunk in _chunks(stream):
                yield model_pb2.DownloadCardResponse(chunk=chunk)
        yield model_pb2.DownloadCardResponse(sha256=sha256)

    async def download_adapter(
        self, caller: Caller, request: model_pb2.DownloadAdapterRequest
    ) -> AsyncIterator[model_pb2.DownloadAdapterResponse]:
        """Yields the adapter's files one after another, each under its path, and last their OpenSSF signature.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``NOT_APPROVED`` unless the model is approved at this moment.
        """
        row = await self._row(caller, request.name)
        job = await self.store.fetch(lambda c: jobs.get(c, row.job))
        if job is None or job.state != State.APPROVED:
            raise PreconditionError("NOT_APPROVED", f"{request.name} is not approved", remedy="have it approved first")
        for file in json.loads(row.files):
            yield model_pb2.DownloadAdapterResponse(path=file["path"])
            with await asyncio.to_thread(self.blobs.open, row.unit, file["sha256"]) as stream:
                async for chunk in _chunks(stream):
                    yield model_pb2.DownloadAdapterResponse(path=file["path"], chunk=chunk)
        manifest = Manifest(tuple(FileDigest(**file) for file in json.loads(row.files)))
        yield model_pb2.DownloadAdapterResponse(signature=model_signature.sign(manifest, request.name, self.signer))

    async def _row(self, caller: Caller, name: str) -> ModelRow:
        caller.require_unit(unit_of(name), name)
        row = await self.store.fetch(lambda c: rows.get(c, ModelRow, name=name))
        if row is None:
            raise not_found(name)
        return row


def message_of(row: ModelRow) -> model_pb2.Model:
    """A row as the contract's message."""
    return model_pb2.Model(
        name=row.name,
        tuning_job=row.job,
        files=[
            model_pb2.ModelFile(path=f["path"], sha256=f["sha256"], size_bytes=f["size"]) for f in json.loads(row.files)
        ],
        adapter_sha256=row.adapter_sha256,
        base_model=row.base_model,
        base_sha256=row.base_sha256,
        create_time=rows.timestamp(row.created_us),
        card_rendered_sha256=row.card_sha256,
        card_issued_sha256=row.issued_pdf_sha256,
        card_rendered_index=max(row.card_index, 0),
        card_issued_index=max(row.issued_index, 0),
    )


async def _chunks(stream: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(stream.read, _CHUNK):
        yield chunk
