"""Certificates that end are seen in time and renewed; nobody's records, roles or hosts change by it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from assay import canonical, dsse, installation
from assay.errors import AssayError, PreconditionError
from assay.identity import (
    LEAF_DAYS,
    Authority,
    Layout,
    hosts_of,
    load_certificate,
    load_p256,
    pem,
    service_tls,
    subject_of,
)
from assay.modelfiles import BaseManifest
from assay.v1 import identity_pb2
from gateway import doctor, identity_files
from gateway import install as installing
from gateway.settings import Settings
from gateway.statements import grant_statement
from tests.gateway.conftest import BASE, House, now
from tests.gateway.test_keys import Closed, Open, call, closed, ordered, ran, unheld, verified

__all__ = ["closed", "ran"]  # fixtures
A_GRANT = grant_statement("spiffe://x/people/y", "ROLE_AUDITOR", "-", "g")


@pytest.fixture
def layout(pristine: Path, tmp_path: Path) -> Layout:
    """An installation to work on."""
    return Layout(Path(shutil.copytree(pristine, tmp_path / "bank")))


def age(layout: Layout, name: str, days: int) -> Path:
    """Lets a certificate end in ``days`` days, for the same key, subject and hosts; returns its place."""
    one = next(h for h in identity_files.held(layout) if h.name == name)
    root = "people-ca" if name.startswith("people/") else "services-ca"
    authority = Authority.load(layout.authority / f"{root}.key", layout.authority / f"{root}.crt")
    start = now() - dt.timedelta(days=LEAF_DAYS - days)
    public = one.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    server = not name.startswith("people/") and name != "pdf"
    leaf = authority.issue(one.subject, public, server=server, not_before=start, hosts=one.hosts)
    one.path.write_bytes(pem(leaf))
    return one.path


def told(*arguments: object, code: int = 0) -> Any:
    return json.loads(call("identity", *arguments, "--output", "json", code=code))


def files(layout: Layout) -> dict[str, bytes]:
    return {str(p.relative_to(layout.root)): p.read_bytes() for p in layout.root.rglob("*") if p.is_file()}


def changed(layout: Layout, before: dict[str, bytes]) -> set[str]:
    after = files(layout)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def findings(layout: Layout) -> dict[str, doctor.Finding]:
    return {f.name: f for f in doctor.run(layout.root) if f.name.startswith("certificate")}


def test_every_certificate_is_listed_with_what_it_names_and_its_end(layout: Layout) -> None:
    found = {one["name"]: one for one in told("list", layout.root)["identities"]}
    people = {f"people/{p.name}" for p in (layout.root / "people").iterdir()}
    assert set(found) == {
        "gateway", "train-worker", "audit-worker", "pdf", "services-root", "people-root", *people
    }  # fmt: skip
    assert {one["state"] for one in found.values()} == {"valid"} and not any(one["remedy"] for one in found.values())
    assert found["people/vik"]["subject"] == "spiffe://assay.local/people/vik"
    until = dt.datetime.fromisoformat(found["gateway"]["until"])
    assert until == load_certificate(layout.service("gateway") / "tls.crt").not_valid_after_utc
    shown = call("identity", "list", layout.root)
    assert "people/vik" in shown and f"{until:%Y-%m-%d}" in shown


def test_a_gateway_without_authority_lists_its_copies_of_the_roots(layout: Layout) -> None:
    before = told("list", layout.root)
    shutil.rmtree(layout.authority)
    assert told("list", layout.root) == before


@pytest.mark.parametrize(("days", "state", "code"), [(31, "valid", 0), (29, "ends soon", 0), (-1, "ended", 1)], ids=str)
@pytest.mark.parametrize("name", ["gateway", "people/vik", "pdf"])
def test_doctor_tells_in_time_and_fails_after(layout: Layout, name: str, days: int, state: str, code: int) -> None:
    age(layout, name, days)
    listed = {one["name"]: one for one in told("list", layout.root)["identities"]}
    assert listed[name]["state"] == state
    found = findings(layout)
    if state == "valid":
        assert list(found) == ["certificates"] and name in found["certificates"].detail
        return
    assert list(found) == [f"certificate of {name}"]
    finding = found[f"certificate of {name}"]
    assert not finding.ok and finding.required == bool(code) and listed[name]["remedy"] == finding.remedy
    command = f"assay key rotate pdf {layout.root}" if name == "pdf" else f"assay identity renew {layout.root} {name}"
    assert finding.remedy.startswith(command)
    if name != "pdf":
        call("identity", "renew", layout.root, name)
        assert list(findings(layout)) == ["certificates"]


def test_a_folder_without_settings_is_looked_at_too(layout: Layout) -> None:
    """The authority's machine, or a worker's, has no assay.toml of a gateway."""
    age(layout, "train-worker", -1)
    layout.settings.unlink()
    assert findings(layout)["certificate of train-worker"].required


def test_a_certificate_that_cannot_be_read_is_named(layout: Layout) -> None:
    path = layout.service("gateway") / "tls.crt"
    path.write_text("nonsense")
    finding = findings(layout)["certificates"]
    assert not finding.ok and finding.required and str(path) in finding.detail
    assert "tls.crt" in call("identity", "list", layout.root, code=3)


def lacking(layout: Layout) -> list[str]:
    return [f.remedy for f in doctor.run(layout.root) if "does not name" in f.detail]


def test_doctor_names_a_service_whose_certificate_lacks_its_host(layout: Layout) -> None:
    """What it tells to do takes away no host that the certificate has."""
    call("identity", "renew", layout.root, "train-worker", "--host", "old.bank.example", "--host", "10.0.0.7")
    layout.settings.write_text(layout.settings.read_text().replace('"127.0.0.1:7444"', '"train.bank.example:7444"'))
    (remedy,) = lacking(layout)
    call(*remedy.split()[1:])
    assert lacking(layout) == []
    hosts = {one.name: one.hosts for one in identity_files.held(layout)}
    assert set(hosts["train-worker"]) == {"old.bank.example", "10.0.0.7", "train.bank.example"}


@pytest.mark.parametrize("host", ["Train.Bank.example", "[FD00:0::5]", "[0:0::0]", "LOCALHOST"])
def test_doctor_compares_hosts_and_not_their_spelling(layout: Layout, host: str) -> None:
    call("identity", "renew", layout.root, "train-worker", "--host", "train.bank.example", "--host", "fd00::5")
    layout.settings.write_text(layout.settings.read_text().replace('"127.0.0.1:7444"', f'"{host}:7444"'))
    assert lacking(layout) == []


def test_a_service_gets_a_new_key_and_keeps_subject_and_hosts(layout: Layout) -> None:
    folder, before = layout.service("gateway"), files(layout)
    old = load_certificate(folder / "tls.crt")
    done = told("renew", layout.root, "gateway", "--host", "gw.bank.example", "--host", "10.0.0.7", "--host", "fd00::7")
    assert done["restart"] == ["gateway"] and done["files"] == [str(folder / "tls.crt"), str(folder / "tls.key")]
    new = load_certificate(folder / "tls.crt")
    assert subject_of(new) == subject_of(old) and new.public_key() != old.public_key()
    assert hosts_of(new) == ("localhost", "gw.bank.example", "127.0.0.1", "10.0.0.7", "fd00::7")
    assert load_p256(folder / "tls.key").public_key() == new.public_key()
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert changed(layout, before) == {"services/gateway/tls.key", "services/gateway/tls.crt"}
    service_tls(folder).server_credentials()
    # Without --host the hosts stay, with it they are others.
    call("identity", "renew", layout.root, "gateway")
    assert hosts_of(load_certificate(folder / "tls.crt")) == hosts_of(new)
    again = told("renew", layout.root, "gateway", "--host", "GW2.bank.example")["identities"][0]
    assert again["hosts"] == ["gw2.bank.example"]


def test_a_crash_between_key_and_certificate_is_seen_and_mended(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        """Nothing catches it."""

    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        if target.name == "tls.crt":
            raise Crash
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, "replace", dying)
        identity_files.renew(layout, ["gateway"])
    finding = findings(layout)["certificate of gateway"]
    assert finding.required and finding.detail.startswith("another key")
    assert [one["name"] for one in told("renew", layout.root)["identities"]] == ["gateway"]
    assert list(findings(layout)) == ["certificates"] and not list(layout.root.rglob("*.part"))


def test_without_names_those_near_their_end_are_renewed(layout: Layout) -> None:
    assert call("identity", "renew", layout.root) == "nothing ends within 30 days\n"
    for name, days in (("audit-worker", 3), ("people/cora", -20), ("people/vik", 200)):
        age(layout, name, days)
    before = files(layout)
    done = told("renew", layout.root)
    assert [one["name"] for one in done["identities"]] == ["audit-worker", "people/cora"]
    assert done["restart"] == ["audit-worker"]
    assert changed(layout, before) == {
        "services/audit-worker/tls.key", "services/audit-worker/tls.crt", "people/cora/person.crt"
    }  # fmt: skip
    assert told("renew", layout.root)["identities"] == []


def test_a_person_is_renewed_by_the_old_certificate_alone(layout: Layout) -> None:
    """As on the authority's machine: the key stays with its owner, who only takes the new certificate."""
    home = Path(shutil.move(layout.person("vik") / "person.key", layout.root.parent / "viks.key"))
    path = age(layout, "people/vik", 5)
    old = load_certificate(path)
    call("identity", "renew", layout.root, "people/vik")
    new = load_certificate(path)
    assert new.public_key() == old.public_key() == load_p256(home).public_key()
    assert subject_of(new) == subject_of(old) and not (layout.person("vik") / "person.key").exists()
    root, payload = load_certificate(layout.authority / "people-ca.crt"), canonical.encode(A_GRANT)
    by_old, by_new = (dsse.sign_person(payload, load_p256(home), certificate) for certificate in (old, new))
    # A record is judged at its own time: one from before the renewal holds for ever, and both are by one signer.
    signers = dsse.verify_person(by_old, root, now()).signers
    assert signers == dsse.verify_person(by_new, root, now()).signers
    later = now() + dt.timedelta(days=100)
    assert dsse.verify_person(by_new, root, later).signers == signers
    with pytest.raises(AssayError) as caught:
        dsse.verify_person(by_old, root, later)
    assert caught.value.reason == "CERTIFICATE_BAD"


