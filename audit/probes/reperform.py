"""Does an audit again from its sealed kit: ``python -m audit.probes.reperform KIT --key KEY --trust TRUST``.

The kit must be signed by the audit worker of the trust file, or with an evidence bundle by a key that followed it in
the log. With a bundle, the report in the kit must also be the one that the ledger names for the job, on the adapter and
the base model that were trained and permitted, and the verdict in it the ledger's, so that the numbers compared are
those that were judged; and what the audit was told of training, preparation and prices must be what the workers signed.
The adapter is checked as any other before a model library opens it; rows are read by the same code that read them
first, once they are those that the preparation committed to. Here numbers and the plan's gates are compared; ``assay
audit reperform`` then asks release policy again, which this room does not know.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import json_format

from assay import bundle, canonical, digests, dsse, provenance
from assay.errors import AssayError, IntegrityError
from assay.identity import load_x25519
from assay.key_events import ed25519_half
from assay.pinned import assay_home
from assay.reperformance import CAVEAT, FAIL, PASS, RELEASE_FILE, Line, counts
from assay.v1 import measurement_pb2
from assay.worker.task import TaskContext
from audit.ledger.evidence import Entry
from audit.probes import compare, inputs
from audit.verify import verify_bundle
from audit.verify.archive import open_bundle, read_file
from audit.verify.keys import AUDIT_WORKER, TRAIN_WORKER, KeyTable
from audit.verify.replay import replay
from audit.verify.report import STALE, VALID
from audit.verify.trust import TrustFile

KIND = "reperform-kit"
MAX_KIT = 16 << 30
_MEASURED = ("adapter_sha256", "base_sha256")
_BIND_PLAN = ("intake.decided", "training.ordered", "release.decided")
_OF_VERDICT = ("outcome", "input_sha256", "bundle_sha256", "limits_sha256", "as_of")


@dataclass(frozen=True)
class Opened:
    """An opened kit."""

    folder: Path
    job: str
    order: Mapping[str, Any]
    recorded: measurement_pb2.AuditReport
    report_sha256: str
    signer: Ed25519PublicKey


@dataclass(frozen=True)
class Evidence:
    """What a valid evidence bundle shows.

    Attributes:
        entries: its records.
        keys: which keys signed for whom, after the last key event in it.
    """

    entries: Sequence[Entry]
    keys: KeyTable

    @classmethod
    def read(cls, path: Path, trust: TrustFile) -> Evidence:
        """Verifies a bundle.

        Raises:
            IntegrityError: ``KIT_EVIDENCE``.
        """
        verdict = verify_bundle(path, trust, datetime.now(UTC)).verdict
        if verdict not in (VALID, STALE):
            raise IntegrityError("KIT_EVIDENCE", f"the evidence bundle is {verdict}; verify it by itself first")
        shown = open_bundle(read_file(path), trust.log)
        return cls(shown.entries, replay(shown.entries, shown.header, trust, frozenset()).keys)

    def of(self, job: str, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Index and predicate of every record of this type about a job."""
        for entry in self.entries:
            predicate = entry.record.statement.get("predicate", {})
            if entry.record.type == kind and predicate.get("job") == job:
                yield entry.index, predicate

    def audit_workers(self) -> list[Ed25519PublicKey]:
        """Every key that was the audit worker's, the first of the log first."""
        keys = [term.public.key for term in self.keys.terms[AUDIT_WORKER]]
        return [key for key in keys if isinstance(key, Ed25519PublicKey)]


def open_kit(kit: Path, key: Path, trust: TrustFile, into: Path, evidence: Evidence | None = None) -> Opened:
    """Opens a kit and checks who made it and that its report is the one it names.

    With ``evidence`` it may be signed by any key that was the audit worker's; :func:`check_evidence` then asks when.

    Raises:
        IntegrityError: a ``BUNDLE_`` reason, ``KIT_KIND`` or ``KIT_REPORT``.
    """
    known = [trust.audit_worker] if evidence is None else evidence.audit_workers()
    with kit.open("rb") as source:
        signer = bundle.claimed_signer(source, known)
        manifest = bundle.unseal(source, load_x25519(key), signer, into, max_bytes=MAX_KIT)
    if manifest.get("kind") != KIND:
        raise IntegrityError("KIT_KIND", "the sealed file is no re-performance kit")
    report = into / "report.json"
    sha256 = digests.sha256_file(report) if report.is_file() else ""
    if sha256 != manifest.get("report_sha256"):
        raise IntegrityError("KIT_REPORT", "the report in the kit is not the one that the kit names")
    recorded = json_format.Parse(report.read_text("utf-8"), measurement_pb2.AuditReport())
    return Opened(into, str(manifest["job"]), manifest["order"], recorded, sha256, signer)


