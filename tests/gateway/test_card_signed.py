"""What `assay approval decide` checks before a person signs: a gateway that shows one thing and asks for another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from assay import canonical
from assay.errors import AssayError
from assay.v1 import approval_pb2, audit_pb2, identity_pb2, model_pb2
from gateway.cli.approval import decide_as
from gateway.cli.session import Session
from tests.gateway.conftest import House
from tests.gateway.judged import MODEL, NAME, awaiting, pending

OTHER = "0b" * 32


@dataclass
class Gateway:
    """What the true gateway would answer, for a test to change; notes what it is handed in."""

    house: House
    pending: approval_pb2.PendingApproval
    card: bytes
    proof: audit_pb2.RecordProof
    handed_in: list[approval_pb2.DecideApprovalRequest] = field(default_factory=list)

    def session(self) -> Session:
        held = [identity_pb2.RoleGrant(role=identity_pb2.ROLE_VALIDATOR, unit="credit")]
        listed = approval_pb2.ListPendingApprovalsResponse(pending_approvals=[self.pending])
        approvals = SimpleNamespace(ListPendingApprovals=lambda _: listed, DecideApproval=self.handed_in.append)
        parts = [model_pb2.DownloadCardResponse(chunk=self.card[i : i + 1000]) for i in range(0, len(self.card), 1000)]
        return cast(Session, SimpleNamespace(
            folder=self.house.layout.person("vik"),
            approvals=approvals,
            models=SimpleNamespace(DownloadCard=lambda _: iter(parts)),
            audit=SimpleNamespace(GetInclusionProof=lambda _: audit_pb2.GetInclusionProofResponse(proof=self.proof)),
            identity=SimpleNamespace(WhoAmI=lambda _: identity_pb2.WhoAmIResponse(grants=held)),
        ))  # fmt: skip

    def shows(self, card: bytes) -> None:
        """Another card, which it also asks to have signed."""
        self.card, self.pending.card_sha256 = card, hashlib.sha256(card).hexdigest()


async def true(house: House) -> Gateway:
    await awaiting(house)
    found, vik = await pending(house), await house.caller("vik")
    asked = model_pb2.DownloadCardRequest(name=MODEL, format=model_pb2.CARD_FORMAT_JSON)
    card = b"".join([part.chunk async for part in house.app.models.download_card(vik, asked)])
    wanted = audit_pb2.GetInclusionProofRequest(index=found.card_record_index, tree_size=found.evidence_size)
    return Gateway(house, found, card, (await house.app.evidence.get_inclusion_proof(vik, wanted)).proof)


def asks_for(name: str, value: Any) -> Callable[[Gateway], None]:
    return lambda gateway: setattr(gateway.pending, name, value)


def shows(change: Callable[[dict[str, Any]], object]) -> Callable[[Gateway], None]:
    def lie(gateway: Gateway) -> None:
        card = canonical.decode(gateway.card)
        change(card)
        gateway.shows(canonical.encode(card))

    return lie


def two_adapters(card: dict[str, Any]) -> None:
    (rows,) = (block["rows"] for block in card["sections"][0]["blocks"] if block["kind"] == "facts")
    rows.append({"label": "Adapter, SHA-256", "value": OTHER, "source": "training.completed"})


def records(change: Callable[[dict[str, Any]], object]) -> Callable[[Gateway], None]:
    def lie(gateway: Gateway) -> None:
        record = canonical.decode(gateway.proof.body)
        change(record)
        gateway.proof.body = canonical.encode(record)

    return lie


def said(**members: str) -> Callable[[Gateway], None]:
    return records(lambda record: record["statement"]["predicate"].update(members))


def subjects(*named: tuple[str, str]) -> Callable[[Gateway], None]:
    listed = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in named]
    return records(lambda record: record["statement"].update(subject=listed))


LIES: dict[str, tuple[Callable[[Gateway], object], str]] = {
    "another card": (lambda g: setattr(g, "card", g.card[:-1]), "CARD_MISMATCH"),
    "a card of another job": (shows(lambda c: c.update(job=f"{NAME}-2")), "CARD_MISMATCH"),
    "a card of another model": (shows(lambda c: c.update(model=f"{MODEL}-2")), "CARD_MISMATCH"),
    "a card of two adapters": (shows(two_adapters), "CARD_MISMATCH"),
    "a card without rows": (shows(lambda c: c.update(sections=[])), "CARD_MISMATCH"),
    "no card": (lambda g: g.shows(b"{}"), "CARD_MALFORMED"),
    "a list": (lambda g: g.shows(b"[]"), "CARD_MALFORMED"),
    "no JSON": (lambda g: g.shows(b"{"), "NOT_CANONICAL"),
    "another adapter to sign": (asks_for("adapter_sha256", OTHER), "CARD_MISMATCH"),
    "another base to sign": (asks_for("base_sha256", OTHER), "CARD_MISMATCH"),
    "another purpose to sign": (asks_for("purpose", "anything"), "CARD_MISMATCH"),
    "another record": (records(lambda r: r.update(type="card.issued")), "PROOF_REFUSED"),
    "the record of another card": (said(card_sha256=OTHER), "PROOF_REFUSED"),
    "the record of another job": (said(job=f"{NAME}-2"), "PROOF_REFUSED"),
    "the record of another adapter": (subjects(("adapter", OTHER)), "PROOF_REFUSED"),
    "a record without an adapter": (subjects(), "PROOF_REFUSED"),
    "no record": (lambda g: setattr(g.proof, "body", b"{}"), "RECORD_MALFORMED"),
    "a record that is not in the log": (said(trace_id="f" * 32), "INCLUSION_BAD"),
    "a proof cut short": (lambda g: g.proof.hashes.pop(), "INCLUSION_BAD"),
    "another root": (asks_for("evidence_root", OTHER), "INCLUSION_BAD"),
    "another place": (asks_for("card_record_index", 0), "INCLUSION_BAD"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_nothing_is_signed_for_other_things_than_the_card_shows(house: House, lie: str) -> None:
    gateway = await true(house)
    change, reason = LIES[lie]
    change(gateway)
    with pytest.raises(AssayError) as refused:
        decide_as(gateway.session(), NAME, grant=True, reason="read")
    assert refused.value.reason == reason, refused.value.diagnostics()
    assert gateway.handed_in == []


async def test_what_holds_is_signed_and_taken(house: House) -> None:
    """Else every refusal above could be for another reason."""
    gateway = await true(house)
    decide_as(gateway.session(), NAME, grant=True, reason="read")
    (request,) = gateway.handed_in
    answer = await house.app.approvals.decide_approval(await house.caller("vik"), request)
    assert answer.approval.record_index == house.app.ledger.size - 1
