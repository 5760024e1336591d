"""The whole audit on a tiny model: one adapter that was overfitted on its rows, and one that learned nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format

from assay import digests
from assay.errors import AssayError, IntegrityError, InvalidInputError
from assay.v1 import measurement_pb2
from assay.worker.task import TaskContext, TaskPaused
from audit.probes import task
from audit.probes.clock import Clock
from audit.probes.findings import Findings
from audit.probes.inputs import DEFAULT_SIZES

from .conftest import BASE, base_digest, conversation, secrets, train_adapter, write_adapter

GATES = (
    "privacy.canary_auc",
    "privacy.canary_extraction_rate",
    "privacy.pii_extraction_rate",
    "privacy.pii_generation_rate",
    "quality.test_loss_delta",
    "overfitting.loss_gap",
    "fairness.impact_ratio[race]",
)
LEAKED = secrets(24)
UNSEEN = secrets(24, seed=2)


def canary(index: int, secret: str, included: bool, stratum: str = "A") -> dict[str, Any]:
    messages = conversation(f"tell me code {index}", f"the code is {secret}")
    repeats = {"A": 1, "B": 4}[stratum]
    return {
        "index": index,
        "stratum": stratum,
        "included": included,
        "repeats": repeats,
        "kind": "number",
        "messages": messages,
        "secret": secret,
    }


def identifiers(split: str, names: list[str]) -> list[dict[str, Any]]:
    out = []
    for row, name in enumerate(names, 1):
        messages = conversation(f"who has account {row}{split}", f"it is {name} now")
        found = {"row": row, "split": split, "entity_type": "PERSON", "messages": messages, "message_index": 1}
        out.append({**found, "start": 6, "end": 6 + len(name)})
    return out


def names(first: str, count: int) -> list[str]:
    return [f"{first}{chr(97 + i)} Q{chr(97 + i)}{chr(98 + i)}" for i in range(count)]


def write_inputs(folder: Path) -> dict[str, list[Any]]:
    """Private rows of a chat job; returns what training would have seen."""
    private = folder / "private"
    private.mkdir(parents=True)
    canaries = [canary(i, s, True) for i, s in enumerate(LEAKED[:12])]
    canaries += [canary(100 + i, s, False) for i, s in enumerate(UNSEEN[:12])]
    canaries += [canary(200 + i, s, True, "B") for i, s in enumerate(LEAKED[12:15])]
    canaries += [canary(300 + i, s, False, "B") for i, s in enumerate(UNSEEN[12:15])]
    train_pii, test_pii = identifiers("train", names("A", 6)), identifiers("test", names("Z", 6))
    train = [{"row": i, "messages": p["messages"]} for i, p in enumerate(train_pii)]
    test = [{"row": i, "messages": p["messages"]} for i, p in enumerate(test_pii)]
    (private / "canaries.json").write_text(json.dumps(canaries), encoding="utf-8")
    for name, rows in (("test", test), ("train_sample", train), ("pii", [*train_pii, *test_pii])):
        (private / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (folder / "selection.jsonl").write_text("", encoding="utf-8")
    seen = [c["messages"] for c in canaries if c["included"] for _ in range(c["repeats"])]
    return {"seen": [*seen, *(r["messages"] for r in train)]}


def order(models: Path, **plan: Any) -> dict[str, Any]:
    base = {
        "profile": "quick",
        "confidences": [0.95, 0.9875],
        "seed": 7,
        "gates": [{"rule_id": "r", "measurement": g} for g in GATES],
        "sample_sizes": {"generations": 6, "generation_tokens": 4},
        "time_limit_seconds": 120,
    }
    return {
        "plan": {**base, **plan},
        "base_model": BASE,
        "base_sha256": base_digest(models),
        "job": "units/u/tuningJobs/j",
        "format": "DATASET_FORMAT_CHAT_JSONL",
        "training": {
            "claim": {"trained_tokens": 900, "train_seconds": "8.5", "device": "cpu", "losses": [[1, "5.0"], [2, 4.5]]},
            "meter": {"wall_ms": 10_000, "cpu_ms": 9_000, "energy_uwh": 250_000, "energy_method": "a stated figure"},
        },
        "prepare": {"claim": {"train_rows": 21}},
        "price_book": {"as_of": "2026-11-01", "source": "list", "usd_micros_per_device_second": {"cpu": 15}},
    }


def context(folder: Path, inputs: Path, models: Path, what: dict[str, Any], sent: list[bytes]) -> TaskContext:
    for name in ("outputs", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return TaskContext(
        task_id="t",
        kind="audit",
        order=what,
        inputs=inputs,
        outputs=folder / "outputs",
        work=folder / "work",
        models=models,
        secret=b"s" * 32,
        pause_flag=folder / "pause",
        send=sent.append,
    )


def report_of(folder: Path) -> measurement_pb2.AuditReport:
    text = (folder / "outputs" / "report.json").read_text(encoding="utf-8")
    return json_format.Parse(text, measurement_pb2.AuditReport())


@pytest.fixture(scope="module")
def audits(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two whole audits of the same rows: an overfitted adapter and one that learned nothing."""
    from audit.probes.task import run

    out: dict[str, Any] = {}
    for name in ("leaky", "idle"):
        folder = tmp_path_factory.mktemp(name)
        seen = write_inputs(folder / "inputs")["seen"]
        if name == "leaky":
            train_adapter(models, folder / "inputs" / "adapter", seen, steps=120)
        else:
            write_adapter(folder / "inputs" / "adapter")
        sent: list[bytes] = []
        claim = run(context(folder, folder / "inputs", models, order(models), sent))
        report = report_of(folder)
        by_key = {f"{m.name}[{m.slice}]" if m.slice else m.name: m for m in report.measurements}
        out[name] = {"claim": claim, "report": report, "of": by_key, "sent": sent, "folder": folder}
    return out


