"""The gateway's side of witnessing: the policy file, the way to each witness, and what people sign over."""

from __future__ import annotations

import datetime as dt
import json
import ssl

from sqlalchemy import Connection

from assay import dsse
from assay.errors import IntegrityError, InvalidInputError
from assay.identity import load_certificate, service_tls
from audit.ledger import fork
from audit.ledger.fork import Evidence
from audit.ledger.ledger import Ledger
from audit.ledger.note import SignedNote
from audit.ledger.publication import Publication, PublishedNotes, Unwitnessed
from audit.ledger.publisher import Publisher, demand_one_history
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.client import WitnessClient
from audit.verify.trust import TrustFile
from gateway import statements
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.tables import ApprovalRow, ModelRow

_REMEDY = "give it the witness, group and quorum lines of trust.txt; who wants no witness writes quorum none into both"


def read_policy(settings: Settings) -> QuorumPolicy:
    """The quorum policy of this installation, which is the one that its trust file demands.

    Where the trust file says ``quorum none``, witnesses may be asked all the same, and an installation that has never
    asked one needs no policy file.

    Raises:
        InvalidInputError: ``ORIGIN_DIFFERS``, ``POLICY_MISSING``, ``POLICY_MALFORMED``, ``QUORUM_DIFFERS`` or
            ``TRUST_MALFORMED``.
    """
    trust = TrustFile.load(settings.layout.trust)
    if trust.origin != settings.origin:
        raise InvalidInputError(
            "ORIGIN_DIFFERS",
            f"{settings.layout.settings.name} calls the log {settings.origin!r}, {settings.layout.trust.name} "
            f"{trust.origin!r}",
            remedy="put the origin back: a log keeps its name and key; another begins with assay init --continues",
        )
    path, demanded = settings.witness_policy, trust.quorum
    if path.exists():
        try:
            policy = QuorumPolicy.parse(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError("POLICY_MALFORMED", f"{path} cannot be read as text", remedy=_REMEDY) from error
        except InvalidInputError as error:
            raise InvalidInputError(error.reason, f"{path.name}: {error.message}", remedy=_REMEDY) from error
    elif demanded.asks_nobody and not settings.published.exists():
        policy = demanded
    else:
        # A file that is gone says nothing: to ask nobody from now on is a person's decision, not an accident's.
        raise InvalidInputError("POLICY_MISSING", f"{path.name} is gone, and there were witnesses", remedy=_REMEDY)
    if not demanded.asks_nobody and not policy.same_quorum(demanded):
        raise InvalidInputError(
            "QUORUM_DIFFERS",
            f"{path.name} asks for {policy.describe()}, {settings.layout.trust.name} for {demanded.describe()}",
            remedy=_REMEDY,
        )
    return policy


def start_ledger(settings: Settings, ledger: Ledger) -> Publication:
    """Starts the ledger as :func:`start_checked` does, and its publication.

    Raises:
        AssayError: what :func:`read_policy`, :func:`start_checked` and :func:`open_publication` say.
    """
    policy = read_policy(settings)
    start_checked(settings, ledger)
    try:
        return open_publication(settings, ledger, policy)
    except BaseException:
        ledger.close()
        raise


def start_checked(settings: Settings, ledger: Ledger) -> None:
    """Starts the ledger and demands, before it signs anything, that it goes with all that others hold of it.

    What was published counts whatever the policy says now.

    Raises:
        AssayError: what :meth:`audit.ledger.ledger.Ledger.start` and
            :func:`audit.ledger.publisher.demand_one_history` say; both notes of a contradiction are then in a file.
    """
    try:
        ledger.start(
            lambda: demand_one_history(ledger, settings.forks, newest_published(settings), dt.datetime.now(dt.UTC))
        )
    except IntegrityError as error:
        _keep(settings, ledger, error)
        raise


def open_publication(settings: Settings, ledger: Ledger, policy: QuorumPolicy) -> Publication:
    """Starts the publication of a started ledger.

    Raises:
        InvalidInputError: ``POLICY_OTHER_KEY`` or ``WITNESS_ADDRESS``.
    """
    if any(log.verifier != ledger.verifier for log in policy.logs):
        raise InvalidInputError(
            "POLICY_OTHER_KEY",
            f"{settings.witness_policy.name} names another log key",
            remedy=f"its line should be: log {ledger.vkey}",
        )
    if policy.asks_nobody:
        return Unwitnessed(ledger, policy)
    tls = _tls(settings) if any(w.url.startswith("https:") for w in policy.witnesses.values()) else None
    clients = [WitnessClient(witness, tls) for witness in policy.witnesses.values()]
    publisher = Publisher(ledger, policy, clients, PublishedNotes(settings.published), settings.forks)
    publisher.start()
    return publisher


def newest_published(settings: Settings) -> list[bytes]:
    """The newest note that the witnesses have cosigned, if they ever were asked."""
    if not settings.published.exists():
        return []
    notes = PublishedNotes(settings.published)
    try:
        return [note for _, note in [notes.latest()] if note]
    finally:
        notes.close()


def evidence_of(connection: Connection, publication: Publication, model: ModelRow) -> tuple[int, bytes]:
    """Size and root that people sign over for a model's card: every signer the same.

    Who has signed this card first binds the rest; before that it is the first published checkpoint that covers the
    card's record.

    Raises:
        UnavailableError: ``QUORUM_NOT_MET``.
    """
    signed = rows.select_all(connection, ApprovalRow, order_by="time_us", job=model.job, card_sha256=model.card_sha256)
    if signed:
        said = statements.read_approval(dsse.read_statement(dsse.envelope_payload(json.loads(signed[0].envelope))))
        return said.evidence_size, bytes.fromhex(said.evidence_root)
    size, note = publication.covering(model.card_index)
    return size, fork.head_of(SignedNote.parse(note).text).root


def _tls(settings: Settings) -> ssl.SSLContext:
    """Believes witnesses under the services root, and those of other parties under ``witnesses-ca.crt``."""
    folder = settings.folder
    service_tls(folder)
    context = ssl.create_default_context(cafile=str(folder / "services-ca.crt"))
    others = folder / "witnesses-ca.crt"
    if others.exists():
        load_certificate(others)
        context.load_verify_locations(str(others))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def _keep(settings: Settings, ledger: Ledger, error: IntegrityError) -> None:
    """Writes both notes of what the ledger's own start-up check found."""
    notes = [error.metadata.get(name, "").encode() for name in ("anchor", "database")]
    if error.reason in (fork.FORKED, fork.ROLLED_BACK) and all(notes):
        found = Evidence(
            error.reason, ledger.origin, dt.datetime.now(dt.UTC), (notes[0], notes[1]), remark=error.message
        )
        path = found.write(settings.forks)
        error.metadata["evidence"] = path.name
