"""Keys of a real installation: listed, rotated, said to be stolen; what gateway, verifier and permits say then."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from typer.testing import CliRunner

from assay import dsse, model_signature
from assay.digests import folder_manifest, sha256_bytes
from assay.dsse import from_base64
from assay.errors import AssayError, IntegrityError
from assay.identity import Layout, load_ed25519, load_x25519, raw_public
from assay.v1 import identity_pb2, model_pb2
from audit.ledger.bundle import export
from audit.ledger.records import REFUSALS_UNIT, read
from audit.ledger.writer import UnitOfWork
from audit.verify import Report
from audit.verify.keys import DOUBT
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from demo.processes import free_ports
from gateway import identity_registry, key_files, key_rotation
from gateway.application import Application
from gateway.cli.app import app as cli
from gateway.permits import PermitService
from gateway.rpc.errors import is_refusal
from gateway.rpc.server import start
from gateway.settings import Settings
from gateway.signers import Doubt, doubt, quorum_of
from gateway.statements import grant_statement, read_grant, read_policy
from gateway.store import rows
from gateway.store.tables import JobRow, ModelRow
from gateway.telemetry import Telemetry
from policies.engine import PolicyEngine
from policies.pack import PACKS
from policies.pack import load as read_pack
from tests.gateway.conftest import House, forged_person, now
from tests.gateway.judged import MODEL, NAME, approved, awaiting, decide, leave
from tests.gateway.test_approvals import grant
from tests.gateway.test_card_check import pdf
from tests.gateway.test_permits import issued, offline, online, revoke

Open = Callable[[], House]
Whoami = Callable[[Path, int], Awaitable[str]]


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], env={"ASSAY_IDENTITY": ""})
    assert done.exit_code == code, done.output
    return done.output


def ordered(house: House | Closed, *arguments: object, by: str = "oscar", code: int = 0) -> Any:
    """`assay key …` by a person."""
    done = call("key", *arguments, "--as", house.layout.person(by), "--output", "json", code=code)
    return json.loads(done) if code == 0 else done


def signed(closed: Closed, order: Path, *arguments: object) -> Path:
    """`assay key … --write-draft`, and `assay key sign` by the operator; returns the order."""
    draft, trust = order.with_name("draft.json"), closed.layout.trust
    call("key", *arguments, "--write-draft", draft)
    call("key", "sign", draft, "--trust", trust, "--as", closed.layout.person("oscar"), "--write-order", order)
    return order


def verified(house: House) -> Report:
    """The whole log as an auditor sees it: under the quorum-free note of the installation's own ledger."""
    out, ledger = io.BytesIO(), house.app.ledger
    export(ledger, out, policy_text=f"log {ledger.vkey}\nquorum none\n")
    return verify_bytes(out.getvalue(), TrustFile.load(house.layout.trust), now())


def unheld(report: Report) -> list[tuple[str, str]]:
    return [(c.name, c.outcome) for c in report.checks if c.outcome != "passed"]


@dataclass(frozen=True)
class Closed:
    """An installation that has run and stands still."""

    layout: Layout