async def test_records_roles_and_key_events_hold_on_after_a_renewal(closed: Closed, opened: Open) -> None:
    """vik's key was named by an event and oscar's by none: both sign on, and what they signed before is valid."""
    ordered(closed, "rotate", "people/vik", closed.layout.root)
    house = opened()
    await granted(house, "before")
    await house.app.close()
    for name in ("people/vik", "people/oscar"):
        age(house.layout, name, 5)
    assert len(told("renew", house.layout.root)["identities"]) == 2
    house = opened()
    await granted(house, "after")
    envelope = dsse.envelope_from_proto(house.sign("vik", A_GRANT))
    assert house.app.identities.people.verify(envelope, now()).signers[0].subject == house.subject("vik")
    assert unheld(verified(house)) == []
    await house.app.close()
    ordered(house, "rotate", "people/vik", house.layout.root)


async def granted(house: House, name: str) -> None:
    envelope = house.sign("oscar", grant_statement(house.subject(name), "validator", "credit", f"{name}-validator"))
    request = identity_pb2.GrantRoleRequest(envelope=envelope)
    await house.app.identities.grant_role(await house.caller("oscar"), request)


async def test_a_renewal_does_not_help_a_key_that_an_event_ended(closed: Closed, opened: Open) -> None:
    ordered(closed, "compromised", "people/vik", closed.layout.root, "--since", 0)
    call("identity", "renew", closed.layout.root, "people/vik")
    house = opened()
    envelope = dsse.envelope_from_proto(house.sign("vik", A_GRANT))
    with pytest.raises(AssayError) as caught:
        house.app.identities.people.verify(envelope, now())
    assert caught.value.reason == "KEY_NOT_IN_FORCE"
    await house.app.close()


