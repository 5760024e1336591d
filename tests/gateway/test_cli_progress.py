"""What a person who follows a job on a terminal sees of training and of the audit; e2e draws upload and intake."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from rich.console import Console

from assay.v1 import tuning_job_pb2 as pb
from gateway.cli import job as command

NAME = "units/credit/tuningJobs/first"
State = pb.TuningJob


def event(state: int, stage: str, step: int, steps: int, *, resting: bool = False, **more: object) -> object:
    progress = pb.Progress(stage=stage, step=step, steps=steps, **more)
    return pb.WatchTuningJobResponse(
        tuning_job=pb.TuningJob(name=NAME, state=state, progress=progress), resting=resting
    )


def watched(request: pb.WatchTuningJobRequest) -> Iterator[object]:
    assert request.name == NAME
    metrics = {"loss": 1.25, "tokens_per_s": 321.0}
    meter = pb.Meter(wall_ms=41_200, energy_uwh=120_000, energy_method="modelled: 10 W per busy core")
    told = {"metrics": metrics, "message": "epoch 1", "seconds_left": 58, "meter": meter, "flop": 8e12}
    yield event(State.STATE_TRAINING, "train", 17, 68, **told)
    yield event(State.STATE_AUDITING, "audit", 12, 24, message="completing identifiers", seconds_left=21)
    yield event(State.STATE_AWAITING_APPROVAL, "", 0, 0, resting=True)
    raise AssertionError("it goes on after the job rests")


@pytest.mark.parametrize("quiet", [False, True])
def test_training_and_audit_have_a_bar_with_what_is_left(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    out = io.StringIO()
    monkeypatch.setattr(command, "progress_console", Console(file=out, force_terminal=True, width=180))
    ended = pb.GetTuningJobResponse(tuning_job=pb.TuningJob(name=NAME, state=State.STATE_AWAITING_APPROVAL))
    jobs = SimpleNamespace(WatchTuningJob=watched, GetTuningJob=lambda request: ended)
    job = command.follow(SimpleNamespace(jobs=jobs), NAME, quiet=quiet)  # type: ignore[arg-type]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert job.state == State.STATE_AWAITING_APPROVAL
    if quiet:
        assert shown == ""
        return
    assert re.search(r"TRAINING train\s+━.*25% epoch 1 · loss 1.250 · 321 tokens/s · 58 s left · 8.0e\+12 FLOP", shown)
    assert "41 s metered, 0.12 Wh modelled" in shown, shown
    assert re.search(r"AUDITING audit\s+━.*50% completing identifiers · 21 s left", shown), shown
    assert "AWAITING_APPROVAL" in shown