@pytest.fixture(scope="module")
def ran(pristine: Path, engine: PolicyEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run once; starting a gateway takes a second or two."""
    root = tmp_path_factory.mktemp("ran") / "dir"
    shutil.copytree(pristine, root)

    async def run() -> None:
        await Application.open(Settings.load(root), engine).close()

    asyncio.run(run())
    return root


@pytest.fixture
def closed(ran: Path, opened: Open, tmp_path: Path) -> Closed:
    """What ``opened`` opens, after it has run once."""
    root = tmp_path / "dir"
    shutil.rmtree(root)
    shutil.copytree(ran, root)
    return Closed(Layout(root))


def listed(house: House | Closed) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for key in json.loads(call("key", "list", house.layout.root, "--output", "json"))["keys"]:
        found.setdefault(key["name"], []).append(key)
    return found


def test_every_key_is_listed_before_the_first_start_too(opened: Open, pristine: Path, closed: Closed) -> None:
    found = listed(closed)
    assert {
        "services-root", "people-root", "log", "permit", "pdf", "train-worker", "audit-worker", "units-root", "canary",
        "people/oscar", "people/vik", "gateway-seal", "train-worker-seal", "audit-worker-seal",
    } <= set(found)  # fmt: skip
    assert {key["state"] for keys in found.values() for key in keys} == {"in force"}
    assert found["units-root"][0]["keyid"] == found["canary"][0]["keyid"] == ""
    assert "people/vik" in call("key", "list", closed.layout.root)
    assert json.loads(call("key", "list", pristine, "--output", "json"))["keys"]


@pytest.mark.parametrize("name", ["permit", "train-worker", "audit-worker", "pdf"])
async def test_a_services_key_is_rotated(closed: Closed, opened: Open, name: str) -> None:
    before = listed(closed)[name][0]["keyid"]
    done = ordered(closed, "rotate", name, closed.layout.root)
    assert done["old"] == before != done["new"]
    old, new = listed(closed)[name]
    assert (old["state"], old["until"], new["state"], new["since"]) == (
        "rotated", f"record {done['record_index']}", "in force", f"record {done['record_index']}",
    )  # fmt: skip
    house = opened()
    assert read(house.app.ledger.record(done["record_index"]).body).type == "key.rotated"
    assert unheld(verified(house)) == []
    await house.app.close()
    assert list(closed.layout.root.rglob("*.next")) == []


async def test_public_halves_are_exchanged(closed: Closed) -> None:
    ordered(closed, "rotate", "permit", closed.layout.root)
    ordered(closed, "rotate", "audit-worker", closed.layout.root)
    services = closed.layout.root / "services"
    for path, member, key in (
        ("train-worker/gateway.pub", "permit_key", "gateway/permit.key"),
        ("audit-worker/gateway.pub", "permit_key", "gateway/permit.key"),
        ("gateway/audit-worker.pub", "statement_key", "audit-worker/statement.key"),
    ):
        said = json.loads((services / path).read_text())
        assert said[member] == raw_public(load_ed25519(services / key)).hex() and len(said) == 2


@pytest.mark.parametrize("name", key_files.SECRETS)
def test_a_key_that_signs_nothing_is_replaced_without_a_record(closed: Closed, name: str) -> None:
    root, services = closed.layout.root, closed.layout.root / "services"
    before, known = {p: p.read_bytes() for p in services.rglob("*.key")}, listed(closed)
    call("key", "rotate", name, root)
    changed = [p for p, data in before.items() if p.read_bytes() != data]
    assert [p.parent.name for p in changed] == ["audit-worker" if name == "canary" else name.removesuffix("-seal")]
    assert changed[0].stat().st_mode & 0o077 == 0 and listed(closed) == known
    for folder in ("train-worker", "audit-worker"):
        gateway = json.loads((services / folder / "gateway.pub").read_text())
        worker = json.loads((services / "gateway" / f"{folder}.pub").read_text())
        assert gateway["sealing_key"] == raw_public(load_x25519(services / "gateway/seal.key")).hex()
        assert worker["sealing_key"] == raw_public(load_x25519(services / folder / "seal.key")).hex()
    assert "KEY_SIGNS_NOTHING" in ordered(closed, "compromised", name, root, "--since", 0, code=3)


async def test_a_permit_of_the_new_key_holds_offline_and_the_old_key_is_refused(closed: Closed, opened: Open) -> None:
    house = opened()
    await approved(house)
    early = await issued(house)
    assert offline(house, early) == (True, "")
    old = (house.layout.service("gateway") / "permit.key").read_bytes()
    await house.app.close()
    ordered(house, "rotate", "permit", house.layout.root)
    house = opened()
    late = await issued(house)
    assert offline(house, late) == (True, "") and offline(house, early) == (True, "")
    assert unheld(verified(house)) == []
    await house.app.close()
    # A gateway that comes back with the old key does not start; nor would anybody believe what it signs.
    (house.layout.service("gateway") / "permit.key").write_bytes(old)
    with pytest.raises(AssayError) as caught:
        opened()
    assert caught.value.reason == "KEY_NOT_IN_FORCE"


async def test_a_stolen_permit_key(closed: Closed, opened: Open) -> None:
    house = opened()
    await approved(house)
    permit = await issued(house)
    at = permit.proofs[-1].index
    await house.app.close()
    done = ordered(house, "compromised", "permit", house.layout.root, "--since", at)
    assert (done["since_index"], done["permits_revoked"]) == (at, [permit.name])
    with pytest.raises(AssayError) as caught:
        opened()
    assert caught.value.reason == "KEY_NOT_IN_FORCE" and "assay key rotate permit" in caught.value.remedy
    ordered(house, "rotate", "permit", house.layout.root)
    house = opened()
    report = verified(house)
    assert report.verdict == "suspect" and {n for n, _ in unheld(report)} == {DOUBT}
    assert any(f"record {at}:" in c.detail for c in report.checks if c.outcome == "suspect")
    answer = await online(house, permit)
    assert (answer.allowed, answer.reason) == (False, "revoked: the permit key was compromised")
    assert offline(house, await issued(house)) == (True, "")
    await house.app.close()
    assert [k["state"] for k in listed(house)["permit"]] == ["compromised", "in force"]


async def test_a_stolen_key_of_a_person(closed: Closed, opened: Open) -> None:
    house = opened()
    await approved(house)
    permit = await issued(house)
    await house.app.close()
    since = (now() - dt.timedelta(hours=1)).isoformat()
    done = ordered(house, "compromised", "people/vik", house.layout.root, "--since", since)
    assert done["since_index"] == 0
    house = opened()
    answer = await online(house, permit)
    assert not answer.allowed and "other hands" in answer.reason
    with pytest.raises(AssayError) as caught:
        await issued(house)
    assert caught.value.reason == "SIGNER_KEY" and "signer-key" in caught.value.remedy
    assert unheld(verified(house)) == [(DOUBT, "suspect")]
    await grant(house, "olga", "validator")
    await revoke(house, "cora", "signer-key")
    await house.app.pipeline.cards.render(NAME)
    await decide(house, "olga", "validator")
    await decide(house, "cora", "compliance_officer")
    assert offline(house, await issued(house)) == (True, "")
    await house.app.close()


async def test_grants_in_doubt_carry_no_permit_until_they_are_made_anew(
    closed: Closed, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's key was stolen before anybody had a role: who was made what, nobody knows any more."""
    house = opened()
    await approved(house)
    permit = await issued(house)
    await house.app.close()
    done = ordered(house, "compromised", "people/oscar", house.layout.root, "--since", 1)
    doubted = {line.partition(":")[0].removeprefix("roleGrants/") for line in done["grants_in_doubt"]}
    assert {"cora-compliance-officer", "vik-validator", "rita-requester"} <= doubted
    assert "oscar-operator" not in doubted, "the founding operator's role rests on the trust file"
    ordered(house, "rotate", "people/oscar", house.layout.root)
    house = opened()
    answer = await online(house, permit)
    assert not answer.allowed and "by a grant that a thief may have made" in answer.reason
    with pytest.raises(AssayError) as caught:
        await issued(house)
    assert caught.value.reason == "SIGNER_ROLE" and "grant the role anew" in caught.value.remedy
    with monkeypatch.context() as careless:
        careless.setattr(PermitService, "_demand_signers", lambda *_: None)
        forced = await issued(house)
    assert "did not hold compliance_officer when signing by a grant that no thief" in offline(house, forced)[1]
    for who, role in (("cora", "compliance_officer"), ("vik", "validator")):
        await leave(house, who, f"ROLE_{role.upper()}")
        await grant(house, who, role, grant_id=f"{who}-anew")
    with pytest.raises(AssayError) as caught:
        await issued(house)
    assert caught.value.reason == "SIGNER_ROLE", "whoever they were when signing"
    await revoke(house, "cora", "signer-left")
    await house.app.pipeline.cards.render(NAME)
    await decide(house, "vik", "validator")
    await decide(house, "cora", "compliance_officer")
    anew = await issued(house)
    assert offline(house, anew) == (True, "") and (await online(house, anew)).allowed
    await house.app.close()


async def test_a_trust_file_of_another_operator_keeps_no_stolen_key_from_being_recorded(
    closed: Closed, opened: Open
) -> None:
    house = opened()
    await approved(house)
    await house.app.close()
    trust = house.layout.trust
    right = trust.read_text()
    trust.write_text(right.replace("/people/oscar", "/people/otto"))
    done = ordered(house, "compromised", "people/vik", house.layout.root, "--since", 0)
    assert done["record_index"] and done["grants_in_doubt"] == [] and "trust.txt" in done["grants_not_listed"]
    house = opened()
    for refused in (issued(house), revoke(house, "cora", "signer-key")):
        with pytest.raises(AssayError) as caught:
            await refused
        assert caught.value.reason == "TRUST_OPERATOR" and "trust.txt" in caught.value.message
        assert "assay doctor" in caught.value.remedy
    await house.app.close()
    trust.write_text(right)
    house = opened()
    with pytest.raises(AssayError) as caught:
        await issued(house)
    assert caught.value.reason == "SIGNER_KEY"
    await house.app.close()


async def test_a_grant_of_the_batch_that_is_being_written_gives_nobody_a_firm_role(
    closed: Closed, opened: Open
) -> None:
    """Its record cannot be read yet; once it can be, it counts."""
    house = opened()
    await approved(house)
    await house.app.close()
    ordered(house, "compromised", "people/oscar", house.layout.root, "--since", 1)
    ordered(house, "rotate", "people/oscar", house.layout.root)
    house = opened()
    app, statement = house.app, grant_statement(house.subject("cora"), "compliance_officer", "-", "cora-anew")
    envelope = dsse.envelope_from_proto(house.sign("oscar", statement))

    def work(uow: UnitOfWork) -> Doubt:
        identity_registry._issue(uow, read_grant(dsse.read_statement(from_base64(envelope["payload"]))), envelope)
        job, model = rows.get(uow.connection, JobRow, name=NAME), rows.get(uow.connection, ModelRow, name=MODEL)
        assert job is not None and model is not None
        signers = quorum_of(uow.connection, job, model.card_sha256)
        return doubt(uow.connection, app.ledger, app.permits.people, job, signers)

    assert (await app.store.commit(work)).role.endswith("as ROLE_COMPLIANCE_OFFICER")
    await house.app.close()


async def test_a_permit_key_that_a_stolen_key_brought_in_signs_no_permit(closed: Closed, opened: Open) -> None:
    root = closed.layout.root
    brought = ordered(closed, "rotate", "permit", root)["record_index"]
    house = opened()
    await approved(house)
    permit = await issued(house)
    await house.app.close()
    assert ordered(house, "compromised", "people/oscar", root, "--since", brought)["grants_in_doubt"] == []
    ordered(house, "rotate", "people/oscar", root)
    house = opened()
    answer = await online(house, permit)
    assert not answer.allowed and "brought in by an order that a thief may have signed" in answer.reason
    with pytest.raises(AssayError) as caught:
        await issued(house)
    assert caught.value.reason == "KEY_IN_DOUBT" and "assay key rotate permit" in caught.value.remedy
    await house.app.close()
    ordered(house, "rotate", "permit", root)
    house = opened()
    assert offline(house, await issued(house)) == (True, "")
    await house.app.close()


async def test_a_compromised_person_signs_nothing_until_a_new_certificate(closed: Closed, opened: Open) -> None:
    ordered(closed, "compromised", "people/vik", closed.layout.root, "--since", "10000000", code=3)
    ordered(closed, "compromised", "people/vik", closed.layout.root, "--since", 0)
    house = opened()
    await awaiting(house)
    await decide(house, "cora", "compliance_officer")
    with pytest.raises(AssayError) as caught:
        await decide(house, "vik", "validator")
    assert caught.value.reason == "KEY_NOT_IN_FORCE"
    await house.app.close()
    ordered(house, "rotate", "people/vik", house.layout.root)
    house = opened()
    await decide(house, "vik", "validator")
    assert unheld(verified(house)) == []
    await house.app.close()


async def test_the_only_operators_key_is_replaced_by_its_own_successor(closed: Closed, opened: Open) -> None:
    root = closed.layout.root
    ordered(closed, "compromised", "people/oscar", root, "--since", 0)
    assert "KEY_NOT_IN_FORCE" in ordered(closed, "rotate", "permit", root, code=10)
    ordered(closed, "rotate", "people/oscar", root)
    ordered(closed, "rotate", "permit", root)
    house = opened()
    envelope = house.sign("oscar", grant_statement(house.subject("new"), "validator", "credit", "new-validator"))
    await house.app.identities.grant_role(await house.caller("oscar"), identity_pb2.GrantRoleRequest(envelope=envelope))
    assert {n for n, _ in unheld(verified(house))} == {DOUBT}
    await house.app.close()


@pytest.mark.parametrize("name", ["rita", "cora", "mia", "anna"])
def test_only_operators_of_every_unit_order(closed: Closed, name: str) -> None:
    root, before = closed.layout.root, listed(closed)
    assert "ROLE_MISSING" in ordered(closed, "rotate", "permit", root, by=name, code=5)
    assert "ROLE_MISSING" in ordered(closed, "compromised", "permit", root, "--since", 0, by=name, code=5)
    assert listed(closed) == before


async def test_an_operator_of_one_unit_orders_nothing(opened: Open) -> None:
    house = opened()
    envelope = house.sign("oscar", grant_statement(house.subject("carl"), "operator", "credit", "carl-operator"))
    await house.app.identities.grant_role(await house.caller("oscar"), identity_pb2.GrantRoleRequest(envelope=envelope))
    await house.app.close()
    assert "ROLE_MISSING" in ordered(house, "rotate", "permit", house.layout.root, by="carl", code=5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("log", "KEY_NOT_ROTATED"),
        ("people-root", "KEY_NOT_ROTATED"),
        ("units-root", "KEY_NOT_ROTATED"),
        ("witness", "KEY_NOT_ROTATED"),
        ("nobody", "KEY_UNKNOWN"),
        ("people/nobody", "KEY_UNKNOWN"),
        ("people/../vik", "KEY_UNKNOWN"),
        ("vik", "KEY_UNKNOWN"),
    ],
)
def test_keys_that_are_replaced_otherwise_or_not_there(closed: Closed, name: str, reason: str) -> None:
    for command in (("rotate", name), ("compromised", name, "--since", 0)):
        assert reason in ordered(closed, *command[:2], closed.layout.root, *command[2:], code=3)