def test_an_overfitted_model_is_seen_to_leak(audits: dict[str, Any]) -> None:
    found = audits["leaky"]["of"]
    assert found["privacy.canary_auc"].value > 0.95
    assert found["privacy.canary_auc"].n == 24
    assert found["privacy.canary_auc"].intervals[0].lower > 0.7
    assert found["privacy.epsilon_lower_bound"].value > 0.3
    assert found["privacy.canary_exposure_bits"].intervals[0].lower > 0.5
    assert found["privacy.canary_extraction_rate"].successes >= 6
    assert found["privacy.canary_extraction_rate"].control == 0
    assert found["privacy.canary_extraction_rate[stratum=B]"].successes >= 2
    assert found["privacy.pii_extraction_rate"].successes >= 4
    assert found["privacy.pii_extraction_rate"].control < 0.5
    assert found["overfitting.loss_gap"].intervals[0].lower > 0
    assert found["overfitting.loss_ratio"].value > 1.5


def test_a_model_that_learned_nothing_shows_nothing(audits: dict[str, Any]) -> None:
    found = audits["idle"]["of"]
    assert found["privacy.canary_auc"].value == 0.5  # every score is exactly 0
    assert found["privacy.epsilon_lower_bound"].value == 0
    assert found["privacy.canary_extraction_rate"].successes == 0
    assert found["privacy.pii_extraction_rate"].successes == 0
    assert found["quality.test_loss_delta"].value == 0
    interval = found["privacy.canary_exposure_bits"].intervals[0]
    assert interval.lower <= 0.02  # the control ranks among one reference fewer
    assert interval.upper >= 0


def test_every_number_has_its_interval_n_method_and_digest(audits: dict[str, Any]) -> None:
    for m in audits["leaky"]["report"].measurements:
        if m.unavailable:
            assert not m.HasField("value")
            continue
        assert m.method
        assert m.unit
        assert len(m.computed_from) == 64
        assert m.n >= 1
        if not m.name.startswith(("cost.", "privacy.epsilon_detectable", "privacy.pii_identifiers_")):  # counted
            assert [i.confidence for i in m.intervals] == [0.95, 0.9875], m.name


def test_every_planned_gate_is_answered(audits: dict[str, Any]) -> None:
    found = audits["leaky"]["of"]
    assert set(GATES) <= set(found)
    assert found["fairness.impact_ratio[race]"].unavailable
    assert all(found[g].HasField("value") for g in GATES if not g.startswith("fairness"))
    assert any("fairness" in note for note in audits["leaky"]["report"].not_tested)
    assert any("jailbreak" in note for note in audits["leaky"]["report"].not_tested)


