"""`assay init`: what would only fail at the first start is refused, and a refusal leaves nothing in the way."""

from __future__ import annotations

import io
import json
import re
import tomllib
from pathlib import Path

import pytest

from assay import dsse
from assay.identity import Layout, load_certificate, load_ed25519, subject_of
from assay.modelfiles import BaseManifest
from audit.ledger.bundle import export
from audit.ledger.note import sign_note
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from gateway import install as installing
from gateway.application import Application
from gateway.settings import Settings
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, now
from tests.gateway.test_keys import call


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of base models with one stand-in."""
    (tmp_path / "models" / BASE["id"]).mkdir(parents=True)
    (tmp_path / "models" / BASE["id"] / "manifest.json").write_text("{}")
    manifest = BaseManifest(BASE["id"], "Apache-2.0", "ba" * 32, (), 1, "t", {"repository": "x/y"})
    monkeypatch.setattr(installing, "read_base_manifest", lambda folder: manifest)
    return tmp_path / "models"


def init(models: Path, *options: object, code: int = 0) -> str:
    return call("init", models.parent / "bank", "--models", models, *options, code=code)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--unit", "bad unit"], "BAD_NAME"),
        (["--unit", "system"], "SETTINGS"),
        (["--unit", "support", "--unit", "support"], "SETTINGS"),
        (["--origin", "bad origin+x"], "ORIGIN"),
        (["--trust-domain", 'bank"'], "TRUST_DOMAIN"),
        (["--trust-domain", "Bank.Example"], "TRUST_DOMAIN"),
        (["--port", "65534"], "PORT"),
        (["--port", "0"], "PORT"),
        (["--person", "oscar:operator", "--person", "rita:requester:nope"], "UNIT"),
        (["--person", "oscar:operator", "--person", "rita:emperor"], "ROLE"),
        (["--person", "oscar:operator", "--person", "oscar:operator"], "BAD_PERSON"),
        (["--person", "oscar:requester"], "NO_OPERATOR"),
        (["--person", "oscar:operator:support"], "NO_OPERATOR"),
        (["--person", "a:requester"], "NO_OPERATOR"),
        (["--host", "gateway=not a host"], "BAD_HOST"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_plan_that_no_gateway_would_start_with_leaves_nothing(models: Path, options: list[str], reason: str) -> None:
    assert reason in init(models, *options, code=3)
    assert [path.name for path in models.parent.iterdir()] == ["models"]


def test_a_continuation_that_does_not_hold_leaves_nothing(models: Path, pristine: Path) -> None:
    note, trust = models / "note", models / "trust.txt"
    note.write_text("no note\n")
    continues = ("--origin", "assay.local/log2", "--continues", note, "--continues-trust", trust)
    for data in (b"\xff", (pristine / "trust.txt").read_bytes()):
        trust.write_bytes(data)
        assert ("TRUST_MALFORMED" if data == b"\xff" else "NOTE_MALFORMED") in init(models, *continues, code=3)
        assert [path.name for path in models.parent.iterdir()] == ["models"]


def test_a_continuation_is_read_though_blank_lines_follow_the_note(models: Path, pristine: Path) -> None:
    key = load_ed25519(Layout(pristine).service("gateway") / "log.key")
    note = models / "note"
    note.write_bytes(sign_note(f"assay.local/log\n1\n{'A' * 43}=\n", "assay.local/log", key) + b"\n")
    trust = pristine / "trust.txt"
    init(models, "--origin", "assay.local/log2", "--continues", note, "--continues-trust", trust)
    assert (models.parent / "bank" / "bootstrap" / "continues.json").exists()


def test_the_trust_file_names_who_signs_the_first_grants(pristine: Path) -> None:
    trust, envelopes = TrustFile.load(pristine / "trust.txt"), json.loads(Layout(pristine).bootstrap_grants.read_text())
    signers = {s.subject for e in envelopes for s in dsse.verify_person(e, trust.people_root, now()).signers}
    assert signers == {trust.operator}


def test_a_file_is_no_place_for_an_installation(models: Path) -> None:
    (models.parent / "bank").write_text("")
    said = init(models, code=3)
    assert "FILE" in said and str(models.parent / "bank") in said


def test_an_origin_is_written_as_text(models: Path) -> None:
    init(models, "--origin", 'a"b/log')
    assert tomllib.loads((models.parent / "bank" / "assay.toml").read_text())["origin"] == 'a"b/log'


def test_every_subject_is_of_the_trust_domain(models: Path) -> None:
    init(models, "--trust-domain", "bank.example")
    root = models.parent / "bank"
    named = {subject_of(load_certificate(p)) for p in root.rglob("*.crt") if not p.name.endswith("-ca.crt")}
    named |= set(re.findall('spiffe://[^"]+', "".join(p.read_text() for p in root.rglob("*.toml"))))
    assert "spiffe://bank.example/services/gateway/cards" in named and len(named) > 8
    assert all(subject.startswith("spiffe://bank.example/") for subject in named), named


async def test_one_person_may_have_several_roles(models: Path, engine: PolicyEngine) -> None:
    roles = (
        "oscar:operator", "oscar:requester", "cora:compliance-officer", "vik:validator:support", "vik:validator:credit",
    )  # fmt: skip
    said = init(models, *(word for role in roles for word in ("--person", role)), "--output", "json")
    assert [(p["name"], p["role"], p["unit"]) for p in json.loads(said)["people"]] == [
        ("oscar", "operator", "-"), ("oscar", "requester", "-"), ("cora", "compliance_officer", "-"),
        ("vik", "validator", "support"), ("vik", "validator", "credit"),
    ]  # fmt: skip
    settings = Settings.load(models.parent / "bank")
    (settings.folder / "base_models.json").write_text(json.dumps([BASE]))
    app = Application.open(settings, engine)
    try:
        for name, grants in (
            ("oscar", {("ROLE_OPERATOR", "-"), ("ROLE_REQUESTER", "-")}),
            ("vik", {("ROLE_VALIDATOR", "support"), ("ROLE_VALIDATOR", "credit")}),
        ):
            assert (await app.identities.caller(f"spiffe://assay.local/people/{name}", "")).grants == grants
        out = io.BytesIO()
        export(app.ledger, out, policy_text=f"log {app.ledger.vkey}\nquorum none\n")
        trust = TrustFile.parse(settings.layout.trust.read_text().replace("quorum local", "quorum none"))
        assert [c for c in verify_bytes(out.getvalue(), trust, now()).checks if c.outcome != "passed"] == []
    finally:
        await app.close()