def test_an_order_about_something_else_is_refused_before_it_is_recorded(closed: Closed, tmp_path: Path) -> None:
    """What is typed beside --order is compared with it; what is not typed is the order's."""
    root, order = closed.layout.root, tmp_path / "order.json"
    signed(closed, order, "compromised", "permit", root, "--since", 2)
    (keyid,) = (key["keyid"] for key in listed(closed)["permit"])
    for words in (
        ("compromised", "pdf", root),
        ("compromised", "permit", root, "--since", 1),
        ("compromised", "permit", root, "--since", "2026-01-01T00:00:00Z"),
        ("compromised", "permit", root, "--key", "0" * 64),
        ("rotate", "permit", root),
    ):
        said = call("key", *words, "--order", order, code=3)
        assert "OTHER_ORDER" in said and "since record 2" in " ".join(said.split()), said
    assert "KEY_SINCE" in call("key", "compromised", "permit", root, "--as", closed.layout.person("oscar"), code=3)
    assert len(listed(closed)["permit"]) == 1
    done = json.loads(call("key", "compromised", "permit", root, "--order", order, "--output", "json"))
    assert (done["key"], done["keyid"], done["since_index"]) == ("permit", keyid, 2)
    signed(closed, order, "rotate", "pdf", root)
    assert "OTHER_ORDER" in call("key", "compromised", "pdf", root, "--order", order, code=3)
    call("key", "rotate", "pdf", root, "--order", order)


