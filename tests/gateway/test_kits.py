"""Re-performance kits: made from a finished job, for one auditor; and an audit that somebody else signed."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from typer.testing import CliRunner

from assay import bundle, canonical, dsse
from assay.digests import sha256_bytes
from assay.dsse import Signer
from assay.errors import AssayError, NotFoundError
from assay.identity import Layout, load_ed25519, raw_public, subject_of, write_key
from assay.key_events import rotation_statement
from assay.reperformance import CAVEAT, Line
from assay.v1 import policy_pb2
from assay.v1 import tuning_job_pb2 as pb
from audit.verify.trust import TrustFile
from gateway import key_registry
from gateway.cli.app import app as command_line
from gateway.key_registry import RecordedEvent
from gateway.kits import make_kit
from gateway.rejudging import rejudge
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.tables import DatasetRow
from tests.gateway.conftest import House, now
from tests.gateway.judged import judged
from tests.gateway.test_erasures import DATASET, erase
from tests.gateway.test_lineage import SUBJECT, ask, index
from tests.gateway.test_pipeline import NAME, Street, street  # noqa: F401

pytestmark = pytest.mark.isolation


async def test_a_kit_holds_what_the_audit_read_and_reported(street: Street, tmp_path: Path) -> None:  # noqa: F811
    await street.ask()
    await street.rest()
    key, settings = X25519PrivateKey.generate(), Settings.load(street.layout.root)
    trust = TrustFile.parse(street.layout.trust.read_text())
    coming = street.app.blobs.writer("credit")
    coming.write(b"of an upload under way")
    sha256 = make_kit(settings, NAME, key.public_key(), tmp_path / "job.kit")
    assert len(sha256) == 64
    assert street.app.blobs.exists("credit", coming.finish().sha256), "the gateway runs meanwhile"
    with (tmp_path / "job.kit").open("rb") as source:
        manifest = bundle.unseal(source, key, trust.audit_worker, tmp_path / "opened", max_bytes=1 << 30)
    held = {p.relative_to(tmp_path / "opened").as_posix() for p in (tmp_path / "opened").rglob("*") if p.is_file()}
    assert {
        "report.json", "inputs/selection.jsonl", "inputs/private/test.jsonl", "inputs/adapter/adapter_model.safetensors"
    } <= held  # fmt: skip
    assert manifest["order"]["job"] == NAME
    assert manifest["order"]["plan"]["gates"]
    (stored,) = [r for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "audit.completed"]
    signed = dsse.verify_service(json.loads(stored.body)["statement"]["predicate"]["statement"], trust.audit_worker)
    assert signed.predicate["order_sha256"] == sha256_bytes(canonical.encode(manifest["order"]))
    quote = {name: int(value) for name, value in manifest["order"]["quote"].items()}
    audit = settings.price_book.audit_seconds * settings.price_book.price
    assert quote["usd_micros"] == quote["train_usd_micros"] + audit and quote["train_usd_micros"] > 0
    report = json.loads((tmp_path / "opened" / "report.json").read_text())
    assert report["measurements"]
    (told,) = (street.app.settings.data / "kits").iterdir()
    said = json.loads(told.read_text())
    assert told.name == f"{sha256}.json" and (said["job"], said["sha256"]) == (NAME, sha256)
    assert said["recipient"] == key.public_key().public_bytes_raw().hex() and said["made_by"]
    assert abs(dt.datetime.fromisoformat(said["time"]) - now()) < dt.timedelta(minutes=5)
    left = [p.name for p in tmp_path.rglob("*.part")]
    assert left == []


async def test_a_kit_is_made_and_signed_after_the_audit_workers_key_was_rotated(
    street: Street,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The sealed rows are signed by the old key, the kit by the new one."""
    await street.ask()
    await street.rest()
    mine = street.layout.service("audit-worker") / "statement.key"
    old, new, event = load_ed25519(mine), Ed25519PrivateKey.generate(), "0" * 32
    halves = [key.public_key().public_bytes_raw() for key in (old, new)]
    settings = Settings.load(street.layout.root)
    statement = rotation_statement(settings.origin, "audit-worker", *halves, new, event)
    recorded = RecordedEvent(street.app.ledger.size, now(), Signer("spiffe://bank.example/people/oscar", ""), statement)
    await street.app.store.commit(lambda u: key_registry.remember(u.connection, event, recorded))
    mine.unlink()
    write_key(mine, new)
    key = X25519PrivateKey.generate()
    make_kit(settings, NAME, key.public_key(), tmp_path / "job.kit")
    with (tmp_path / "job.kit").open("rb") as source:
        bundle.unseal(source, key, new.public_key(), tmp_path / "opened", max_bytes=1 << 30)
    assert (tmp_path / "opened" / "inputs" / "private" / "test.jsonl").is_file()


