"""The gateway killed with SIGKILL right before and after every commit that moves a job, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from assay.identity import Layout
from assay.v1 import dataset_pb2
from assay.v1 import tuning_job_pb2 as pb
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.application import Application
from gateway.settings import Settings
from policies.engine import PolicyEngine
from tests.gateway.conftest import House, messages, now
from tests.gateway.judged import decide
from tests.gateway.test_evidence import export
from tests.gateway.test_pipeline import CLEAN, NAME, SHEET
from tests.gateway.workers import Workers, python_path, rows


@pytest.fixture
def postgres_url(either_database_slowly: str) -> str:
    return either_database_slowly


pytestmark = pytest.mark.isolation
SCRIPT = Path(__file__).parent / "tiny_gateway.py"
ON_THE_WAY = (
    "job.preparing", "intake.decided", "training.ordered", "training.completed", "release.decided", "card.rendered",
)  # fmt: skip
MOVES = (
    ("RECEIVED", "PREPARING", "job.preparing"), ("PREPARING", "QUEUED", "intake.decided"),
    ("QUEUED", "TRAINING", "training.ordered"), ("TRAINING", "AUDITING", "training.completed"),
    ("AUDITING", "AWAITING_APPROVAL", "release.decided"), ("PREPARING", "DENIED", "intake.decided"),
    ("AUDITING", "QUARANTINED", "release.decided"), ("TRAINING", "FAILED", "job.failed"),
)  # fmt: skip
"""Every change of state that the kills below meet, with its record."""


@contextlib.asynccontextmanager
async def at_home(layout: Layout, engine: PolicyEngine) -> AsyncIterator[House]:
    house = House(Application.open(Settings.load(layout.root), engine), layout)
    yield house
    await house.app.close()


async def gateway(layout: Layout, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(layout.root), *arguments, env=python_path()
    )
    try:
        return await asyncio.wait_for(process.wait(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(house: House, **behaviour: object) -> None:
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="rows", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=SHEET,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    rita = await house.caller("rita")
    await house.app.datasets.upload_dataset(rita, messages(header, [rows(**behaviour)]))
    await house.app.jobs.create_tuning_job(rita, house.request())


@pytest.mark.slow
async def test_a_clean_job_survives_a_kill_at_every_commit(
    workers: Workers, engine: PolicyEngine, tmp_path: Path
) -> None:
    async with at_home(workers.layout, engine) as house:
        await ask(house)
    for record in ON_THE_WAY:
        for when in ("before", "after"):
            assert await gateway(workers.layout, f"{record}:{when}") == -9, f"{record}:{when} was never reached"
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME) == CLEAN
        job = (
            await house.app.jobs.get_tuning_job(await house.caller("rita"), pb.GetTuningJobRequest(name=NAME))
        ).tuning_job
        assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL
        assert [t.version for t in job.transitions] == [1, 2, 3, 4, 5, 6]
        # Each task ran to its end exactly once, whatever became of the gateway.
        states = [json.loads(p.read_text()) for p in workers.layout.root.glob("services/*-worker/spool/*/state.json")]
        assert [(s["state"], s["attempts"], s["released"]) for s in states] == [("DONE", 1, True)] * 3
        await decide(house, "cora", "compliance_officer")
        await decide(house, "vik", "validator")
        path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
        report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
        assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


@pytest.mark.parametrize(
    ("behaviour", "record", "state"),
    [
        pytest.param({"prepare": "empty"}, "intake.decided", "DENIED", marks=pytest.mark.slow),
        pytest.param({"train": "fault"}, "job.failed", "FAILED", marks=pytest.mark.slow),
        ({"audit": "leaky"}, "release.decided", "QUARANTINED"),
    ],
)
async def test_other_ends_survive_it_too(
    workers: Workers, engine: PolicyEngine, behaviour: dict[str, str], record: str, state: str
) -> None:
    async with at_home(workers.layout, engine) as house:
        await ask(house, **behaviour)
    for when in ("before", "after"):
        assert await gateway(workers.layout, f"{record}:{when}") == -9
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        job = (
            await house.app.jobs.get_tuning_job(await house.caller("rita"), pb.GetTuningJobRequest(name=NAME))
        ).tuning_job
        assert pb.TuningJob.State.Name(job.state) == f"STATE_{state}"
        types = house.types(NAME)
        assert len(types) == len(set(types))


async def test_a_card_that_could_not_be_issued_is_issued_by_the_pipeline(
    workers: Workers, engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.admission.cards import CardOffice
    from gateway.store import jobs

    async with at_home(workers.layout, engine) as house:
        await ask(house)
    assert await gateway(workers.layout) == 0

    async def broken(self: object, job: str) -> None:
        raise OSError("the disk is full")

    async with at_home(workers.layout, engine) as house:
        await decide(house, "cora", "compliance_officer")
        with monkeypatch.context() as patch:
            patch.setattr(CardOffice, "issue", broken)
            answer = await decide(house, "vik", "validator")
        assert answer.tuning_job.state == pb.TuningJob.STATE_APPROVED
        assert house.types(NAME)[-1] == "job.approved"
        await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"next_us": 0}))
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME)[-2:] == ["job.approved", "card.issued"]