def test_what_is_typed_beside_an_order_and_agrees_is_taken(closed: Closed, tmp_path: Path) -> None:
    root, order = closed.layout.root, tmp_path / "order.json"
    since = ("--since", "2026-01-01T00:00:00Z")
    signed(closed, order, "compromised", "permit", root, *since)
    (keyid,) = (key["keyid"] for key in listed(closed)["permit"])
    call("key", "compromised", "permit", root, *since, "--key", keyid[:8], "--order", order)


def test_orders_replayed_changed_signed_elsewhere_or_for_nothing(closed: Closed, tmp_path: Path) -> None:
    root, order = closed.layout.root, tmp_path / "order.json"
    signed(closed, order, "rotate", "permit", root)
    assert len(listed(closed)["permit"]) == 1
    call("key", "rotate", "permit", root, "--order", order)
    assert "KEY_EVENT_REPLAYED" in call("key", "rotate", "permit", root, "--order", order, code=7)
    assert len(listed(closed)["permit"]) == 2
    signed(closed, order, "rotate", "permit", root)
    forged = json.loads(order.read_text())
    signed(closed, order, "compromised", "pdf", root, "--since", 0)
    forged["payload"] = json.loads(order.read_text())["payload"]
    order.write_text(json.dumps(forged))
    assert "SIGNATURE_BAD" in call("key", "rotate", "permit", root, "--order", order, code=10)
    assert "NO_IDENTITY" in call("key", "rotate", "permit", root, code=3)
    for since in ("soon", "2026-11-27T09:30:00", "-1"):
        assert "KEY_SINCE" in ordered(closed, "compromised", "pdf", root, f"--since={since}", code=3)
    assert "KEY_UNKNOWN" in ordered(closed, "compromised", "pdf", root, "--since", 0, "--key", "0000000", code=3)


