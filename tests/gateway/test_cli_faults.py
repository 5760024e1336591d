"""What a command says of input that it cannot use: one line that names it, its exit code, nothing half-done."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from typer.testing import CliRunner

from assay.digests import folder_manifest
from assay.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from assay.identity import Layout, load_ed25519, write_key
from assay.v1 import (
    approval_pb2,
    audit_pb2,
    dataset_pb2,
    identity_pb2,
    model_pb2,
    permit_pb2,
    policy_pb2,
    tuning_job_pb2,
)
from assay.worker.settings import WorkerKeys
from audit.ledger.httpd import tls_context
from audit.ledger.note import sign_note
from audit.verify import __main__ as verifier
from gateway import doctor
from gateway.application import Application
from gateway.cli import approval, audit, dataset, job, model, output, permit, policy, role
from gateway.cli.app import app
from gateway.cli.errors import exit_on_error
from gateway.cli.files import written
from gateway.cli.session import open_session
from gateway.cli.signing import signing_role
from gateway.precedents import Precedents
from gateway.settings import Settings
from gateway.witnesses import _tls
from policies.engine import PolicyEngine
from tests.gateway.conftest import House
from tests.gateway.test_keys import Closed, closed, ran

__all__ = ["closed", "ran"]  # fixtures
State = tuning_job_pb2.TuningJob.State
JOB = "units/support/tuningJobs/x"


def run(*words: object, code: int = 3, stdin: bytes = b"") -> str:
    """Runs a command and demands its exit code; returns what it printed on either stream."""
    done = CliRunner().invoke(app, [*map(str, words)], env={"ASSAY_IDENTITY": "", "COLUMNS": "300"}, input=stdin)
    assert done.exit_code == code, (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output


@pytest.fixture
def rita(pristine: Path, tmp_path: Path) -> Path:
    """A person's folder, with the address of a gateway that nobody runs."""
    folder = Path(shutil.copytree(Layout(pristine).person("rita"), tmp_path / "rita"))
    (folder / "client.toml").write_text('address = "127.0.0.1:1"\n')
    return folder


def play(monkeypatch: pytest.MonkeyPatch, module: Any, **stubs: Any) -> None:
    """Lets a module's commands speak with ``stubs`` instead of a gateway."""

    @contextmanager
    def session(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(**stubs)

    monkeypatch.setattr(module, "open_session", session)


@pytest.mark.parametrize(("state", "code"), [("FAILED", 1), ("DENIED", 6), ("AWAITING_APPROVAL", 0)])
@pytest.mark.parametrize("words", [("create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--watch"),
                                   ("watch", JOB)], ids=["create", "watch"])  # fmt: skip
def test_a_watched_job_ends_with_its_code(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], state: str, code: int
) -> None:
    ended = tuning_job_pb2.TuningJob(name=JOB, state=getattr(State, f"STATE_{state}"))
    jobs = SimpleNamespace(
        CreateTuningJob=lambda _: tuning_job_pb2.CreateTuningJobResponse(tuning_job=tuning_job_pb2.TuningJob(name=JOB)),
        WatchTuningJob=lambda _: [tuning_job_pb2.WatchTuningJobResponse(tuning_job=ended, resting=True)],
        GetTuningJob=lambda _: tuning_job_pb2.GetTuningJobResponse(tuning_job=ended),
    )
    play(monkeypatch, job, jobs=jobs)
    run("job", *words, code=code)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("job", "list", "units/support", "--page-size", 99999999999), "99999999999"),
        (("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--seed", 10**20), str(10**20)),
        (("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--max-usd", "nan"), "MAX_USD"),
        (("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--max-usd", "inf"), "MAX_USD"),
        (("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--max-usd", "1e30"), "MAX_USD"),
        (("audit", "inclusion", 10**21), str(10**21)),
        (("dataset", "get", "units/support/datasets/\udcff"), r"\udcff"),
        (("dataset", "lineage", "units/support", "--subject", "\udcff"), r"\udcff"),
        (("dataset", "lineage", "units/support", "--subject", "-"), "standard input"),
    ],
    ids=lambda value: " ".join(map(ascii, value)) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_value_that_fits_nowhere_is_named(rita: Path, words: tuple[object, ...], named: str) -> None:
    assert named in run(*words, "--as", rita, stdin=b"\xff")


