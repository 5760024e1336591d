"""Which law another unit chose is nobody's business: policy's answers name the caller's own units only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assay.errors import NotFoundError
from assay.v1 import policy_pb2
from gateway.precedents import Precedents
from gateway.rpc.routes import PolicyAnswers
from policies.engine import PolicyEngine
from policies.pack import PACKS, load
from tests.gateway.conftest import House


@pytest.fixture
def choosing(tmp_path: Path) -> PolicyEngine:
    shutil.copytree(PACKS, tmp_path / "packs", ignore=shutil.ignore_patterns("access"))
    sheet = tmp_path / "packs" / "bundle.yaml"
    sheet.write_text(sheet.read_text().replace("units: {}", "units: {claims: [gdpr], credit: [hipaa, gdpr]}"))
    return PolicyEngine(load(tmp_path / "packs"))


@pytest.fixture
def answers(house: House, choosing: PolicyEngine) -> PolicyAnswers:
    return PolicyAnswers(choosing, Precedents(house.app.settings, house.app.store, house.app.authorizer))


async def explained(house: House, answers: PolicyAnswers, pack: str, by: str) -> str:
    rule = next(rule.id for rule in answers._engine.pack.rules if rule.pack == pack)
    request = policy_pb2.ExplainPolicyRequest(rule_id=rule)
    text = (await answers.explain_policy(await house.caller(by), request)).explanation
    return next(line for line in text.splitlines() if line.startswith(f"Pack {pack}"))


async def test_a_rule_names_of_the_units_that_are_asked_it_those_of_the_caller(
    house: House, answers: PolicyAnswers
) -> None:
    assert await explained(house, answers, "gdpr", "mia") == "Pack gdpr, asked of claims."
    assert await explained(house, answers, "hipaa", "mia") == "Pack hipaa, asked of no unit of yours."
    assert await explained(house, answers, "baseline", "mia") == "Pack baseline, asked of every unit."
    assert await explained(house, answers, "gdpr", "anna") == "Pack gdpr, asked of claims, credit."


async def test_the_operator_who_has_the_folder_reads_all(choosing: PolicyEngine) -> None:
    rule = next(rule.id for rule in choosing.pack.rules if rule.pack == "hipaa")
    assert "asked of credit." in choosing.explain(rule).explanation
    rule = next(rule.id for rule in choosing.pack.rules if rule.pack == "naic")
    assert "asked of no unit yet." in choosing.explain(rule).explanation


@pytest.mark.parametrize("stage", ["intake", "release"])
async def test_a_question_for_another_unit_is_answered_as_one_for_none(
    house: House, answers: PolicyAnswers, stage: str
) -> None:
    said = []
    for unit in ("credit", "nowhere"):
        request = policy_pb2.EvaluatePolicyRequest()
        getattr(request, stage).request.unit = unit
        with pytest.raises(NotFoundError) as refused:
            await answers.evaluate_policy(await house.caller("mia"), request)
        said.append((refused.value.reason, refused.value.message.replace(unit, "UNIT")))
    assert said[0] == said[1]
    for unit in ("claims", ""):
        getattr(request, stage).request.unit = unit
        answer = await answers.evaluate_policy(await house.caller("mia"), request)
        outcomes = (answer.decision if stage == "intake" else answer.verdict).outcomes
        assert any(o.rule_id.startswith("GDPR") for o in outcomes) == (unit == "claims")