@dataclass(frozen=True)
class Apart:
    """The folders of an installation as docs/installation.md moves them: of the gateway, and of two people."""

    gateway: Path
    desks: dict[str, Path]


@pytest.fixture
def apart(closed: Closed, tmp_path: Path) -> Apart:
    root, gateway = closed.layout.root, tmp_path / "gateway/bank"
    desks = {name: tmp_path / name / "bank" for name in ("oscar", "cora")}
    for name, desk in desks.items():
        shutil.copytree(root / "people" / name, desk / "people" / name)
        shutil.copy(root / "trust.txt", desk)
    for name in ("anchor", "bootstrap", "services/gateway"):
        shutil.copytree(root / name, gateway / name)
    for name in ("assay.toml", "trust.txt"):
        shutil.copy(root / name, gateway)
    shutil.rmtree(root)
    return Apart(gateway, desks)


def test_an_operator_orders_from_another_machine(apart: Apart, tmp_path: Path) -> None:
    """Ledger and settings lie with the gateway, the person's key elsewhere; two files are carried between them."""
    draft, order, desk = tmp_path / "draft.json", tmp_path / "order.json", apart.desks["oscar"]

    def signing(name: str = "oscar", code: int = 0) -> str:
        mine = ("--trust", desk / "trust.txt", "--as", apart.desks[name] / "people" / name)
        return " ".join(call("key", "sign", draft, *mine, "--write-order", order, code=code).split())

    call("key", "rotate", "permit", apart.gateway, "--write-draft", draft)
    said = json.loads(draft.read_text())["predicate"]
    assert "that permit is rotated: key id" in signing() and order.is_file()
    assert sha256_bytes(from_base64(said["new"])) in signing(), "what is signed is said in words"
    call("key", "rotate", "permit", apart.gateway, "--order", order)
    call("key", "compromised", "permit", apart.gateway, "--since", 1, "--write-draft", draft)
    assert "that permit is compromised since record 1" in signing("cora")
    assert "ROLE_MISSING" in call("key", "compromised", "permit", apart.gateway, "--order", order, code=5)
    signing()
    call("key", "compromised", "permit", apart.gateway, "--order", order)
    oscar = ("--as", desk / "people/oscar", "--write-order", order)
    assert "assay.local/log ends for good" in call("ledger", "freeze", desk, "--reason-code", "retired", *oscar)
    call("ledger", "freeze", apart.gateway, "--order", order)


def test_a_draft_that_does_not_hold_is_not_signed(closed: Closed, tmp_path: Path) -> None:
    draft, order = tmp_path / "draft.json", tmp_path / "order.json"
    call("key", "rotate", "permit", closed.layout.root, "--write-draft", draft)
    good = json.loads(draft.read_text())
    elsewhere = {**good, "predicate": {**good["predicate"], "origin": "elsewhere/log"}}
    unproven = {**good, "predicate": {**good["predicate"], "new": good["predicate"]["old"]}}
    for bad, reason, code in (
        ([], "DRAFT_MALFORMED", 3),
        ({**good, "more": 1}, "STATEMENT_MALFORMED", 3),
        ({**good, "predicateType": "x"}, "KEY_EVENT", 3),
        (elsewhere, "OTHER_LOG", 3),
        (unproven, "KEY_PROOF", 10),
    ):
        draft.write_text(json.dumps(bad))
        signing = ("--trust", closed.layout.trust, "--as", closed.layout.person("oscar"), "--write-order", order)
        assert reason in call("key", "sign", draft, *signing, code=code)
    assert not order.exists()