def test_a_file_that_cannot_be_opened_is_named_and_a_fault_of_ours_is_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error, said in (
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "FILE: /srv/x: Permission denied"),
        (OSError("no number"), "no number"),
        (RecursionError(), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "position 0"),
        (OverflowError("too large"), "too large"),
    ):
        with pytest.raises(typer.Exit) as exit_, exit_on_error():
            raise error
        shown = capsys.readouterr().err
        assert exit_.value.exit_code == 3 and said in shown and "Traceback" not in shown
    for fault in (KeyError("x"), TypeError("x"), AssertionError("x"), BrokenPipeError(errno.EPIPE, "Broken pipe")):
        with pytest.raises(type(fault)), exit_on_error():
            raise fault


@pytest.mark.parametrize("data", [b"\xff", b"not a certificate"], ids=["bytes", "text"])
def test_a_damaged_certificate_or_address_is_named(rita: Path, data: bytes) -> None:
    (rita / "client.toml").write_bytes(b"\xff" + data)
    assert "NO_ADDRESS" in run("role", "whoami", "--as", rita)
    (rita / "person.crt").write_bytes(data)
    assert str(rita / "person.crt") in run("role", "whoami", "--as", rita, "--address", "127.0.0.1:1")
    (rita / "person.crt").unlink()
    (rita / "person.crt").mkdir()
    assert str(rita / "person.crt") in run("role", "whoami", "--as", rita, "--address", "127.0.0.1:1")


def test_a_key_of_another_certificate_is_named_before_a_call(rita: Path) -> None:
    (rita / "person.key").unlink()
    write_key(rita / "person.key", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InvalidInputError) as caught, open_session(rita, None):
        pass
    assert caught.value.reason == "KEY_OF_ANOTHER" and str(rita / "person.key") in caught.value.message
    (rita / "person.key").write_text("rubbish")
    assert "KEY_MALFORMED" in run("role", "whoami", "--as", rita)


SHEETS = {
    "a day that is none": "provenance: 2026-99-99",
    "a tag": "retention_days: !!int abc",
    "3,000 brackets": "purposes: " + "[" * 3000,
    "700 pairs of brackets": "purposes: " + "[" * 700 + "]" * 700,
    "a repeated key": "residency: eu\nresidency: any",
    "a number of base 60": "provenance: 12:30",
    "a date": "provenance: 2026-01-01",
    "a byte": "provenance: \udcff",
    "a list for a word": "residency: [eu]",
}


@pytest.mark.parametrize("text", SHEETS.values(), ids=SHEETS)
def test_a_datasheet_is_read_as_it_is_written_or_not_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInputError) as caught:
        dataset.read_datasheet(path)
    assert caught.value.reason == "BAD_DATASHEET" and "sheet.yaml" in caught.value.message


def test_a_file_is_opened_before_the_act_and_a_failure_leaves_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"before")
    with pytest.raises(PermissionDeniedError), written(out) as stream:
        stream.write(b"half")
        raise PermissionDeniedError("ROLE_MISSING", "no")
    assert out.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["out"]
    with written(out) as stream:
        stream.write(b"after")
    assert out.read_bytes() == b"after" and [p.name for p in tmp_path.iterdir()] == ["out"]
    for place in (tmp_path, tmp_path / "none" / "out"):
        with pytest.raises(OSError), written(place):
            raise AssertionError("it acts though nothing can be written")
    with written(Path("/dev/null")) as stream:
        stream.write(b"x")
    assert Path("/dev/null").is_char_device()


def test_a_permit_is_not_issued_for_a_file_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def issue(request: Any) -> Any:
        asked.append(request)
        return permit_pb2.IssuePermitResponse(permit=permit_pb2.Permit(name="units/support/permits/p"))

    play(monkeypatch, permit, permits=SimpleNamespace(IssuePermit=issue))
    words = ("permit", "issue", "units/support/models/x", "--purpose", "p-q", "--environment", "e", "--out")
    assert "/nonexist/f" in run(*words, "/nonexist/f") and asked == []
    run(*words, tmp_path / "p.json", code=0)
    assert json.loads((tmp_path / "p.json").read_text()) == {"name": "units/support/permits/p"} and len(asked) == 1


