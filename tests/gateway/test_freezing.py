"""A log ends by an operator's order and takes nothing more; the next log says which one it continues."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay import installation
from assay.errors import AssayError
from assay.identity import Layout
from audit.ledger import dialect, records
from audit.ledger.ledger import system_sources
from audit.ledger.note import open_checkpoint
from audit.ledger.records import SYSTEM_UNIT, RecordDraft
from audit.ledger.store import quick_head
from audit.ledger.writer import Sources
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.cli.app import app as cli
from gateway.freezing import freeze, sign_continuation, sign_order
from gateway.settings import Settings, default_toml
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, House, now, publish_by_two
from tests.gateway.test_evidence import export

REFUSAL = {"method": "X", "code": "NOT_FOUND", "reason": "NOT_FOUND", "fields": [], "surplus": 0,
           "actor": "spiffe://assay.local/people/rita", "trace_id": ""}  # fmt: skip


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)], env={"ASSAY_IDENTITY": ""})
    assert done.exit_code == code, done.output
    return done.output


def reason(action: Callable[[], object]) -> str:
    with pytest.raises(AssayError) as caught:
        action()
    return caught.value.reason


def append(house: House) -> None:
    draft = RecordDraft(SYSTEM_UNIT, "request.refused", "refusal", REFUSAL)
    house.app.ledger.run(lambda uow: uow.append(draft))


@pytest.fixture
async def closed(opened: Callable[[], House]) -> House:
    """An installation that has run and stands still."""
    house = opened()
    await house.app.close()
    return house


async def test_a_frozen_log_takes_nothing_more_also_after_a_restart(
    closed: House, opened: Callable[[], House], tmp_path: Path
) -> None:
    root, oscar, out = closed.layout.root, closed.layout.person("oscar"), tmp_path / "final.checkpoint"
    done = json.loads(call("ledger", "freeze", root, "--as", oscar, "--out", out, "--output", "json"))
    trust = TrustFile.parse(closed.layout.trust.read_text())
    final = open_checkpoint(out.read_bytes(), trust.log)
    assert (final.size, final.root.hex()) == (done["size"], done["root"])
    for _ in range(2):
        house = opened()
        stored = house.app.ledger.record(done["size"] - 1)
        assert stored.type == "log.frozen" and len(records.read(stored.body).signatures) == 1
        assert reason(partial(append, house)) == "LOG_FROZEN"
        assert house.app.ledger.size == done["size"]
        await house.app.close()
    assert "LOG_FROZEN" in call("ledger", "freeze", root, "--as", oscar, code=9)
    assert json.loads(call("ledger", "fsck", root, "--output", "json"))["ok"] is True


@pytest.mark.parametrize("lost", ["file", "folder"])
async def test_a_log_without_its_anchor_is_cited_and_signs_nothing(closed: House, tmp_path: Path, lost: str) -> None:
    root, oscar, out = closed.layout.root, closed.layout.person("oscar"), tmp_path / "final.checkpoint"
    anchor, engine = closed.layout.anchor, dialect.connect(closed.app.settings.database_url)
    (anchor / "checkpoint").unlink() if lost == "file" else shutil.rmtree(anchor)
    with engine.connect() as connection:
        before = quick_head(connection)
        found = "ANCHOR_MISSING" if lost == "file" else "LEDGER_UNAVAILABLE"
        assert found in call("ledger", "freeze", root, "--as", oscar, code=10 if lost == "file" else 9)
        order = ("--reason-code", "anchor-lost", "--as", oscar, "--out", out)
        done = json.loads(call("ledger", "freeze", root, *order, "--output", "json"))
        assert (done["size"], done["recorded"], done["witnessed"]) == (before[0], False, True)
        assert out.read_bytes() == before[1] and quick_head(connection) == before
    assert "nothing was signed" in call("ledger", "freeze", root, *order)
    engine.dispose()


async def test_a_log_whose_records_lie_in_the_future_ends_and_verifies(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources, ahead = system_sources(), dt.timedelta(hours=1)
    with monkeypatch.context() as patch:
        later = Sources(lambda: dt.datetime.now(dt.UTC) + ahead, sources.nonce)
        patch.setattr("audit.ledger.ledger.system_sources", lambda: later)
        house = opened()
        append(house)
        await house.app.close()
    root, oscar, out = house.layout.root, house.layout.person("oscar"), tmp_path / "final.checkpoint"
    assert "clock-ahead" in call("ledger", "freeze", root, "--as", oscar, code=6)
    order = ("--reason-code", "clock-ahead", "--as", oscar, "--out", out)
    done = json.loads(call("ledger", "freeze", root, *order, "--output", "json"))
    assert done["recorded"] is True
    again = opened()
    said = [records.read(again.app.ledger.record(done["size"] - n).body) for n in (2, 1)]
    assert said[1].type == "log.frozen" and said[0].time == said[1].time
    assert reason(partial(append, again)) == "LOG_FROZEN"
    path = await export(again, "anna", "units/-", [], tmp_path / "bundle.zip")
    await again.app.close()
    assert json.loads(call("ledger", "fsck", root, "--output", "json"))["ok"] is True
    report = verify_bundle(path, TrustFile.load(house.layout.trust), now())
    assert report.verdict == "valid", report.text()


async def test_what_waits_behind_the_order_is_refused(house: House) -> None:
    order = sign_order(house.layout.person("oscar"), house.app.settings.origin, "fork")
    draft = RecordDraft(SYSTEM_UNIT, "log.frozen", "freeze", {}, envelope=order)
    first = house.app.ledger.submit(lambda uow: uow.append(draft))
    late = RecordDraft(SYSTEM_UNIT, "request.refused", "refusal", REFUSAL)
    second = house.app.ledger.submit(lambda uow: uow.append(late))
    assert first.result() == house.app.ledger.size - 1
    assert second.exception() is not None and second.exception().reason == "LOG_FROZEN"  # type: ignore[union-attr]


async def test_an_order_that_fails_freezes_nothing(house: House) -> None:
    def work(uow):  # type: ignore[no-untyped-def]
        order = sign_order(house.layout.person("oscar"), house.app.settings.origin, "fork")
        uow.append(RecordDraft(SYSTEM_UNIT, "log.frozen", "freeze", {}, envelope=order))
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        house.app.ledger.run(work)
    append(house)


async def test_a_running_gateway_is_not_frozen_under_its_feet(house: House) -> None:
    out = call("ledger", "freeze", house.layout.root, "--as", house.layout.person("oscar"), code=6)
    assert "LEDGER_IN_USE" in out
    append(house)


@pytest.mark.parametrize("name", ["rita", "cora", "anna"])
def test_only_operators_freeze(closed: House, name: str) -> None:
    out = call("ledger", "freeze", closed.layout.root, "--as", closed.layout.person(name), code=5)
    assert "ROLE_MISSING" in out


def test_orders_for_another_log_changed_or_unreadable(closed: House, tmp_path: Path) -> None:
    settings, oscar = closed.app.settings, closed.layout.person("oscar")
    assert reason(lambda: freeze(settings, sign_order(oscar, "elsewhere/log", "retired"))) == "OTHER_LOG"
    assert reason(lambda: sign_order(oscar, settings.origin, "bored")) == "REASON_CODE"
    order = tmp_path / "order.json"
    call("ledger", "freeze", closed.layout.root, "--as", oscar, "--write-order", order)
    other = ("ledger", "freeze", closed.layout.root, "--order", order, "--reason-code", "key-compromised")
    assert "OTHER_ORDER: the order's reason is retired" in call(*other, code=3)
    forged = json.loads(order.read_text())
    forged["payload"] = sign_order(oscar, settings.origin, "fork")["payload"]
    assert reason(lambda: freeze(settings, forged)) == "SIGNATURE_BAD"
    order.write_text("{")
    assert "ORDER_MALFORMED" in call("ledger", "freeze", closed.layout.root, "--order", order, code=3)
    assert "NO_IDENTITY" in call("ledger", "freeze", closed.layout.root, code=3)


async def test_a_successor_cites_the_final_checkpoint(closed: House, tmp_path: Path, engine: PolicyEngine) -> None:
    done = freeze(closed.app.settings, sign_order(closed.layout.person("oscar"), "assay.local/log", "retired"))
    plan = installation.Plan(installation.DEFAULT_PEOPLE, "oscar", origin="assay.local/log2")
    layout = installation.create(tmp_path / "next", plan)
    layout.settings.write_text(default_toml(origin="assay.local/log2"))
    (layout.service("gateway") / "base_models.json").write_text(json.dumps([BASE]))
    publish_by_two(layout, engine.policy())
    old_trust, note = TrustFile.load(closed.layout.trust), done.checkpoint.encode()

    def sign(origin: str = "assay.local/log2", trust: TrustFile = old_trust) -> object:
        return sign_continuation(layout, layout.person("oscar"), origin, note, trust)

    assert reason(lambda: sign("assay.local/log")) == "SAME_ORIGIN"
    assert reason(lambda: sign(trust=TrustFile.load(layout.trust))) == "NOTE_SIGNATURE_BAD"
    sign()
    for _ in range(2):
        house = House(type(closed.app).open(Settings.load(layout.root), engine), Layout(layout.root))
        told = [r for r in house.app.ledger.records("system", None, -1, 50) if r.type == "log.continued"]
        (record,) = [records.read(r.body) for r in told]
        assert (record.predicate["previous_origin"], record.predicate["size"]) == ("assay.local/log", done.size)
        assert record.predicate["root"] == done.root
        await house.app.close()
