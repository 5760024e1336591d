"""An audit done again from its sealed kit: equal bit for bit here, and every way in which it can be wrong."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay import bundle, canonical, digests, dsse
from assay.errors import IntegrityError
from assay.identity import write_key
from assay.key_events import Compromise, Rotation, ed25519_half
from assay.reperformance import Line, counts
from assay.v1 import measurement_pb2
from audit.probes import compare, reperform
from audit.probes.findings import series
from audit.probes.measurements import Subject, measured, proportion
from audit.probes.reperform import Evidence
from audit.verify.keys import AUDIT_WORKER, TRAIN_WORKER, KeyTable, Term
from tests.audit.ledger.ledger_world import Story, World, ed25519

from .test_task import context, order, train_adapter, write_inputs

WORKER = Ed25519PrivateKey.generate()


class Trust:
    """As much of a trust file as a kit needs."""

    audit_worker = WORKER.public_key()


def seal(
    folder: Path, files: dict[str, Any], manifest: dict[str, Any], key: X25519PrivateKey, signer: Any = WORKER
) -> Path:
    out = folder / "job.kit"
    with out.open("wb") as stream:
        bundle.seal(files, canonical.float_free(manifest), key.public_key(), signer, stream)
    return out


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real audit on the tiny model, its kit, and the auditor's key."""
    from audit.probes.task import run

    folder = tmp_path_factory.mktemp("audit")
    seen = write_inputs(folder / "inputs")["seen"]
    train_adapter(models, folder / "inputs" / "adapter", seen, steps=40)
    claim = {"private_commitment": digests.folder_manifest(folder / "inputs" / "private").sha256}
    what = canonical.float_free({**order(models), "prepare": {"claim": claim}})
    run(context(folder, folder / "inputs", models, what, []))
    report = folder / "outputs" / "report.json"
    files: dict[str, Any] = {
        f"inputs/{p.relative_to(folder / 'inputs').as_posix()}": p
        for p in (folder / "inputs").rglob("*")
        if p.is_file()
    }
    files["report.json"] = report
    key = X25519PrivateKey.generate()
    write_key(folder / "auditor.key", key)
    manifest = {"kind": "reperform-kit", "job": "units/u/tuningJobs/j", "order": what}
    manifest["report_sha256"] = digests.sha256_file(report)
    kit = seal(folder, files, manifest, key)
    return {"folder": folder, "kit": kit, "key": folder / "auditor.key", "x25519": key, "files": files, "is": manifest}


def test_the_same_machine_gives_every_number_bit_for_bit(made: dict[str, Any], models: Path) -> None:
    lines = reperform.run(made["kit"], made["key"], Trust(), models)  # type: ignore[arg-type]
    found = counts(lines)
    assert found["FAIL"] == 0, [line for line in lines if line.answer == "FAIL"]
    assert found["PASS"] > 40
    assert {line.name.partition("[")[0] for line in lines if line.answer == "CAVEAT"} <= {
        "private rows", *compare.CLOCKED
    }  # fmt: skip
    assert (lines[0].name, lines[0].answer) == ("private rows", "CAVEAT"), "without a bundle it is the kit's own word"
    assert reperform.rows_line(made["is"]["order"], proven=True).answer == "PASS"
    gates = [line for line in lines if line.name.startswith("gate ")]
    assert len(gates) == 7
    assert all(line.answer == "PASS" for line in gates)


def test_a_report_that_was_improved_fails(made: dict[str, Any], models: Path, tmp_path: Path) -> None:
    """The worker itself signs a kit with a prettier AUC: the number is found to be another."""
    report = json.loads((made["folder"] / "outputs" / "report.json").read_text("utf-8"))
    auc = next(m for m in report["measurements"] if m["name"] == "privacy.canary_auc")
    auc["value"] = 0.5
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    sha256 = digests.sha256_file(tmp_path / "report.json")
    files = {**made["files"], "report.json": tmp_path / "report.json"}
    kit = seal(tmp_path, files, {**made["is"], "report_sha256": sha256}, made["x25519"])
    lines = reperform.run(kit, made["key"], Trust(), models)  # type: ignore[arg-type]
    [wrong] = [line for line in lines if line.answer == "FAIL"]
    assert wrong.name == "privacy.canary_auc"
    assert "another number under the same batch plan" in wrong.reason


