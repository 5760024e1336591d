"""The demo tells of a stage what the command line tells."""

from __future__ import annotations

from assay.v1 import tuning_job_pb2
from demo.run import _progress
from gateway.cli.job_text import detail


def test_a_line_of_progress_has_stage_steps_and_what_the_command_line_tells() -> None:
    meter = tuning_job_pb2.Meter(wall_ms=41_200, energy_uwh=120_000, energy_method="modelled: 10 W per busy core")
    now = tuning_job_pb2.Progress(stage="train", step=17, steps=68, metrics={"loss": 1.25}, meter=meter, flop=8e12)
    assert _progress(now) == f"train · 17/68 · {detail(now)}" and "8.0e+12 FLOP" in detail(now)
    assert _progress(tuning_job_pb2.Progress(stage="intake")) == "intake"
