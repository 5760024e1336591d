"""Cards: rendered when release policy has spoken, issued with the approvals' page when the quorum has signed.

The card's digest is that of its canonical JSON twin: this is what people sign. PDF and twin are stored beside each
other; the ledger records both digests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from sqlalchemy import Connection

from assay import canonical
from assay.errors import InternalError
from assay.v1 import identity_pb2, measurement_pb2, policy_input_pb2
from audit import cards
from audit.ledger.payloads import ScopeKeys
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import datasets, registry, statements, words
from gateway.base_models import BaseModels
from gateway.history import INTAKE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.blobs import BlobStore, put_bytes, read_bytes
from gateway.store.database import Store
from gateway.store.tables import ApprovalRow, DatasetRow, JobRow, ModelRow
from gateway.witnesses import evidence_of
from policies.engine import PolicyEngine

_STATEMENTS = {"preparation": "prepare.predicate", "training": "train.predicate", "auditing": "audit.predicate"}


@dataclass(frozen=True)
class CardOffice:
    """Makes cards from what is recorded, and records them. Both methods do nothing when their work was done before."""

    settings: Settings
    store: Store
    blobs: BlobStore
    policy: PolicyEngine
    base_models: BaseModels
    pdf_signer: tuple[bytes, bytes]
    keys: ScopeKeys

    async def render(self, name: str) -> None:
        """Renders the card of a job that release policy has judged, for the job's present version."""
        gathered = await self.store.fetch(lambda c: self._gather(c, name))
        if gathered is None:
            return
        job, model, known = gathered
        card = await asyncio.to_thread(cards.build_card, known)
        twin = canonical.encode(card)
        pdf = await asyncio.to_thread(lambda: cards.render_pdf(card))
        card_blob = await asyncio.to_thread(put_bytes, self.blobs, job.unit, twin)
        pdf_blob = await asyncio.to_thread(put_bytes, self.blobs, job.unit, pdf)

        def due(row: ModelRow) -> bool:
            return row.card_version != job.version

        def columns(index: int) -> dict[str, Any]:
            return {
                "card_version": job.version,
                "card_sha256": card_blob.sha256,
                "card_pdf_sha256": pdf_blob.sha256,
                "card_index": index,
            }

        predicate = {"card_sha256": card_blob.sha256, "pdf_sha256": pdf_blob.sha256, "version": job.version}
        subjects = [("card", card_blob.sha256), ("card.pdf", pdf_blob.sha256), ("adapter", model.adapter_sha256)]
        await self._record("card.rendered", job, model, due, columns, predicate, subjects)

    async def issue(self, job: str) -> None:
        """Renders the card of an approved job with its approvals, signs the PDF, and records it."""
        gathered = await self.store.fetch(lambda c: self._signatures(c, job))
        if gathered is None:
            return
        row, model, issued = gathered
        twin = await asyncio.to_thread(read_bytes, self.blobs, row.unit, model.card_sha256)
        card = canonical.decode(twin)
        pdf = await asyncio.to_thread(lambda: cards.render_pdf(card, issued=issued, signer=self.pdf_signer))
        blob = await asyncio.to_thread(put_bytes, self.blobs, row.unit, pdf)

        def due(current: ModelRow) -> bool:
            return current.issued_version != row.version

        def columns(index: int) -> dict[str, Any]:
            return {"issued_version": row.version, "issued_pdf_sha256": blob.sha256, "issued_index": index}

        predicate = {
            "card_sha256": model.card_sha256,
            "card_index": model.card_index,
            "pdf_sha256": blob.sha256,
            "approvals": [a["record_index"] for a in issued["approvals"]],
            "version": row.version,
        }
        subjects = [("card", model.card_sha256), ("card.pdf", blob.sha256), ("adapter", model.adapter_sha256)]
        await self._record("card.issued", row, model, due, columns, predicate, subjects)

    async def _record(
        self,
        kind: str,
        job: JobRow,
        model: ModelRow,
        due: Callable[[ModelRow], bool],
        columns: Callable[[int], dict[str, Any]],
        predicate: Mapping[str, Any],
        subjects: list[tuple[str, str]],
    ) -> None:
        """Appends the record and notes it on the model, unless the job moved on or somebody else was first."""
        common = {"job": job.name, "model": model.name, "actor": self.settings.subject, "trace_id": job.trace_id}

        def work(uow: UnitOfWork) -> None:
            now = jobs.get(uow.connection, job.name)
            current = rows.get(uow.connection, ModelRow, name=model.name)
            if now is None or current is None or now.version != job.version:
                return
            if due(current):
                index = uow.append(RecordDraft(job.unit, kind, "card", {**predicate, **common}, subjects, job=job.name))
                rows.update(uow.connection, ModelRow, {"name": model.name}, columns(index))
            jobs.note(uow.connection, job.name, {"needs_work": False})

        await self.store.commit(work)

    def _gather(self, connection: Connection, name: str) -> tuple[JobRow, ModelRow, dict[str, Any]] | None:
        """Everything that the card shows; ``None`` when the card of this version is there."""
        job = jobs.get(connection, name)
        model = rows.get(connection, ModelRow, name=job.model) if job else None
        if job is None or model is None or job.state not in (State.QUARANTINED, State.AWAITING_APPROVAL):
            return None
        if model.card_version == job.version:
            return None
        request = views.request_of(job)
        dataset = rows.get(connection, DatasetRow, name=request.dataset)
        if dataset is None:
            raise InternalError("JOB_ROW", f"the dataset of {name} has no row")
        known = jobs.facts(connection, name)
        summary = views.summary(job)
        facts: dict[str, Any] = {
            "job": _json(summary),
            "dataset": _json(datasets.message_of(connection, self.keys, dataset)),
            "base_model": _json(self.base_models.get(request.base_model)),
            "data": _json(views.from_json(job.data, policy_input_pb2.DataFacts)),
            "decision": _json(summary.decision),
            "quote": [_json(f) for f in views.quoted(connection, job, rows.moment(job.updated_us))],
            "audit": _json(views.from_json(job.audit, measurement_pb2.AuditReport)),
            "verdict": _json(summary.verdict),
            "model": _json(registry.message_of(model)),
            "ledger": {
                "origin": self.settings.origin,
                "records": self._records(job),
                "witnesses": _witnesses(self.store.publication.policy),
            },
            "quorum": [identity_pb2.Role.Name(r) for r in self.policy.quorum()],
            "waivers": [
                self._waiver(connection, json.loads(v)) for k, v in sorted(known.items()) if k.startswith("waiver.")
            ],
        }
        facts |= {part: json.loads(known[key]) for part, key in _STATEMENTS.items() if key in known}
        return job, model, facts | _tries(known)

    def _waiver(self, connection: Connection, signed: dict[str, Any]) -> dict[str, Any]:
        """A waiver with its words in the place of their commitments."""
        for name in ("reason", "compensating_control"):
            signed[name] = words.shown(connection, self.keys, words.reference(signed.pop(f"{name}_commitment")))
        return signed

    def _records(self, job: JobRow) -> list[dict[str, Any]]:
        found = self.store.ledger.records(job.unit, job.name, -1, 500)
        return [{"index": r.index, "type": r.type} for r in found]

    def _signatures(self, connection: Connection, name: str) -> tuple[JobRow, ModelRow, dict[str, Any]] | None:
        """What the page of approvals shows; ``None`` when the card was issued or the job is not approved."""
        job = jobs.get(connection, name)
        model = rows.get(connection, ModelRow, name=job.model) if job else None
        if job is None or model is None or job.state != State.APPROVED or model.issued_version == job.version:
            return None
        size, root = evidence_of(connection, self.store.publication, model)
        signed = rows.select_all(
            connection, ApprovalRow, order_by="time_us", job=job.name, card_sha256=model.card_sha256
        )
        issued = {
            "approvals": [
                {
                    "subject": a.subject,
                    "role": a.role,
                    "decision": "grant" if a.granted else "refuse",
                    "reason": words.shown(connection, self.keys, a.reason),
                    "time": statements.rfc3339(rows.moment(a.time_us)),
                    "record_index": a.record_index,
                    "keyid": a.keyid,
                }
                for a in signed
            ],
            "card_sha256": model.card_sha256,
            "card_record_index": model.card_index,
            "evidence_root": root.hex(),
            "evidence_size": size,
            "checkpoint": (self.store.publication.at(size) or self.store.ledger.checkpoint_at(size) or b"").decode(),
        }
        return job, model, issued


def _tries(known: Mapping[str, str]) -> dict[str, Any]:
    """What intake policy was told of other jobs on the same rows; nothing where there was none, as of a first job."""
    if INTAKE_QUESTION not in known:
        return {}
    told = views.from_json(known[INTAKE_QUESTION], policy_input_pb2.IntakeInput).account
    if not told.dataset_jobs_judged:
        return {}
    return {"tries": {"judged": told.dataset_jobs_judged, "held_back": told.dataset_jobs_held_back}}


def _witnesses(policy: QuorumPolicy) -> str:
    return "QUORUM NONE: nobody but us has seen this log" if policy.asks_nobody else policy.describe()


def _json(message: Message) -> dict[str, Any]:
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))