def test_an_order_whose_successor_was_thrown_away_is_refused(closed: Closed, tmp_path: Path) -> None:
    """Else the log would name a key that nobody has."""
    root = closed.layout.root
    first = signed(closed, tmp_path / "first.json", "rotate", "pdf", root)
    second = signed(closed, tmp_path / "second.json", "rotate", "pdf", root)
    assert "KEY_NOT_STAGED" in call("key", "rotate", "pdf", root, "--order", first, code=6)
    call("key", "rotate", "pdf", root, "--order", second)


async def test_a_job_that_began_between_draft_and_order_keeps_its_key(opened: Open, tmp_path: Path) -> None:
    house = opened()
    await house.upload("rita")
    await house.app.close()
    order = signed(Closed(house.layout), tmp_path / "order.json", "rotate", "permit", house.layout.root)
    house = opened()
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job
    house.app.ledger.run(lambda uow: rows.update(uow.connection, JobRow, {"name": job.name}, {"state": "TRAINING"}))
    await house.app.close()
    assert "KEY_IN_USE" in call("key", "rotate", "permit", house.layout.root, "--order", order, code=6)


def test_two_people_publish_from_their_own_machines(apart: Apart) -> None:
    """What is installed and what the first has signed are carried to each, and the publication back."""
    own = apart.gateway / "policies"
    shutil.copytree(PACKS, own, ignore=shutil.ignore_patterns("access"))
    limits = own / "baseline/limits.yaml"
    text = limits.read_text("utf-8")
    limits.write_text(
        text.replace("max_retention_days:\n    value: 3650", "max_retention_days:\n    value: 3000"), "utf-8"
    )
    assert limits.read_text("utf-8") != text, "the packaged policy has two signatures already"
    publication = apart.gateway / "bootstrap/policy.json"
    for name, desk in apart.desks.items():
        shutil.copytree(own, desk / "policies")
        (desk / "bootstrap").mkdir()
        shutil.copy(publication, desk / "bootstrap")
        call("policy", "publish", desk, "--as", desk / "people" / name)
        shutil.copy(desk / "bootstrap/policy.json", publication)
    envelope = json.loads(publication.read_text())
    told = read_policy(dsse.read_statement(dsse.envelope_payload(envelope)))
    pack = read_pack(own)
    assert len(envelope["signatures"]) == 2
    assert (told.bundle_sha256, told.limits_sha256) == (pack.bundle_sha256, pack.limits_sha256)
    assert "TRUST_MALFORMED" in call("policy", "publish", apart.gateway / "anchor", "--as", desk, code=3)


async def test_a_running_gateway_keeps_its_keys(house: House) -> None:
    assert "LEDGER_IN_USE" in ordered(house, "rotate", "permit", house.layout.root, code=6)
    assert len(listed(house)["permit"]) == 1


async def test_a_job_under_way_keeps_the_key_that_it_rests_on(opened: Open) -> None:
    house = opened()
    await house.upload("rita")
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job
    house.app.ledger.run(lambda uow: rows.update(uow.connection, JobRow, {"name": job.name}, {"state": "TRAINING"}))
    await house.app.close()
    for name in ("train-worker", "canary", "gateway-seal"):
        assert "KEY_IN_USE" in ordered(house, "rotate", name, house.layout.root, code=6)
    ordered(house, "compromised", "train-worker", house.layout.root, "--since", 0)
    ordered(house, "rotate", "train-worker", house.layout.root)


@pytest.mark.parametrize("state", ["QUEUED", "PAUSED"])
async def test_a_prepared_job_that_waits_keeps_the_keys_by_which_it_will_be_audited(opened: Open, state: str) -> None:
    house = opened()
    await house.upload("rita")
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job
    house.app.ledger.run(lambda uow: rows.update(uow.connection, JobRow, {"name": job.name}, {"state": state}))
    await house.app.close()
    for name in ("audit-worker", "audit-worker-seal", "canary"):
        refused = ordered(house, "rotate", name, house.layout.root, code=6)
        assert "KEY_IN_USE" in refused and "pause or" not in refused
    ordered(house, "rotate", "train-worker", house.layout.root)