def check_evidence(opened: Opened, evidence: Evidence) -> None:
    """Demands that the ledger names this report, order, adapter and base for the job, and the verdict in the kit.

    The plan and the preparation's claim, both in the order, commit to the rows, which the kit brings along: the audit
    compares them before it measures (:func:`audit.probes.inputs.check_commitments`). That the adapter in the kit is the
    one that the report names shows when the audit is done again: :mod:`audit.probes.compare` compares both.

    Raises:
        IntegrityError: ``KIT_EVIDENCE``; ``KIT_SIGNER`` for a kit by a key that was given up before the audit, or that
            the log says was in other hands.
    """
    job, sha256 = opened.job, opened.report_sha256
    audited = {index: p for index, p in evidence.of(job, "audit.completed") if p.get("report_sha256") == sha256}
    if not audited:
        raise IntegrityError("KIT_EVIDENCE", "the ledger names no such report for this job")
    _demand_signer(opened.signer, evidence.keys, min(audited))
    plan = digests.sha256_bytes(canonical.encode(opened.order["plan"]))
    bound = [p for kind in _BIND_PLAN for _, p in evidence.of(job, kind)]
    if not any(p.get("audit_plan_sha256") == plan for p in bound):
        raise IntegrityError("KIT_EVIDENCE", "the ledger names no such audit plan for this job")
    trained = [p for _, p in evidence.of(job, "training.completed")]
    named = [*trained, *(p for _, p in evidence.of(job, "permit.issued"))]
    measured = {member: opened.recorded.environment.get(member, "") for member in _MEASURED}
    if not trained or any(p.get(member) != measured[member] for p in named for member in _MEASURED):
        raise IntegrityError(
            "KIT_EVIDENCE", "the report is of another adapter or base model than the ledger names for this job"
        )
    _demand_order(opened, evidence, audited)
    release = opened.folder / RELEASE_FILE
    if release.is_file():
        mine = json.loads(release.read_text("utf-8"))["verdict"]
        judged = [
            p.get("verdict", {}) for _, p in evidence.of(job, "release.decided") if p.get("report_sha256") == sha256
        ]
        if not any(all(v.get(k) == mine.get(k) for k in _OF_VERDICT) for v in judged):
            raise IntegrityError("KIT_EVIDENCE", "the ledger names no such verdict for this report")


def _demand_order(opened: Opened, evidence: Evidence, audited: Mapping[int, Mapping[str, Any]]) -> None:
    """The kit's order is the one that the audit worker signed for, and says what the other statements say.

    The second is asked since a gateway could have told the auditor other things than were signed before.

    Raises:
        IntegrityError: ``KIT_EVIDENCE``.
    """
    prepared = _signed(evidence, AUDIT_WORKER, evidence.of(opened.job, "intake.decided"))
    trained = _signed(evidence, TRAIN_WORKER, evidence.of(opened.job, "training.completed"))
    signed = {"prepare": [s["predicate"] for s in prepared], "training": [provenance.read_training(s) for s in trained]}
    for member, said in signed.items():
        if opened.order.get(member) not in said:
            raise IntegrityError(
                "KIT_EVIDENCE", f"what the kit's order says under {member!r} is in no statement that the ledger holds"
            )
    order = digests.sha256_bytes(canonical.encode(dict(opened.order)))
    if order not in [s["predicate"].get("order_sha256") for s in _signed(evidence, AUDIT_WORKER, audited.items())]:
        raise IntegrityError(
            "KIT_EVIDENCE",
            "the order in the kit (plan, prices, quote, format) is not the one that the audit worker signed for",
            remedy="have the kit made by the release, and for a job of before prices were kept with the price book, "
            "that the audit ran under",
        )