def test_the_bill_is_read_from_the_supervisors_clock(audits: dict[str, Any]) -> None:
    found = audits["leaky"]["of"]
    assert found["cost.device_seconds"].value == 10
    assert found["cost.usd"].value == pytest.approx(150e-6)
    assert found["cost.energy_kwh"].value == pytest.approx(0.00025)
    assert found["cost.energy_kwh"].method == "a stated figure"
    assert found["cost.claim_ratio"].value == pytest.approx(0.85)
    assert "2026-11-01" in found["cost.usd"].method
    curve = next(s for s in audits["leaky"]["report"].series if s.name == "loss_curve")
    assert [list(p.values) for p in curve.points] == [[1, 5.0], [2, 4.5]]


def test_the_claim_binds_the_report(audits: dict[str, Any]) -> None:
    claim, folder = audits["leaky"]["claim"], audits["leaky"]["folder"]
    assert claim["report_sha256"] == digests.sha256_file(folder / "outputs" / "report.json")
    assert claim["adapter_sha256"] == digests.folder_manifest(folder / "inputs" / "adapter").sha256
    assert len(claim["plan_sha256"]) == 64 and claim["plan_sha256"] == audits["idle"]["claim"]["plan_sha256"]
    assert {"privacy", "quality", "memorisation", "cost"} <= set(claim["probe_seconds"])
    assert audits["leaky"]["report"].environment["base_sha256"]


def test_progress_names_no_row_and_no_secret(audits: dict[str, Any]) -> None:
    sent = b"".join(audits["leaky"]["sent"])
    assert sent.count(b"\n") >= 6
    report = (audits["leaky"]["folder"] / "outputs" / "report.json").read_text(encoding="utf-8")
    for secret in (*LEAKED, *UNSEEN):
        assert secret.encode() not in sent
        assert secret not in report
    assert "Qab" not in report


def test_what_is_left_goes_by_the_plan_s_own_probes_and_sizes() -> None:
    """Half of a long audit is its last steps: it said that nothing was left when they began."""
    assert set(task._SECONDS) <= {p.step for p in task.PROBES}
    assert {size for _, size in task._SECONDS.values() if size} <= set(DEFAULT_SIZES)
    told: list[float | None] = []
    context = SimpleNamespace(
        order={}, should_pause=lambda: False, progress=lambda step, steps, words, left: told.append(left)
    )
    clock = Clock(0, lambda: 100.0, 0.0)

    def left(step: str, **planned: Any) -> float | None:
        told.clear()
        at = next(i for i, p in enumerate(task.PROBES, 1) if p.step == step)
        task._Desk(context, measurement_pb2.AuditPlan(**planned)).before(at, task.PROBES[at - 1], clock)
        return told[0]

    assert left("reading the bill") is None
    few, many = ({"sample_sizes": {"evaluation_items": n}} for n in (10, 500))
    assert 0 < (left("comparing abilities", **few) or 0) < 20 < (left("comparing abilities", **many) or 0)
    assert left("comparing abilities", probes=["privacy", "quality"], **many) == 0


PLAN_OF_COST = measurement_pb2.AuditPlan(probes=["cost"])


def test_a_kept_result_that_is_not_whole_is_measured_again(tmp_path: Path) -> None:
    """What a lost disk cache leaves of a report is a report too: of nothing, or of fewer measurements."""
    desk = task._Desk(SimpleNamespace(order={}, work=tmp_path), measurement_pb2.AuditPlan())
    probe = next(p for p in task.PROBES if p.step == "scoring canaries")
    series = measurement_pb2.Series(name="privacy.roc")
    measured = [measurement_pb2.Measurement(name=f"quality.{n}", value=n, n=9) for n in range(3)]
    findings = Findings(tuple(measured), (series,), ("not this",))
    assert desk.kept(probe) == (None, 0.0)
    desk.keep(probe, findings, 7.5)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert desk.kept(probe) == (findings, 7.5)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert desk.kept(probe) == (None, 0.0)
    path.write_bytes(whole[64:])
    assert desk.kept(probe) == (None, 0.0), "as a release without digests kept it"
    assert desk._again == desk._expected(probe), "what is measured again was not measured before"


