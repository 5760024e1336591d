"""``python -m benchmarks.zoo.run`` (``make zoo``): submits one ordinary job a cell and notes what became of it.

Stop it at any time; it goes on where it was, since the installation keeps its jobs and a finished cell is a line of
``cells.jsonl``, with what policy was asked about it in ``questions``. Every cell of the state folder's gateway goes the
whole way: upload, intake, training, audit, verdict. An installation is of one policy and one state of the
code; under another, jobs begin anew. A cell that was refused at intake or that failed has one of another seed in its
place, a few times a fault.

``--together 2`` runs two cells at a time, with half of the cores each: a step of a small model does not fill two cores.
``--pilot KEY`` runs one cell of a seed that is never counted, such as ``--pilot bias-40pc``, and prints what its gates
said; what it leaves lies in the state folder. Run the zoo from a checkout that nobody changes meanwhile: its tasks read
their code there, and a cell notes no more of it than the commit and a digest.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import os
import platform
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay import digests, processor
from assay.identity import Layout
from assay.installation import DEFAULT_PEOPLE, Plan
from assay.v1 import dataset_pb2, policy_input_pb2, tuning_job_pb2
from benchmarks.zoo import report
from benchmarks.zoo.data import Upload, upload
from benchmarks.zoo.faults import Cell, cells, pilot
from demo.data import BASE_MODEL
from demo.processes import free_ports
from gateway.cli.dataset import upload_parts
from gateway.cli.session import Session, open_session
from gateway.history import decided
from gateway.install import install
from policies.engine import PolicyEngine

HERE = Path(__file__).parent
STATE = Path.home() / ".cache" / "assay" / "zoo"
State = tuning_job_pb2.TuningJob.State
_DECIDING = ("assay", "audit/prepare", "audit/probes", "audit/statistics", "trainer")
_ROWS = (
    *(f"benchmarks/zoo/{name}.py" for name in ("faults", "data", "bad_trainer", "patient_audit")),
    "demo/data.py",
    "demo/texts.py",
)
_SPACE = uuid.UUID("b6c7fd0c-3f0e-4b8a-9b57-3e6f0f6d2a11")


def main() -> None:
    """Runs the cells that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=STATE, help="folder of the installation")
    parser.add_argument("--most", type=int, default=0, help="stop after so many cells; 0 for none")
    parser.add_argument("--together", type=int, default=1, help="cells at a time, which share the cores")
    parser.add_argument("--pilot", nargs="*", metavar="KEY", help="cells that are not counted; every fault without KEY")
    options = parser.parse_args()
    trial = None if options.pilot is None else list(pilot(options.pilot))
    # A sandbox shows its task all of this package: nothing that is private may lie in it.
    kept = report.Kept(HERE) if trial is None else report.Kept(options.state / "pilot")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services are ended too
    engine = PolicyEngine.load()
    # Another policy or other code would plan or measure jobs of the same name otherwise: they begin anew.
    name = f"bank-{engine.pack.bundle_sha256[:12]}-{_code()}" + (f"-{options.together}" if options.together > 1 else "")
    directory, port = options.state / name, _port(options.state)
    if not (directory / "client").exists() and not Layout(directory).settings.exists():
        plan = Plan(people=DEFAULT_PEOPLE, operator="oscar")
        share(install(directory, plan, units=["zoo"], port=port), options.together)
    address, uploads = f"127.0.0.1:{port}", options.state / "uploads"
    pool = ThreadPoolExecutor(options.together)
    try:
        with services(directory, address, options.state / "services.log") as serving:
            tried: set[str] = set()
            # Again for the cells that take the place of those that were lost; each is tried once a run.
            while todo := remaining(report.judge(kept, engine).cells, tried, options.most, trial):
                tried |= {cell.job for cell in todo}
                running = {pool.submit(one, cell, directory, address, uploads, kept): cell for cell in todo}
                for future in as_completed(running):
                    try:
                        line = future.result()
                    except Exception as error:  # one call that fails must not end hours of others
                        print(f"{running[future].job}: not done, {type(error).__name__}: {error}", flush=True)
                        if any(process.poll() is not None for process in serving):
                            raise
                        continue
                    kept.add(line)
                    print(f"{line['job']}: {line['state']} {line['reason']}", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if trial is not None:
        print(json.dumps([said(cell) for cell in report.judge(kept, engine).cells], indent=1))


def said(cell: dict[str, Any]) -> dict[str, Any]:
    """What a pilot shows of a cell."""
    return {name: cell[name] for name in ("job", "state", "failed", "fired", "measured", "seconds") if name in cell}


def remaining(
    judged: Sequence[dict[str, Any]], tried: Collection[str], most: int = 0, trial: Sequence[Cell] | None = None
) -> list[Cell]:
    """Cells that are not done and were not tried, in running order.

    Args:
        judged: cells that are done.
        tried: jobs of this run.
        most: cells of a run; 0 for no limit.
        trial: cells of a pilot, instead of those that are counted.
    """
    done = {cell["job"] for cell in judged} | set(tried)
    lost = {cell["job"] for cell in judged if cell["state"] in report.LOST}
    todo = [cell for cell in (cells(lost) if trial is None else trial) if cell.job not in done]
    return todo[: max(0, most - len(tried))] if most else todo


def share(layout: Layout, together: int) -> None:
    """Lets so many tasks run at once, each with an equal part of the cores."""
    workers = [layout.service(name) / "worker.toml" for name in ("train-worker", "audit-worker")]
    for path in (layout.settings, *workers):
        text = path.read_text("utf-8").replace("slots = 1", f"slots = {together}")
        threads = f"threads = {max(1, (os.cpu_count() or 1) // together)}\n" if path in workers and together > 1 else ""
        path.write_text(threads + text, "utf-8")


def one(cell: Cell, directory: Path, address: str, uploads: Path, kept: report.Kept) -> dict[str, Any]:
    """Submits a cell's job, or finds it again, and follows it until it rests."""
    started = time.monotonic()
    made = upload(cell)
    uploads.mkdir(parents=True, exist_ok=True)
    file = uploads / f"{cell.job}.data"
    file.write_bytes(made.content)
    with open_session(directory / "people" / "rita", address) as rita:
        _submit(rita, cell, made, file)
        name = f"units/zoo/tuningJobs/{cell.job}"
        for event in rita.jobs.WatchTuningJob(tuning_job_pb2.WatchTuningJobRequest(name=name)):
            if event.resting:
                break
        job = rita.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=name)).tuning_job
    file.unlink()
    intake, release = policy_input_pb2.IntakeInput(), policy_input_pb2.ReleaseInput()
    for past in decided(directory):
        if past.name == name:
            if isinstance(past.question, policy_input_pb2.IntakeInput):
                intake.CopyFrom(past.question)
            else:
                release.CopyFrom(past.question)
    if release.measurements:
        kept.keep(cell.job, intake, release)
    found = processor.read()
    return {
        "job": cell.job,
        "fault": cell.fault.name,
        "strength": cell.fault.strength,
        "seed": cell.seed,
        "state": State.Name(job.state).removeprefix("STATE_"),
        "reason": job.reason[:200],
        "seconds": round(time.monotonic() - started, 1),
        "day": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _commit(),
        "code": _code(),
        "processor": f"{found.get('model name', platform.machine())}, {processor.fastest_format(found)}",
    }


