"""Settings and the small pure parts: what is refused is named."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from assay.errors import InvalidInputError
from assay.v1 import approval_pb2, dataset_pb2, policy_input_pb2, tuning_job_pb2
from gateway import pages, requests, statements
from gateway.admission import facts, release
from gateway.admission.hyperparameters import DEFAULTS
from gateway.admission.intake import FILE_FAULTS, seed_of
from gateway.base_models import BaseModels
from gateway.caller import Caller
from gateway.settings import Settings, default_toml
from gateway.store.rows import Position


def written(folder: Path, text: str) -> Path:
    (folder / "assay.toml").write_text(text)
    return folder


def test_the_defaults_load(tmp_path: Path) -> None:
    settings = Settings.load(written(tmp_path, default_toml(units=("credit", "claims"))))
    assert settings.units == ("credit", "claims")
    assert settings.database == tmp_path / "services" / "gateway" / "data" / "assay.db"
    assert settings.subject == "spiffe://assay.local/services/gateway"
    with pytest.raises(ValidationError):
        settings.region = "us"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('region = "eu"', 'region = "EU!"', "region"),
        ('"127.0.0.1:7443"', '"nowhere"', "listen"),
        ('"127.0.0.1:7443"', '"127.0.0.1:70000"', "listen"),
        ('"127.0.0.1:7443"', '"::1:7443"', "listen"),
        ('"127.0.0.1:7444"', '"127.0.0.1:65536"', "workers.train.address"),
        ('"127.0.0.1:7446"', '"0.0.0.0:7446"', "metrics"),
        ('"127.0.0.1:7446"', '"metrics.bank.example:7446"', "metrics"),
        ('"credit"', '"system"', "units"),
        ('"credit"', '"system-refusals"', "units"),
        ('"credit"', '"Credit"', "units"),
        ('"credit"', '"claims"', "units"),
        ("[workers.audit]", "[workers.other]", "workers"),
        ("permit_seconds = 86400", "permit_seconds = 86401", "limits.permit_seconds"),
        ("reflection = false", "reflection = false\nplaintext = true", "plaintext"),
        ("as_of = 2026-01-01", "as_of = 2026-13-01", ""),
        ("cpu = 28", "cpu = -1", "price_book.usd_micros_per_device_second"),
        ('device = "cpu"', 'device = "tpu"', "price_book"),
    ],
)
def test_a_faulty_setting_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    text = default_toml()
    assert old in text
    with pytest.raises(InvalidInputError) as caught:
        Settings.load(written(tmp_path, text.replace(old, new)))
    assert caught.value.reason == "SETTINGS"
    assert not field or any(v.field.startswith(field) for v in caught.value.violations)


def test_metrics_may_lie_on_either_loopback(tmp_path: Path) -> None:
    text = default_toml(metrics="[::1]:7446")
    assert Settings.load(written(tmp_path, text)).metrics == "[::1]:7446"


def test_missing_settings(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Settings.load(tmp_path)
    assert caught.value.reason == "SETTINGS_MISSING" and "assay init" in caught.value.remedy


@pytest.mark.parametrize("text", ["{", "[1]", '[{"id":"a"}]', '{"a":1}', '[{"id":"a","source":["x"]}]'])
def test_faulty_base_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(InvalidInputError):
        BaseModels.load(tmp_path / "b.json")
    assert BaseModels.load(tmp_path / "none.json").by_id == {}


def test_a_base_model_is_found_by_its_id_or_by_owner_and_name(tmp_path: Path) -> None:
    def model(model_id: str, repository: str = "") -> dict[str, Any]:
        return {"id": model_id, "sha256": model_id[0] * 64, "source": {"repository": repository} if repository else {}}

    listed = [model("tiny", "Bank/Tiny"), model("bare"), model("first", "acme/two"), model("second", "acme/two")]
    (tmp_path / "b.json").write_text(json.dumps(listed))
    known = BaseModels.load(tmp_path / "b.json")

    def found(name: str) -> str:
        facts = known.find(name)
        return facts.id if facts is not None else ""

    assert [found(n) for n in ("tiny", "Tiny", "bank/tiny", "Bank/Tiny", "bare", "second")] == [
        "tiny", "tiny", "tiny", "tiny", "bare", "second",
    ]  # fmt: skip
    assert [found(n) for n in ("acme/Tiny", "Tiny/Bank", "x/bank/tiny", "Bank/bare", "/bare", "")] == [""] * 6
    with pytest.raises(InvalidInputError) as caught:
        known.find("acme/Two")
    assert caught.value.reason == "BASE_MODEL_AMBIGUOUS" and "first, second" in caught.value.remedy


def test_callers() -> None:
    caller = Caller("s", frozenset({("ROLE_REQUESTER", "credit"), ("ROLE_AUDITOR", "-")}))
    assert caller.holds("ROLE_REQUESTER", "credit") and not caller.holds("ROLE_REQUESTER", "claims")
    assert caller.holds("ROLE_AUDITOR", "claims") and caller.sees("-")
    one = Caller("s", frozenset({("ROLE_REQUESTER", "credit")}))
    assert one.sees("credit") and not one.sees("claims") and not one.sees("-")
    assert not one.holds("ROLE_REQUESTER", "-")


def test_page_tokens() -> None:
    token = pages.token("jobs units/credit", Position(5, "x"))
    assert pages.position("jobs units/credit", token) == Position(5, "x")
    assert pages.position("jobs units/credit", "") is None
    with pytest.raises(InvalidInputError):
        pages.position("jobs units/claims", token)


def test_a_page_is_cut_where_its_token_goes_on() -> None:
    request = dataset_pb2.ListDatasetsRequest(page_size=2)
    listing = pages.Listing.of("x", request)
    assert (listing.after, listing.limit) == (None, 2)

    def page(found: str) -> tuple[list[Timestamp], str]:
        return listing.page(found, lambda name: Timestamp(seconds=ord(name)), lambda name: Position(1, name))

    a, b = Timestamp(seconds=ord("a")), Timestamp(seconds=ord("b"))
    assert page("") == ([], "") and page("ab") == ([a, b], "")
    shown, request.page_token = page("abc")
    assert shown == [a, b] and pages.Listing.of("x", request).after == Position(1, "b")
    with pytest.raises(InvalidInputError):
        pages.Listing.of("y", request)


def test_a_page_ends_before_it_is_too_large_for_a_client() -> None:
    """Its token goes on behind the last that is shown; one entry is on every page, however large."""
    listing = pages.Listing.of("x", dataset_pb2.ListDatasetsRequest(page_size=200))
    half, large = pages.MAX_BYTES // 2 - 100, pages.MAX_BYTES + 100

    def page(*sizes: int) -> tuple[int, Position | None]:
        def show(number: int) -> dataset_pb2.Dataset:
            return dataset_pb2.Dataset(name="x" * sizes[number])

        shown, token = listing.page(range(len(sizes)), show, lambda number: Position(number, "x"))
        return len(shown), pages.position("x", token)

    assert page(half, half) == (2, None)
    assert page(half, half, half) == (2, Position(1, "x"))
    assert page(large, 1) == (1, Position(0, "x")) and page(large) == (1, None)
    assert page(1, large) == (1, Position(0, "x"))


FORGED = {
    "a time beyond 63 bits": "[{mark},1" + "0" * 30 + ',"x"]',
    "a time before time": '[{mark},-1,"x"]',
    "half a surrogate pair": '[{mark},1,"\\ud800"]',
    "a NUL": '[{mark},1,"\\u0000"]',
    "brackets": "[" * 150_000,
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_a_forged_page_token_reaches_no_database(text: str) -> None:
    own = json.loads(base64.urlsafe_b64decode(pages.token("jobs units/credit", Position(5, "x")) + "=="))
    forged = base64.urlsafe_b64encode(text.replace("{mark}", json.dumps(own[0])).encode()).decode().rstrip("=")
    with pytest.raises(InvalidInputError) as caught:
        pages.position("jobs units/credit", forged)
    assert caught.value.reason == "PAGE_TOKEN"
    assert (pages.size(0), pages.size(7), pages.size(1000)) == (50, 7, 200)


def test_a_request_digest_covers_content_and_not_the_id() -> None:
    one = tuning_job_pb2.CreateTuningJobRequest(parent="units/a", request_id="1")
    two = tuning_job_pb2.CreateTuningJobRequest(parent="units/a", request_id="2")
    other = tuning_job_pb2.CreateTuningJobRequest(parent="units/b", request_id="1")
    assert requests.digest(one) == requests.digest(two) != requests.digest(other)
    assert requests.digest(one, "x") != requests.digest(one)
    assert one.request_id == "1"


def test_hyperparameters_are_stated_in_full() -> None:
    asked = tuning_job_pb2.CreateTuningJobRequest(hyperparameters={"lora_rank": 4, "epochs": 1.0})
    full = facts.hyperparameters(asked, policy_input_pb2.DataFacts()).values
    assert (full.lora_rank, full.lora_alpha, full.epochs, full.batch_size) == (4, 8, 1.0, 8)
    asked.hyperparameters.lora_alpha = 3
    assert facts.hyperparameters(asked, policy_input_pb2.DataFacts()).values.lora_alpha == 3
    assert all(full.HasField(f.name) for f in full.DESCRIPTOR.fields if f.name != "auto")


def test_the_trainers_defaults_are_stated() -> None:
    trainer = pytest.importorskip("trainer.settings").Settings().as_dict()
    for name in (f.name for f in DEFAULTS.DESCRIPTOR.fields if f.name != "auto"):
        assert getattr(DEFAULTS, name) == trainer[name]


def test_quotes_and_costs(tmp_path: Path) -> None:
    book = Settings.load(written(tmp_path, default_toml())).price_book
    assert facts.quote(book, "lora", 40_000) == 100 * 28 + 120 * 28
    assert facts.quote(book, "full", 40_000) == 150 * 28 + 120 * 28
    assert facts.run_cost(book, 10.1, 0.2) == 11 * 28 + 1 * 28
    request = tuning_job_pb2.CreateTuningJobRequest(parent="units/credit")
    settings = Settings.load(written(tmp_path, default_toml()))
    asked = facts.request_facts(settings, request, "rita", policy_input_pb2.DataFacts(train_tokens=101))
    assert asked.planned_train_tokens == 202


def test_exploratory_measurements_never_reach_the_judge() -> None:
    from assay.v1 import measurement_pb2
    from gateway.store.tables import DatasetRow

    dataset = DatasetRow(name="d", unit="u", format=1, datasheet="{}", sha256="", size_bytes=1, creator="c",
                         created_us=0, record_index=0)  # fmt: skip
    measured = [
        measurement_pb2.Measurement(name="a", value=1.0),
        measurement_pb2.Measurement(name="a", slice="race", value=2.0),
        measurement_pb2.Measurement(name="b", value=3.0, exploratory=True),
    ]
    question = facts.release_input(
        policy_input_pb2.RequestFacts(unit="u", budget_usd_micros=5), 7, dataset, measurement_pb2.AuditPlan(), measured,
        policy_input_pb2.RunFacts(),
    )  # fmt: skip
    assert question.request.unit == "u" and question.request.budget_usd_micros == 7
    assert set(question.measurements) == {"a", "a[race]"}
    assert question.format == dataset_pb2.DATASET_FORMAT_CHAT_JSONL


def test_what_a_record_has_no_room_for_is_counted() -> None:
    from assay.v1 import measurement_pb2

    told = [f"{i}: {'x' * 400}" for i in range(25)]
    report = measurement_pb2.AuditReport(not_tested=told)
    kept = release.audit_predicate(report, measurement_pb2.AuditPlan(), "", {})["not_tested"]
    assert len(kept) == 21 and all(len(t) <= 300 for t in kept)
    assert kept[0].endswith("…") and kept[-1].startswith("5 more")
    few = measurement_pb2.AuditReport(not_tested=["jailbreaks"])
    assert release.audit_predicate(few, measurement_pb2.AuditPlan(), "", {})["not_tested"] == ["jailbreaks"]


def test_seeds_follow_from_names() -> None:
    assert seed_of("a") == seed_of("a") != seed_of("b") and 0 <= seed_of("a") < 2**31


SAID = statements.opening("r")
WITHOUT_CONTROL = statements.waiver_statement("j", "e", ["A"], SAID, SAID, dt.date(2026, 1, 1))
del WITHOUT_CONTROL["predicate"]["compensating_control_commitment"]
TWICE = statements.waiver_statement("j", "e", ["A"], SAID, SAID, dt.date(2026, 1, 1))
TWICE["predicate"]["rules"] *= 2
A_WAIVER = statements.waiver_statement("j", "e", ["A"], SAID, SAID, dt.date(2026, 1, 1))
PENDING = approval_pb2.PendingApproval(card_sha256="aa" * 32, adapter_sha256="bb" * 32, tuning_job="j", etag="e")


def test_statements_are_read_back_as_built() -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    signed = statements.read_approval(
        statements.approval_statement(PENDING, granted=True, role="validator", reason=SAID, signed_at=at)
    )
    assert (signed.role, signed.decision, signed.card_index) == ("ROLE_VALIDATOR", "grant", 0)
    assert statements.parse_time(signed.signed_at, "approval") == at
    waiver = statements.waiver_statement("j", "e", ["B", "A", "B"], SAID, SAID, at.date())
    assert statements.read_waiver(waiver).rules == ["A", "B"]
    assert statements.read_revocation(statements.revocation_statement("j", "e", "drift")).reason == "drift"
    granted = statements.grant_statement("spiffe://x/people/a", "ROLE_AUDITOR", "-", "g")
    assert statements.read_grant(granted).role == "ROLE_AUDITOR"
    assert statements.read_grant_revocation(statements.grant_revocation_statement("g", "left")).grant_id == "g"


def _broken(change: Any) -> dict[str, Any]:
    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    statement = statements.approval_statement(PENDING, granted=True, role="validator", reason=SAID, signed_at=at)
    change(statement)
    return statement


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["predicate"].pop("etag"),
        lambda s: s["predicate"].update(more=1),
        lambda s: s["predicate"].update(evidence_size="1"),
        lambda s: s["predicate"].update(evidence_size=True),
        lambda s: s["predicate"].update(decision="yes"),
        lambda s: s.update(predicateType="https://assay.dev/predicate/waiver/v1"),
        lambda s: s.update(predicate=[]),
        lambda s: s["subject"].pop(),
    ],
)
def test_a_statement_of_another_shape_is_not_read(change: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        statements.read_approval(_broken(change))
    assert caught.value.reason == "STATEMENT"


@pytest.mark.parametrize(
    "statement",
    [
        statements.waiver_statement("j", "e", [], SAID, SAID, dt.date(2026, 1, 1)),
        WITHOUT_CONTROL,
        TWICE,
    ],
)
def test_a_waiver_without_rules_or_control_or_of_a_rule_twice_is_not_read(statement: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        statements.read_waiver(statement)


@pytest.mark.parametrize("day", ["", "2026-1-01", "20260101", "2026-01-01x", "2026-02-30", "zzzz"])
def test_a_waiver_until_no_day_is_not_read(day: str) -> None:
    """As texts they compare with days all the same."""
    with pytest.raises(InvalidInputError) as caught:
        statements.read_waiver({**A_WAIVER, "predicate": {**A_WAIVER["predicate"], "expires": day}})
    assert caught.value.reason == "STATEMENT"


@pytest.mark.parametrize("role", ["", "king", "ROLE_UNSPECIFIED", "unspecified", "ROLE_KING"])
def test_unknown_roles(role: str) -> None:
    with pytest.raises(InvalidInputError):
        statements.role_name(role)


@pytest.mark.parametrize("text", ["", "2026-01-01", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.5Z", "x"])
def test_times_have_one_spelling(text: str) -> None:
    with pytest.raises(InvalidInputError):
        statements.parse_time(text, "approval")


def test_the_gateway_imports_no_model_library() -> None:
    heavy = ("torch", "transformers", "peft", "tokenizers", "spacy", "presidio_analyzer", "fairlearn", "sklearn")
    code = (
        "import sys, gateway.application; "
        f"print([m for m in {heavy!r} if m in sys.modules], [m for m in sys.modules if m.startswith('audit.p')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_every_fault_of_a_file_is_a_denial() -> None:
    # The two rooms may not import each other, so the codes are compared in the source.
    text = "".join(p.read_text() for p in (Path(__file__).parents[2] / "audit" / "prepare").glob("*.py"))
    codes = set(re.findall(r'refuse_file\(\s*"([A-Z_]+)"', text)) | set(
        re.findall(r'\("([A-Z_]+_COLUMN_MISSING)"', text)
    )
    assert len(codes) > 15 and codes | {"LABEL_COLUMN_MISSING"} == FILE_FAULTS
