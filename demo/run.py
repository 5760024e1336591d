"""``make demo``: four jobs the whole way, approval, permit, tampering, and the bundle verified offline."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay.errors import AssayError
from assay.identity import write_key
from assay.installation import DEFAULT_PEOPLE, Plan
from assay.modelfiles import read_base_manifest
from assay.pinned import assay_home
from assay.v1 import permit_pb2, tuning_job_pb2
from assay.worker.diagnosis import diagnose
from audit.verify.permit import check_permit
from audit.verify.trust import TrustFile
from demo import jobs as demo_jobs
from demo import summary
from demo.jobs import DemoJob
from demo.processes import MemoryWatch, ServicesEnded, free_ports, lacking, services
from gateway.cli.approval import decide_as
from gateway.cli.audit import export_bundle
from gateway.cli.dataset import upload_parts
from gateway.cli.errors import from_call
from gateway.cli.job_text import describe, detail
from gateway.cli.model import download_adapter, download_card
from gateway.cli.output import as_dict, console, safe
from gateway.cli.session import Session, open_session
from gateway.install import install
from gateway.kits import make_kit
from gateway.settings import Settings

HERE = Path(__file__).parent
OUT = HERE / "out"
STATE = HERE / "state"
State = tuning_job_pb2.TuningJob.State
BASE_MODEL = "smollm2-135m-instruct"
ENVIRONMENT = "staging-eu"


class Demo:
    """One run: an installation, its people, and what they see."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.address = address
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """Prints one line with the seconds since the start."""
        console.print(safe(f"[{time.monotonic() - self.started:6.1f} s] {text}"))

    @contextmanager
    def as_person(self, name: str) -> Iterator[Session]:
        """A session with that person's own certificate."""
        with open_session(self.directory / "people" / name, self.address) as session:
            yield session

    def submit(self, job: DemoJob) -> None:
        """Rita uploads the rows and asks for the job."""
        with self.as_person("rita") as rita:
            rita.datasets.UploadDataset(upload_parts(job.header(), job.file))
            rita.jobs.CreateTuningJob(job.request())
        self.say(f"{job.name}: submitted ({job.story})")

    def follow(self, job: DemoJob) -> tuning_job_pb2.TuningJob:
        """Prints the job's changes of state and progress until it rests."""
        shown, last = None, 0.0
        with self.as_person("rita") as rita:
            for event in rita.jobs.WatchTuningJob(tuning_job_pb2.WatchTuningJobRequest(name=job.resource)):
                now = event.tuning_job
                if now.state != shown:
                    self.say(f"{job.name}: {State.Name(now.state).removeprefix('STATE_')}")
                    shown, last = now.state, time.monotonic()
                elif time.monotonic() - last >= 10 and now.progress.stage:
                    self.say(f"{job.name}: {_progress(now.progress)}")
                    last = time.monotonic()
                if event.resting:
                    break
            return rita.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=job.resource)).tuning_job  # type: ignore[no-any-return]

    def run_all(self, wanted: Sequence[DemoJob]) -> dict[str, tuning_job_pb2.TuningJob]:
        """Submits every job, follows them side by side, returns them as they rest."""
        for job in wanted:
            self.submit(job)
        ended: dict[str, tuning_job_pb2.TuningJob] = {}
        errors: list[BaseException] = []

        def one(job: DemoJob) -> None:
            try:
                ended[job.name] = self.follow(job)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(job,), name=job.name) for job in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return ended

    def approve(self, job: DemoJob) -> None:
        """The maker tries and may not; two others read the card and sign with their own keys."""
        with self.as_person("rita") as rita:
            try:
                decide_as(rita, job.resource, grant=True, reason="it is my own job")
                raise RuntimeError("the maker's approval was accepted")
            except grpc.RpcError as error:
                self.say(f"rita, the maker, may not approve: {from_call(error).reason}")
            except AssayError as error:
                self.say(f"rita, the maker, may not approve: {error.reason}")
        for person in ("cora", "vik"):
            with self.as_person(person) as session:
                answer = decide_as(session, job.resource, grant=True, reason="card read; every limit met; scope agreed")
                state = State.Name(answer.tuning_job.state).removeprefix("STATE_")
                self.say(f"{person} signed; ledger index {answer.approval.record_index}; job {state}")

    def permit(self, job: DemoJob, trust: TrustFile) -> tuple[dict[str, str], str]:
        """Dana gets a permit and the adapter, checks both offline, then changes one byte and checks again."""
        model = job.resource.replace("/tuningJobs/", "/models/")
        with self.as_person("dana") as dana:
            request = permit_pb2.IssuePermitRequest(
                model=model, purpose=job.purpose, environment=ENVIRONMENT, valid_seconds=3600,
                request_id=job.request_id("permit"),
            )  # fmt: skip
            permit = dana.permits.IssuePermit(request).permit
            adapter = self.directory / "deployed" / job.name
            sha256 = download_adapter(dana, model, adapter)
        (OUT / "permit.json").write_text(json.dumps(as_dict(permit), indent=1) + "\n")
        base = assay_home() / "models" / BASE_MODEL / "files"
        results = {"clean": self._check(permit, adapter, base, job, trust)}
        self.say(f"permit check of the adapter as approved: {results['clean']}")
        tampered = self.directory / "deployed" / f"{job.name}-tampered"
        shutil.copytree(adapter, tampered)
        weights = tampered / "adapter_model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
        results["tampered"] = self._check(permit, tampered, base, job, trust)
        self.say(f"permit check after one byte of the weights changed: {results['tampered']}")
        return results, sha256

    def _check(self, permit: permit_pb2.Permit, adapter: Path, base: Path, job: DemoJob, trust: TrustFile) -> str:
        now = dt.datetime.now(dt.UTC)
        verdict = check_permit(as_dict(permit), adapter, base, job.purpose, ENVIRONMENT, now, trust)
        return "allowed" if verdict.allowed else f"refused: {verdict.reason}"

    def evidence(self) -> dict[str, Any]:
        """Anna exports the whole log; another process verifies it with nothing but the trust file."""
        bundle, trust = OUT / "evidence.bundle.zip", OUT / "trust.txt"
        with self.as_person("anna") as anna:
            export_bundle(anna, "units/-", [], bundle)
        command = [sys.executable, "-m", "audit.verify", str(bundle), "--trust", str(trust), "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the bundle did not verify: {done.stdout}{done.stderr}")
        report = json.loads(done.stdout)
        self.say(f"bundle verified offline: {report['verdict']}")
        return dict(report)

    def kit(self, job: DemoJob) -> None:
        """Whoever runs the installation seals a job's audit for an outside auditor, who can then do it again."""
        key = X25519PrivateKey.generate()
        write_key(OUT / "auditor.key", key)
        make_kit(Settings.load(self.directory), job.resource, key.public_key(), OUT / f"{job.name}.kit")
        self.say(f"the audit of {job.name} sealed for an outside auditor: {OUT / f'{job.name}.kit'}")