@pytest.fixture
async def unsealed(street: Street, tmp_path: Path) -> Path:  # noqa: F811
    """What ``audit.probes.reperform`` leaves of a finished job's kit: the kit opened, and the same report again."""
    await street.ask()
    await street.rest()
    key, trust = X25519PrivateKey.generate(), TrustFile.parse(street.layout.trust.read_text())
    make_kit(Settings.load(street.layout.root), NAME, key.public_key(), tmp_path / "job.kit")
    work = tmp_path / "work"
    (work / "outputs").mkdir(parents=True)
    with (tmp_path / "job.kit").open("rb") as source:
        bundle.unseal(source, key, trust.audit_worker, work / "kit", max_bytes=1 << 30)
    shutil.copy(work / "kit" / "report.json", work / "outputs" / "report.json")
    return work


def moved(path: Path, name: str, value: float) -> None:
    """Gives a measurement of a report another value."""
    report = json.loads(path.read_text())
    next(m for m in report["measurements"] if m["name"] == name)["value"] = value
    path.write_text(json.dumps(report))


async def test_every_rule_of_release_is_asked_again_and_not_the_gates_alone(unsealed: Path) -> None:
    same = rejudge(unsealed)
    assert {line.answer for line in same} == {"PASS"}
    names = [line.name for line in same]
    assert {"verdict", "release policy", "release question", "rule REL-EPSILON", "rule REL-PII-CENSUS"} <= set(names)
    assert any(name.startswith("rule GATE-CANARY-AUC on privacy.canary_auc") for name in names)
    moved(unsealed / "outputs" / "report.json", "privacy.epsilon_lower_bound", 90.0)
    wrong = {line.name: (line.recorded, line.again) for line in rejudge(unsealed) if line.answer == "FAIL"}
    assert wrong == {"verdict": ("PASS", "FAIL"), "rule REL-EPSILON": ("PASS", "FAIL")}


async def test_a_question_that_was_not_the_reports_is_found(unsealed: Path) -> None:
    moved(unsealed / "kit" / "report.json", "privacy.epsilon_lower_bound", 0.2)
    moved(unsealed / "outputs" / "report.json", "privacy.epsilon_lower_bound", 0.2)
    assert [line.name for line in rejudge(unsealed) if line.answer == "FAIL"] == ["release question"]


async def test_without_the_rules_of_the_verdict_a_decision_is_told_by_others_and_says_so(unsealed: Path) -> None:
    told = json.loads((unsealed / "kit" / "release.json").read_text())
    del told["policy"]
    told["verdict"]["limits_sha256"] = "0" * 64
    (unsealed / "kit" / "release.json").write_text(json.dumps(told))
    answers = {line.name: line.answer for line in rejudge(unsealed)}
    assert answers["release policy"] == "CAVEAT" and answers["verdict"] == "PASS"
    (unsealed / "kit" / "release.json").unlink()
    [line] = rejudge(unsealed)
    assert line.answer == "CAVEAT" and "only the gates" in line.reason


async def test_a_decision_of_another_engine_is_a_caveat_and_one_of_other_numbers_is_none(unsealed: Path) -> None:
    told = json.loads((unsealed / "kit" / "release.json").read_text())
    rule = next(o for o in told["verdict"]["outcomes"] if o["rule_id"] == "REL-EFFECT")
    assert rule["outcome"] == "OUTCOME_PASS"
    rule["outcome"] = "OUTCOME_FAIL"
    (unsealed / "kit" / "release.json").write_text(json.dumps(told))
    assert {line.name for line in rejudge(unsealed) if line.answer != "PASS"} == {"rule REL-EFFECT"}
    assert [line.answer for line in rejudge(unsealed) if line.name == "rule REL-EFFECT"] == ["FAIL"]
    told["verdict"]["engine"] = "cel-expr-python 0.1.3"
    (unsealed / "kit" / "release.json").write_text(json.dumps(told))
    answers = {line.name: line.answer for line in rejudge(unsealed)}
    assert {name for name, answer in answers.items() if answer == "CAVEAT"} == {"policy engine", "rule REL-EFFECT"}
    assert "FAIL" not in answers.values()
    moved(unsealed / "outputs" / "report.json", "privacy.epsilon_lower_bound", 90.0)
    answers = {line.name: line.answer for line in rejudge(unsealed)}
    assert {name for name, answer in answers.items() if answer == "FAIL"} == {"verdict", "rule REL-EPSILON"}