async def test_a_crash_between_record_and_file_is_mended_at_the_next_start(
    closed: Closed, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(key_files, "settle", lambda *_: None)
        done = ordered(closed, "rotate", "pdf", closed.layout.root)
    assert list(closed.layout.root.rglob("*.next"))
    house = opened()
    assert key_files.held(house.layout, "pdf").keyid == done["new"]
    assert list(closed.layout.root.rglob("*.next")) == []
    await house.app.close()


@pytest.mark.parametrize(("name", "file"), [("permit", "permit.key"), ("pdf", "pdf.crt")])
async def test_what_a_killed_rotation_left_half_written_stops_nobody(
    closed: Closed, opened: Open, name: str, file: str
) -> None:
    """As an earlier release, which did not write it whole, may have left it; no record speaks of it."""
    left = closed.layout.service("gateway") / f"{file}.next"
    left.write_bytes(b"-----BEGIN ")
    left.chmod(0o600)
    house = opened()
    await house.app.close()
    done = ordered(closed, "rotate", name, closed.layout.root)
    assert key_files.held(closed.layout, name).keyid == done["new"] and not left.exists()


async def test_a_successor_in_force_that_cannot_be_read_is_named(
    closed: Closed, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(key_files, "settle", lambda *_: None)
        ordered(closed, "rotate", "permit", closed.layout.root)
    (left,) = closed.layout.root.rglob("*.next")
    left.write_bytes(left.read_bytes()[:40])
    with pytest.raises(AssayError) as caught:
        opened()
    assert caught.value.reason == "KEY_MALFORMED" and str(left) in caught.value.message


@pytest.mark.parametrize("name", ["permit", "pdf", "people/vik"])
def test_a_successor_is_on_the_disk_before_the_log_names_it(
    closed: Closed, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    forced: list[int] = []
    real, record = os.fsync, key_rotation._record

    def seen(descriptor: int) -> None:
        forced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    def recorded(*arguments: Any) -> Any:
        waiting = [*closed.layout.root.rglob("*.next")]
        assert waiting and {p.stat().st_ino for one in waiting for p in (one, one.parent)} <= set(forced)
        forced.clear()
        return record(*arguments)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(key_rotation, "_record", recorded)
    ordered(closed, "rotate", name, closed.layout.root)
    folder = closed.layout.person("vik") if name == "people/vik" else closed.layout.service("gateway")
    assert folder.stat().st_ino in forced, "the change of place is forced too"


async def test_a_card_of_the_new_key_is_checked_by_the_evidence(opened: Open, closed: Closed, tmp_path: Path) -> None:
    ordered(closed, "rotate", "pdf", closed.layout.root)
    house = opened()
    await approved(house)
    card, evidence = tmp_path / "card.pdf", tmp_path / "evidence.zip"
    card.write_bytes(await pdf(house))
    with evidence.open("wb") as out:
        export(house.app.ledger, out, policy_text=f"log {house.app.ledger.vkey}\nquorum none\n")
    await house.app.close()

    async def check(*more: object, code: int = 0) -> str:
        """In a thread, since the library that reads signed PDFs starts an event loop of its own."""
        words = ("model", "check-card", card, "--trust", house.layout.trust, *more)
        return await asyncio.to_thread(lambda: call(*words, code=code))

    assert "CARD_SIGNATURE" in await check(code=10)
    assert "by the certificate that held at record" in await check("--evidence", evidence)
    card.write_bytes(card.read_bytes() + b"\n% one more page\n")
    assert "CARD_NOT_ISSUED" in await check("--evidence", evidence, code=4)
    evidence.write_bytes(b"PK")
    assert "EVIDENCE" in await check("--evidence", evidence, code=10)


async def test_a_card_in_doubt_holds_by_no_bundle_that_leaves_the_event_out(
    opened: Open, closed: Closed, tmp_path: Path
) -> None:
    """Whoever hands over card and bundle may repack it; a selection's proofs all hold."""
    house = opened()
    await approved(house)
    card, evidence = tmp_path / "card.pdf", tmp_path / "evidence.zip"
    card.write_bytes(await pdf(house))
    issued_at, before = house.app.ledger.size - 1, house.app.ledger.checkpoint()
    await house.app.close()
    event = ordered(closed, "compromised", "pdf", closed.layout.root, "--since", 1)["record_index"]
    ordered(closed, "rotate", "pdf", closed.layout.root)
    house = opened()
    ledger, size = house.app.ledger, house.app.ledger.size
    bundles: dict[str, bytes] = {}
    for name, options in {
        "whole": {},
        "unit": {"unit": "credit"},
        "job": {"jobs": [NAME]},
        "gap": {"indices": [i for i in range(size) if i != event]},
        "cut": {"indices": range(event)},
        "old": {"checkpoint": before},
    }.items():
        out = io.BytesIO()
        export(ledger, out, policy_text=f"log {ledger.vkey}\nquorum none\n", **options)  # type: ignore[arg-type]
        bundles[name] = out.getvalue()
    last = max(r.index for r in ledger.records("system", None, -1, 1000) if r.index < event)
    await house.app.close()

    async def check(name: str, code: int) -> str:
        evidence.write_bytes(bundles[name])
        words = ("model", "check-card", card, "--trust", closed.layout.trust, "--evidence", evidence)
        return await asyncio.to_thread(lambda: call(*words, code=code))

    for name in ("whole", "unit", "job"):
        assert "CARD_SUSPECT" in await check(name, 10), name
    told = await check("gap", 10)
    assert "EVIDENCE: the bundle leaves out system records" in told
    for name, seen in (("cut", last), ("old", issued_at)):
        told = " ".join((await check(name, 0)).split())
        assert f"up to record {seen} of 20" in told and "what the log says later" in told, told


async def adapter_signature(house: House, folder: Path) -> bytes:
    """Downloads the approved adapter's files into ``folder``; returns the signature that comes with them."""
    folder.mkdir(exist_ok=True)
    signature = b""
    request = model_pb2.DownloadAdapterRequest(name=MODEL)
    async for piece in house.app.models.download_adapter(await house.caller("dana"), request):
        signature += piece.signature
        if piece.chunk:
            (folder / piece.path).write_bytes(piece.chunk)
    return signature


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("unzip")), reason="the page's commands need both")
async def test_an_adapters_signature_is_verified_by_the_key_that_the_page_finds(
    opened: Open, closed: Closed, tmp_path: Path
) -> None:
    """docs/cards.md: by the trust file, after a rotation by the log."""
    page = (Path(__file__).parents[2] / "docs" / "cards.md").read_text("utf-8").split("## An adapter's signature")[1]
    trusted, logged = re.findall(r"^((?:grep|unzip) [^`]*?> pdf\.pub)$", page, re.MULTILINE)

    def found(command: str) -> ec.EllipticCurvePublicKey:
        subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, check=True)
        key = load_pem_public_key((tmp_path / "pdf.pub").read_bytes())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key

    house = opened()
    await approved(house)
    first = await adapter_signature(house, tmp_path / "OUT")
    await house.app.close()
    shutil.copy(closed.layout.trust, tmp_path / "trust.txt")
    old, files = found(trusted), folder_manifest(tmp_path / "OUT")
    assert model_signature.verify(first, files, old) == MODEL
    event = ordered(closed, "rotate", "pdf", closed.layout.root)["record_index"]
    house = opened()
    later = await adapter_signature(house, tmp_path / "OUT")
    with (tmp_path / "evidence.bundle.zip").open("wb") as out:
        export(house.app.ledger, out, policy_text=f"log {house.app.ledger.vkey}\nquorum none\n")
    await house.app.close()
    with pytest.raises(IntegrityError):
        model_signature.verify(later, files, old)
    assert model_signature.verify(later, files, found(logged.replace("INDEX", str(event)))) == MODEL


