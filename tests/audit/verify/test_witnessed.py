"""Bundles and permits under a quorum policy: met, not met, forged, stale, downgraded."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from assay.errors import AlreadyExistsError
from assay.key_events import Rotation, ed25519_half
from audit.ledger.note import SignedNote
from audit.verify.keys import AUDIT_WORKER, KeyTable, Signer
from audit.verify.permit import check_permit
from audit.verify.report import Report
from audit.verify.verifier import verify_bundle
from tests.audit.ledger.ledger_world import ADAPTER, BASE, START, Story, World, b64, cosigned, witness_lines

TWO_OF_THREE = witness_lines("a", "b", "c") + "group g 2 a b c\nquorum g\n"
HOUR = dt.timedelta(hours=1)


def judged(world: World, note: bytes, now: dt.datetime = START + HOUR, **options: object) -> Report:
    path = world.folder / "bundle.zip"
    path.write_bytes(world.export(checkpoint=note, **options))
    return verify_bundle(path, world.trust, now)


def said(report: Report, name: str) -> str:
    return "; ".join(f"{c.outcome} {c.detail}" for c in report.checks if c.name == name)


@pytest.fixture
def witnessed(tmp_path: Path) -> World:
    made = World(tmp_path, quorum=TWO_OF_THREE).start()
    Story(made).whole()
    return made


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_witness_s_key_becomes_nobody_s_next_key(witnessed: World, name: str) -> None:
    """Who signs audits would cosign the log that holds them."""
    table = KeyTable.of(witnessed.trust)
    [old] = table.terms[AUDIT_WORKER]
    new = ed25519_half(witnessed.trust.quorum.witnesses[name].verifier.public_key)
    with pytest.raises(AlreadyExistsError) as caught:
        table.check(Rotation("r1", AUDIT_WORKER, old.public, new), 9, Signer("spiffe://x/people/oscar", ""))
    assert caught.value.reason == "KEY_REUSED"


def test_a_quorum_is_valid_and_not_stamped(witnessed: World) -> None:
    report = judged(witnessed, cosigned(witnessed.ledger.checkpoint(), "a", "c"))
    assert report.verdict == "valid" and not [s for s in report.stamps if "QUORUM" in s]
    assert "a at" in said(report, "quorum of witnesses") and "c at" in said(report, "quorum of witnesses")


@pytest.mark.parametrize("names", [(), ("a",), ("a", "stranger"), ("stranger", "outsider")])
def test_too_few_known_witnesses_are_incomplete(witnessed: World, names: tuple[str, ...]) -> None:
    report = judged(witnessed, cosigned(witnessed.ledger.checkpoint(), *names))
    assert report.verdict == "incomplete" and "QUORUM_NOT_MET" in said(report, "quorum of witnesses")


def test_one_witness_twice_is_invalid(witnessed: World) -> None:
    once = cosigned(witnessed.ledger.checkpoint(), "a")
    line = SignedNote.parse(cosigned(witnessed.ledger.checkpoint(), "a", at=START + HOUR)).signatures[-1]
    report = judged(witnessed, once + line.line().encode())
    assert report.verdict == "invalid" and "two signatures" in said(report, "quorum of witnesses")


def test_a_cosignature_of_another_tree_is_invalid(witnessed: World) -> None:
    old = cosigned(witnessed.ledger.checkpoint_at(3) or b"", "b")
    note = cosigned(witnessed.ledger.checkpoint(), "a") + SignedNote.parse(old).signatures[-1].line().encode()
    report = judged(witnessed, note)
    assert report.verdict == "invalid" and "COSIGNATURE_BAD" in said(report, "quorum of witnesses")


def test_a_cosignature_from_the_future_is_invalid(witnessed: World) -> None:
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b", at=START + 2 * HOUR)
    report = judged(witnessed, note)
    assert report.verdict == "invalid" and "COSIGNATURE_FUTURE" in said(report, "quorum of witnesses")


def test_one_witness_from_the_future_does_not_count_and_spoils_nothing(witnessed: World) -> None:
    """Its clock, or bad faith, is no reason to doubt a checkpoint that a quorum has cosigned without it."""
    ahead = START + 3650 * 24 * HOUR
    note = cosigned(cosigned(witnessed.ledger.checkpoint(), "a", "c"), "b", at=ahead)
    report = judged(witnessed, note)
    assert report.verdict == "valid" and "b at" not in said(report, "quorum of witnesses")
    assert f"cosignatures of a time to come, which do not count: b at {ahead.isoformat()}" in report.not_checked


def test_a_witness_from_the_future_makes_no_quorum_and_nothing_fresh(witnessed: World) -> None:
    note = cosigned(cosigned(witnessed.ledger.checkpoint(), "a"), "b", at=START + 2 * HOUR)
    report = judged(witnessed, note)
    assert report.verdict == "invalid" and "COSIGNATURE_FUTURE" in said(report, "quorum of witnesses")
    report = judged(witnessed, cosigned(witnessed.ledger.checkpoint(), "b", at=START + 2 * HOUR))
    assert report.verdict == "incomplete" and "QUORUM_NOT_MET" in said(report, "quorum of witnesses")
    witnessed.extra_trust = "max-age 86400\n"
    week = cosigned(witnessed.ledger.checkpoint(), "a", "c", at=START - dt.timedelta(days=7))
    assert judged(witnessed, cosigned(week, "b", at=START + 2 * HOUR)).verdict == "stale"


def test_five_minutes_between_two_clocks_are_none(witnessed: World) -> None:
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b", at=START + HOUR + dt.timedelta(minutes=5))
    assert judged(witnessed, note).verdict == "valid"


def test_stale_checkpoint_attack_11(witnessed: World) -> None:
    """An old checkpoint with genuine cosignatures, shown as if it were the present one."""
    witnessed.extra_trust = "max-age 86400\n"
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b")
    report = judged(witnessed, note, now=START + 25 * HOUR)
    assert report.verdict == "stale" and "a quorum saw it last" in said(report, "age")
    assert judged(witnessed, note, now=START + 23 * HOUR).verdict == "valid"


def test_the_witnesses_time_wins_over_the_gateways_clock(witnessed: World) -> None:
    """Records say they are of today; the quorum last saw the log a week ago, and that counts."""
    witnessed.extra_trust = "max-age 86400\n"
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b", at=START - dt.timedelta(days=7))
    assert judged(witnessed, note).verdict == "stale"


def test_one_witness_alone_cannot_make_old_evidence_fresh(witnessed: World) -> None:
    witnessed.extra_trust = "max-age 86400\n"
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b", at=START - dt.timedelta(days=7))
    assert judged(witnessed, cosigned(note, "a")).verdict == "stale"


def test_quorum_none_where_the_trust_file_names_one_attack_44(witnessed: World) -> None:
    note = cosigned(witnessed.ledger.checkpoint(), "a", "b")
    report = judged(witnessed, note, policy_text=f"log {witnessed.ledger.vkey}\nquorum none\n")
    assert report.verdict == "invalid" and "QUORUM_DOWNGRADE" in said(report, "quorum of witnesses")


def test_quorum_none_is_stamped(tmp_path: Path) -> None:
    world = World(tmp_path).start()
    Story(world).whole()
    report = judged(world, world.ledger.checkpoint())
    assert report.verdict == "valid" and any(s.startswith("QUORUM NONE") for s in report.stamps)


def test_a_policy_of_the_exporter_is_no_reason_to_believe(tmp_path: Path) -> None:
    world = World(tmp_path).start()
    Story(world).whole()
    report = judged(world, world.ledger.checkpoint(), policy_text=f"log {world.ledger.vkey}\nquorum a\n")
    assert any("claims the quorum" in s for s in report.stamps) and any("QUORUM NONE" in s for s in report.stamps)


@pytest.mark.parametrize(("names", "allowed"), [(("a", "b"), True), (("a",), False), ((), False), (("a", "x"), False)])
def test_permits_need_a_quorum(witnessed: World, names: tuple[str, ...], allowed: bool) -> None:
    message = Story(witnessed, job="units/credit/tuningJobs/second").ask().decide().train().audit().release()\
        .permit_message()  # fmt: skip
    size = int(message["proofs"][0]["tree_size"])
    message["checkpoint"] = b64(cosigned(witnessed.ledger.checkpoint_at(size) or b"", *names))
    verdict = check_permit(message, ADAPTER, BASE, "replies", "staging", START + HOUR, witnessed.trust)
    assert verdict.allowed is allowed and ("QUORUM_NOT_MET" in verdict.reason) is not allowed


def test_a_permit_whose_cosignature_is_of_the_future(witnessed: World) -> None:
    message = Story(witnessed, job="units/credit/tuningJobs/second").ask().decide().train().audit().release()\
        .permit_message()  # fmt: skip
    size = int(message["proofs"][0]["tree_size"])
    note = witnessed.ledger.checkpoint_at(size) or b""
    message["checkpoint"] = b64(cosigned(note, "a", "b", at=START + 2 * HOUR))
    verdict = check_permit(message, ADAPTER, BASE, "replies", "staging", START + HOUR, witnessed.trust)
    assert not verdict.allowed and "COSIGNATURE_FUTURE" in verdict.reason