@functools.cache
def _commit() -> str:
    """What the cells of this run are made and measured by; empty where that is no checkout."""
    asked = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


@functools.cache
def _code() -> str:
    """Digest of the code that decides what a cell's model is and what is measured of it, as it lies on disk."""
    parts = [path for folder in _DECIDING for path in (report.ROOT / folder).rglob("*.py")]
    parts += [report.ROOT / name for name in _ROWS]
    made = sorted((str(path.relative_to(report.ROOT)), digests.sha256_file(path)) for path in parts)
    return digests.sha256_bytes(json.dumps(made).encode())[:12]


def _submit(rita: Session, cell: Cell, made: Upload, file: Path) -> None:
    """Uploads and asks; both are idempotent by their request id, so a restart finds what is there."""
    parent = "units/zoo"

    def key(what: str) -> str:
        return str(uuid.uuid5(_SPACE, f"{cell.job}/{what}"))

    header = dataset_pb2.UploadDatasetHeader(
        parent=parent,
        dataset_id=f"{cell.job}-rows",
        format=made.format,
        datasheet=json_format.ParseDict(made.datasheet, dataset_pb2.Datasheet()),
        request_id=key("dataset"),
    )
    rita.datasets.UploadDataset(upload_parts(header, file))
    request = json_format.ParseDict(
        {
            "parent": parent,
            "tuning_job_id": cell.job,
            "dataset": f"{parent}/datasets/{cell.job}-rows",
            "request_id": key("job"),
            "base_model": BASE_MODEL,
            "purpose": made.purpose,
            "method": "lora",
            "hyperparameters": {
                "epochs": cell.fault.epochs, "learning_rate": cell.fault.learning_rate, "batch_size": 8,
                "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "seed": cell.seed, "max_row_tokens": 512,
            },
            "budget": {"max_usd_micros": 50_000_000, "max_train_tokens": 200_000},
            "audit_profile": cell.fault.profile,
        },
        tuning_job_pb2.CreateTuningJobRequest(),
    )  # fmt: skip
    rita.jobs.CreateTuningJob(request)


@contextmanager
def services(directory: Path, address: str, log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Gateway and witness of the product, and the zoo's two workers, until the block ends."""
    layout = Layout(directory)
    commands = [
        ["-m", "audit.ledger.witness", str(layout.witness)],
        *(
            ["-m", "benchmarks.zoo.worker", "--dir", str(layout.service(name))]
            for name in ("train-worker", "audit-worker")
        ),
        ["-m", "gateway.rpc", str(directory)],
    ]
    with log.open("ab") as stream:
        running = [subprocess.Popen([sys.executable, *c], stdout=stream, stderr=subprocess.STDOUT) for c in commands]
    try:
        _await(directory, address, running)
        yield running
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _await(directory: Path, address: str, running: list[subprocess.Popen[bytes]], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and all(p.poll() is None for p in running):
        try:
            with open_session(directory / "people" / "rita", address) as rita:
                rita.jobs.ListTuningJobs(tuning_job_pb2.ListTuningJobsRequest(parent="units/zoo"))
            return
        except Exception:
            time.sleep(1.0)
    raise RuntimeError("the zoo's services did not start; see services.log in the state folder")


def _port(state: Path) -> int:
    """The first of six ports; kept, since the installation names them."""
    state.mkdir(parents=True, exist_ok=True)
    path = state / "port"
    if not path.exists():
        path.write_text(str(free_ports(6)))
    return int(path.read_text())


if __name__ == "__main__":
    main()