@pytest.mark.parametrize("out", ["nonexist/x", "."], ids=["no folder", "a folder"])
def test_an_export_that_is_refused_leaves_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, out: str) -> None:
    def refuse(_: object) -> Iterator[Any]:
        yield audit_pb2.ExportBundleResponse(chunk=b"PK")
        raise PermissionDeniedError("ROLE_MISSING", "no")

    play(monkeypatch, audit, audit=SimpleNamespace(ExportBundle=refuse))
    assert "FILE" in run("audit", "export", "units/-", "--out", tmp_path / out)
    run("audit", "export", "units/-", "--out", tmp_path / "b.zip", code=5)
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_not_frozen_for_a_file_that_cannot_be_written(closed: Closed, tmp_path: Path) -> None:
    root, oscar = closed.layout.root, closed.layout.person("oscar")
    assert "/nonexist/f" in run("ledger", "freeze", root, "--as", oscar, "--out", "/nonexist/f")
    final = tmp_path / "final"
    run("ledger", "freeze", root, "--as", oscar, "--out", final, code=0)
    assert final.read_text().startswith("assay.local/log\n")


def test_a_refused_rotation_leaves_no_successor(closed: Closed) -> None:
    root, vik = closed.layout.root, closed.layout.person("vik")
    assert "ROLE_MISSING" in run("key", "rotate", "people/vik", root, "--as", vik, code=5)
    assert "/nonexist/o" in run("key", "rotate", "people/vik", root, "--write-draft", "/nonexist/o")
    assert "KEY_MISSING" in run("key", "rotate", "people/vik", root, "--as", root / "nobody")
    assert not [*root.rglob("*.next")]
    run("key", "rotate", "people/vik", root, "--as", closed.layout.person("oscar"), code=0)


def test_a_role_of_another_unit_signs_nothing_here() -> None:
    """A reviewer in every unit, or in the job's, signs; an officer elsewhere who is a validator here signs as that."""
    officer, validator = identity_pb2.ROLE_COMPLIANCE_OFFICER, identity_pb2.ROLE_VALIDATOR
    waiting = approval_pb2.PendingApproval(tuning_job=JOB, missing_roles=[officer, validator])

    def signs_as(*grants: tuple[int, str], granted: bool = True) -> str:
        answer = identity_pb2.WhoAmIResponse(grants=[identity_pb2.RoleGrant(role=r, unit=u) for r, u in grants])  # type: ignore[arg-type]
        session = SimpleNamespace(identity=SimpleNamespace(WhoAmI=lambda _: answer))
        return signing_role(session, waiting, granted=granted)  # type: ignore[arg-type]

    assert signs_as((officer, "credit"), (validator, "support")) == "ROLE_VALIDATOR"
    assert signs_as((officer, "-"), (validator, "support")) == "ROLE_COMPLIANCE_OFFICER"
    for granted in (True, False):
        with pytest.raises(PermissionDeniedError) as caught:
            signs_as((officer, "credit"), granted=granted)
        assert caught.value.reason == "NO_ROLE_MISSING" and "support" in caught.value.message


def test_a_refused_card_leaves_the_card_that_was_there(
    monkeypatch: pytest.MonkeyPatch, pristine: Path, tmp_path: Path
) -> None:
    data = b"%PDF-1.7 signed by nobody"
    part = model_pb2.DownloadCardResponse(chunk=data, sha256=hashlib.sha256(data).hexdigest())
    play(monkeypatch, model, models=SimpleNamespace(DownloadCard=lambda _: iter([part])))
    out = tmp_path / "card.pdf"
    out.write_bytes(b"the good one")
    words = ("model", "card", "units/support/models/x", "--out", out)
    assert "CARD_SIGNATURE" in run(*words, "--trust", Layout(pristine).trust, code=10)
    assert out.read_bytes() == b"the good one" and [p.name for p in tmp_path.iterdir()] == ["card.pdf"]
    run(*words, code=0)
    assert out.read_bytes() == data
    part.sha256 = "0" * 64
    assert "CARD_MISMATCH" in run(*words, code=10) and out.read_bytes() == data