def main() -> None:
    """Runs the demonstration; exits non-zero when a step did not happen. Its services end with it, on SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    missing = lacking(diagnose())
    if missing:
        sys.exit(missing)
    try:
        _run()
    except ServicesEnded as error:
        sys.exit(f"{error}\nWhat this machine lacks: .venv/bin/assay doctor {STATE / 'bank'}")


def _run() -> None:
    for folder in (OUT, STATE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    started = time.monotonic()
    directory, port = STATE / "bank", free_ports(6)
    plan = Plan(people=DEFAULT_PEOPLE, operator="oscar")
    layout = install(directory, plan, units=["support", "credit", "compliance"], port=port)
    shutil.copyfile(layout.trust, OUT / "trust.txt")
    trust = TrustFile.parse(layout.trust.read_text("utf-8"))
    wanted = demo_jobs.prepare(STATE / "uploads")
    demo = Demo(directory, f"127.0.0.1:{port}")
    demo.say(f"installation in {directory}; base model {read_base_manifest(assay_home() / 'models' / BASE_MODEL).id}")
    with MemoryWatch() as memory, services(directory, demo.address, STATE / "services.log"):
        demo.say("gateway, witness and both workers are up; everything speaks mTLS")
        ended = demo.run_all(wanted)
        for job in wanted:
            console.rule(job.name, align="left")
            for line in describe(ended[job.name]):
                console.print(safe(line) if isinstance(line, str) else line)
        clean = next(job for job in wanted if job.name == "clean")
        permit_check = {"clean": "refused: not approved", "tampered": "refused: not approved"}
        if ended["clean"].state == State.STATE_AWAITING_APPROVAL:
            demo.approve(clean)
            permit_check, _ = demo.permit(clean, trust)
        outcomes = _outcomes(demo, wanted)
        report = demo.evidence()
        if ended["clean"].model:
            demo.kit(clean)
    summary.write(
        OUT / "summary.json",
        {
            "jobs": [o.as_dict() for o in outcomes],
            "permit_check": permit_check,
            "ledger": {"records": report["records"], "size": report["size"], "root": report["root"]},
            "peak_rss_mib": memory.peak_mib,
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    _finish(demo, outcomes)


def _outcomes(demo: Demo, wanted: Sequence[DemoJob]) -> list[summary.Outcome]:
    """Reads every job again as it stands at the end, and downloads the cards of those that have one."""
    out = []
    with demo.as_person("anna") as anna:
        for job in wanted:
            now = anna.jobs.GetTuningJob(tuning_job_pb2.GetTuningJobRequest(name=job.resource)).tuning_job
            adapter = ""
            if now.model:
                from assay.v1 import model_pb2

                adapter = anna.models.GetModel(model_pb2.GetModelRequest(name=now.model)).model.adapter_sha256
                download_card(anna, now.model, OUT / f"{job.name}.pdf")
                download_card(anna, now.model, OUT / f"{job.name}.json")
            out.append(summary.Outcome(job.name, now, adapter))
    return out


def _finish(demo: Demo, outcomes: Sequence[summary.Outcome]) -> None:
    console.rule("what happened", align="left")
    for outcome in outcomes:
        console.print(safe(f"{outcome.name:<10} {State.Name(outcome.job.state).removeprefix('STATE_')}"))
    if next(o for o in outcomes if o.name == "clean").job.state != State.STATE_APPROVED:
        console.print(
            "clean was not approved this time, since a gate of its audit did not pass: no permit was issued or tried.\n"
            "Canaries and keys are drawn anew in each run, so another may end otherwise; its card says what was seen."
        )
    demo.say("done")
    console.print(safe(f"PDF card         {OUT / 'clean.pdf'}"))
    console.print(safe(f"evidence bundle  {OUT / 'evidence.bundle.zip'}"))
    console.print(
        safe(f"verify it        .venv/bin/assay verify {OUT / 'evidence.bundle.zip'} --trust {OUT / 'trust.txt'}")
    )
    console.print(
        safe(
            f"audit it again   .venv/bin/assay audit reperform {OUT / 'clean.kit'} --key {OUT / 'auditor.key'} "
            f"--trust {OUT / 'trust.txt'} --bundle {OUT / 'evidence.bundle.zip'}"
        )
    )
    if State.STATE_FAILED in {o.job.state for o in outcomes}:
        sys.exit("a job FAILED: see demo/state/services.log")


def _progress(progress: tuning_job_pb2.Progress) -> str:
    parts = [progress.stage, f"{progress.step}/{progress.steps}" if progress.steps else "", detail(progress)]
    return " · ".join(p for p in parts if p)


if __name__ == "__main__":
    main()
