"""Puts the gateway together: keys, database, ledger, services, pipeline. The only place that knows how they connect."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import Engine

from assay.errors import InvalidInputError, PreconditionError
from assay.identity import (
    load_certificate,
    load_ed25519,
    load_mldsa44,
    load_p256,
    load_x25519,
    read_private,
    service_tls,
)
from assay.worker.client import WorkerClient
from audit.ledger import dialect
from audit.ledger.anchor import FileAnchor
from audit.ledger.backup import marker
from audit.ledger.ledger import Ledger
from audit.ledger.sqlite import WriterLock
from audit.verify.trust import TrustFile
from gateway import active_policy, continuations, database_file, key_files, key_registry, publications, references
from gateway.admission.cards import CardOffice
from gateway.admission.exchange import Exchange, Peer
from gateway.admission.office import Office
from gateway.admission.pipeline import Pipeline
from gateway.approvals import ApprovalService
from gateway.base_models import FILE, BaseModels
from gateway.datasets import DatasetService
from gateway.erasures import ErasureService
from gateway.evidence import EvidenceService
from gateway.identity_registry import IdentityRegistry
from gateway.jobs.board import Board
from gateway.jobs.service import JobService
from gateway.key_registry import People
from gateway.lineage_service import LineageService
from gateway.permits import PermitService
from gateway.refusals import RefusalRecorder
from gateway.registry import ModelRegistry
from gateway.replays import ReplayService
from gateway.retention import RetentionService
from gateway.search_log import FILE as SEARCHES
from gateway.search_log import SearchLog
from gateway.settings import Settings
from gateway.store.blobs import FileBlobStore, read_master_key
from gateway.store.database import Store
from gateway.store.migrations import demand_newest, migrate
from gateway.store.scope_keys import FileScopeKeys
from gateway.witnesses import start_ledger
from policies.authorization import Authorizer, CedarAuthorizer
from policies.engine import PolicyEngine


@dataclass(frozen=True)
class Application:
    """A gateway that is open: its services, and the parts that serve them."""

    settings: Settings
    store: Store
    ledger: Ledger
    blobs: FileBlobStore
    policy: PolicyEngine
    authorizer: Authorizer
    board: Board
    base_models: BaseModels
    identities: IdentityRegistry
    datasets: DatasetService
    jobs: JobService
    replays: ReplayService
    approvals: ApprovalService
    permits: PermitService
    models: ModelRegistry
    evidence: EvidenceService
    erasures: ErasureService
    lineage: LineageService
    refusals: RefusalRecorder
    pipeline: Pipeline
    clients: tuple[WorkerClient, ...]

    @classmethod
    def open(cls, settings: Settings, policy: PolicyEngine | None = None) -> Application:
        """Opens everything: migrations, start-up checks of the ledger, first grants, the policy in force.

        Blocks for as long as that takes. Call it on the event loop that will serve, to which the workers' channels
        belong.

        Args:
            settings: of this installation.
            policy: an engine loaded before; otherwise the installed bundle, or the one in force where it is malformed.

        Raises:
            AssayError: whatever is wrong with settings, keys, database or ledger; nothing is signed then.
        """
        asyncio.get_running_loop()
        folder = settings.folder
        policy = policy or active_policy.load(settings)
        base_models = BaseModels.load(folder / FILE)
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        database_file.demand_not_lost(settings)
        demand_rows(settings)
        blobs = FileBlobStore(settings.data / "blobs", read_master_key(folder / "units.key"))
        if not settings.postgres_url:
            _migrate(settings)
        engine, ledger = make_ledger(settings)
        if settings.postgres_url:
            demand_newest(engine)
        publication = start_ledger(settings, ledger)
        try:
            # Not before the ledger has started: a second gateway on this folder has been refused by now.
            blobs.clear_scratch()
            store = Store(engine, ledger, publication, settings.limits.quorum_seconds, settings.units)
            blobs.settle(lambda unit: store.read(lambda c: references.needed(c, unit)))
            return cls._build(settings, store, blobs, policy, base_models)
        except BaseException:
            publication.close()
            ledger.close()
            raise

    async def close(self) -> None:
        """Writes what was only counted, closes channels, ledger and database. Stop the pipeline first."""
        await self.refusals.flush()
        for threads in (self.store.searches, self.store.exports, self.pipeline.office.exchange):
            threads.close()
        for client in self.clients:
            await client.close()
        await asyncio.to_thread(self.store.publication.close)
        await asyncio.to_thread(self.ledger.close)
        self.store.engine.dispose()

    @classmethod
    def _build(
        cls, settings: Settings, store: Store, blobs: FileBlobStore, policy: PolicyEngine, base_models: BaseModels
    ) -> Application:
        folder, board, authorizer = settings.folder, Board(), CedarAuthorizer.load()
        trust = TrustFile.load(settings.layout.trust)
        table = store.read(lambda c: key_registry.load(c, trust))
        key_files.settle(settings.layout, table)
        key_files.demand_apart(settings.layout)
        key_files.demand_in_force(settings.layout, table)
        people = People(load_certificate(folder / "people-ca.crt"), table, trust)
        order_key = load_ed25519(folder / "permit.key")
        identities = IdentityRegistry(settings, store, people)
        identities.bootstrap(settings.layout.bootstrap_grants)
        continuations.record(settings, store, people)
        publications.put_in_force(settings, store, policy.policy(), people)
        active_policy.keep(settings, policy.pack)
        keys = FileScopeKeys(blobs)
        erasures = ErasureService(settings, store, blobs, keys, people)
        erasures.resume()
        pdf_signer = (read_private(folder / "pdf.key"), (folder / "pdf.crt").read_bytes())
        cards = CardOffice(settings, store, blobs, policy, base_models, pdf_signer, keys)
        credentials = service_tls(folder).channel_credentials()
        clients = {kind: WorkerClient(w.address, credentials) for kind, w in settings.workers.items()}
        sealing_key, most = load_x25519(folder / "seal.key"), settings.limits.max_result_bytes
        exchange = Exchange(blobs, sealing_key, order_key, most, board.answered)
        office = Office(
            settings=settings,
            store=store,
            blobs=blobs,
            policy=policy,
            base_models=base_models,
            board=board,
            exchange=exchange,
            train=_peer(folder / "train-worker.pub", clients["train"]),
            audit=_peer(folder / "audit-worker.pub", clients["audit"]),
        )
        search_log = SearchLog(folder / SEARCHES, settings.limits.subject_searches_per_day)
        replays = ReplayService(office)
        retention = RetentionService(settings.subject, store, erasures, board, replays)
        return cls(
            settings=settings,
            store=store,
            ledger=store.ledger,
            blobs=blobs,
            policy=policy,
            authorizer=authorizer,
            board=board,
            base_models=base_models,
            identities=identities,
            datasets=DatasetService(settings, store, blobs, keys),
            jobs=JobService(settings, store, policy, base_models, board, keys, clients["train"]),
            replays=replays,
            approvals=ApprovalService(settings, store, policy, board, people, cards, keys, authorizer),
            permits=PermitService(settings, store, order_key, people, policy),
            models=ModelRegistry(store, blobs, load_p256(folder / "pdf.key")),
            evidence=EvidenceService(settings, store, blobs, keys, authorizer),
            erasures=erasures,
            lineage=LineageService(settings, store, blobs, search_log),
            refusals=RefusalRecorder(store, settings.limits),
            pipeline=Pipeline(office, cards, retention),
            clients=tuple(clients.values()),
        )


def make_ledger(settings: Settings) -> tuple[Engine, Ledger]:
    """The installation's ledger, not started, and the engine that it runs on.

    Raises:
        InvalidInputError: a key is missing or exposed.
    """
    folder, engine = settings.folder, dialect.connect(settings.database_url)
    second = load_mldsa44(folder / "log-mldsa44.key") if settings.post_quantum else None
    key, anchor = load_ed25519(folder / "log.key"), FileAnchor(settings.layout.anchor)
    return engine, Ledger(engine, settings.origin, key, anchor, post_quantum=second)


def _migrate(settings: Settings) -> None:
    """Brings a database file to this release's tables, unless a gateway of an earlier one works on it.

    Raises:
        PreconditionError: ``LEDGER_IN_USE``.
    """
    lock = WriterLock(settings.database)
    lock.acquire()
    try:
        migration = dialect.connect_for_migration(settings.database_url)
        migrate(migration)
        migration.dispose()
    finally:
        lock.release()


def demand_rows(settings: Settings) -> None:
    """A restored log can be younger than the rows beside it: a revoked role would be held again.

    Raises:
        PreconditionError: ``ROWS_BEHIND_LOG``.
    """
    if marker(settings.database).exists():
        raise PreconditionError(
            "ROWS_BEHIND_LOG",
            "the log was restored with records that the gateway's own rows do not know",
            remedy="restore a backup at least as new as the anchor, whose manifest does not say rows_behind; this one "
            "serves `assay ledger fsck` only",
        )


def _peer(path: Path, client: WorkerClient) -> Peer:
    try:
        public = json.loads(path.read_text("utf-8"))
        sealing = X25519PublicKey.from_public_bytes(bytes.fromhex(public["sealing_key"]))
        return Peer(client, sealing, Ed25519PublicKey.from_public_bytes(bytes.fromhex(public["statement_key"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError("WORKER_KEYS", f"cannot read {path.name}", remedy="run `assay init DIR`") from error