def test_an_adapter_that_differs_leaves_no_folder_and_can_be_downloaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "true").mkdir()
    (tmp_path / "true" / "weights").write_bytes(b"as registered")
    registered = model_pb2.Model(adapter_sha256=folder_manifest(tmp_path / "true").sha256, files=[{"path": "weights"}])
    sent = [
        model_pb2.DownloadAdapterResponse(path="weights", chunk=b"as "),
        model_pb2.DownloadAdapterResponse(path="weights", chunk=b"changed"),
        model_pb2.DownloadAdapterResponse(signature=b"{}"),
    ]
    models = SimpleNamespace(
        GetModel=lambda _: model_pb2.GetModelResponse(model=registered), DownloadAdapter=lambda _: iter(sent)
    )
    play(monkeypatch, model, models=models)
    out = tmp_path / "deployed" / "adapter"
    words = ("model", "adapter", "units/support/models/x", "--out", out)
    assert "ADAPTER_MISMATCH" in run(*words, code=10) and list(out.parent.iterdir()) == []
    sent[1].path = "another"
    assert "ADAPTER_MISMATCH" in run(*words, code=10) and list(out.parent.iterdir()) == []
    sent[1].CopyFrom(model_pb2.DownloadAdapterResponse(path="weights", chunk=b"registered"))
    run(*words, code=0)
    assert (out / "weights").read_bytes() == b"as registered"
    assert {p.name for p in out.parent.iterdir()} == {"adapter", "adapter.sig"}
    assert "FOLDER_EXISTS" in run(*words, code=7)


def test_a_printed_checkpoint_is_a_note(monkeypatch: pytest.MonkeyPatch, pristine: Path, tmp_path: Path) -> None:
    key = load_ed25519(Layout(pristine).service("gateway") / "log.key")
    note = sign_note(f"assay.local/log\n1\n{'A' * 43}=\n", "assay.local/log", key)
    answer = audit_pb2.GetCheckpointResponse(note=note)
    play(monkeypatch, audit, audit=SimpleNamespace(GetCheckpoint=lambda _: answer))
    printed = tmp_path / "c1"
    printed.write_text(run("audit", "checkpoint", code=0))
    assert printed.read_bytes() == note
    (tmp_path / "c2").write_bytes(note + b"\n")
    trust = Layout(pristine).trust
    assert "SAME" in run("audit", "compare", printed, tmp_path / "c2", "--trust", trust, code=0)
    (tmp_path / "trust").write_bytes(b"\xff")
    assert "TRUST_MALFORMED" in run("audit", "compare", printed, printed, "--trust", tmp_path / "trust")


