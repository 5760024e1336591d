"""What ``assay job get`` tells people of the labels by group."""

from __future__ import annotations

from rich.console import Console

from assay.v1 import policy_input_pb2, tuning_job_pb2
from gateway.cli.job_text import describe

GROUPS = [
    policy_input_pb2.GroupLabels(attribute="race", value="asian", inconclusive="fewer than 10 rows"),
    policy_input_pb2.GroupLabels(
        attribute="race", value="black", rows=197, favourable=121, rate=0.614, rate_lower=0.545, rate_upper=0.679,
        class_imbalance=0.79, label_difference=0.283, label_difference_lower=0.216, label_difference_upper=0.353,
        impact_ratio=0.685, impact_ratio_lower=0.608, impact_ratio_upper=0.758,
    ),
    policy_input_pb2.GroupLabels(
        attribute="race", value="white", rows=1680, favourable=1507, rate=0.897, rate_lower=0.882, rate_upper=0.911,
        reference=True,
    ),
]  # fmt: skip


def shown(job: tuning_job_pb2.TuningJob) -> list[str]:
    console = Console(width=180)
    with console.capture() as text:
        for item in describe(job):
            console.print(item)
    return text.get().splitlines()


def test_people_see_the_labels_of_each_group_beside_the_reference() -> None:
    job = tuning_job_pb2.TuningJob(name="units/u/tuningJobs/j", state="STATE_APPROVED")
    assert not any("Labels" in line for line in shown(job))
    job.data.favourable_label = "approve"
    job.data.group_labels.extend(GROUPS)
    lines = shown(job)
    assert any("favourable is approve" in line for line in lines)
    asian, black, white = (next(line for line in lines if f"race={v}" in line) for v in ("asian", "black", "white"))
    assert "inconclusive: fewer than 10 rows" in asian and "[" not in asian and "0" not in asian.replace("10 rows", "")
    assert all(s in black for s in ("0.790", "0.283 [0.216, 0.353]", "0.685 [0.608, 0.758]"))
    assert "1,507" in white and "reference" in white


def test_people_see_what_use_was_declared_and_which_packs_were_not_asked() -> None:
    job = tuning_job_pb2.TuningJob(name="units/u/tuningJobs/j", state="STATE_AWAITING_APPROVAL")
    assert "  declared use: none" in [line.rstrip() for line in shown(job)]
    job.use.jurisdictions.extend(["US"])
    job.use.risk_tier, job.use.own_brand = "limited", False
    job.use.artefacts.add(kind="DPIA", sha256="0" * 64)
    read = job.decision.use_reading
    read.places.extend(["US"])
    read.uses.extend(["credit"])
    read.decides, read.high_risk_by = True, "credit (Annex III(5)(b))"
    read.packs.extend(["baseline"])
    read.packs_not_chosen.extend(["eu-ai-act", "gdpr"])
    lines = [line.rstrip() for line in shown(job)]
    assert "  declared use: jurisdictions US; risk tier limited; own brand no; artefacts DPIA" in lines
    assert "  packs asked: baseline; not chosen: eu-ai-act, gdpr" in lines
    (said,) = (line for line in lines if line.startswith("  read as:"))
    assert "places US; uses credit; decides about people; high-risk by credit (Annex III(5)(b))" in said


def test_people_see_by_which_profile_a_model_is_audited() -> None:
    job = tuning_job_pb2.TuningJob(name="units/u/tuningJobs/j", state="STATE_AWAITING_APPROVAL")
    assert not any("profile" in line for line in shown(job))
    job.audit_profile = "quick"
    assert "  audit profile quick" in [line.rstrip() for line in shown(job)]
