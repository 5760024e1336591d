"""What a bundle may hold: refused before it is made where it would hold more, and made in little memory."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from assay.errors import ExhaustedError
from audit.ledger import bundle, evidence
from audit.ledger.ledger import Ledger
from audit.ledger.records import REFUSALS_UNIT, RecordDraft
from audit.verify.report import Report
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import CARD_PDF, JOB, START, Story, World

REFUSAL = {"actor": "spiffe://assay.local/people/mallory", "trace_id": "", "method": "X", "code": "NOT_FOUND",
           "reason": "NOT_FOUND", "fields": [], "surplus": 0}  # fmt: skip


pytestmark = pytest.mark.usefixtures("ledger_database")


def refuse_calls(world: World, count: int, unit: str = REFUSALS_UNIT) -> None:
    """Refused calls; of unit ``system`` as earlier builds recorded them."""

    def work(uow: Any) -> None:
        for _ in range(count):
            uow.append(RecordDraft(unit, "request.refused", "refusal", REFUSAL))

    world.ledger.run(work)


def verified(world: World, data: bytes) -> Report:
    return verify_bytes(data, world.trust, START)


def refusal(export: Callable[[], object]) -> ExhaustedError:
    with pytest.raises(ExhaustedError) as caught:
        export()
    assert caught.value.reason == "BUNDLE_TOO_LARGE"
    return caught.value


@pytest.mark.parametrize("scope", [{"jobs": [JOB]}, {"unit": "credit"}])
def test_refused_calls_are_in_no_bundle_of_a_unit_or_a_job(world: World, scope: dict[str, Any]) -> None:
    Story(world).whole()
    refuse_calls(world, 300)
    report = verified(world, world.export(**scope))
    assert (report.verdict, report.records) == ("valid", 21)
    assert not any("left out" in line for line in report.not_checked)


@pytest.mark.parametrize("unit", [REFUSALS_UNIT, "system"])
@pytest.mark.parametrize("scope", [{"jobs": [JOB]}, {"unit": "credit"}, {}])
def test_refused_calls_alone_keep_nothing_from_being_exported(
    world: World, monkeypatch: pytest.MonkeyPatch, unit: str, scope: dict[str, Any]
) -> None:
    """Also those that earlier builds recorded among the installation's own records, which unit and job rest on."""
    monkeypatch.setattr(bundle, "MAX_RECORDS", 25)
    Story(world).found()
    refuse_calls(world, 2, unit)
    Story(world).ask().decide().train().audit().release()
    refuse_calls(world, 2, unit)
    Story(world).grant("mallory", "ROLE_AUDITOR", "credit")
    out = io.BytesIO()
    exported = bundle.export(world.ledger, out, policy_text=f"log {world.ledger.vkey}\nquorum none\n", **scope)
    report = verified(world, out.getvalue())
    assert (report.verdict, report.records) == ("valid", 22)
    left_out = not scope or unit == "system"
    assert exported.without_refusals == left_out
    assert report.scope == ("selection" if left_out or "jobs" in scope else "unit")
    assert any("in the chains of system" in line for line in report.not_checked) == (unit == "system")


@pytest.mark.parametrize(
    ("cap", "most"), [("MAX_ENTRIES", 60), ("MAX_BYTES", 100_000), ("MAX_VALUES", 0)], ids=["files", "bytes", "values"]
)
@pytest.mark.parametrize("unit", [REFUSALS_UNIT, "system"])
def test_refused_calls_are_left_out_for_whatever_there_is_too_much_of(
    world: World, monkeypatch: pytest.MonkeyPatch, unit: str, cap: str, most: int
) -> None:
    """Documents are asked for anew, whatever became of them at the first try."""
    Story(world).whole()
    bare = evidence.read_zip(world.export())
    values = evidence.values_in(body for path, body in bare.items() if path.startswith("records/"))
    refuse_calls(world, 40, unit)
    monkeypatch.setattr(evidence, cap, most or values + 3)
    out, policy = io.BytesIO(), f"log {world.ledger.vkey}\nquorum none\n"
    documents = [("card.pdf", CARD_PDF)]
    exported = bundle.export(world.ledger, out, policy_text=policy, attachments=lambda: iter(documents))
    report = verified(world, out.getvalue())
    assert (report.verdict, report.scope, report.records) == ("valid", "selection", 21)
    assert (exported.without_refusals, exported.without_documents) == (True, ())
    assert evidence.read_zip(out.getvalue())["attachments/card.pdf"] == CARD_PDF