@pytest.mark.parametrize(
    ("arguments", "reason", "remedy"),
    [
        (["nobody"], "IDENTITY_UNKNOWN", "people/vik"),
        (["vik"], "IDENTITY_UNKNOWN", "people/vik"),
        (["people/../gateway"], "IDENTITY_UNKNOWN", "one of"),
        (["pdf"], "IDENTITY_NOT_RENEWED", "assay key rotate pdf"),
        (["people-root"], "IDENTITY_NOT_RENEWED", "docs/keys.md"),
        (["people/vik", "--host", "a.example"], "HOSTS_OF_WHOM", "gateway"),
        (["gateway", "people/vik", "--host", "a.example"], "HOSTS_OF_WHOM", "gateway"),
        (["--host", "a.example"], "HOSTS_OF_WHOM", "gateway"),
        (["gateway", "--host", "https://a.example"], "BAD_HOST", "without scheme"),
        (["gateway", "--host", "a.example:7443"], "BAD_HOST", "without scheme"),
        (["gateway", "--host", "*.example"], "BAD_HOST", "without scheme"),
        (["gateway", "--host", "10.0.0.300"], "BAD_HOST", "without scheme"),
        (["gateway", "--host", ""], "BAD_HOST", "without scheme"),
        (["gateway", "--host", "bänk.example"], "BAD_HOST", "without scheme"),
        (["train-worker", "gateway", "--host", "-a"], "BAD_HOST", "without scheme"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_refused_renewal_says_why_and_changes_nothing(
    layout: Layout, arguments: list[str], reason: str, remedy: str
) -> None:
    before = files(layout)
    said = call("identity", "renew", layout.root, *arguments, code=3)
    assert reason in said and remedy in said and changed(layout, before) == set()


@pytest.mark.parametrize("command", ["list", "renew"])
def test_a_mistyped_directory_does_not_pass_for_one_in_order(tmp_path: Path, command: str) -> None:
    assert "NO_CERTIFICATES" in call("identity", command, tmp_path / "bnak", code=3)


def test_key_rotate_says_whose_affair_a_tls_key_is(layout: Layout) -> None:
    said = call("key", "rotate", "gateway", layout.root, "--as", layout.person("oscar"), code=3)
    assert "assay identity renew DIR gateway" in said


def test_a_persons_damaged_certificate_is_named_by_every_command_that_reads_it(layout: Layout) -> None:
    vik = layout.person("vik")
    (vik / "person.crt").write_text("nonsense")
    for words in (["key", "list", layout.root], ["policy", "publish", layout.root, "--as", vik]):
        said = call(*words, code=3)
        assert "KEY_MISSING" in said and str(vik / "person.crt") in said


def test_without_the_roots_key_or_under_another_nothing_is_renewed(layout: Layout, tmp_path: Path) -> None:
    before = files(layout)
    other = installation.create(tmp_path / "other", installation.Plan(installation.DEFAULT_PEOPLE, "oscar"))
    mine = Path(shutil.move(layout.authority, tmp_path / "elsewhere"))
    assert "KEY_MISSING" in call("identity", "renew", layout.root, "gateway", code=3)
    shutil.copytree(other.authority, layout.authority)
    for name in ("gateway", "people/vik"):
        assert "OTHER_AUTHORITY" in call("identity", "renew", layout.root, name, code=6)
    shutil.rmtree(layout.authority)
    shutil.move(mine, layout.authority)
    assert changed(layout, before) == set()


def test_no_certificate_outlives_its_root() -> None:
    root = Authority.create("short", days=100)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = root.issue("spiffe://x/people/y", key, server=False)
    assert leaf.not_valid_after_utc == root.certificate.not_valid_after_utc
    ended = Authority.create("ended", days=0)
    with pytest.raises(PreconditionError) as caught:
        ended.issue("spiffe://x/people/y", key, server=False, not_before=now() + dt.timedelta(hours=1))
    assert caught.value.reason == "ROOT_ENDED"


def test_somebody_is_enrolled_once(layout: Layout) -> None:
    before = files(layout)
    done = told("enrol", layout.root, "vera", "--address", "gw.bank.example:7443")
    folder = layout.person("vera")
    assert done["subject"] == "spiffe://assay.local/people/vera" and done["folder"] == str(folder)
    assert {p.name for p in folder.iterdir()} == {"person.key", "person.crt", "services-ca.crt", "client.toml"}
    assert (folder / "client.toml").read_text() == 'address = "gw.bank.example:7443"\n'
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(name.startswith("people/vera/") for name in changed(layout, before))
    again, before = call("identity", "enrol", layout.root, "vera", code=7), files(layout)
    assert "PERSON_EXISTS" in again and "assay identity renew DIR people/vera" in again
    assert changed(layout, before) == set()
    call("identity", "renew", layout.root, "people/vera")
    told("enrol", layout.root, "ulla")
    assert (layout.person("ulla") / "client.toml").read_text() == 'address = "127.0.0.1:7443"\n'


def test_a_damaged_certificate_stands_in_nobody_elses_way(layout: Layout) -> None:
    path = layout.service("gateway") / "tls.crt"
    path.write_text("nonsense")
    assert told("enrol", layout.root, "vera")["subject"] == "spiffe://assay.local/people/vera"
    done = told("renew", layout.root, "people/vera", "audit-worker", "people/vera")
    assert [one["name"] for one in done["identities"]] == ["people/vera", "audit-worker"]
    # Its own, or everybody's, is another matter.
    for names in (["gateway"], ["audit-worker", "gateway"], []):
        before = files(layout)
        said = call("identity", "renew", layout.root, *names, code=3)
        assert "KEY_MISSING" in said and str(path) in said and changed(layout, before) == set()


def test_the_subject_is_of_the_installations_own_trust_domain(layout: Layout) -> None:
    text = layout.settings.read_text().replace('trust_domain = "assay.local"', 'trust_domain = "bank.example"')
    layout.settings.write_text(text)
    assert told("enrol", layout.root, "vera")["subject"] == "spiffe://bank.example/people/vera"


@pytest.mark.parametrize(
    ("name", "address", "listen", "reason"),
    [
        ("Vera", "", "127.0.0.1:7443", "BAD_NAME"),
        ("../vera", "", "127.0.0.1:7443", "BAD_NAME"),
        ("vera", "gw.bank.example", "127.0.0.1:7443", "ADDRESS"),
        ("vera", 'x:1"\nlisten="', "127.0.0.1:7443", "ADDRESS"),
        ("vera", "", "0.0.0.0:7443", "ADDRESS"),
        ("vera", "", "[::]:7443", "ADDRESS"),
        ("vera", "", "[0::0]:7443", "ADDRESS"),
    ],
)
def test_a_refused_enrolment_leaves_nothing(layout: Layout, name: str, address: str, listen: str, reason: str) -> None:
    layout.settings.write_text(layout.settings.read_text().replace('"127.0.0.1:7443"', f'"{listen}"', 1))
    before = files(layout)
    assert reason in call("identity", "enrol", layout.root, name, "--address", address, code=3)
    shutil.rmtree(layout.authority)
    assert "KEY_MISSING" in call("identity", "enrol", layout.root, "ok", "--address", "a:1", code=3)
    assert {n for n in changed(layout, before) if not n.startswith("authority/")} == set()
    assert not [p for p in layout.root.iterdir() if p.name.startswith(".")]


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: str, code: int = 0) -> tuple[Layout, str]:
    (tmp_path / "models/tiny").mkdir(parents=True, exist_ok=True)
    (tmp_path / "models/tiny/manifest.json").write_text("{}")
    monkeypatch.setattr(installing, "read_base_manifest", lambda path: BaseManifest(**BASE, files=()))
    root = tmp_path / "new"
    options = [word for host in hosts.split() for word in ("--host", host)]
    return Layout(root), call("init", root, "--models", tmp_path / "models", *options, code=code)


def test_init_names_the_hosts_of_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, _ = made(tmp_path, monkeypatch, "gateway=gw.bank.example witness=10.0.0.9 audit-worker=fd00::5")
    settings = Settings.load(layout.root)
    assert (settings.listen, settings.log_http) == ("gw.bank.example:7443", "gw.bank.example:7447")
    assert settings.metrics == "127.0.0.1:7446" and settings.workers["train"].address == "127.0.0.1:7444"
    assert settings.workers["audit"].address == "[fd00::5]:7445"
    assert 'listen = "[fd00::5]:7445"' in (layout.service("audit-worker") / "worker.toml").read_text()
    assert 'listen = "10.0.0.9:7448"' in (layout.witness / "witness.toml").read_text()
    assert "https://10.0.0.9:7448" in layout.witness_policy.read_text()
    assert (layout.person("rita") / "client.toml").read_text() == 'address = "gw.bank.example:7443"\n'
    hosts = {one.name: one.hosts for one in identity_files.held(layout)}
    assert hosts["gateway"] == ("gw.bank.example",) and hosts["witness"] == ("10.0.0.9",)
    assert hosts["audit-worker"] == ("fd00::5",) and hosts["train-worker"] == () == hosts["people/rita"]


@pytest.mark.parametrize(
    "hosts",
    [
        "gw.bank.example",
        "console=a.example",
        "gateway=",
        "gateway=a.example:1",
        'witness="',
        "gateway=a.example gateway=b.example",
        "gateway=a.example witness=c.example gateway=a.example",
    ],
)
def test_init_refuses_a_host_that_is_none_or_one_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    layout, said = made(tmp_path, monkeypatch, hosts, code=3)
    assert "BAD_HOST" in said and not layout.root.exists()


@pytest.mark.parametrize(
    ("hosts", "train", "audit"),
    [
        ("", 7443, 7443),
        ("gateway=LocalHost witness=10.0.0.9", 7443, 7443),
        ("gateway=gw.bank.example", 0, 0),
        ("train-worker=10.0.0.7", 0, 7443),
    ],
)
def test_a_worker_probes_for_a_gateway_on_its_own_loopback_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: str, train: int, audit: int
) -> None:
    layout, _ = made(tmp_path, monkeypatch, hosts)
    for name, port in (("train-worker", train), ("audit-worker", audit)):
        assert tomllib.loads((layout.service(name) / "worker.toml").read_text())["gateway_port"] == port
