"""Role grants: signed by operators, recorded, revocable at once; refusals recorded and counted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from assay import contract
from assay.errors import AssayError, InvalidInputError, PermissionDeniedError
from assay.identity import Layout
from assay.v1 import dataset_pb2, tuning_job_pb2
from assay.v1 import identity_pb2 as pb
from audit.ledger.records import REFUSALS_UNIT
from demo.processes import free_ports
from gateway import refusals, statements
from gateway.application import Application
from gateway.cli.errors import from_call
from gateway.cli.session import open_session
from gateway.refusals import RefusalRecorder
from gateway.rpc.server import start
from gateway.settings import Limits, Settings
from gateway.statements import grant_revocation_statement, grant_statement
from gateway.telemetry import Telemetry
from tests.gateway.conftest import House


async def grant(
    house: House, signer: str, subject: str, role: str, unit: str = "-", grant_id: str = "g-1"
) -> pb.RoleGrant:
    envelope = house.sign(signer, grant_statement(house.subject(subject), role, unit, grant_id))
    answer = await house.app.identities.grant_role(await house.caller(signer), pb.GrantRoleRequest(envelope=envelope))
    return answer.role_grant


async def revoke(house: House, signer: str, grant_id: str, name: str = "") -> pb.RoleGrant:
    envelope = house.sign(signer, grant_revocation_statement(grant_id, "left"))
    request = pb.RevokeRoleRequest(name=name or f"roleGrants/{grant_id}", envelope=envelope)
    contract.check(request)
    return (await house.app.identities.revoke_role(await house.caller(signer), request)).role_grant


async def refused(house: House, reason: str, *call: str) -> None:
    size = house.app.ledger.size
    with pytest.raises(AssayError) as caught:
        await grant(house, *call)
    assert caught.value.reason == reason
    assert house.app.ledger.size == size


async def test_the_first_grants_come_from_the_operator(house: House) -> None:
    rita = await house.caller("rita")
    assert rita.grants == {("ROLE_REQUESTER", "-")}
    answer = await house.app.identities.who_am_i(rita, pb.WhoAmIRequest())
    assert answer.subject == house.subject("rita") and answer.grants[0].role == pb.ROLE_REQUESTER
    system = house.app.ledger.records("system", None, -1, 50)
    assert [r.type for r in system] == ["log.opened", *["grant.issued"] * 9, "policy.published"]
    assert (await house.caller("nobody")).grants == frozenset()


async def test_grant_and_revoke_take_effect_at_once(house: House) -> None:
    made = await grant(house, "oscar", "rita", "validator", "credit")
    assert made.name == "roleGrants/g-1" and made.role == pb.ROLE_VALIDATOR
    assert ("ROLE_VALIDATOR", "credit") in (await house.caller("rita")).grants
    record = house.app.ledger.record(made.record_index)
    assert record.type == "grant.issued" and json.loads(record.body)["sigs"]
    assert (await revoke(house, "oscar", "g-1")).HasField("revoke_time")
    assert (await house.caller("rita")).grants == {("ROLE_REQUESTER", "-")}
    with pytest.raises(AssayError) as caught:
        await revoke(house, "oscar", "g-1")
    assert caught.value.reason == "GRANT_REVOKED"
    # The same signed grant handed in again does not come back to life.
    await refused(house, "GRANT_EXISTS", "oscar", "rita", "validator", "credit")


async def test_who_may_not_grant(house: House) -> None:
    await refused(house, "ROLE_MISSING", "cora", "rita", "validator")
    await refused(house, "SELF_GRANT", "oscar", "oscar", "validator")
    await refused(house, "UNIT", "oscar", "rita", "validator", "nowhere")
    await grant(house, "oscar", "rita", "operator", "credit")
    await refused(house, "ROLE_MISSING", "rita", "carl", "validator", "-", "g-2")
    # The offline verifier believes only operators of every unit; a grant that it refuses must not be made.
    await refused(house, "ROLE_MISSING", "rita", "carl", "validator", "credit", "g-3")
    with pytest.raises(PermissionDeniedError):
        await revoke(house, "rita", "cora-compliance-officer")


async def test_a_grant_is_a_persons_and_can_be_named(house: House) -> None:
    for grant_id in ("", "Vera/Validator", "g 1", "g-1\n", "\u00e9", "x" * 65):
        await refused(house, "STATEMENT", "oscar", "rita", "validator", "-", grant_id)
    size = house.app.ledger.size
    for subject in ("spiffe://assay.local/services/gateway", "spiffe://assay.local/people/", "rita"):
        envelope = house.sign("oscar", grant_statement(subject, "validator", "-", "g-1"))
        with pytest.raises(InvalidInputError) as caught:
            await house.app.identities.grant_role(await house.caller("oscar"), pb.GrantRoleRequest(envelope=envelope))
        assert caught.value.reason == "STATEMENT"
    assert house.app.ledger.size == size


@pytest.mark.parametrize("grant_id", ["Vera/Validator", "of\ntwo lines", "x" * 1000])
async def test_what_an_earlier_release_granted_under_any_id_is_revocable(
    house: House, monkeypatch: pytest.MonkeyPatch, grant_id: str
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(statements, "read_grant", lambda s: statements.SignedGrant(**s["predicate"]))
        made = await grant(house, "oscar", "rita", "validator", "-", grant_id)
    assert (await revoke(house, "oscar", grant_id)).name == made.name
    assert (await house.caller("rita")).grants == {("ROLE_REQUESTER", "-")}


async def test_a_grant_signed_by_somebody_else_is_not_mine(house: House) -> None:
    envelope = house.sign("olga", grant_statement(house.subject("rita"), "validator", "-", "g-1"))
    with pytest.raises(PermissionDeniedError) as caught:
        await house.app.identities.grant_role(await house.caller("oscar"), pb.GrantRoleRequest(envelope=envelope))
    assert caught.value.reason == "SIGNER"


async def test_a_revocation_names_the_grant_of_the_request(house: House) -> None:
    await grant(house, "oscar", "rita", "validator")
    with pytest.raises(InvalidInputError):
        await revoke(house, "oscar", "g-1", "roleGrants/vik-validator")
    with pytest.raises(AssayError) as caught:
        await revoke(house, "oscar", "none")
    assert caught.value.reason == "NOT_FOUND"


async def test_a_watch_ends_with_the_role(opened: Callable[[], House], tmp_path: Path) -> None:
    """Over mTLS: it may last for days, and what it says next is for those alone who may ask then."""
    address, layout = f"127.0.0.1:{free_ports(1)}", Layout(tmp_path / "dir")
    layout.settings.write_text(layout.settings.read_text().replace("127.0.0.1:7443", address))
    house = opened()
    server = await start(house.app, Telemetry(TracerProvider(), MeterProvider()))
    name = "units/credit/tuningJobs/first"
    seen: list[int] = []

    def watch() -> AssayError:
        request = tuning_job_pb2.WatchTuningJobRequest(name=name)
        with open_session(layout.person("anna"), address) as session, pytest.raises(grpc.RpcError) as ended:
            for event in session.jobs.WatchTuningJob(request, timeout=10):
                seen.append(event.tuning_job.state)
        return from_call(ended.value)

    try:
        await house.upload("rita")
        rita = await house.caller("rita")
        await house.app.jobs.create_tuning_job(rita, house.request())
        watching = asyncio.create_task(asyncio.to_thread(watch))
        while not seen and not watching.done():
            await asyncio.sleep(0.01)
        await revoke(house, "oscar", "anna-auditor")
        await house.app.jobs.cancel_tuning_job(rita, tuning_job_pb2.CancelTuningJobRequest(name=name, reason="x"))
        assert (await watching).reason == "NOT_FOUND"
        assert seen == [tuning_job_pb2.TuningJob.STATE_RECEIVED]
        said = json.loads(house.app.ledger.records(REFUSALS_UNIT, None, -1, 100)[-1].body)["statement"]["predicate"]
        assert (said["actor"], said["method"].rpartition("/")[2]) == (house.subject("anna"), "WatchTuningJob")
    finally:
        await server.stop(None)
        await house.app.close()


async def test_an_upload_needs_the_role_when_it_ends_too(opened: Callable[[], House], tmp_path: Path) -> None:
    """It may last for hours."""
    address, layout = f"127.0.0.1:{free_ports(1)}", Layout(tmp_path / "dir")
    layout.settings.write_text(layout.settings.read_text().replace("127.0.0.1:7443", address))
    house = opened()
    server = await start(house.app, Telemetry(TracerProvider(), MeterProvider()))
    begun, revoked = threading.Event(), threading.Event()
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="late", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL,
        datasheet=dataset_pb2.Datasheet(purposes=["support-replies"], licence="CC0-1.0"), request_id=str(uuid.uuid4()),
    )  # fmt: skip

    def parts() -> Iterator[dataset_pb2.UploadDatasetRequest]:
        yield dataset_pb2.UploadDatasetRequest(header=header)
        yield dataset_pb2.UploadDatasetRequest(chunk=b"x")
        begun.set()
        assert revoked.wait(10)
        trailer = dataset_pb2.UploadDatasetTrailer(sha256=hashlib.sha256(b"x").hexdigest())
        yield dataset_pb2.UploadDatasetRequest(trailer=trailer)

    def send() -> AssayError:
        with open_session(layout.person("rita"), address) as session, pytest.raises(grpc.RpcError) as ended:
            session.datasets.UploadDataset(parts(), timeout=20)
        return from_call(ended.value)

    try:
        sending = asyncio.create_task(asyncio.to_thread(send))
        assert await asyncio.to_thread(begun.wait, 10)
        await revoke(house, "oscar", "rita-requester")
        revoked.set()
        assert (await sending).reason == "NOT_FOUND"
        assert "dataset.created" not in [r.type for r in house.app.ledger.records(limit=100)]
        assert not house.app.blobs.exists("credit", hashlib.sha256(b"x").hexdigest())
    finally:
        await server.stop(None)
        await house.app.close()


async def test_a_stranger_to_the_installation_is_granted_nothing_and_is_no_operator(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = "spiffe://assay.lcoal/people/oscra"
    envelope = house.sign("oscar", grant_statement(stranger, "operator", "-", "g-1"))
    request = pb.GrantRoleRequest(envelope=envelope)
    with pytest.raises(InvalidInputError) as caught:
        await house.app.identities.grant_role(await house.caller("oscar"), request)
    assert caught.value.reason == "NOT_A_PERSON" and "spiffe://assay.local/people/" in caught.value.remedy
    with monkeypatch.context() as earlier:
        earlier.setattr(type(house.app.identities), "_check_person", lambda self, subject: None)
        await house.app.identities.grant_role(await house.caller("oscar"), request)
    await revoke(house, "oscar", "olga-operator")
    with pytest.raises(AssayError) as last:
        await revoke(house, "oscar", "oscar-operator")
    assert last.value.reason == "LAST_OPERATOR"
    assert (await revoke(house, "oscar", "g-1")).HasField("revoke_time")


async def test_the_last_operator_stays(house: House) -> None:
    await revoke(house, "oscar", "olga-operator")
    with pytest.raises(AssayError) as caught:
        await revoke(house, "oscar", "oscar-operator")
    assert caught.value.reason == "LAST_OPERATOR"
    await grant(house, "oscar", "rita", "operator", "credit")
    assert (await revoke(house, "oscar", "g-1")).HasField("revoke_time")  # one unit's operator is not the last one


async def test_listing(house: House) -> None:
    await grant(house, "oscar", "rita", "validator", "claims")
    await revoke(house, "oscar", "g-1")
    anna, carl = await house.caller("anna"), await house.caller("carl")

    async def names(caller: object, **fields: object) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListRoleGrantsRequest(page_size=4, page_token=token, **fields)  # type: ignore[arg-type]
            page = await house.app.identities.list_role_grants(caller, request)  # type: ignore[arg-type]
            found += [g.name for g in page.role_grants]
            token = page.next_page_token
            if not token:
                return found

    live, everything = await names(anna), await names(anna, include_revoked=True)
    assert len(live) == 9 and set(everything) - set(live) == {"roleGrants/g-1"}
    assert "roleGrants/mia-compliance-officer" not in await names(carl)


@pytest.mark.parametrize("damage", ["missing", "empty", "signature", "foreign signer"])
async def test_a_damaged_bootstrap_starts_nothing(opened: Callable[[], House], pristine: object, damage: str) -> None:
    house = opened()
    await house.app.close()
    layout = house.layout
    (layout.service("gateway") / "data" / "assay.db").unlink()
    for file in layout.anchor.iterdir():
        file.unlink()
    grants = json.loads(layout.bootstrap_grants.read_text())
    if damage == "missing":
        layout.bootstrap_grants.unlink()
    elif damage == "empty":
        layout.bootstrap_grants.write_text("[]")
    elif damage == "signature":
        grants[0]["payload"] = grants[1]["payload"]
        layout.bootstrap_grants.write_text(json.dumps(grants))
    else:
        signed = house.sign("rita", grant_statement(house.subject("rita"), "operator", "-", "evil"))
        from assay import dsse

        layout.bootstrap_grants.write_text(json.dumps([*grants, dsse.envelope_from_proto(signed)]))
    with pytest.raises(AssayError):
        Application.open(Settings.load(layout.root), house.app.policy)


async def test_refusals_are_recorded_and_a_flood_is_counted(house: House) -> None:
    recorder = RefusalRecorder(house.app.store, Limits(refusals_per_minute=3))
    rita, carl = await house.caller("rita"), await house.caller("carl")
    error = InvalidInputError("PAGE_TOKEN", "secret words of a row")
    for _ in range(10):
        await recorder.record(rita.subject, "ListTuningJobs", error)
    await recorder.record(carl.subject, "ListTuningJobs", error)

    def found() -> list[dict[str, object]]:
        records = [r for r in house.app.ledger.records(REFUSALS_UNIT, None, -1, 100) if r.type == "request.refused"]
        return [json.loads(r.body)["statement"]["predicate"] for r in records]

    assert [p["actor"] for p in found()] == [house.subject("rita")] * 3 + [house.subject("carl")]
    assert all(p["reason"] == "PAGE_TOKEN" and p["surplus"] == 0 for p in found())
    assert "secret words" not in str(found())
    await recorder.flush()
    await recorder.flush()
    assert [p["surplus"] for p in found()][4:] == [7]


async def test_what_was_only_counted_is_told_when_its_minute_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a subject that says nothing more, and of the oldest where there are too many to remember."""
    recorder, error = RefusalRecorder(house.app.store, Limits(refusals_per_minute=1)), InvalidInputError("A", "b")
    clock = [0.0]
    monkeypatch.setattr(refusals, "monotonic", lambda: clock[0])

    def told() -> list[tuple[str, int]]:
        records = [r for r in house.app.ledger.records(REFUSALS_UNIT, None, -1, 100) if r.type == "request.refused"]
        found = [json.loads(r.body)["statement"]["predicate"] for r in records]
        return [(p["actor"], p["surplus"]) for p in found if p["reason"] == "SURPLUS"]

    for _ in range(3):
        await recorder.record("quiet", "X", error)
    await recorder.settle()
    assert told() == []
    clock[0] = 61.0
    await recorder.settle()
    assert told() == [("quiet", 2)]
    monkeypatch.setattr(refusals, "_MAX_SUBJECTS", 2)
    for subject in ("first", "first", "second", "third"):
        await recorder.record(subject, "X", error)
    assert told() == [("quiet", 2), ("first", 1)] and len(recorder._windows) == 2