@pytest.mark.parametrize("text", ["[]", "{", "\udcff", "[" * 100_000], ids=["list", "half", "byte", "deep"])
def test_what_is_no_permit_is_named(pristine: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "permit.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    words = ("permit", "check", path, "--adapter", tmp_path, "--base", tmp_path, "--purpose", "p", "--environment", "e")
    said = run(*words, "--trust", Layout(pristine).trust)
    assert "PERMIT_MALFORMED" in said and str(path) in said
    path.write_text("{}")
    (tmp_path / "trust").write_bytes(b"\xff")
    assert "TRUST_MALFORMED" in run(*words, "--trust", tmp_path / "trust")


def test_a_listing_goes_on_to_its_last_page_or_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def paged(response: Any, field: str, item: Any) -> Any:
        def call(request: Any) -> Any:
            page = int(request.page_token or 0)
            named = item(**{item.DESCRIPTOR.fields[0].name: f"row-{page}"})
            return response(**{field: [named], "next_page_token": str(page + 1) if page < 2 else ""})

        return call

    grants = paged(identity_pb2.ListRoleGrantsResponse, "role_grants", identity_pb2.RoleGrant)
    play(monkeypatch, role, identity=SimpleNamespace(ListRoleGrants=grants))
    models = paged(model_pb2.ListModelsResponse, "models", model_pb2.Model)
    play(monkeypatch, model, models=SimpleNamespace(ListModels=models))
    waiting = paged(approval_pb2.ListPendingApprovalsResponse, "pending_approvals", approval_pb2.PendingApproval)
    play(monkeypatch, approval, approvals=SimpleNamespace(ListPendingApprovals=waiting))
    for words in (("role", "list"), ("model", "list", "units/support"), ("approval", "list")):
        said = run(*words, code=0)
        assert [f"row-{n}" in said for n in range(3)] == [True] * 3 and "more" not in said
        assert "next_page_token" not in json.loads(run(*words, "--output", "json", code=0))
    jobs = paged(tuning_job_pb2.ListTuningJobsResponse, "tuning_jobs", tuning_job_pb2.TuningJob)
    play(monkeypatch, job, jobs=SimpleNamespace(ListTuningJobs=jobs))
    assert "more: --page-token 1\n" in run("job", "list", "units/support", code=0)
    assert "more" not in run("job", "list", "units/support", "--page-token", "2", code=0)
    found = paged(policy_pb2.ListPrecedentsResponse, "precedents", policy_pb2.Precedent)
    play(monkeypatch, policy, policies=SimpleNamespace(ListPrecedents=found))
    assert "more: --page-token 1\n" in run("policy", "precedents", code=0)
    assert "more" not in run("policy", "precedents", "--page-token", "2", code=0)


async def test_a_unit_that_never_was_is_not_found_and_one_that_was_taken_out_is_read(house: House) -> None:
    anna, store = await house.caller("anna"), house.app.store
    await house.upload("carl")
    precedents = Precedents(house.app.settings, store, house.app.authorizer)
    listings: list[tuple[Any, Any]] = [
        (house.app.datasets.list_datasets, dataset_pb2.ListDatasetsRequest),
        (house.app.jobs.list_tuning_jobs, tuning_job_pb2.ListTuningJobsRequest),
        (house.app.models.list_models, model_pb2.ListModelsRequest),
        (house.app.evidence.list_records, audit_pb2.ListRecordsRequest),
        (house.app.approvals.list_pending_approvals, approval_pb2.ListPendingApprovalsRequest),
        (precedents.list_precedents, policy_pb2.ListPrecedentsRequest),
    ]
    object.__setattr__(store, "units", ("support",))
    for call, request in listings:
        for unit in ("support", "credit"):
            await call(anna, request(parent=f"units/{unit}"))
        for unit in ("nope", "system"):
            with pytest.raises(NotFoundError):
                await call(anna, request(parent=f"units/{unit}"))
    shown = await house.app.datasets.list_datasets(anna, dataset_pb2.ListDatasetsRequest(parent="units/credit"))
    assert len(shown.datasets) == 1


def test_doctor_sees_the_roots_keys_beside_the_gateway(pristine: Path, tmp_path: Path) -> None:
    layout = Layout(Path(shutil.copytree(pristine, tmp_path / "bank")))

    def finding() -> doctor.Finding:
        return next(f for f in doctor.run(layout.root) if f.name == "authority apart")

    assert not finding().ok and "people-ca.key, services-ca.key" in finding().detail
    for path in layout.authority.glob("*-ca.key"):
        path.unlink()
    assert finding().ok


def test_a_witness_without_tls_has_no_root_to_hand_on(pristine: Path, tmp_path: Path) -> None:
    vkey = Layout(pristine).trust.read_text().split("\nlog ")[1].split()[0]
    words = ("witness", "init", tmp_path / "w", "--name", "w.example", "--log", vkey, "--transport", "http")
    assert "witness-ca.crt" not in run(*words, code=0)


DAMAGED = {
    "services/gateway/log.key": "KEY_MALFORMED",
    "services/gateway/seal.key": "KEY_MALFORMED",
    "services/gateway/tls.crt": "KEY_MISSING",
    "services/gateway/train-worker.pub": "PUBLIC_KEYS",
    "services/gateway/witness-policy.txt": "POLICY_MALFORMED",
}


@pytest.mark.parametrize("data", [b"\xff", b"[]"], ids=["bytes", "list"])
@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_file_of_the_gateway_is_named_with_a_remedy(
    closed: Closed, engine: PolicyEngine, name: str, data: bytes
) -> None:
    path = closed.layout.root / name
    path.write_bytes(data)
    with pytest.raises(InvalidInputError) as caught:
        Application.open(Settings.load(closed.layout.root), engine)
    assert caught.value.reason == DAMAGED[name] and caught.value.remedy
    assert path.name in caught.value.message


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("audit-worker/statement.key", "train-worker/statement.key"),
        ("audit-worker/seal.key", "train-worker/seal.key"),
        ("train-worker/statement.key", "gateway/permit.key"),
        ("gateway/permit.key", "gateway/log.key"),
    ],
)
async def test_a_gateway_whose_services_share_a_key_does_not_start(
    closed: Closed, engine: PolicyEngine, key: str, other: str
) -> None:
    services = closed.layout.service("gateway").parent
    shutil.copy(services / other, services / key)
    with pytest.raises(InvalidInputError) as caught:
        Application.open(Settings.load(closed.layout.root), engine)
    assert caught.value.reason == "KEY_SHARED" and caught.value.remedy


