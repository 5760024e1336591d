"""The ledger for those outside: records, checkpoints, proofs, and bundles that can be verified without us."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from sqlalchemy import Connection

from assay.errors import IntegrityError, InvalidInputError, NotFoundError
from assay.v1 import audit_pb2
from audit.ledger import bundle, evidence, payloads
from audit.ledger.ledger import StoredRecord
from audit.ledger.payloads import ScopeKeys
from audit.ledger.quorum import Log, QuorumPolicy
from audit.ledger.records import OWN_UNITS, REFUSALS_UNIT
from gateway import active_policy, pages
from gateway.caller import ALL_UNITS, Caller, not_found
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.blobs import BlobStore, read_bytes
from gateway.store.database import Store
from gateway.store.rows import Position
from gateway.store.tables import ModelRow
from policies.authorization import Authorizer
from policies.bundle import CHOSEN

_CHUNK = 256 << 10


@dataclass(frozen=True)
class EvidenceService:
    """Domain service of the ledger.

    A caller reads the chains of units it has a role in; the installation's own chains take leave to list the whole log.
    """

    settings: Settings
    store: Store
    blobs: BlobStore
    keys: ScopeKeys
    authorizer: Authorizer

    async def list_records(
        self, caller: Caller, request: audit_pb2.ListRecordsRequest
    ) -> audit_pb2.ListRecordsResponse:
        """Records in log order.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in.
            InvalidInputError: ``PAGE_TOKEN``, ``OTHER_UNIT``.
        """
        unit = await self._unit(caller, request.parent)
        if request.tuning_job and unit not in (None, unit_of(request.tuning_job)):
            raise InvalidInputError("OTHER_UNIT", "the job lies in another unit")
        listing = pages.Listing.of(f"records {request.parent} {request.tuning_job}", request)
        after = listing.after.time_us if listing.after else -1
        found = await asyncio.to_thread(
            self.store.ledger.records, unit, request.tuning_job or None, after, listing.limit + 1
        )
        shown, token = listing.page(found, _message, lambda record: Position(record.index, ""))
        return audit_pb2.ListRecordsResponse(records=shown, next_page_token=token)

    async def get_checkpoint(
        self, caller: Caller, request: audit_pb2.GetCheckpointRequest
    ) -> audit_pb2.GetCheckpointResponse:
        """The newest published checkpoint, with its cosignatures.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET`` before the first.
        """
        return audit_pb2.GetCheckpointResponse(note=(await asyncio.to_thread(self.store.publication.latest))[1])

    async def get_inclusion_proof(
        self, caller: Caller, request: audit_pb2.GetInclusionProofRequest
    ) -> audit_pb2.GetInclusionProofResponse:
        """Proves that a record is in the log; its bytes come along if the caller may list the records of its unit.

        Raises:
            InvalidInputError: ``PROOF_RANGE``.
            NotFoundError: ``RECORD_NOT_FOUND``.
        """

        def read() -> audit_pb2.GetInclusionProofResponse:
            ledger = self.store.ledger
            size = self._published_size(request.tree_size)
            hashes = ledger.inclusion_proof(request.index, size)
            record = ledger.record(request.index)
            proof = audit_pb2.RecordProof(index=request.index, tree_size=size, hashes=hashes)
            if caller.may("ListRecords", ALL_UNITS if record.unit in OWN_UNITS else record.unit, self.authorizer):
                proof.body = record.body
            return audit_pb2.GetInclusionProofResponse(proof=proof, checkpoint=self.store.publication.at(size))

        if not request.tree_size and request.index < self.store.ledger.size:
            await self.store.published(request.index)
        return await asyncio.to_thread(read)

    async def get_consistency_proof(
        self, caller: Caller, request: audit_pb2.GetConsistencyProofRequest
    ) -> audit_pb2.GetConsistencyProofResponse:
        """Proves that an older log is a prefix of a newer one.

        Raises:
            InvalidInputError: ``PROOF_RANGE``.
        """

        def read() -> audit_pb2.GetConsistencyProofResponse:
            ledger = self.store.ledger
            size = self._published_size(request.to_size)
            hashes = ledger.consistency_proof(request.from_size, size)
            return audit_pb2.GetConsistencyProofResponse(
                hashes=hashes,
                from_size=request.from_size,
                to_size=size,
                checkpoint=self.store.publication.at(size),
            )

        return await asyncio.to_thread(read)

    async def export_bundle(
        self, caller: Caller, request: audit_pb2.ExportBundleRequest
    ) -> AsyncIterator[audit_pb2.ExportBundleResponse]:
        """Yields an evidence bundle: the records asked for, what they rest on, their proofs, the cards, and the rules.

        A card that cannot be read any more is left out, and so is a policy that is not kept, and so are the records of
        refused calls and cards where there are too many for a bundle; the last message names it.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in.
            InvalidInputError: ``OTHER_UNIT``.
            ExhaustedError: ``BUNDLE_TOO_LARGE``.
            UnavailableError: ``QUORUM_NOT_MET`` when the witnesses have not seen all that is in the log now.
        """
        unit = await self._unit(caller, request.parent)
        for job in request.tuning_jobs:
            if unit not in (None, unit_of(job)):
                raise InvalidInputError("OTHER_UNIT", "a job lies in another unit")
        await self.store.published(self.store.ledger.size - 1)
        with tempfile.TemporaryFile() as out:
            export = partial(self._export, out, unit, list(request.tuning_jobs))
            sha256, absent = await self.store.exports.run(caller.subject, export)
            out.seek(0)
            while chunk := await asyncio.to_thread(out.read, _CHUNK):
                yield audit_pb2.ExportBundleResponse(chunk=chunk)
        yield audit_pb2.ExportBundleResponse(sha256=sha256, absent_attachments=absent)

    def _export(self, out: BinaryIO, unit: str | None, jobs: Sequence[str]) -> tuple[str, Mapping[str, str]]:
        units = {unit_of(job) for job in jobs} | ({unit} if unit else set())
        size, note = self.store.publication.latest()
        cards = self.store.read(lambda c: self._cards(c, unit, jobs, size))
        absent, texts = dict[str, str](), set[str]()

        def policy_of(rules: str, limits: str) -> dict[str, bytes]:
            found, missing = self._texts(rules, limits, units or None)
            absent.update(missing)
            texts.update(found)
            return found

        exported = bundle.export(
            self.store.ledger,
            out,
            unit=unit,
            jobs=jobs,
            attachments=partial(self._attachments, cards, absent),
            disclose=self._disclosed,
            policy_of=policy_of,
            policy_text=self._policy(),
            checkpoint=note,
        )
        absent |= dict.fromkeys(exported.without_documents, "BUNDLE_FULL")
        if exported.without_refusals:
            absent["refusals"] = "TOO_MANY"
        # Limits that stay the same under new rules may be kept with one of the two, and so may rules.
        return exported.sha256, {path: why for path, why in absent.items() if path not in texts}

    def _policy(self) -> str:
        """The witness policy as a bundle shows it: with the log's key, without addresses."""
        policy = self.store.publication.policy
        return QuorumPolicy((Log(self.store.ledger.verifier),), policy.witnesses, policy.groups, policy.quorum).text(
            addresses=False
        )

    def _published_size(self, asked: int) -> int:
        """The size asked for, or the newest published; nothing is proved about what the witnesses have not seen."""
        newest = self.store.publication.latest()[0]
        if asked > newest:
            raise InvalidInputError("PROOF_RANGE", f"the published log has {newest} records, not {asked}")
        return asked or newest

    def _disclosed(self, commitment: str) -> bytes:
        """Salt and payload of a commitment; empty when it was erased."""
        try:
            opening = self.store.read(lambda c: payloads.get(c, self.keys, commitment))
        except NotFoundError:
            return b""
        return opening.salt + opening.payload

    def _texts(self, rules: str, limits: str, units: Set[str] | None) -> tuple[dict[str, bytes], dict[str, str]]:
        """Texts of the rules and the limits of two digests by path, and why one is not there.

        Which packs another unit chose is nobody's business here, and the limits' digest is of that too: where there is
        such a choice, a bundle of some ``units`` has no text of them.
        """
        paths = evidence.rules_path(rules), evidence.limits_path(limits)
        texts = active_policy.text_of(self.settings, rules, limits)
        if texts is None:
            return {}, dict.fromkeys(paths, "POLICY_NOT_KEPT")
        found = {path: text.encode() for path, text in zip(paths, texts, strict=True)}
        if units is None or texts[1].more.get(CHOSEN, {}).keys() <= units:
            return found, {}
        del found[paths[1]]
        return found, {paths[1]: "OTHER_UNITS"}

    def _cards(
        self, connection: Connection, unit: str | None, jobs: Sequence[str], size: int
    ) -> list[tuple[str, str, str]]:
        """Cards and their JSON twins, each as name, unit and digest; the name tells whose, a record names the digest.

        Only cards recorded below ``size``: the bundle shows no record of a younger one.
        """
        found: list[tuple[str, str, str]] = []
        for model in rows.select_all(connection, ModelRow, order_by="name"):
            if (unit is not None and model.unit != unit) or (jobs and model.job not in jobs):
                continue
            stem = model.name.replace("units/", "").replace("/models/", ".")
            twin, draft = (model.card_sha256, model.card_pdf_sha256) if model.card_index < size else ("", "")
            issued = model.issued_pdf_sha256 if model.issued_index < size else ""
            wanted = {"card.json": twin, "card.pdf": issued or draft}
            found += [(f"{stem}.{kind}", model.unit, digest) for kind, digest in wanted.items() if digest]
        return found

    def _attachments(
        self, cards: Sequence[tuple[str, str, str]], absent: dict[str, str]
    ) -> Iterator[tuple[str, bytes]]:
        """Each card that can be read, one after another; why one cannot goes to ``absent``: the rest is as good."""
        for name, unit, sha256 in cards:
            try:
                yield name, read_bytes(self.blobs, unit, sha256)
            except (NotFoundError, IntegrityError) as error:
                absent[name] = error.reason

    async def _unit(self, caller: Caller, parent: str) -> str | None:
        """The unit asked for, or ``None`` for the whole log, which takes a role in every unit.

        The chain of refused calls is asked for as a unit, by whoever may list the whole log.
        """
        unit = unit_of(parent)
        if unit == REFUSALS_UNIT and caller.may("ListRecords", ALL_UNITS, self.authorizer):
            return unit
        if not caller.sees(unit) or unit in OWN_UNITS:
            raise not_found(parent)
        if unit == ALL_UNITS:
            return None
        await self.store.require_unit(unit, parent)
        return unit


def _message(record: StoredRecord) -> audit_pb2.Record:
    return audit_pb2.Record(
        index=record.index, unit=record.unit, unit_sequence=record.unit_sequence, type=record.type, body=record.body
    )
