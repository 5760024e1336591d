"""docs/api.md: a row for every RPC, its bounds and codes, what a repeat answers, and its client as it is."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from assay import status
from assay.errors import AssayError
from assay.v1 import approval_pb2, permit_pb2, tuning_job_pb2
from gateway import pages
from gateway.approvals import ApprovalService
from gateway.cli import session
from gateway.erasures import ErasureService
from gateway.identity_registry import IdentityRegistry
from gateway.jobs.service import JobService
from gateway.permits import PermitService
from gateway.rpc import errors, handlers, server
from gateway.rpc.interceptors import deadline
from gateway.rpc.routes import snake
from gateway.settings import Limits
from gateway.statements import raise_statement
from gateway.store import jobs
from tests.gateway import acts
from tests.gateway.conftest import House
from tests.gateway.judged import NAME, approved, awaiting, decide, state
from tests.gateway.test_calls import Served, served  # noqa: F401
from tests.gateway.test_erasures import erase
from tests.gateway.test_identity_registry import grant, revoke
from tests.gateway.test_permits import issued
from tests.policies.test_authorization import FILES, ROLES, TABLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
ROWS = {
    row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|(?: (.+?))? \|$", PAGE.read_text(), re.M)
}
METHODS = [m for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for m in service.methods]


def table(first: str) -> dict[str, list[str]]:
    """Rows of the table whose heading begins so, by their first cells."""
    found = re.split(rf"^\| {first} \| .*\n\|---.*\n", PAGE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.split("\n\n", 1)[0].splitlines()]
    return {row[0]: row[1:] for row in cells}


def carries(message: Descriptor, name: str) -> bool:
    """Whether a request has a field, or the header of its stream has it."""
    header = message.fields_by_name.get("header")
    inner = header.message_type if header is not None else None
    return name in message.fields_by_name or (inner is not None and name in inner.fields_by_name)


def remarks(method: MethodDescriptor) -> str:
    """What the contract says of an RPC, in the lines above it."""
    text = (ROOT / "protos" / method.containing_service.file.name).read_text()
    found = re.search(rf"((?:^  //.*\n)+)  rpc {method.name}\(", text, re.MULTILINE)
    assert found is not None
    return found[1]


def words(text: str) -> set[str]:
    """The reasons that a text names."""
    return set(re.findall(r"`([A-Z][A-Z_]+)`", text))


def test_every_rpc_has_its_row_and_who_may_call_it_is_what_cedar_says() -> None:
    assert list(ROWS) == [method.name for method in METHODS]
    for method in METHODS:
        roles, said = TABLE[method.name], ROWS[method.name][0]
        if roles <= {"any", "everybody"}:
            assert said == ("any role" if "any" in roles else "everybody"), method.name
            continue
        assert re.findall(r"`(\w+)`", said) == [r for r in map(_word, ROLES) if r in roles], method.name
        assert said.endswith(" in every unit") == ("installation" in roles), method.name


def _word(role: str) -> str:
    return role.removeprefix("ROLE_").lower()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_page_the_fields_and_the_contracts_comment_agree_on_repeats(method: MethodDescriptor) -> None:
    _, by, again = ROWS[method.name]
    comment = remarks(method)
    assert (by == "reads") == ("Sent again" not in comment) == (not again)
    for name in ("request_id", "etag"):
        assert (f"`{name}`" in by) == carries(method.input_type, name), name
    assert words(again) == words(comment)


def test_the_bounds_are_those_of_the_code() -> None:
    bounds = {what: row[0] for what, row in table("What").items()}
    options = dict(server.OPTIONS)
    assert f"at most {deadline.MAX_SECONDS // 86_400} days" in bounds["deadline"]
    assert f"within {handlers.FIRST_MESSAGE_SECONDS:g} s" in bounds["first message"]
    assert f"{server.MAX_MESSAGE_BYTES >> 20} MiB" in bounds["message"]
    assert bounds["calls at once"].startswith(f"{Limits().calls_at_once} by one key")
    assert f"; {server.MAX_CONCURRENT_RPCS} by all" in bounds["calls at once"]
    pings = options["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert f"every {pings // 1000} s at most" in bounds["keepalive"]
    assert f"pings every {session.KEEPALIVE_MS // 1000} s" in bounds["keepalive"]
    assert f"after {options['grpc.max_connection_idle_ms'] // 1000} s" in bounds["idle"]
    text = PAGE.read_text()
    assert f"0 means {pages.DEFAULT_SIZE}, more than {pages.MAX_SIZE} means {pages.MAX_SIZE}" in text
    assert f"before {pages.MAX_BYTES >> 20} MiB" in text and f"`domain` is `{errors.DOMAIN}`" in text


def test_every_code_that_is_sent_has_its_row() -> None:
    said = re.findall(r"`([A-Z_]+)`", " ".join(table("Code")))
    assert sorted(said) == sorted([*status.KINDS, "DEADLINE_EXCEEDED", "CANCELLED", "UNIMPLEMENTED"])


async def pause_with_etag(house: House) -> None:
    found = await acts.job(house)
    request = tuning_job_pb2.PauseTuningJobRequest(name=NAME, reason="lunch", etag=found.etag)
    await house.app.jobs.pause_tuning_job(await house.caller("rita"), request)


async def resume_with_etag(house: House) -> None:
    found = await acts.job(house)
    request = tuning_job_pb2.ResumeTuningJobRequest(name=NAME, reason="back", etag=found.etag)
    await house.app.jobs.resume_tuning_job(await house.caller("rita"), request)


async def paused_and_resumed(house: House) -> None:
    await acts.pause(house)
    await acts.resume(house)


async def resumed_and_paused(house: House) -> None:
    await acts.resume(house)
    await acts.pause(house)


async def appeal_and_dismiss(house: House) -> None:
    await acts.appeal(house)
    await acts.dismiss(house)


async def raise_and_move(house: House) -> None:
    """Policy refuses the raise of a job that it was never asked about; that the job moved is what counts here."""
    found = await acts.job(house)
    envelope = house.sign("cora", raise_statement(NAME, found.etag, 60_000_000, acts.SAID))
    request = approval_pb2.RaiseBudgetRequest(name=NAME, etag=found.etag, envelope=envelope, reason=acts.SAID)
    with pytest.raises(AssayError, match="refused by"):
        await house.app.approvals.raise_budget(await house.caller("cora"), request)
    await acts.resume(house)


async def revoke_a_permit(house: House) -> None:
    request = permit_pb2.RevokePermitRequest(name=(await issued(house)).name, reason="drift")
    await house.app.permits.revoke_permit(await house.caller("dana"), request)


async def grant_a_role(house: House) -> None:
    await grant(house, "oscar", "vik", "auditor")


async def revoke_a_role(house: House) -> None:
    await revoke(house, "oscar", "g-1")


async def nothing(house: House) -> None:
    """The installation is enough."""


CASES: list[tuple[str, acts.Deed, acts.Deed, str]] = [
    ("CreateTuningJob", acts.upload, acts.create, ""),
    ("IssuePermit", approved, issued, ""),
    ("DecideApproval", awaiting, lambda house: decide(house, "cora", "compliance_officer"), "SIGNED_BEFORE"),
    ("DecideApproval", acts.one_has_signed, acts.grant, "ETAG"),
    ("DecideApproval", awaiting, acts.refuse, "ETAG"),
    ("WaiveRules", acts.quarantined, acts.waive, "ETAG"),
    ("RaiseBudget", acts.paused, raise_and_move, "ETAG"),
    ("DismissAppeal", acts.appealed, acts.dismiss, "ETAG"),
    ("RevokeApproval", approved, acts.revoke, "ETAG"),
    ("EraseResource", acts.upload, erase, "ERASED_BEFORE"),
    ("GrantRole", nothing, grant_a_role, "GRANT_EXISTS"),
    ("RevokeRole", grant_a_role, revoke_a_role, "GRANT_REVOKED"),
    ("RevokePermit", approved, revoke_a_permit, "PERMIT_REVOKED"),
    ("CancelTuningJob", acts.training, acts.cancel, "JOB_STATE"),
    ("PauseTuningJob", acts.training, acts.pause, "JOB_STATE"),
    ("PauseTuningJob", acts.training, pause_with_etag, "ETAG"),
    ("ResumeTuningJob", acts.paused, acts.resume, "JOB_STATE"),
    ("ResumeTuningJob", acts.paused, resume_with_etag, "ETAG"),
    ("AppealTuningJob", acts.quarantined, acts.appeal, "APPEAL_WAITS"),
    ("AppealTuningJob", acts.quarantined, appeal_and_dismiss, "APPEAL_ENDED"),
]
ELSEWHERE = ("UploadDataset", "ImportDataset", "ReplayTuningJob")
"""The page's client sends its upload twice; the others need a store and workers, as in test_stores and test_replays."""