async def test_a_log_keeps_its_name(closed: Closed, engine: PolicyEngine) -> None:
    closed.layout.settings.write_text(closed.layout.settings.read_text().replace("assay.local/log", "other/log"))
    with pytest.raises(InvalidInputError) as caught:
        Application.open(Settings.load(closed.layout.root), engine)
    assert caught.value.reason == "ORIGIN_DIFFERS" and "put the origin back" in caught.value.remedy


def test_damaged_tls_files_are_named_to_a_witnesss_log(closed: Closed) -> None:
    folder = closed.layout.service("gateway")
    for name in ("witnesses-ca.crt", "tls.crt"):
        (folder / name).write_bytes(b"rubbish")
        with pytest.raises(InvalidInputError) as caught:
            _tls(Settings.load(closed.layout.root))
        assert str(folder / name) in caught.value.message
    with pytest.raises(InvalidInputError):
        tls_context(folder, b"", demand=False)


def test_a_damaged_key_of_a_worker_is_named(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Layout(pristine).service("train-worker"), tmp_path / "w"))
    (folder / "seal.key").write_bytes(b"rubbish")
    with pytest.raises(InvalidInputError) as caught:
        WorkerKeys.load(folder)
    assert caught.value.reason == "KEY_MALFORMED" and str(folder / "seal.key") in caught.value.message


@pytest.mark.parametrize("told", ["rubbish", "not text", "folder", "max-age 7d"])
def test_both_verifiers_call_an_unreadable_trust_file_usage(pristine: Path, tmp_path: Path, told: str) -> None:
    """Their 3 says that the evidence holds and is old."""
    trust, bundle = tmp_path / "trust.txt", tmp_path / "x.zip"
    bundle.write_bytes(b"x")
    trust.write_bytes({"rubbish": b"x", "not text": b"\xff"}.get(told, Layout(pristine).trust.read_bytes()))
    if told == "max-age 7d":
        trust.write_text(trust.read_text() + "max-age 7d\n")
    if told == "folder":
        trust.unlink()
        trust.mkdir()
    words = (str(bundle), "--trust", str(trust))
    assert verifier.main(words) == 2
    for command in (("verify",), ("audit", "verify")):
        run(*command, *words, code=2)
    if told == "rubbish":
        shutil.copy(Layout(pristine).trust, trust)
        assert verifier.main(words) == 1
        run("verify", *words, code=1)


NAMES = ("units/support/tuningJobs/" + "a" * 70, "roleGrants/g-1a2b3c4d5e6f")


def test_a_name_in_a_table_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    output.emit(output.Output.TEXT, {}, [output.table(("job", "grant", "why"), [(*NAMES, "word " * 60)])])
    row = shown.getvalue().splitlines()[1]
    assert row.split()[:2] == list(NAMES) and "…" not in shown.getvalue(), "a pipe has no width"
    narrow = Console(width=60, force_terminal=True, file=io.StringIO())
    monkeypatch.setattr(output, "console", narrow)
    output.emit(output.Output.TEXT, {}, [output.table(("job", "grant"), [NAMES])])
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in narrow.file.getvalue().splitlines()[1:]]
    assert "…" not in "".join(lines) and NAMES[0] in "".join(line.split("  ")[0].strip() for line in lines)