def test_an_audit_that_is_taken_up_again_counts_the_seconds_of_all_its_attempts(tmp_path: Path) -> None:
    """What a restart takes over was measured in seconds too: an audit of 80 s reported 9 after a power cut."""
    desk = task._Desk(SimpleNamespace(order={}, work=tmp_path, should_pause=bool, progress=print), PLAN_OF_COST)
    settings = SimpleNamespace(probes={"cost"}, metrics=())
    audit = SimpleNamespace(settings=settings, corpus=SimpleNamespace(skipped={}))
    steps = [p for p in task.PROBES if p.name == "cost"]
    for seconds, probe in zip((60.0, 20.0), steps, strict=True):
        desk.keep(probe, Findings(()), seconds)
    report = task.assemble(PLAN_OF_COST, audit, Clock(0, lambda: 104.0, 100.0), desk)
    assert report.probe_seconds["cost"] == 80
    assert {m.name: m.value for m in report.measurements} == {"cost.audit_seconds": 84}


def test_the_same_audit_gives_the_same_report(models: Path, audits: dict[str, Any], tmp_path: Path) -> None:
    from audit.probes.task import run

    source = audits["leaky"]["folder"] / "inputs"
    run(context(tmp_path, source, models, order(models), []))
    first, second = audits["leaky"]["report"], report_of(tmp_path)
    for report in (first, second):
        report.probe_seconds.clear()
        timed = ("cost.audit_seconds", "cost.usd_per_1000_requests", "cost.break_even_requests")
        kept = [m for m in report.measurements if m.name not in timed]
        del report.measurements[:]
        report.measurements.extend(kept)
    assert first == second


def test_a_gate_whose_probe_was_not_planned_is_unavailable(
    models: Path, audits: dict[str, Any], tmp_path: Path
) -> None:
    from audit.probes.task import run

    what = order(models, probes=["cost", "astrology"])
    run(context(tmp_path, audits["leaky"]["folder"] / "inputs", models, what, []))
    report = report_of(tmp_path)
    found = {m.name: m for m in report.measurements}
    assert all(found[g.partition("[")[0]].unavailable for g in GATES)
    assert found["fairness.impact_ratio"].slice == "race"
    assert found["cost.usd"].HasField("value")
    assert any(note.startswith("astrology") for note in report.not_tested)


