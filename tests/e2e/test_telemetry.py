"""A running installation seen by its operators: one trace a job, metrics to scrape, logs without a row's content."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import Any

from e2e_world import Bank, State, chat_rows

from gateway.settings import Settings


def test_trace_metrics_and_logs_of_a_real_call(bank: Bank):
    marked = chat_rows(30).replace(b"carpet", b"jane.roe@example.com")
    bank.upload("telemetry", marked)
    job = bank.rest(bank.create("telemetry", "telemetry").name)
    assert job.state == State.STATE_DENIED
    received = bank.records(job.name)[0]["statement"]["predicate"]["trace_id"]

    spans = bank.layout.service("gateway") / "telemetry" / "spans.jsonl"
    end, names = time.monotonic() + 60, set[str]()
    while time.monotonic() < end and "job.preparing" not in names:
        time.sleep(0.2)
        lines = [json.loads(line) for line in spans.read_text().splitlines() if line.endswith("}")]
        names = {s["name"] for s in lines if s["trace_id"] == received}
    assert names >= {"/assay.v1.TuningJobService/CreateTuningJob", "job.received", "job.preparing"}
    [created] = [s for s in lines if s["trace_id"] == received and s["name"].endswith("/CreateTuningJob")]
    assert created["parent_id"], "the trace began at the client"
    tasks = bank.layout.service("audit-worker") / "telemetry" / "spans.jsonl"
    found: list[dict[str, Any]] = []
    while time.monotonic() < end and not found:
        time.sleep(0.2)
        lines = [json.loads(line) for line in tasks.read_text().splitlines() if line.endswith("}")]
        found = [s for s in lines if s["trace_id"] == received and s["name"] == "worker.task"]
    assert found[0]["attributes"]["assay.kind"] == "prepare"

    address = Settings.load(bank.layout.root).metrics
    page = ""
    while time.monotonic() < end and not re.search(r'^assay_jobs\{[^}]*state="DENIED"', page, re.M):
        time.sleep(0.2)  # the gauges are sampled every few seconds
        page = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
    assert re.search(r'^assay_jobs\{[^}]*state="DENIED"', page, re.M) and "assay_rpc_calls_total" in page

    for text in (bank.log.read_text("utf-8", "replace"), spans.read_text(), tasks.read_text(), page):
        assert "jane" not in text and "shelf" not in text