async def test_a_flood_by_many_is_counted_in_one_record_of_the_log_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and also of those whose own surplus finds no room any more."""
    recorder = RefusalRecorder(house.app.store, Limits(refusals_per_minute=2, all_refusals_per_minute=3))
    error, clock = InvalidInputError("A", "b"), [0.0]
    monkeypatch.setattr(refusals, "monotonic", lambda: clock[0])

    def told() -> list[tuple[str, str, int]]:
        records = house.app.ledger.records(REFUSALS_UNIT, None, -1, 100)
        found = [json.loads(r.body)["statement"]["predicate"] for r in records]
        return [(p["actor"], p["reason"], p["surplus"]) for p in found]

    for subject in ("first", "first", "first", "second", "third", "fourth"):
        await recorder.record(subject, "X", error)
    assert told() == [("first", "A", 0), ("first", "A", 0), ("second", "A", 0)]
    clock[0] = 61.0
    await recorder.record("fifth", "X", error)
    origin = house.app.ledger.origin
    assert told()[3:] == [(origin, "SURPLUS", 2), ("first", "SURPLUS", 1), ("fifth", "A", 0)]
    for subject in ("sixth", "seventh", "fifth", "fifth"):
        await recorder.record(subject, "X", error)
    await recorder.flush()
    assert told()[6:] == [("sixth", "A", 0), (origin, "SURPLUS", 3)]
    assert {r.type for r in house.app.ledger.records("system", None, -1, 100)}.isdisjoint({"request.refused"})


async def test_a_recorder_whose_ledger_is_gone_does_not_raise(opened: Callable[[], House]) -> None:
    house = opened()
    rita = await house.caller("rita")
    await house.app.close()
    await house.app.refusals.record(rita.subject, "X", InvalidInputError("A", "b"))


async def test_a_ledger_that_takes_nothing_holds_up_no_refusal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be recorded is put back and waits; it is not tried again and again before the caller is answered."""
    monkeypatch.setattr(refusals, "_MAX_SUBJECTS", 3)
    tries: list[str] = []

    async def full(self: RefusalRecorder, subject: str, *_: object) -> None:
        tries.append(subject)
        raise OSError("the disk is full")

    monkeypatch.setattr(RefusalRecorder, "_append", full)
    recorder, error = RefusalRecorder(house.app.store, Limits(refusals_per_minute=1)), InvalidInputError("A", "b")
    for n in range(5):
        await asyncio.wait_for(recorder.record(f"subject-{n}", "X", error), 10)
    assert len(tries) < 20