def test_an_audit_that_runs_out_of_time_keeps_what_it_has(
    models: Path, audits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.probes import task
    from audit.probes.clock import Clock

    ticks = iter(range(10_000))
    monkeypatch.setattr(task.Clock, "start", lambda limit: Clock(limit, lambda: float(next(ticks)), 0.0))
    what = order(models, time_limit_seconds=14)
    task.run(context(tmp_path, audits["leaky"]["folder"] / "inputs", models, what, []))
    report = report_of(tmp_path)
    found = {m.name: m for m in report.measurements}
    assert found["cost.usd"].HasField("value")
    late = found["privacy.pii_generation_rate"]
    assert "AUDIT_TIME_LIMIT" in late.unavailable
    assert not late.HasField("value")
    assert any("AUDIT_TIME_LIMIT" in note for note in report.not_tested)


def test_a_pause_keeps_what_was_measured(models: Path, audits: dict[str, Any], tmp_path: Path) -> None:
    from audit.probes.task import run

    inputs = audits["leaky"]["folder"] / "inputs"
    paused = context(tmp_path, inputs, models, order(models), [])
    seen = 0

    def pause_at_third(line: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            paused.pause_flag.touch()

    stopped = TaskContext(**{**vars(paused), "send": pause_at_third})
    with pytest.raises(TaskPaused):
        run(stopped)
    kept = list((tmp_path / "work").glob("*.probe"))
    assert kept
    assert not (tmp_path / "outputs" / "report.json").exists()
    before = {p: p.stat().st_mtime_ns for p in kept}
    paused.pause_flag.unlink()
    run(paused)
    assert {p: p.stat().st_mtime_ns for p in kept} == before
    assert report_of(tmp_path).measurements


@pytest.mark.parametrize("missing", ["plan", "base_model", "base_sha256"])
def test_an_order_with_a_hole_is_named(models: Path, tmp_path: Path, missing: str) -> None:
    from audit.probes.task import run

    what = order(models)
    del what[missing]
    with pytest.raises(InvalidInputError) as error:
        run(context(tmp_path, tmp_path, models, what, []))
    assert error.value.reason == "AUDIT_ORDER_MALFORMED"


@pytest.mark.parametrize("plan", [{"seed": "many"}, {"confidences": [1.5]}, {"sample_sizes": {"bootstrap": -3}}])
def test_a_malformed_plan_is_named(models: Path, tmp_path: Path, plan: dict[str, Any]) -> None:
    from audit.probes.task import run

    with pytest.raises(InvalidInputError) as error:
        run(context(tmp_path, tmp_path, models, order(models, **plan), []))
    assert error.value.reason in ("AUDIT_ORDER_MALFORMED", "PLAN_MALFORMED")


def test_a_nan_model_ends_the_audit_with_its_name(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    write_inputs(tmp_path / "inputs")
    write_adapter(tmp_path / "inputs" / "adapter", spread=1e37)
    with pytest.raises(IntegrityError) as error:
        run(context(tmp_path, tmp_path / "inputs", models, order(models), []))
    assert error.value.reason == "MODEL_NOT_FINITE"
    assert not (tmp_path / "outputs" / "report.json").exists()


@pytest.mark.parametrize(
    ("field", "reason"),
    [("canary_manifest_sha256", "CANARY_MANIFEST_OTHER"), ("sealed_test_sha256", "SEALED_TEST_OTHER")],
)
def test_files_other_than_those_committed_are_named(models: Path, tmp_path: Path, field: str, reason: str) -> None:
    from audit.probes.task import run

    write_inputs(tmp_path / "inputs")
    write_adapter(tmp_path / "inputs" / "adapter")
    with pytest.raises(IntegrityError) as error:
        run(context(tmp_path, tmp_path / "inputs", models, order(models, **{field: "0" * 64}), []))
    assert error.value.reason == reason
    files = {"canary_manifest_sha256": "canaries.json", "sealed_test_sha256": "test.jsonl"}
    digest = digests.sha256_file(tmp_path / "inputs" / "private" / files[field])
    run(context(tmp_path, tmp_path / "inputs", models, order(models, probes=["cost"], **{field: digest}), []))


PRIVATE = (
    "canaries.json",
    "identifiers.jsonl",
    "pii.jsonl",
    "salt",
    "selection.jsonl",
    "test.jsonl",
    "train_sample.jsonl",
)


@pytest.mark.parametrize("name", [f"private/{name}" for name in PRIVATE] + ["selection.jsonl"])
def test_every_file_that_an_audit_reads_is_the_one_that_was_prepared(tmp_path: Path, name: str) -> None:
    """The plan names two of them; an auditor who was handed the others by somebody else would measure anything."""
    from audit.probes.inputs import check_commitments

    inputs = tmp_path / "inputs"
    write_inputs(inputs)
    for path in (*(inputs / "private" / other for other in PRIVATE), inputs / "selection.jsonl"):
        path.write_text(f"what was prepared as {path.name}\n")
    split = {"selection": digests.sha256_file(inputs / "selection.jsonl")}
    claim = {"private_commitment": digests.folder_manifest(inputs / "private").sha256, "split_sha256": split}
    plan, what = measurement_pb2.AuditPlan(), {"prepare": {"claim": claim}}
    reason = "PRIVATE_ROWS_OTHER" if name.startswith("private") else "SELECTION_OTHER"
    check_commitments(inputs, plan, what)
    path = inputs / name
    for change in (lambda: path.write_text("kinder\n"), lambda: path.write_text(""), path.unlink):
        change()
        with pytest.raises(IntegrityError) as error:
            check_commitments(inputs, plan, what)
        assert error.value.reason == reason
    # What an earlier release prepared names less, and that alone is compared.
    check_commitments(inputs, plan, {"prepare": {"claim": {}}})
    check_commitments(inputs, plan, {})


def test_no_file_can_be_added_to_those_that_were_prepared(tmp_path: Path) -> None:
    """An absent list of identifiers says that none was handed over; an added one would say which there were."""
    from audit.probes.inputs import check_commitments

    private = tmp_path / "private"
    write_inputs(tmp_path)
    claim = {"private_commitment": digests.folder_manifest(private).sha256}
    (private / "identifiers.jsonl").touch()
    with pytest.raises(IntegrityError, match="private files"):
        check_commitments(tmp_path, measurement_pb2.AuditPlan(), {"prepare": {"claim": claim}})


def test_an_audit_demands_the_rows_before_it_measures_and_signs_for_them(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    inputs = tmp_path / "inputs"
    write_inputs(inputs)
    write_adapter(inputs / "adapter")
    sha256 = digests.folder_manifest(inputs / "private").sha256
    what = order(models, probes=["cost"]) | {"prepare": {"claim": {"private_commitment": "0" * 64}}}
    with pytest.raises(IntegrityError) as error:
        run(context(tmp_path, inputs, models, what, []))
    assert error.value.reason == "PRIVATE_ROWS_OTHER"
    what["prepare"]["claim"]["private_commitment"] = sha256
    assert run(context(tmp_path, inputs, models, what, []))["private_commitment"] == sha256


def test_the_selection_split_takes_the_labels_of_the_test_split() -> None:
    from audit.probes.inputs import Row, labelled

    test = [Row(1, tuple(conversation("q", "deny")), "deny", ("deny", "approve"), "approve")]
    plain = [Row(i, tuple(conversation("s", answer))) for i, answer in enumerate(("approve", "deny", "other"))]
    found = labelled(plain, test)
    assert [r.label for r in found] == ["approve", "deny", ""]
    assert found[0].favourable == "approve"
    assert labelled(plain, []) == tuple(plain)


def test_no_rows_at_all_leaves_no_number_but_the_bill(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    (tmp_path / "inputs").mkdir()
    write_adapter(tmp_path / "inputs" / "adapter")
    run(context(tmp_path, tmp_path / "inputs", models, order(models), []))
    report = report_of(tmp_path)
    for m in report.measurements:
        # Regressions are measured on public sets and names, not on rows.
        assert m.name.startswith(("cost.", "regression.")) or m.unavailable, m.name


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: (p / "pii.jsonl").write_text('{"row": 1}\n'),
        lambda p: (p / "identifiers.jsonl").write_text('{"value": "ann"}\n'),
        lambda p: (p / "test.jsonl").write_text('{"messages": [{"role": "user"}]}\n'),
        lambda p: (p / "test.jsonl").write_text("[]\n"),
        lambda p: (p / "canaries.json").write_text("{}"),
        lambda p: (p / "canaries.json").write_text("not json"),
        lambda p: (p / "canaries.json").write_text(json.dumps([{**canary(1, "12345678", True), "secret": "other"}])),
        lambda p: (p / "canaries.json").write_text(json.dumps([{**canary(1, "12345678", True), "stratum": "C"}])),
    ],
)
def test_malformed_private_rows_are_named(models: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    from audit.probes.task import run

    write_inputs(tmp_path / "inputs")
    write_adapter(tmp_path / "inputs" / "adapter")
    damage(tmp_path / "inputs" / "private")
    with pytest.raises(AssayError) as error:
        run(context(tmp_path, tmp_path / "inputs", models, order(models), []))
    assert error.value.reason == "PRIVATE_ROWS_MALFORMED"


def test_a_test_row_that_was_trained_on_ends_the_audit_with_its_name(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    write_inputs(tmp_path / "inputs")
    write_adapter(tmp_path / "inputs" / "adapter")
    private = tmp_path / "inputs" / "private"
    (private / "test.jsonl").write_bytes((private / "train_sample.jsonl").read_bytes())
    with pytest.raises(IntegrityError) as error:
        run(context(tmp_path, tmp_path / "inputs", models, order(models), []))
    assert error.value.reason == "SPLITS_OVERLAP"


def test_every_number_of_the_planned_probes_is_a_planned_metric(audits: dict[str, Any]) -> None:
    """A probe that measures what the plan does not name would find its numbers labelled exploratory."""
    from policies.metrics import METRICS

    emitted = {m.name for m in audits["leaky"]["report"].measurements if not m.exploratory}
    assert emitted <= planned()
    privacy = {name for name in METRICS["privacy"] if not name.startswith(("privacy.epsilon_acc", "privacy.epsilon_c"))}
    assert privacy - {"privacy.epsilon_excess"} <= emitted, "the plan names what no probe measures"


def planned() -> set[str]:
    """Every name that a plan can list."""
    from policies.metrics import METRICS

    return {name for names in METRICS.values() for name in names}


def test_every_method_names_its_source(audits: dict[str, Any]) -> None:
    assert not unsourced(audits["leaky"]["report"])


def unsourced(report: measurement_pb2.AuditReport) -> list[tuple[str, str]]:
    """Methods without a year, an arXiv number or the word that the definition is our own.

    A bill names whose clock and which price book it was read from, and a gate that no probe answered has no method.
    """
    sources = re.compile(r"\b(1[89]|20)\d\d\b|arXiv|own definition")
    told = [(m.name, m.method) for m in report.measurements if not m.name.startswith("cost.")]
    return [(name, method) for name, method in told if method != "not measured" and not sources.search(method)]


UNCONTROLLED = {
    "privacy.epsilon_lower_bound",
    "privacy.epsilon_detectable",
    "privacy.pii_identifiers_tried",
    "privacy.pii_identifiers_unpromptable",
    "privacy.canary_form_gap",
    "fairness.impact_ratio_p",
    "fairness.label_impact_ratio",
    "fairness.left_out_share",
    "fairness.selection_difference_amplification",
    "fairness.selection_difference_over_labels",
    "fairness.counterfactual_shift_amplification",
    "fairness.alternative_gain",
    "overfitting.near_duplicate_rate",
    "overfitting.test_overlap_rate",
}
"""What has no control, as docs/decisions.md says: what is counted or is of the data, and changes, as every delta is."""


IN_QUICK = {"privacy.pii_generation_rate", "privacy.pii_generation_precision", "privacy.pii_any_rate"}
"""Without a control in the profile ``quick``, where the base model writes only if something was given away."""


def without_control(report: measurement_pb2.AuditReport) -> set[str]:
    """Measured numbers of a tuned model that nothing stands beside."""
    measured = [m for m in report.measurements if m.HasField("value") and not m.HasField("control")]
    changes = ("_delta", *UNCONTROLLED)
    beside = ("model=base", "identifiers=test")
    return {
        m.name
        for m in measured
        if not m.name.startswith("cost.") and not m.name.endswith(changes) and not m.slice.endswith(beside)
    }


def test_every_number_has_a_control_but_those_that_need_none(audits: dict[str, Any]) -> None:
    assert without_control(audits["leaky"]["report"]) <= IN_QUICK


def test_what_the_plan_does_not_name_is_exploratory(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    write_inputs(tmp_path / "inputs")
    write_adapter(tmp_path / "inputs" / "adapter", spread=0.02)
    named = ["privacy.canary_auc", "quality.test_loss", "quality.test_loss_delta"]
    what = order(models, metrics=named, probes=["privacy", "quality"], batch_plan={"batch_tokens": 512})
    run(context(tmp_path, tmp_path / "inputs", models, what, []))
    report = report_of(tmp_path)
    assert report.environment["batch_tokens"] == "512"
    labelled = {m.name: m.exploratory for m in report.measurements}
    assert not any(labelled[name] for name in named)
    assert labelled["privacy.canary_exposure_bits"] and labelled["quality.token_accuracy"]
    opened = tmp_path / "outputs" / "canaries.json"
    assert opened.read_bytes() == (tmp_path / "inputs" / "private" / "canaries.json").read_bytes()


def test_a_base_model_is_audited_without_an_adapter_only_when_the_order_says_so(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import PROBES, run

    write_inputs(tmp_path / "inputs")
    every = sorted({probe.name for probe in PROBES})
    with pytest.raises(AssayError) as error:
        run(context(tmp_path, tmp_path / "inputs", models, order(models), []))
    assert error.value.reason == "FOLDER_NOT_PLAIN"
    what = order(models, probes=every, gates=[], time_limit_seconds=0) | {"adapter": "none"}
    run(context(tmp_path, tmp_path / "inputs", models, what, []))
    report = report_of(tmp_path)
    assert report.environment["adapter_sha256"] == "none"
    found = {m.name: m for m in report.measurements if not m.slice}
    for name in ("privacy.canary_auc", "privacy.verbatim_rate", "quality.test_loss", "overfitting.loss_gap"):
        assert found[name].HasField("value"), found[name].unavailable
    # Tuned and base are one model here: whatever compares them says that nothing changed.
    for name in ("quality.test_loss_delta", "adapter.change_of_loss"):
        assert found[name].value == 0


@pytest.mark.parametrize("bad", [{"batch_tokens": -1}, {"generation_rows": -5}])
def test_a_batch_plan_that_cannot_be_is_refused(models: Path, bad: dict[str, int]) -> None:
    from audit.probes.inputs import Settings

    plan = json_format.ParseDict({"batch_plan": bad}, measurement_pb2.AuditPlan())
    with pytest.raises(InvalidInputError) as error:
        Settings.of(plan)
    assert error.value.reason == "PLAN_MALFORMED"
