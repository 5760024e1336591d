"""A policy comes into force by the signatures of two people, once, and the gateway runs under no other."""

from __future__ import annotations

import base64
import datetime as dt
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from assay import dsse
from assay.errors import AssayError, PreconditionError
from assay.identity import Layout, load_p256
from assay.v1 import policy_pb2
from audit.ledger import records
from gateway.cli.app import app as cli
from gateway.rpc.routes import routes
from policies.engine import PolicyEngine
from tests.gateway.conftest import House, publish_by_two

DATABASE = "services/gateway/data/assay.db"


def refused(opened: Callable[[], House], root: Path) -> str:
    """Reason of a refused start, which must not have recorded any policy."""
    with pytest.raises(AssayError) as caught:
        opened()
    with sqlite3.connect(root / DATABASE) as database:
        (count,) = database.execute("SELECT count(*) FROM log_record WHERE type = 'policy.published'").fetchone()
    assert count == 0
    return caught.value.reason


@pytest.fixture
def layout(opened: Callable[[], House], tmp_path: Path) -> Layout:
    return Layout(tmp_path / "dir")


def other(policy: policy_pb2.Policy) -> policy_pb2.Policy:
    changed = policy_pb2.Policy()
    changed.CopyFrom(policy)
    changed.limits_sha256 = "0" * 64
    return changed


async def test_the_founding_publication_is_a_persons(house: House) -> None:
    (stored,) = [r for r in house.app.ledger.records("system", None, -1, 50) if r.type == "policy.published"]
    record = records.read(stored.body)
    assert len(record.signatures) == 2
    assert record.predicate["bundle_sha256"] == house.app.policy.policy().bundle_sha256


async def test_since_when_a_policy_holds_is_the_time_of_its_record(opened: Callable[[], House], layout: Layout) -> None:
    times: list[str] = []
    for _ in range(2):
        house = opened()
        (stored,) = [r for r in house.app.ledger.records("system", None, -1, 50) if r.type == "policy.published"]
        (policy,) = (await policies(house)).policies
        assert policy.publish_time.ToDatetime(dt.UTC) == records.read(stored.body).time
        times.append(policy.publish_time.ToJsonString())
        await house.app.close()
    assert times[0] == times[1], "a restart puts nothing in force"
    with sqlite3.connect(layout.root / DATABASE) as database:
        # As an installation of before has it.
        database.execute("DELETE FROM job_fact WHERE key = 'policy.in-force-since'")
    house = opened()
    assert not (await policies(house)).policies[0].HasField("publish_time")
    await house.app.close()


async def policies(house: House) -> policy_pb2.ListPoliciesResponse:
    answers = {service.name: found for service, found in routes(house.app).items()}["PolicyService"]
    (asked,) = [route.function for route in answers if route.method.name == "ListPolicies"]
    answer = await asked(await house.caller("rita"), policy_pb2.ListPoliciesRequest())
    assert isinstance(answer, policy_pb2.ListPoliciesResponse)
    return answer


async def test_without_a_publication_nothing_starts(opened: Callable[[], House], layout: Layout) -> None:
    layout.policy_publication.unlink()
    assert refused(opened, layout.root) == "POLICY_UNPUBLISHED"


async def test_a_publication_of_other_limits_is_none(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine
) -> None:
    publish_by_two(layout, other(engine.policy()))
    assert refused(opened, layout.root) == "POLICY_UNPUBLISHED"


@pytest.mark.parametrize("name", ["rita", "vik", "dana", "mia"])
async def test_only_operators_and_compliance_officers_of_every_unit_publish(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine, name: str
) -> None:
    layout.policy_publication.unlink()
    publish_by_two(layout, engine.policy(), "oscar", name)
    with pytest.raises(AssayError) as caught:
        opened()
    assert caught.value.reason == "ROLE_MISSING" and f"/people/{name} signed" in caught.value.message
    assert layout.policy_publication.name in caught.value.message and "assay policy publish" in caught.value.remedy


@pytest.mark.parametrize("people", [("oscar",), ("oscar", "oscar"), ("cora",)])
async def test_one_person_publishes_nothing(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine, people: tuple[str, ...]
) -> None:
    layout.policy_publication.unlink()
    publish_by_two(layout, engine.policy(), *people)
    assert refused(opened, layout.root) == "POLICY_UNPUBLISHED"


async def test_a_signature_twice_by_one_key_is_one_signer(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine
) -> None:
    layout.policy_publication.unlink()
    publish_by_two(layout, engine.policy(), "oscar")
    envelope = json.loads(layout.policy_publication.read_text())
    envelope["signatures"] *= 2
    layout.policy_publication.write_text(json.dumps(envelope))
    assert refused(opened, layout.root) == "POLICY_UNPUBLISHED"


