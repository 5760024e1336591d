"""The demonstration, run and checked: real weights, real data, every claim that the README makes about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from demo.processes import services
from tests.audit.verify import sweep

ROOT = Path(__file__).parents[2]
OUT = ROOT / "demo" / "out"


@pytest.fixture(scope="module")
def summary() -> dict:
    done = subprocess.run([sys.executable, "-m", "demo.run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads((OUT / "summary.json").read_text())


def verify(bundle: Path) -> int:
    command = [sys.executable, "-m", "audit.verify", str(bundle), "--trust", str(OUT / "trust.txt")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_four_jobs_end_as_their_numbers_say(summary: dict):
    jobs = {j["name"]: j for j in summary["jobs"]}
    assert jobs["denied"]["state"] == "DENIED"
    assert {"BASE-PURPOSE", "BASE-LEGAL-BASIS"} <= {r["rule"] for r in jobs["denied"]["rules_fired"]}
    assert all(r.get("fix") for r in jobs["denied"]["rules_fired"])
    assert jobs["leaky"]["state"] == "QUARANTINED"
    assert any(r["rule"].startswith(("GATE-PII", "REL-PII", "GATE-CANARY")) and r["outcome"] == "FAIL"
               for r in jobs["leaky"]["rules_fired"])  # fmt: skip
    assert jobs["decision"]["state"] == "QUARANTINED"
    names = ("GATE-IMPACT-RATIO", "GATE-EQUALIZED-ODDS")
    fair = [r for r in jobs["decision"]["rules_fired"] if r["rule"].startswith(names)]
    assert fair and any("n_required" in r for r in fair)
    assert jobs["clean"]["state"] == "APPROVED"
    assert summary["permit_check"]["clean"] == "allowed"
    assert summary["permit_check"]["tampered"].startswith("refused: ")
    assert summary["ledger"]["records"] == summary["ledger"]["size"]
    assert all(j["adapter_sha256"] for n, j in jobs.items() if n != "denied")
    for job in jobs.values():
        for m in job["measurements"]:
            assert "unavailable" in m or ("value" in m and "n" in m) or m["name"].startswith("cost."), m


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_bundle_verifies_and_a_flipped_byte_of_a_record_does_not(summary: dict, tmp_path: Path):
    bundle = OUT / "evidence.bundle.zip"
    assert verify(bundle) == 0
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        names = [n for n in archive.namelist() if n.startswith("records/")]
        middle = archive.getinfo(names[len(names) // 2])
    start = data.index(b"{", middle.header_offset + 30 + len(middle.filename))
    for offset in (0, 57, middle.file_size - 1):
        flipped = bytearray(data)
        flipped[start + offset] ^= 1
        copy = tmp_path / "flipped.zip"
        copy.write_bytes(bytes(flipped))
        assert verify(copy) != 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_bytes_flipped_all_over_the_bundle_change_the_verdict(summary: dict):
    assert sweep.main(str(OUT / "evidence.bundle.zip"), str(OUT / "trust.txt"), "300") == 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_one_trace_leads_from_the_call_to_the_permit(summary: dict):
    files = sorted((ROOT / "demo/state/bank/services").glob("*/telemetry/spans.jsonl"))
    assert [f.parts[-3] for f in files] == ["audit-worker", "gateway", "train-worker"]
    spans = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    created = [s for s in spans if s["name"].endswith("/CreateTuningJob")]
    assert created and all(s["parent_id"] for s in created), "the client began the trace"
    permit = next(s for s in spans if s["name"].endswith("/IssuePermit") and s["parent_id"])
    whole = [s for s in spans if s["trace_id"] == permit["trace_id"]]
    names = {s["name"] for s in whole}
    assert permit["trace_id"] in {s["trace_id"] for s in created}
    assert {"job.training", "job.auditing"} <= names
    assert any(n.endswith("/DecideApproval") for n in names)
    tasks = {s["attributes"]["assay.kind"] for s in whole if s["name"] == "worker.task"}
    assert tasks == {"prepare", "train", "audit"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_replay_gives_the_same_adapter(summary: dict, tmp_path: Path):
    bank, (clean,) = ROOT / "demo/state/bank", [j for j in summary["jobs"] if j["name"] == "clean"]
    address = tomllib.loads((bank / "assay.toml").read_text())["listen"]
    command = ["job", "replay", "units/support/tuningJobs/clean", "--as", str(bank / "people/vik"), "--output", "json"]
    with services(bank, address, tmp_path / "services.log"):
        done = subprocess.run([sys.executable, "-m", "gateway.cli", *command], capture_output=True, check=False)
    assert done.returncode == 0, (
        done.stderr.decode() + (tmp_path / "services.log").read_text("utf-8", "replace")[-4000:]
    )
    replay = json.loads(done.stdout)
    assert replay["verdict"] == "VERDICT_REPRODUCED"
    assert replay["replayed_sha256"] == clean["adapter_sha256"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_an_auditor_with_a_fresh_clone_measures_and_decides_the_same(summary: dict, tmp_path: Path):
    """The kit, its key, the trust file and the bundle are all that the auditor has; the code is the repository's."""
    handed, clone = tmp_path / "handed-over", tmp_path / "clone"
    handed.mkdir()
    for name in ("clean.kit", "auditor.key", "trust.txt", "evidence.bundle.zip"):
        shutil.copy(OUT / name, handed / name)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    command = ["audit", "reperform", "clean.kit", "--key", "auditor.key", "--trust", "trust.txt"]
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *command, "--bundle", "evidence.bundle.zip", "--output", "json"],
        cwd=handed, env={**os.environ, "PYTHONPATH": str(clone)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert all(n["answer"] == "PASS" or (n["answer"] == "CAVEAT" and n["reason"]) for n in told["numbers"])
    (clean,) = [j for j in summary["jobs"] if j["name"] == "clean"]
    assert {m["name"] for m in clean["measurements"]} <= {n["name"].partition("[")[0] for n in told["numbers"]}
    decisions = {d["name"]: d for d in told["decisions"]}
    assert all(d["answer"] == "PASS" and d["recorded"] == d["again"] for d in decisions.values())
    assert {"rule REL-PII-CENSUS", "rule REL-EPSILON", "rule REL-CANARY-FORMS", "rule REL-PLAN"} <= set(decisions)
    assert any(n["name"].startswith("gate GATE-CANARY-AUC") for n in told["numbers"])
    assert (decisions["verdict"]["again"] == "PASS") == (clean["state"] == "APPROVED")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_each_card_is_a_pdf_with_its_twin(summary: dict):
    for name in ("leaky", "decision", "clean"):
        assert (OUT / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        card = json.loads((OUT / f"{name}.json").read_text())
        assert {s["id"] for s in card["sections"]} >= {"intended-use", "data", "training", "not-tested", "cost"}