def test_every_act_and_every_reason_is_tried() -> None:
    tried = {rpc: {reason for name, _, _, reason in CASES if name == rpc} - {""} for rpc, *_ in CASES}
    said = {rpc: words(again) for rpc, (_, by, again) in ROWS.items() if by != "reads"}
    assert said == tried | {rpc: set[str]() for rpc in ELSEWHERE}


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Each call of an act, in order: its RPC, and the same call once more."""
    calls: list[tuple[str, Callable[[], Awaitable[Any]]]] = []

    def listening(rpc: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(function)
        async def heard(*args: Any) -> Any:
            calls.append((rpc, partial(function, *args)))
            return await function(*args)

        return heard

    for rpc in {rpc for rpc, *_ in CASES}:
        for service in (ApprovalService, ErasureService, IdentityRegistry, JobService, PermitService):
            if hasattr(service, snake(rpc)):
                monkeypatch.setattr(service, snake(rpc), listening(rpc, getattr(service, snake(rpc))))
    return calls


@pytest.mark.parametrize(("rpc", "prepare", "act", "reason"), CASES, ids=[f"{c[0]}-{c[3] or 'same'}" for c in CASES])
async def test_a_repeat_answers_what_the_page_says(
    house: House, heard: list[tuple[str, Any]], rpc: str, prepare: acts.Deed, act: acts.Deed, reason: str
) -> None:
    """The same request, byte by byte."""
    await prepare(house)
    heard.clear()
    await act(house)
    again = next(call for name, call in heard if name == rpc)
    if reason:
        size = house.app.ledger.size
        with pytest.raises(AssayError) as caught:
            await again()
        assert caught.value.reason == reason, caught.value.diagnostics()
        assert house.app.ledger.size == size
    else:
        assert await again() == await again()


@pytest.mark.parametrize(
    ("rpc", "prepare", "act", "late"),
    [
        ("PauseTuningJob", acts.training, paused_and_resumed, "PAUSED"),
        ("ResumeTuningJob", acts.paused, resumed_and_paused, "TRAINING"),
    ],
)
async def test_a_late_repeat_without_an_etag_undoes_what_was_done_since(
    house: House, heard: list[tuple[str, Any]], rpc: str, prepare: acts.Deed, act: acts.Deed, late: str
) -> None:
    """As the page warns; with an etag it is refused, whatever the state."""
    await prepare(house)
    etag = (await acts.job(house)).etag
    await act(house)
    call = next(call for name, call in reversed(heard) if name == rpc)
    *rest, request = call.args
    request.etag = etag
    with pytest.raises(AssayError) as caught:
        await call.func(*rest, request)
    assert (caught.value.code, caught.value.reason) == ("ABORTED", "ETAG")
    request.etag = ""
    await call()
    assert state(house) == late


async def test_the_client_of_the_page_runs_with_its_own_stubs(served: Served, tmp_path: Path) -> None:  # noqa: F811
    """No module of ours: the stubs are made from the protos, by the page's own command."""
    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "protos").symlink_to(ROOT / "protos")
    _, made, run = re.search(r"^```sh\n(.*?)\n```", PAGE.read_text(), re.M | re.S)[1].splitlines()  # type: ignore[index]
    client = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)[1]  # type: ignore[index]
    ours = "import assay\n\nassert not hasattr(assay, 'certificates') and assay.__file__ is None, assay\n"
    (folder / "client.py").write_text(ours + client)
    (folder / "rows.jsonl").write_bytes(b"{}\n" * 200_000)
    port = served.address.rpartition(":")[2]
    run = run.replace("./bank", str(served.house.layout.root)).replace("7443", port)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    for line in (made, run):
        process = await asyncio.create_subprocess_shell(
            line, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        said = []
        async with asyncio.timeout(120):
            async for words_ in process.stdout:
                said.append(words_.decode().strip())
                if said[-1] == "STATE_RECEIVED":
                    await end(served.house)
            complaint = (await process.stderr.read()).decode()
            assert await process.wait() == 0, complaint
    assert said[0] == served.house.subject("rita")
    assert said[1].startswith("ALREADY_EXISTS; assay.v1; REQUEST_ID; take a new request_id")
    assert said[2] == "STATE_RECEIVED" and set(said[3:]) == {"STATE_CANCELLED"}


async def end(house: House) -> None:
    """Cancels the client's job; no pipeline is there to settle it."""
    name = "units/support/tuningJobs/replies-1"
    request = tuning_job_pb2.CancelTuningJobRequest(name=name, reason="seen enough")
    await house.app.jobs.cancel_tuning_job(await house.caller("rita"), request)
    await house.app.store.commit(lambda uow: jobs.note(uow.connection, name, {"needs_work": False}))