async def test_the_command_fails_on_a_rule_that_answers_otherwise(
    unsealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit itself is left out: its numbers are within their tolerance, and still a rule without a gate turned."""
    moved(unsealed / "outputs" / "report.json", "privacy.epsilon_lower_bound", 90.0)

    def done_again(arguments: list[str], evidence: object, models: object, work: Path) -> list[Line]:
        shutil.copytree(unsealed, work, dirs_exist_ok=True)
        return [Line("privacy.epsilon_lower_bound", CAVEAT, "within", "", "")]

    monkeypatch.setattr("gateway.cli.kit._numbers", done_again)
    (tmp_path / "auditor.key").touch()
    command = ["audit", "reperform", str(tmp_path / "job.kit"), "--key", str(tmp_path / "auditor.key")]
    done = CliRunner().invoke(command_line, [*command, "--trust", str(tmp_path / "auditor.key"), "--output", "json"])
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    assert told["counts"]["FAIL"] == 2 and told["counts"]["CAVEAT"] == 1
    assert {line["name"] for line in told["decisions"] if line["answer"] == "FAIL"} == {"verdict", "rule REL-EPSILON"}


async def test_a_kit_of_no_job_and_for_no_key_is_refused(street: Street, tmp_path: Path) -> None:  # noqa: F811
    settings = Settings.load(street.layout.root)
    with pytest.raises(NotFoundError) as error:
        make_kit(settings, "units/credit/tuningJobs/none", X25519PrivateKey.generate().public_key(), tmp_path / "k")
    assert error.value.reason == "JOB_NOT_FOUND"
    done = CliRunner().invoke(
        command_line,
        ["audit", "kit", str(street.layout.root), NAME, "--recipient", "xyz", "--out", str(tmp_path / "k")],
    )
    assert done.exit_code != 0
    assert "RECIPIENT_KEY" in done.output
    made = CliRunner().invoke(command_line, ["audit", "kit-key", str(tmp_path / "auditor.key"), "--output", "json"])
    assert made.exit_code == 0
    assert len(json.loads(made.output)["public"]) == 64
    again = CliRunner().invoke(command_line, ["audit", "kit-key", str(tmp_path / "auditor.key")])
    assert "KEY_EXISTS" in again.output
    assert not (tmp_path / "k").exists()


async def demand_no_kit(house: House, reason: str, folder: Path) -> None:
    with pytest.raises(AssayError) as caught:
        make_kit(house.app.settings, NAME, X25519PrivateKey.generate().public_key(), folder / "k")
    assert caught.value.reason == reason
    assert not (folder / "k").exists() and not (house.app.settings.data / "kits").exists()


async def test_no_kit_holds_rows_of_an_erased_person(house: House, tmp_path: Path) -> None:
    await judged(house, policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_FAIL))
    await index(house, NAME, SUBJECT, folder=tmp_path)
    await demand_no_kit(house, "JOB_NOT_AUDITED", tmp_path)
    await erase(house, (await ask(house, subject=SUBJECT)).name)
    await demand_no_kit(house, "SUBJECT_ERASED", tmp_path)
    await erase(house, DATASET)
    await demand_no_kit(house, "ERASED", tmp_path)


async def test_no_kit_is_made_of_an_erased_job_nor_of_rows_whose_time_is_over(house: House, tmp_path: Path) -> None:
    await judged(house, policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_FAIL))
    end, where = {"retention_end_us": 1}, {"name": DATASET}
    await house.app.store.commit(lambda u: rows.update(u.connection, DatasetRow, where, end) and None)
    await demand_no_kit(house, "RETENTION_OVER", tmp_path)
    end["retention_end_us"] = 0
    await house.app.store.commit(lambda u: rows.update(u.connection, DatasetRow, where, end) and None)
    await erase(house, NAME)
    await demand_no_kit(house, "ERASED", tmp_path)


def test_the_auditor_is_another_identity_with_other_keys_than_the_maker(pristine: Path) -> None:
    layout = Layout(pristine)
    folders = [layout.service(name) for name in ("audit-worker", "train-worker")]
    subjects, publics = [], []
    for folder in folders:
        certificate = next(p for p in sorted(folder.glob("*.crt")) if "ca" not in p.stem)
        subjects.append(subject_of(x509.load_pem_x509_certificate(certificate.read_bytes())))
        publics.append(raw_public(load_ed25519(folder / "statement.key")))
    assert len(set(subjects)) == 2
    assert len(set(publics)) == 2
    trust = TrustFile.parse(layout.trust.read_text())
    assert [raw_public_of(k) for k in (trust.audit_worker, trust.train_worker)] == publics


def raw_public_of(key: object) -> bytes:
    return key.public_bytes_raw()  # type: ignore[attr-defined,no-any-return]


async def test_an_audit_signed_with_the_trainers_key_opens_no_gate(street: Street) -> None:  # noqa: F811
    """After training, whoever answers for the audit worker holds the train worker's key: its audit is not believed."""
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    mine = street.layout.service("audit-worker") / "statement.key"
    honest = mine.read_bytes()
    await street.workers.kill("audit-worker")
    mine.unlink()
    shutil.copy(street.layout.service("train-worker") / "statement.key", mine)
    await street.workers.start("audit-worker")
    street.workers.open_gate("go")
    job = await street.rest()
    mine.write_bytes(honest)
    assert job.state == pb.TuningJob.STATE_FAILED
    assert "BUNDLE_SIGNATURE" in job.reason
    assert not job.HasField("verdict")
    assert "release.decided" not in street.types(NAME)
    assert "audit.completed" not in street.types(NAME)