@pytest.mark.parametrize("reason", ["COMMITMENT_MISMATCH", "COMMITMENT_SALT", "KEY_NOT_IN_FORCE"])
def test_what_a_caller_signed_wrongly_is_a_refusal(reason: str) -> None:
    """By their code they look like a fault of ours, which no record tells of."""
    assert is_refusal(IntegrityError(reason, "of the caller's"))


@asynccontextmanager
async def served(closed: Closed, opened: Open) -> AsyncIterator[tuple[House, Whoami]]:
    """The gateway behind a port, and `role whoami` over mTLS with a person's folder, for an exit code."""
    address = f"127.0.0.1:{free_ports(1)}"
    toml = closed.layout.settings.read_text().replace('listen = "127.0.0.1:7443"', f'listen = "{address}"')
    closed.layout.settings.write_text(toml)
    house = opened()
    server = await start(house.app, Telemetry(TracerProvider(), MeterProvider()))

    async def whoami(folder: Path, code: int) -> str:
        words = ("role", "whoami", "--as", folder, "--address", address)
        return await asyncio.to_thread(lambda: call(*words, code=code))

    try:
        yield house, whoami
    finally:
        await server.stop(None)
        await house.app.close()


def refused_last(house: House) -> tuple[str, str]:
    """Actor and reason of the refusal that was recorded last."""
    last = house.app.ledger.records(REFUSALS_UNIT, None, -1, 1000)[-1]
    assert last.type == "request.refused"
    said = json.loads(last.body)["statement"]["predicate"]
    return said["actor"], said["reason"]


async def test_a_stolen_key_opens_no_call(closed: Closed, opened: Open, tmp_path: Path) -> None:
    """Over mTLS: the certificate is still valid, and the caller is turned away."""
    root = closed.layout.root
    stolen = shutil.copytree(closed.layout.person("vik"), tmp_path / "thief")
    ordered(closed, "compromised", "people/vik", root, "--since", 1)
    ordered(closed, "rotate", "people/vik", root)
    async with served(closed, opened) as (house, whoami):
        assert "KEY_NOT_IN_FORCE" in await whoami(stolen, 5)
        assert refused_last(house) == (house.subject("vik"), "KEY_NOT_IN_FORCE")
        assert house.subject("vik") in await whoami(closed.layout.person("vik"), 0)


async def test_the_services_root_makes_no_person(closed: Closed, opened: Open, tmp_path: Path) -> None:
    """The handshake takes certificates under either root; a person's name counts under the people root only."""
    forged = forged_person(closed.layout, "vik", tmp_path / "forged")
    async with served(closed, opened) as (house, whoami):
        assert house.subject("vik") in await whoami(closed.layout.person("vik"), 0)
        said = await whoami(forged, 5)
        assert "CERTIFICATE_BAD" in said and "the people root" in said
        assert refused_last(house) == (house.subject("vik"), "CERTIFICATE_BAD")