def _signed(
    evidence: Evidence, worker: str, records: Iterable[tuple[int, Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    """A worker's statements in these records, by the key that held at each."""
    found = [(index, partial(dsse.verify_service, p["statement"])) for index, p in records if "statement" in p]
    return [evidence.keys.verified(worker, index, verify).statement for index, verify in found]


def rows_line(order: Mapping[str, Any], *, proven: bool) -> Line:
    """Whether the rows in the kit, which were compared by now, are all committed to.

    Args:
        order: the kit's.
        proven: a bundle has shown that the order names what was signed.
    """
    sha256, name = inputs.committed(order)[:16], "private rows"
    if sha256 and not proven:
        why = "the kit's own word for what the preparation committed to; --bundle compares it with what was signed"
        return Line(name, CAVEAT, why, sha256, sha256)
    if sha256:
        return Line(name, PASS, "the files that the preparation committed to before training", sha256, sha256)
    why = (
        "a release that committed to test rows, selection rows and canaries alone prepared this job: that the sampled "
        "train rows, identifiers and groups are those that were audited is the word of who made the kit"
    )
    return Line(name, CAVEAT, why, "no digest", "no digest")


def _demand_signer(signer: Ed25519PublicKey, keys: KeyTable, audited: int) -> None:
    """A kit has no place in the log: its key held when the audit was recorded, or came later, and was not stolen."""
    term = keys.find(AUDIT_WORKER, ed25519_half(signer).keyid)
    if term is None or (term.end is not None and term.end <= audited):
        raise IntegrityError("KIT_SIGNER", "the kit is signed by a key that was not the audit worker's any more")
    if term.compromised is not None:
        remedy = "ask for a kit that is signed by the key that followed"
        raise IntegrityError(
            "KIT_SIGNER", f"record {term.compromised} says that the kit's key was in other hands", remedy=remedy
        )


def repeat(opened: Opened, models: Path, folder: Path) -> measurement_pb2.AuditReport:
    """Runs the audit again without a time limit, with as many threads as the record says.

    Raises:
        AssayError: whatever an audit raises.
    """
    threads = opened.recorded.environment.get("threads", "")
    if threads.isdigit():
        os.environ["OMP_NUM_THREADS"] = threads
    # Deferred: the model libraries read the number of threads when they are imported.
    import torch

    from audit.probes import task

    if threads.isdigit():
        torch.set_num_threads(int(threads))
    order = {**opened.order, "plan": {**opened.order["plan"], "time_limit_seconds": 0}}
    for name in ("outputs", "work"):
        (folder / name).mkdir()
    context = TaskContext(
        task_id="reperform",
        kind="audit",
        order=order,
        inputs=opened.folder / "inputs",
        outputs=folder / "outputs",
        work=folder / "work",
        models=models,
        secret=b"",
        pause_flag=folder / "pause",
        send=_progress,
    )
    task.run(context)
    return json_format.Parse((folder / "outputs" / task.REPORT).read_text("utf-8"), measurement_pb2.AuditReport())


def run(
    kit: Path, key: Path, trust: TrustFile, models: Path, evidence: Path | None = None, work: Path | None = None
) -> list[Line]:
    """Opens a kit, does its audit again and compares.

    Args:
        kit: the sealed kit.
        key: the auditor's.
        trust: who may have signed it.
        models: folder of installed base models.
        evidence: bundle that must name its report.
        work: empty folder in which the opened kit (``kit``) and the new report (``outputs``) are left; None leaves
            nothing.

    Raises:
        AssayError: the kit cannot be opened, is not the recorded audit's, or the audit cannot run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        shown = Evidence.read(evidence, trust) if evidence is not None else None
        opened = open_kit(kit, key, trust, folder / "kit", shown)
        if shown is not None:
            check_evidence(opened, shown)
        again = repeat(opened, models, folder)
        plan = json_format.ParseDict(opened.order["plan"], measurement_pb2.AuditPlan(), ignore_unknown_fields=True)
        return [rows_line(opened.order, proven=shown is not None), *compare.compare(plan, opened.recorded, again)]


def _progress(line: bytes) -> None:
    told = json.loads(line)
    sys.stderr.write(f"{told.get('step', 0)}/{told.get('steps', 0)} {told.get('message', '')}\n")


def main() -> int:
    """Prints a line a number; 1 when one failed, 3 when the kit could not be used."""
    parser = argparse.ArgumentParser(description="Do an audit again from its sealed kit.")
    parser.add_argument("kit", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--models", type=Path, default=assay_home() / "models")
    parser.add_argument("--work", type=Path, help="empty folder to leave the opened kit and the new report in")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    try:
        trust = TrustFile.load(options.trust)
        lines = run(options.kit, options.key, trust, options.models, options.bundle, options.work)
    except AssayError as error:
        sys.stderr.write(f"{error.reason}: {error.message}\n" + (f"  {error.remedy}\n" if error.remedy else ""))
        return 3
    found = counts(lines)
    if options.output == "json":
        print(json.dumps({"counts": found, "numbers": [asdict(line) for line in lines]}, indent=1))
    else:
        for line in lines:
            print(f"{line.answer:<7}{line.name}  {line.recorded} | {line.again}  ({line.reason})")
        print("  ".join(f"{answer} {count}" for answer, count in found.items()))
    return 1 if found[FAIL] else 0


if __name__ == "__main__":
    raise SystemExit(main())