def test_doctor_names_files_from_where_one_stands(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    root = closed.layout.root
    (root / "services/gateway/log.key").chmod(0o644)
    monkeypatch.chdir(root.parent)
    (told,) = (f for f in doctor.run(Path(root.name)) if f.name == "key files")
    assert told.remedy == f"chmod 600 {root.name}/services/gateway/log.key"


def test_what_is_no_persons_folder_is_said_first(tmp_path: Path, pristine: Path) -> None:
    nobody = tmp_path / "nobody"
    for words in (("role", "whoami"), ("role", "whoami", "--address", "127.0.0.1:1"), ("policy", "publish", pristine)):
        said = run(*words, "--as", nobody)
        assert "NO_IDENTITY" in said and str(nobody) in said


def test_an_unknown_key_of_client_toml_is_refused(rita: Path) -> None:
    (rita / "client.toml").write_text('address = "127.0.0.1:1"\nadress = "127.0.0.1:2"\n')
    said = run("role", "whoami", "--as", rita)
    assert "CLIENT_SETTINGS" in said and "adress" in said


def test_a_role_or_subject_typed_wrongly_is_answered_with_what_there_is(rita: Path, tmp_path: Path) -> None:
    said = run("role", "grant", "spiffe://assay.local/people/vera", "validater", "--unit", "-", "--as", rita)
    assert "'validater' is not a role" in said and "compliance-officer, validator" in said
    said = run("role", "grant", "vera", "validator", "--unit", "-", "--as", rita)
    assert "SUBJECT" in said and "spiffe://DOMAIN/people/NAME" in said
    said = run("init", tmp_path / "new", "--person", "rita:requestor")
    assert "'requestor' is not a role" in said and "requester, compliance-officer" in said
    assert not (tmp_path / "new").exists()


def test_a_use_or_datasheet_typed_wrongly_is_answered_with_what_there_is(rita: Path, tmp_path: Path) -> None:
    use, sheet = tmp_path / "use.json", tmp_path / "sheet.yaml"
    create = ("job", "create", "units/support", "x", "--dataset", "d", "--purpose", "p", "--as", rita)
    use.write_text('{"places": ["EU"]}')
    said = run(*create, "--use", use)
    assert "BAD_USE" in said and '"places"' in said and "jurisdictions, domain" in said and "risk_tier" in said
    assert "riskTier" not in said and "docs/datasheet.md" in said
    gone = tmp_path / "nope.pdf"
    said = run(*create, "--artefact", f"DPIA={gone}", code=2)
    assert str(gone) in said.replace("\n", "") and "KIND=FILE" not in said
    assert "KIND=FILE" in run(*create, "--artefact", "DPIA")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    upload = ("dataset", "upload", "units/support", "d", tmp_path / "rows.jsonl", "--datasheet", sheet, "--as", rita)
    sheet.write_text("classification: secret\n")
    said = run(*upload)
    assert "classification: 'secret' is none" in said and "one of: public, internal, confidential, restricted" in said
    sheet.write_text("clasification: internal\n")
    said = run(*upload)
    assert "clasification" in said and "legal_basis" in said and "legalBasis" not in said
    for words in ("classification: internal", "classification: CLASSIFICATION_INTERNAL", "legal_basis: public task"):
        sheet.write_text(words)
        assert "UNAVAILABLE" in run(*upload, code=9)


async def test_a_key_command_says_what_to_do(opened: Callable[[], House]) -> None:
    house = opened()
    root, oscar = house.layout.root, house.layout.person("oscar")
    try:
        for words in (("key", "rotate", "permit", root), ("key", "rotate", "canary", root), ("ledger", "freeze", root)):
            said = run(*words, "--as", oscar, code=6)
            assert "LEDGER_IN_USE" in said and "stop the gateway" in said
    finally:
        await house.app.close()
    said = run("key", "rotate", "nosuch", root, "--as", oscar)
    assert all(name in said for name in ("permit", "people/vik", "canary", "gateway-seal", "audit-worker-seal"))


def test_an_identity_of_the_environment_is_no_second_source_of_an_order(closed: Closed, tmp_path: Path) -> None:
    """The README has people export it."""
    root, trust, oscar = closed.layout.root, closed.layout.trust, closed.layout.person("oscar")
    draft, order = tmp_path / "draft.json", tmp_path / "order.json"

    def typed(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*map(str, words)], env={"ASSAY_IDENTITY": str(oscar), "COLUMNS": "300"})
        assert done.exit_code == code, done.output
        return done.output

    for words in (("rotate", "pdf", root), ("compromised", "pdf", root, "--since", 0)):
        said = typed("key", *words, "--write-draft", draft)
        assert f"assay key sign {draft} --trust {trust} --as FOLDER --write-order FILE" in said
        typed("key", "sign", draft, "--trust", trust, "--write-order", order)
        typed("key", *words, "--order", order)
    typed("ledger", "freeze", root, "--write-order", order)
    typed("ledger", "freeze", root, "--order", order)
    for words in (("key", "rotate", "permit", root), ("ledger", "freeze", root)):
        assert "NO_IDENTITY" in typed(*words, "--as", oscar, "--order", order, code=3), "typed, it is one"