async def test_three_signers_are_not_two(opened: Callable[[], House], layout: Layout, engine: PolicyEngine) -> None:
    person = layout.person("olga")
    envelope = json.loads(layout.policy_publication.read_text())
    certificate = x509.load_pem_x509_certificate((person / "person.crt").read_bytes())
    more = dsse.cosign_person(envelope, load_p256(person / "person.key"), certificate)
    layout.policy_publication.write_text(json.dumps(more))
    assert refused(opened, layout.root) == "POLICY_UNPUBLISHED"


async def test_a_second_signature_goes_to_the_same_policy_only(layout: Layout, engine: PolicyEngine) -> None:
    layout.policy_publication.unlink()
    publish_by_two(layout, other(engine.policy()), "oscar")
    publish_by_two(layout, engine.policy(), "cora")
    assert len(json.loads(layout.policy_publication.read_text())["signatures"]) == 1


async def test_a_changed_publication_is_refused(opened: Callable[[], House], layout: Layout) -> None:
    envelope = json.loads(layout.policy_publication.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b'"version":"', b'"version":"9')
    envelope["payload"] = base64.b64encode(payload).decode()
    layout.policy_publication.write_text(json.dumps(envelope))
    assert refused(opened, layout.root) == "SIGNATURE_BAD"


@pytest.mark.parametrize("text", ["", "[]", "{"])
async def test_an_unreadable_publication_is_named(opened: Callable[[], House], layout: Layout, text: str) -> None:
    layout.policy_publication.write_text(text)
    assert refused(opened, layout.root) == "POLICY_PUBLICATION"


async def test_coming_back_to_a_policy_takes_a_new_signature(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine
) -> None:
    first = opened()
    await first.app.close()
    again = opened()
    assert [r.type for r in again.app.ledger.records("system", None, -1, 50)].count("policy.published") == 1
    await again.app.close()
    with sqlite3.connect(layout.root / DATABASE) as database:
        # As if another policy had been in force since.
        database.execute("UPDATE job_fact SET value = 'another' WHERE key = 'policy.in-force'")
    with pytest.raises(AssayError) as caught:
        opened()
    assert caught.value.reason == "POLICY_UNPUBLISHED"
    for name, next_ in (("cora", "one more person must sign"), ("olga", "restart the gateway")):
        done = CliRunner().invoke(cli, ["policy", "publish", str(layout.root), "--as", str(layout.person(name))])
        assert done.exit_code == 0 and next_ in " ".join(done.output.split()), done.output
    back = opened()
    published = [r for r in back.app.ledger.records("system", None, -1, 50) if r.type == "policy.published"]
    assert len(published) == 2 and len(records.read(published[1].body).signatures) == 2
    await back.app.close()


def published(layout: Layout, name: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["policy", "publish", str(layout.root), "--as", str(layout.person(name))])
    assert done.exit_code == code, done.output
    return done.output


async def test_who_may_not_publish_is_told_before_anything_is_replaced(
    opened: Callable[[], House], layout: Layout
) -> None:
    before = layout.policy_publication.read_bytes()
    for _ in ("by the first grants", "by the rows"):
        assert "ROLE_MISSING" in published(layout, "rita", code=5)
        assert layout.policy_publication.read_bytes() == before
        await opened().app.close()


async def test_a_complete_publication_is_not_replaced_before_it_is_recorded(layout: Layout) -> None:
    before = layout.policy_publication.read_bytes()
    for name in ("olga", "cora"):
        said = published(layout, name, code=7)
        assert "POLICY_SIGNED" in said and "people/oscar and spiffe://assay.local/people/cora" in said
    assert layout.policy_publication.read_bytes() == before
    layout.policy_publication.unlink()
    assert "signed by spiffe://assay.local/people/olga; one more" in published(layout, "olga")
    assert "signed by spiffe://assay.local/people/olga; one more" in published(layout, "olga"), "one person is one"
    assert "people/olga and spiffe://assay.local/people/cora; restart" in published(layout, "cora")


async def test_where_no_grants_lie_the_gateway_asks_at_its_start(layout: Layout, tmp_path: Path) -> None:
    desk = Layout(tmp_path / "desk")
    desk.root.mkdir()
    shutil.copy(layout.trust, desk.trust)
    shutil.copytree(layout.root / "people", desk.root / "people")
    assert "signed by spiffe://assay.local/people/rita" in published(desk, "rita")


def test_publishing_takes_somebody(layout: Layout) -> None:
    done = CliRunner().invoke(cli, ["policy", "publish", str(layout.root)], env={"ASSAY_IDENTITY": ""})
    assert done.exit_code == 3 and "NO_IDENTITY" in done.output


async def test_a_database_that_another_gateway_writes_to_is_not_migrated(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()
    monkeypatch.setattr("gateway.application.migrate", lambda engine: pytest.fail("another gateway is at work"))
    with pytest.raises(PreconditionError) as caught:
        opened()
    assert caught.value.reason == "LEDGER_IN_USE"
    await house.app.close()