def test_a_job_of_the_installations_own_chain_shows_no_record_twice(world: World) -> None:
    Story(world).found()
    report = verified(world, world.export(jobs=["units/system/tuningJobs/x"]))
    assert (report.verdict, report.records) == ("valid", len(world.ledger.records("system")))


@pytest.mark.parametrize(
    ("scope", "remedy"),
    [
        ({"jobs": [JOB]}, "name fewer jobs"),
        ({"unit": "credit"}, "--job"),
        ({}, "export by unit"),
        ({"unit": REFUSALS_UNIT}, "`assay audit records`"),
    ],
)
def test_too_many_records_are_refused_before_one_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch, scope: dict[str, Any], remedy: str
) -> None:
    Story(world).whole()
    refuse_calls(world, 20)
    monkeypatch.setattr(bundle, "MAX_RECORDS", 12)
    monkeypatch.setattr(Ledger, "records_at", None)
    error = refusal(lambda: world.export(**scope))
    assert "more than 12 records" in error.message and remedy in error.remedy


@pytest.mark.parametrize(
    ("cap", "most", "said"),
    [
        ("MAX_BYTES", 10_000, "bytes of records"),
        ("MAX_BYTES", 40_000, "more than 40000 bytes,"),
        ("MAX_ENTRIES", 40, "more than 40 files"),
        ("MAX_VALUES", 300, "more than 300 values"),
    ],
)
def test_nothing_is_written_that_the_verifier_would_refuse(
    world: World, monkeypatch: pytest.MonkeyPatch, cap: str, most: int, said: str
) -> None:
    Story(world).whole()
    monkeypatch.setattr(evidence, cap, most)
    out = io.BytesIO()
    error = refusal(lambda: bundle.export(world.ledger, out, policy_text="quorum none\n"))
    assert said in error.message and "export by unit" in error.remedy
    assert out.getvalue() == b""


def test_documents_that_do_not_fit_are_left_out_and_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records name their digests, and each can be had by itself."""
    Story(world).whole()
    monkeypatch.setattr(evidence, "MAX_BYTES", 100_000)
    out = io.BytesIO()
    documents = [("big.pdf", bytes(90_000)), ("card.pdf", CARD_PDF)]
    policy = f"log {world.ledger.vkey}\nquorum none\n"
    exported = bundle.export(world.ledger, out, policy_text=policy, attachments=lambda: documents)
    assert exported.without_documents == ("big.pdf",)
    assert (verified(world, out.getvalue()).verdict, len(out.getvalue()) <= 100_000) == ("valid", True)


def test_a_bundle_is_made_on_disk(world: World) -> None:
    """Memory holds a name, a digest and a place of each record, however large it is."""
    datasheet = {"licence": "x" * 40_000}
    for _ in range(10):
        world.ledger.run(lambda uow: [uow.append(
            RecordDraft("credit", "dataset.created", "dataset", {"dataset": "d", "datasheet": datasheet})
        ) for _ in range(60)])  # fmt: skip
    with (world.folder / "bundle.zip").open("wb") as out:
        tracemalloc.start()
        bundle.export(world.ledger, out, policy_text="quorum none\n")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    size = (world.folder / "bundle.zip").stat().st_size
    assert size > 24_000_000 and peak < size