def test_another_library_or_evaluation_set_is_named_in_the_caveat(
    made: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    """What a library changed is no false report: the reason names the library, as it would name the processor."""
    from audit.probes.sets import FILES

    report = json.loads((made["folder"] / "outputs" / "report.json").read_text("utf-8"))
    assert report["environment"]["evaluation_sets"].startswith(f"0 of {len(FILES)}, sha256 ")
    here = report["environment"]["scipy"]
    report["environment"] |= {"scipy": "1.0.0", "evaluation_sets": "1 of 14, sha256 0"}
    auc = next(m for m in report["measurements"] if m["name"] == "privacy.canary_auc")
    auc["value"] -= 0.01
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    sha256 = digests.sha256_file(tmp_path / "report.json")
    files = {**made["files"], "report.json": tmp_path / "report.json"}
    kit = seal(tmp_path, files, {**made["is"], "report_sha256": sha256}, made["x25519"])
    lines = reperform.run(kit, made["key"], Trust(), models)  # type: ignore[arg-type]
    assert not [line for line in lines if line.answer == "FAIL"]
    [moved] = [line for line in lines if line.name == "privacy.canary_auc"]
    assert moved.answer == "CAVEAT"
    assert f"scipy 1.0.0 -> {here}" in moved.reason
    assert "evaluation_sets 1 of 14" in moved.reason
    recorded = {"transformers", "peft", "scipy", "scikit-learn", "presidio-analyzer", "pii_model_sha256"}
    assert recorded <= set(report["environment"])


def test_a_kit_is_opened_by_its_auditor_and_believed_of_its_worker_alone(made: dict[str, Any], tmp_path: Path) -> None:
    write_key(tmp_path / "other.key", X25519PrivateKey.generate())
    with pytest.raises(IntegrityError) as error:
        reperform.open_kit(made["kit"], tmp_path / "other.key", Trust(), tmp_path / "a")  # type: ignore[arg-type]
    assert error.value.reason == "BUNDLE_RECIPIENT"
    forged = seal(tmp_path, made["files"], made["is"], made["x25519"], Ed25519PrivateKey.generate())
    with pytest.raises(IntegrityError) as error:
        reperform.open_kit(forged, made["key"], Trust(), tmp_path / "b")  # type: ignore[arg-type]
    assert error.value.reason == "BUNDLE_SIGNATURE"


@pytest.mark.parametrize(
    ("change", "reason"), [({"kind": "result"}, "KIT_KIND"), ({"report_sha256": "0" * 64}, "KIT_REPORT")]
)
def test_a_kit_that_is_none_is_named(made: dict[str, Any], tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    kit = seal(tmp_path, made["files"], {**made["is"], **change}, made["x25519"])
    with pytest.raises(IntegrityError) as error:
        reperform.open_kit(kit, made["key"], Trust(), tmp_path / "opened")  # type: ignore[arg-type]
    assert error.value.reason == reason


def test_the_command_names_what_is_wrong_without_a_trace(made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "trust.txt").write_text("nothing", encoding="utf-8")
    command = [sys.executable, "-m", "audit.probes.reperform", str(made["kit"]), "--key", str(made["key"])]
    done = subprocess.run(
        [*command, "--trust", str(tmp_path / "trust.txt")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "TRUST" in done.stderr
    assert "Traceback" not in done.stderr


TRAINER = Ed25519PrivateKey.generate()
JOB = "units/u/tuningJobs/j"
REPORT, ADAPTER, BASE = "a" * 64, "1" * 64, "2" * 64
VERDICT = {"outcome": "OUTCOME_FAIL", "input_sha256": "b" * 64, "bundle_sha256": "c" * 64, "as_of": "2026-11-01"}
KIT_PLAN = {"canary_manifest_sha256": "d" * 64}
MADE = {"adapter_sha256": ADAPTER, "base_sha256": BASE}
ORDER = {
    "plan": KIT_PLAN,
    "prepare": {"job": JOB, "claim": {"private_commitment": "e" * 64, "split_sha256": {"selection": "f" * 64}}},
    "training": {"job": JOB, "claim": {"noise_multiplier": "0.5"}},
    "price_book": {"usd_micros_per_device_second": {"cpu": 15}},
    "quote": {"usd_micros": 900},
    "format": "CHAT_JSONL",
}


def signed(name: str, predicate: dict[str, Any], key: Ed25519PrivateKey = WORKER) -> dict[str, Any]:
    """A record's member with a worker's statement."""
    statement = dsse.statement(name, predicate, [("file", "0" * 64)])
    return {"statement": dsse.sign_service(canonical.encode(statement), key)}


def audited(order: dict[str, Any], key: Ed25519PrivateKey = WORKER) -> dict[str, Any]:
    return signed("audit", {"job": JOB, "order_sha256": digests.sha256_bytes(canonical.encode(order))}, key)


def shown(keys: KeyTable | None = None, **changes: dict[str, Any] | None) -> Evidence:
    """A bundle's records of a released job from index 9 on; ``changes`` are of a record, None leaves it out."""
    told: dict[str, dict[str, Any]] = {
        "intake.decided": signed("preparation", ORDER["prepare"]),  # type: ignore[arg-type]
        "training.ordered": {"audit_plan_sha256": digests.sha256_bytes(canonical.encode(KIT_PLAN))},
        "training.completed": {**MADE, **signed("training", ORDER["training"], TRAINER)},  # type: ignore[arg-type]
        "audit.completed": {"report_sha256": REPORT, **audited(ORDER)},
        "release.decided": {"report_sha256": REPORT, "verdict": VERDICT},
        "permit.issued": MADE,
    }
    entries = []
    for index, (kind, predicate) in enumerate(told.items(), 9):
        change = changes.get(kind.replace(".", "_"), {})
        if change is not None:
            record = SimpleNamespace(type=kind, statement={"predicate": {"job": JOB, **predicate, **change}})
            entries.append(SimpleNamespace(index=index, record=record))
    return Evidence(entries, keys or table())  # type: ignore[arg-type]


def table() -> KeyTable:
    """The workers' first keys, in force."""
    keys = {AUDIT_WORKER: WORKER, TRAIN_WORKER: TRAINER}
    return KeyTable({name: [Term(ed25519_half(key.public_key()))] for name, key in keys.items()})


def opened_kit(folder: Path, measured: dict[str, str] = MADE, signer: Any = WORKER, **order: Any) -> reperform.Opened:
    """A kit of the job that :func:`shown` is about."""
    report = measurement_pb2.AuditReport(environment=measured)
    return reperform.Opened(folder, JOB, {**ORDER, **order}, report, REPORT, signer.public_key())


def test_plan_and_verdict_in_a_kit_are_the_ledgers(tmp_path: Path) -> None:
    """A kit that names a kinder verdict than the ledger is no record of how the report was judged."""
    opened = opened_kit(tmp_path)
    reperform.check_evidence(opened, shown())
    with pytest.raises(IntegrityError, match="no such audit plan"):
        reperform.check_evidence(opened_kit(tmp_path, plan={"canary_manifest_sha256": "e" * 64}), shown())
    with pytest.raises(IntegrityError, match="no such report"):
        reperform.check_evidence(replace(opened, report_sha256="f" * 64), shown())
    for mine, holds in ((VERDICT, True), ({**VERDICT, "outcome": "OUTCOME_PASS"}, False)):
        (tmp_path / "release.json").write_text(json.dumps({"verdict": mine}), encoding="utf-8")
        with contextlib.nullcontext() if holds else pytest.raises(IntegrityError, match="no such verdict"):
            reperform.check_evidence(opened, shown())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("training", {"job": JOB, "claim": {"noise_multiplier": "99"}}),
        ("training", {"job": JOB}),
        ("prepare", {"job": JOB, "claim": {"private_commitment": "0" * 64, "split_sha256": {"selection": "f" * 64}}}),
        ("prepare", {"job": JOB, "claim": {"private_commitment": "e" * 64, "split_sha256": {"selection": "0" * 64}}}),
        ("prepare", {"job": JOB, "claim": {}}),
        ("price_book", {"usd_micros_per_device_second": {"cpu": 1}}),
        ("quote", {"usd_micros": 9_000_000}),
        ("format", "DECISION_CSV"),
        ("another", 1),
    ],
)
def test_what_the_audit_was_told_is_what_was_signed(tmp_path: Path, member: str, value: Any) -> None:
    """Rows, claims and prices in a kit decide its numbers as much as the adapter does."""
    kinder = opened_kit(tmp_path, **{member: value})
    with pytest.raises(IntegrityError) as error:
        reperform.check_evidence(kinder, shown())
    assert error.value.reason == "KIT_EVIDENCE"
    # A gateway that told the auditor so at the time: the audit worker signed for it, and the maker did not.
    at_the_time = shown(audit_completed=audited(dict(kinder.order)))
    with pytest.raises(IntegrityError) if member in ("training", "prepare") else contextlib.nullcontext():
        reperform.check_evidence(kinder, at_the_time)


@pytest.mark.parametrize("record", ["intake_decided", "training_completed", "audit_completed"])
def test_a_statement_by_another_worker_ties_nothing(tmp_path: Path, record: str) -> None:
    forged = {
        "intake_decided": signed("preparation", ORDER["prepare"], TRAINER),  # type: ignore[arg-type]
        "training_completed": signed("training", ORDER["training"]),  # type: ignore[arg-type]
        "audit_completed": audited(ORDER, TRAINER),
    }
    with pytest.raises(IntegrityError, match="another key than the trusted one"):
        reperform.check_evidence(opened_kit(tmp_path), shown(**{record: forged[record]}))
    with pytest.raises(IntegrityError):
        reperform.check_evidence(opened_kit(tmp_path), shown(**{record: None}))


@pytest.mark.parametrize("name", ["train_sample.jsonl", "pii.jsonl", "identifiers.jsonl", "selection.jsonl", "salt"])
def test_a_kit_with_other_rows_is_not_audited(made: dict[str, Any], models: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").write_text("", encoding="utf-8")
    files = made["files"] | {f"inputs/private/{name}": tmp_path / "other"}
    kit = seal(tmp_path, files, made["is"], made["x25519"])
    with pytest.raises(IntegrityError) as error:
        reperform.run(kit, made["key"], Trust(), models)  # type: ignore[arg-type]
    assert error.value.reason == "PRIVATE_ROWS_OTHER"


def test_rows_that_nothing_commits_to_are_a_caveat() -> None:
    """Of a job that an earlier release prepared; never silently."""
    line = reperform.rows_line({"prepare": {"claim": {"rows": 3}}}, proven=True)
    assert line.answer == "CAVEAT" and "the word of who made the kit" in line.reason


@pytest.mark.parametrize("member", ["adapter_sha256", "base_sha256"])
@pytest.mark.parametrize("record", ["", "training_completed", "permit_issued"])
def test_a_report_is_of_the_adapter_that_was_trained_and_permitted(tmp_path: Path, member: str, record: str) -> None:
    """An honest audit of another adapter says nothing of the one that is deployed."""
    other = {member: "9" * 64}
    opened = opened_kit(tmp_path, MADE if record else {**MADE, **other})
    with pytest.raises(IntegrityError, match="another adapter or base model"):
        reperform.check_evidence(opened, shown(**({record: other} if record else {})))


def test_a_job_without_a_trained_adapter_in_the_bundle_ties_no_report(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="another adapter or base model"):
        reperform.check_evidence(opened_kit(tmp_path), shown(training_completed=None))
    reperform.check_evidence(opened_kit(tmp_path), shown(permit_issued=None))


def followed(at: int, *, stolen: bool = False) -> tuple[KeyTable, Ed25519PrivateKey]:
    """The worker's key and one that followed it at an index, because the first was stolen or in good order."""
    second, keys = Ed25519PrivateKey.generate(), table()
    old, new = (ed25519_half(key.public_key()) for key in (WORKER, second))
    if stolen:
        keys.apply(Compromise("0", AUDIT_WORKER, old, at - 1), at - 1)
    keys.apply(Rotation("1", AUDIT_WORKER, old, new), at)
    return keys, second


def test_a_kit_made_after_a_rotation_is_believed_of_the_key_that_followed(tmp_path: Path) -> None:
    """The trust file names the first key of the log for ever; the audit is record 12."""
    keys, second = followed(20)
    for signer in (WORKER, second):
        reperform.check_evidence(opened_kit(tmp_path, signer=signer), shown(keys))
    keys, second = followed(5)
    prepared = signed("preparation", ORDER["prepare"], second)  # type: ignore[arg-type]
    records = shown(keys, intake_decided=prepared, audit_completed=audited(ORDER, second))
    reperform.check_evidence(opened_kit(tmp_path, signer=second), records)
    for signer in (WORKER, Ed25519PrivateKey.generate()):
        with pytest.raises(IntegrityError) as error:
            reperform.check_evidence(opened_kit(tmp_path, signer=signer), shown(keys))
        assert error.value.reason == "KIT_SIGNER"


def test_a_kit_by_a_key_that_was_stolen_is_refused(tmp_path: Path) -> None:
    keys, second = followed(20, stolen=True)
    reperform.check_evidence(opened_kit(tmp_path, signer=second), shown(keys))
    with pytest.raises(IntegrityError, match="record 19 says") as error:
        reperform.check_evidence(opened_kit(tmp_path), shown(keys))
    assert error.value.reason == "KIT_SIGNER"


def test_a_kit_is_opened_by_whichever_key_of_the_log_signed_it(tmp_path: Path) -> None:
    keys, second = followed(20)
    mine, report = X25519PrivateKey.generate(), b"{}"
    write_key(tmp_path / "auditor.key", mine)
    manifest = {"kind": "reperform-kit", "job": JOB, "order": {}, "report_sha256": digests.sha256_bytes(report)}
    for name, signer in (("first", WORKER), ("second", second)):
        kit = seal(tmp_path, {"report.json": report}, manifest, mine, signer)
        opened = reperform.open_kit(kit, tmp_path / "auditor.key", Trust(), tmp_path / name, shown(keys))  # type: ignore[arg-type]
        assert opened.signer.public_bytes_raw() == signer.public_key().public_bytes_raw()
    with pytest.raises(IntegrityError) as error:
        reperform.open_kit(kit, tmp_path / "auditor.key", Trust(), tmp_path / "alone")  # type: ignore[arg-type]
    assert error.value.reason == "BUNDLE_SIGNATURE", "without a bundle the trust file's key alone is known"
    forged = seal(tmp_path, {"report.json": report}, manifest, mine, Ed25519PrivateKey.generate())
    with pytest.raises(IntegrityError) as error:
        reperform.open_kit(forged, tmp_path / "auditor.key", Trust(), tmp_path / "forged", shown(keys))  # type: ignore[arg-type]
    assert error.value.reason == "BUNDLE_SIGNATURE"


def test_the_keys_of_a_bundle_are_those_that_its_records_name(tmp_path: Path) -> None:
    world = World(tmp_path).start()
    story = Story(world).whole()
    index = story.rotate_key(AUDIT_WORKER, "audit-worker 2")
    path = tmp_path / "bundle.zip"
    path.write_bytes(world.export())
    evidence = Evidence.read(path, world.trust)
    known = [key.public_bytes_raw() for key in evidence.audit_workers()]
    assert known == [ed25519(label).public_key().public_bytes_raw() for label in (AUDIT_WORKER, "audit-worker 2")]
    assert evidence.keys.terms[AUDIT_WORKER][0].end == index
    assert [i for i, _ in evidence.of(story.job, "audit.completed")] == [story.indices["audit.completed"]]
    path.write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match="the evidence bundle is invalid"):
        Evidence.read(path, world.trust)
    world.close()


# --- comparing ---


def report(value: float, n: int = 100, environment: dict[str, str] | None = None) -> measurement_pb2.AuditReport:
    subject = Subject("quality.test_loss", "nats", "made up")
    mean = measured(subject, value, lambda c: (value - 0.1, value + 0.1), [0.9], n=n, inputs=[value])
    share = proportion(Subject("privacy.canary_extraction_rate", "ratio", "made up"), 1, n, [0.9], inputs=[1, n])
    facts = {"dtype": "bfloat16", "threads": "2", "adapter_sha256": "a" * 64, "base_sha256": "b" * 64}
    return measurement_pb2.AuditReport(measurements=[mean, share], environment={**facts, **(environment or {})})


PLAN = measurement_pb2.AuditPlan(
    gates=[
        measurement_pb2.PlannedGate(
            rule_id="G", measurement="quality.test_loss", side=measurement_pb2.LIMIT_SIDE_AT_MOST, limit=1.5, alpha=0.1
        )
    ]
)


def answers(first: measurement_pb2.AuditReport, second: measurement_pb2.AuditReport) -> dict[str, Line]:
    return {line.name: line for line in compare.compare(PLAN, first, second)}


def test_another_environment_is_a_caveat_within_its_tolerance() -> None:
    found = answers(report(1.0), report(1.03, environment={"dtype": "float32"}))
    assert found["quality.test_loss"].answer == "CAVEAT"
    assert "dtype bfloat16 -> float32" in found["quality.test_loss"].reason
    assert found["privacy.canary_extraction_rate"].answer == "PASS"
    assert found["gate G on quality.test_loss"].answer == "PASS"


def otherwise(value: float, environment: dict[str, str]) -> measurement_pb2.AuditReport:
    """A report whose loss was measured by another method."""
    made = report(value, environment=environment)
    made.measurements[0].method = "by another formula"
    return made


def test_a_number_that_other_code_measures_otherwise_is_a_caveat_and_its_gate_is_still_compared() -> None:
    found = answers(report(1.0), otherwise(1.8, {"sources": "c" * 64}))
    assert found["quality.test_loss"].answer == "CAVEAT" and "by another formula" in found["quality.test_loss"].reason
    assert found["gate G on quality.test_loss"].answer == "FAIL"


@pytest.mark.parametrize("environment", [{}, {"dtype": "float32"}])
def test_another_method_is_no_excuse_for_the_same_code(environment: dict[str, str]) -> None:
    """A method says which group was the worst: with another group the number is another one."""
    found = answers(report(1.0), otherwise(1.8, environment))
    assert found["quality.test_loss"].answer == "FAIL"
    assert answers(report(1.0), otherwise(1.0, {}))["quality.test_loss"].answer == "FAIL"


def plotted(
    *points: tuple[str, float], notes: Sequence[str] = ("the sky",), **environment: str
) -> measurement_pb2.AuditReport:
    """A report with one series and what was not tested."""
    made = report(1.0, environment=environment)
    made.series.append(series("exposure_by_repeats", ("bits",), ((label, (value,)) for label, value in points)))
    made.not_tested.extend(notes)
    return made


@pytest.mark.parametrize(
    ("again", "answer"),
    [
        (plotted(("1", 0.2), ("8", 10.0)), "PASS"),
        (plotted(("1", 0.2), ("8", 10.1)), "FAIL"),
        (plotted(("8", 10.5), ("1", 0.3), threads="8"), "CAVEAT"),
        (plotted(("1", 0.2), ("8", 12.0), threads="8"), "FAIL"),
        (plotted(("1", 0.2), threads="8"), "FAIL"),
        (plotted(("1", 0.2), ("16", 10.0), threads="8"), "FAIL"),
        (report(1.0), "FAIL"),
    ],
)
def test_what_a_plot_shows_is_compared_too(again: measurement_pb2.AuditReport, answer: str) -> None:
    found = answers(plotted(("1", 0.2), ("8", 10.0)), again)
    assert found["series exposure_by_repeats"].answer == answer


def test_what_was_not_tested_is_compared_too() -> None:
    first = plotted(("1", 1.0))
    assert answers(first, plotted(("1", 1.0)))["not tested"].answer == "PASS"
    assert answers(first, plotted(("1", 1.0), notes=()))["not tested"].answer == "FAIL"
    assert answers(first, plotted(("1", 1.0), notes=(), threads="8"))["not tested"].answer == "CAVEAT"


def test_a_control_and_the_levels_are_compared_in_another_environment_too() -> None:
    for change in (
        lambda m: setattr(m, "control", 9.0),
        lambda m: setattr(m.intervals[0], "confidence", 0.5),
        lambda m: m.intervals[0].ClearField("upper"),
    ):
        again = report(1.0, environment={"dtype": "float32"})
        change(again.measurements[0])
        assert answers(report(1.0), again)["quality.test_loss"].answer == "FAIL"


def test_beyond_the_tolerance_and_on_other_rows_it_fails() -> None:
    far = answers(report(1.0), report(1.2, environment={"dtype": "float32"}))
    assert far["quality.test_loss"].answer == "FAIL"
    fewer = answers(report(1.0), report(1.0, n=99, environment={"dtype": "float32"}))
    assert fewer["quality.test_loss"].answer == "FAIL"
    assert "another number of rows" in fewer["quality.test_loss"].reason


def test_a_decision_that_turned_fails_even_within_the_tolerance() -> None:
    found = answers(report(1.39), report(1.42, environment={"threads": "8"}))
    assert found["quality.test_loss"].answer == "CAVEAT"
    assert found["gate G on quality.test_loss"].answer == "FAIL"
    assert (found["gate G on quality.test_loss"].recorded, found["gate G on quality.test_loss"].again) == (
        "inside",
        "across",
    )


def test_other_files_and_missing_numbers_fail() -> None:
    other = answers(report(1.0), report(1.0, environment={"adapter_sha256": "c" * 64}))
    assert other["adapter_sha256"].answer == "FAIL"
    short = report(1.0)
    del short.measurements[0]
    found = answers(report(1.0), short)
    assert found["quality.test_loss"].answer == "FAIL"
    assert found["gate G on quality.test_loss"].again == "missing"
