"""A gateway whose log needs a witness: nothing leaves the house before it has signed, and nothing is lost meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assay import installation
from assay.errors import IntegrityError, InvalidInputError, UnavailableError
from assay.identity import Layout, load_ed25519
from assay.v1 import approval_pb2, permit_pb2
from assay.v1 import audit_pb2 as pb
from audit.ledger import fork
from audit.ledger.anchor import FileAnchor
from audit.ledger.backup import backup
from audit.ledger.cosignature import cosign
from audit.ledger.httpd import Server
from audit.ledger.note import Checkpoint, SignedNote, Verifier, sign_note
from audit.ledger.restore import restore
from audit.ledger.witness import service
from audit.ledger.witness.__main__ import open_server
from audit.ledger.witness.service import Witness
from audit.ledger.witness.settings import WitnessSettings
from audit.ledger.witness.settings import toml as witness_toml
from audit.ledger.witness.store import WitnessStore
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway import doctor
from gateway.application import Application
from gateway.settings import Settings, default_toml
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, House, now, publish_by_two
from tests.gateway.judged import NAME, approved, awaiting, decide
from tests.gateway.test_evidence import export
from tests.gateway.test_freezing import call
from tests.gateway.test_permits import asked, issued, offline, online
from tests.gateway.workers import free_ports


@dataclass
class Town:
    """An installation and its witness, which can be shut and opened again."""

    layout: Layout
    engine: PolicyEngine
    running: list[tuple[Server, WitnessStore]] = field(default_factory=list)

    def open_witness(self) -> None:
        made = open_server(WitnessSettings.load(self.layout.witness))
        made[0].start()
        self.running.append(made)

    def shut_witness(self, house: House | None = None) -> None:
        """Ends the witness; ``house`` then waits for it only briefly."""
        if house is not None:
            object.__setattr__(house.app.store, "quorum_seconds", 0.5)
        while self.running:
            server, store = self.running.pop()
            server.close()
            store.close()

    def open_house(self) -> House:
        return House(Application.open(Settings.load(self.layout.root), self.engine), self.layout)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory, engine: PolicyEngine) -> Path:
    root = tmp_path_factory.mktemp("witnessed") / "dir"
    port = free_ports(1)[0]
    layout = installation.create(
        root, installation.Plan(installation.DEFAULT_PEOPLE, "oscar", witness_url=f"https://127.0.0.1:{port}")
    )
    layout.settings.write_text(default_toml().replace("quorum_seconds = 20", "quorum_seconds = 60"))
    (layout.service("gateway") / "base_models.json").write_text(json.dumps([BASE]))
    publish_by_two(layout, engine.policy())
    vkey = Verifier.of("assay.local/log", load_ed25519(layout.service("gateway") / "log.key").public_key()).vkey()
    clients = ["spiffe://assay.local/services/gateway"]
    name = installation.witness_name("assay.local")
    (layout.witness / "witness.toml").write_text(witness_toml(name, f"127.0.0.1:{port}", [vkey], "mtls", clients))
    return root


@pytest.fixture
def town(founded: Path, engine: PolicyEngine, tmp_path: Path) -> Iterator[Town]:
    shutil.copytree(founded, tmp_path / "dir")
    made = Town(Layout(tmp_path / "dir"), engine)
    made.open_witness()
    yield made
    made.shut_witness()


@pytest.fixture
async def house(town: Town) -> AsyncIterator[House]:
    made = town.open_house()
    yield made
    await made.app.close()


async def settled(house: House) -> None:
    """Waits until everything so far is published, however slow this machine is."""
    await asyncio.wait_for(asyncio.wrap_future(house.app.store.publication.covered(house.app.ledger.size - 1)), 60)


async def not_met(call: object) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.reason == "QUORUM_NOT_MET" and "witness" in caught.value.remedy
    return caught.value


async def test_a_bundle_under_the_quorum_is_valid_by_the_trust_file(house: House, tmp_path: Path) -> None:
    await awaiting(house)
    await settled(house)
    path = await export(house, "anna", "units/-", [], tmp_path / "b.zip")
    trust = TrustFile.parse(house.layout.trust.read_text())
    report = verify_bundle(path, trust, now())
    assert report.verdict == "valid", report.text()
    assert not [s for s in report.stamps if "QUORUM" in s] and "assay.local/witness" in report.text()
    note = (await house.app.evidence.get_checkpoint(await house.caller("anna"), pb.GetCheckpointRequest())).note
    assert trust.quorum.judge(SignedNote.parse(note)).met


async def test_a_permit_holds_offline_with_its_quorum(house: House) -> None:
    await approved(house)
    await settled(house)
    permit = await issued(house)
    assert offline(house, permit) == (True, "") and (await online(house, permit)).allowed
    bare = SignedNote.parse(permit.checkpoint)
    permit.checkpoint = SignedNote(bare.text, bare.signatures[:1]).encode()
    allowed, reason = offline(house, permit)
    assert not allowed and "QUORUM_NOT_MET" in reason


async def test_without_the_witness_work_goes_on_and_nothing_leaves(house: House, town: Town, tmp_path: Path) -> None:
    await settled(house)
    town.shut_witness(house)
    before = house.app.ledger.size
    await awaiting(house)
    assert house.app.ledger.size > before + 5, "records are written"
    anna, cora = await house.caller("anna"), await house.caller("cora")
    error = await not_met(export(house, "anna", "units/-", [], tmp_path / "b.zip"))
    assert "WITNESS_UNREACHABLE" in error.message
    await not_met(house.app.approvals.list_pending_approvals(
        cora, approval_pb2.ListPendingApprovalsRequest(parent="units/credit")))  # fmt: skip
    await not_met(house.app.evidence.get_inclusion_proof(anna, pb.GetInclusionProofRequest(index=before)))
    old = await house.app.evidence.get_inclusion_proof(anna, pb.GetInclusionProofRequest(index=0))
    assert old.proof.tree_size <= before and old.checkpoint, "what was published stays readable"
    with pytest.raises(InvalidInputError) as caught:
        request = pb.GetInclusionProofRequest(index=0, tree_size=before + 1)
        await house.app.evidence.get_inclusion_proof(anna, request)
    assert caught.value.reason == "PROOF_RANGE"
    note = (await house.app.evidence.get_checkpoint(anna, pb.GetCheckpointRequest())).note
    assert fork.head_of(SignedNote.parse(note).text).size <= before
    town.open_witness()
    await settled(house)
    pending = await house.app.approvals.list_pending_approvals(
        cora, approval_pb2.ListPendingApprovalsRequest(parent="units/credit")
    )
    assert [p.tuning_job for p in pending.pending_approvals] == [NAME]


async def test_a_permit_waits_and_the_same_request_gets_it(house: House, town: Town) -> None:
    await approved(house)
    await settled(house)
    town.shut_witness(house)
    request, dana = asked(), await house.caller("dana")
    await not_met(house.app.permits.issue_permit(dana, request))
    name = [r for r in house.app.ledger.records(None, NAME, -1, 500) if r.type == "permit.issued"]
    assert len(name) == 1, "it is recorded, once"
    await not_met(house.app.permits.issue_permit(dana, request))
    permit = json.loads(name[0].body)["statement"]["predicate"]["permit"]
    check = permit_pb2.CheckPermitRequest(
        name=permit, adapter_sha256="ad" * 32, base_sha256=str(BASE["sha256"]),
        purpose="support-replies", environment="production-eu",
    )  # fmt: skip
    answer = await house.app.permits.check_permit(dana, check)
    assert not answer.allowed and "witnesses" in answer.reason and not answer.permit.checkpoint
    town.open_witness()
    await settled(house)
    got = (await house.app.permits.issue_permit(dana, request)).permit
    assert got.name == permit and offline(house, got) == (True, "")


async def test_a_revocation_never_waits(house: House, town: Town) -> None:
    await approved(house)
    await settled(house)
    permit = await issued(house)
    town.shut_witness(house)
    request = permit_pb2.RevokePermitRequest(name=permit.name, reason="incident")
    answer = await house.app.permits.revoke_permit(await house.caller("dana"), request)
    assert answer.permit.HasField("revoke_time")


async def test_both_signers_sign_the_same_root_whatever_is_published_between(house: House) -> None:
    await awaiting(house)
    await settled(house)
    first = await decide(house, "cora", "ROLE_COMPLIANCE_OFFICER")
    await house.upload("rita", dataset="more")
    await settled(house)
    second = await decide(house, "vik", "ROLE_VALIDATOR")
    assert first and second
    roots = {
        json.loads(r.body)["statement"]["predicate"]["evidence_root"]
        for r in house.app.ledger.records(None, NAME, -1, 500)
        if r.type == "approval.decided"
    }
    assert len(roots) == 1


async def test_a_fork_stops_the_gateway_and_every_later_start(town: Town) -> None:
    house = town.open_house()
    await settled(house)
    origin, key = "assay.local/log", load_ed25519(town.layout.service("gateway") / "log.key")
    size = house.app.ledger.size
    lie = sign_note(Checkpoint(origin, size, b"\x07" * 32).text(), origin, key)
    town.shut_witness()
    settings = WitnessSettings.load(town.layout.witness)
    store = WitnessStore(settings.database)
    witness = Witness(settings.name, load_ed25519(settings.key), settings.logs, store, settings.evidence)
    assert witness.add_checkpoint(f"old {size}\n\n".encode() + lie).status == 422
    store.close()
    town.open_witness()
    await house.upload("rita")
    with pytest.raises(UnavailableError):
        await settled(house)
    assert house.app.ledger.stopped == "LOG_FORKED" and house.app.store.publication.state.startswith("LOG_FORKED")
    with pytest.raises(UnavailableError) as caught:
        await house.upload("rita", dataset="again")
    assert caught.value.reason == "LEDGER_STOPPED"
    files = fork.found_in(town.layout.service("gateway") / "forks")
    assert len(files) == 1 and lie.decode() in fork.Evidence.parse(files[0].read_bytes()).notes[1].decode()
    await house.app.close()
    with pytest.raises(IntegrityError) as refused:
        town.open_house()
    assert refused.value.reason == "LOG_FORKED" and refused.value.metadata["evidence"] == files[0].name
    finding = next(f for f in doctor.run(town.layout.root) if f.name == "quorum")
    assert not finding.ok and finding.required


async def test_a_rollback_of_database_and_anchor_is_seen_by_what_was_published(town: Town, tmp_path: Path) -> None:
    house = town.open_house()
    await settled(house)
    await house.app.close()
    data, anchor = town.layout.service("gateway") / "data", town.layout.anchor
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(anchor, tmp_path / "anchor")
    house = town.open_house()
    await house.upload("rita")
    await settled(house)
    published = (data / "published.db").read_bytes()
    await house.app.close()
    for folder, copy in ((data, "data"), (anchor, "anchor")):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / copy, folder)
    for file in data.glob("published.db*"):
        file.unlink()
    assert published
    house = town.open_house()
    with pytest.raises(UnavailableError):
        await settled(house)
    assert house.app.ledger.stopped == "LOG_ROLLED_BACK"
    await house.app.close()
    with pytest.raises(IntegrityError) as refused:
        town.open_house()
    assert refused.value.reason == "LOG_ROLLED_BACK"


async def test_operators_commands_sign_no_second_checkpoint_of_a_size(town: Town, tmp_path: Path) -> None:
    """Database and anchor went back, and what was published did not: as for the gateway, so for whoever stands in."""
    await town.open_house().app.close()
    settings, anchor = Settings.load(town.layout.root), town.layout.anchor
    shutil.copy(settings.database, tmp_path / "assay.db")
    shutil.copytree(anchor, tmp_path / "anchor")
    house = town.open_house()
    await house.upload("rita")
    await settled(house)
    published = house.app.store.publication.latest()[1]
    await house.app.close()
    for path in settings.data.glob("assay.db*"):
        path.unlink()
    shutil.rmtree(anchor)
    shutil.copy(tmp_path / "assay.db", settings.database)
    shutil.copytree(tmp_path / "anchor", anchor)
    before = FileAnchor(anchor).read()
    oscar, out = town.layout.person("oscar"), tmp_path / "final.checkpoint"
    assert "LOG_ROLLED_BACK" in call("key", "rotate", "permit", town.layout.root, "--as", oscar, code=10)
    assert "LOG_ROLLED_BACK" in call("ledger", "freeze", town.layout.root, "--as", oscar, code=10)
    assert len(fork.found_in(settings.forks)) == 1
    order = ("--reason-code", "fork", "--as", oscar, "--out", out, "--output", "json")
    done = json.loads(call("ledger", "freeze", town.layout.root, *order))
    assert (done["recorded"], done["witnessed"]) == (False, True) and out.read_bytes() == published
    assert FileAnchor(anchor).read() == before, "nothing was signed"


@pytest.mark.parametrize("witness", ["answers", "is away", "has a clock ahead"])
async def test_the_final_checkpoint_is_cosigned(
    town: Town, tmp_path: Path, witness: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = witness == "answers"
    house = town.open_house()
    await settled(house)
    await house.app.close()
    if witness == "is away":
        town.shut_witness()
    elif not answers:
        late = lambda text, name, key, at: cosign(text, name, key, at + dt.timedelta(days=3650))  # noqa: E731
        monkeypatch.setattr(service, "cosign", late)
    if not answers:
        text = town.layout.settings.read_text()
        town.layout.settings.write_text(text.replace("quorum_seconds = 60", "quorum_seconds = 1"))
    out = tmp_path / "final.checkpoint"
    said = call("ledger", "freeze", town.layout.root, "--as", town.layout.person("oscar"), "--out", out)
    assert ("have not cosigned" in said) is not answers
    trust, note = TrustFile.parse(town.layout.trust.read_text()), SignedNote.parse(out.read_bytes())
    assert trust.quorum.judge(note).met is answers and fork.read_head(out.read_bytes(), [trust.log]).size > 5
    monkeypatch.setattr(service, "cosign", cosign)
    if not answers:
        town.shut_witness()
        town.open_witness()
        house = town.open_house()
        await settled(house)
        final = SignedNote.parse(house.app.store.publication.latest()[1])
        assert final.text == note.text and trust.quorum.judge(final).met, "the next start asks for it"
        await house.app.close()


@pytest.mark.parametrize("kept", [True, False], ids=["with published notes", "a backup of an earlier version"])
async def test_a_restored_log_publishes_no_second_checkpoint_of_a_size(town: Town, tmp_path: Path, kept: bool) -> None:
    """One signer has signed before the loss, the other signs after it: over the same root, and a permit follows."""
    house = town.open_house()
    await awaiting(house)
    await settled(house)
    await decide(house, "cora", "compliance_officer")
    await settled(house)
    size, publication = house.app.ledger.size, house.app.store.publication
    before = [publication.covering(index) for index in range(size)]
    settings, log = house.app.settings, house.app.ledger.verifier
    backup(settings.database, log, tmp_path / "backup", published=settings.published if kept else None)
    await house.app.close()
    for path in [*settings.data.glob("assay.db*"), *settings.data.glob("published.db*")]:
        path.unlink()
    restore(settings.database, FileAnchor(town.layout.anchor), log, tmp_path / "backup", (), settings.published)
    house = town.open_house()
    await settled(house)
    publication = house.app.store.publication
    after = [publication.covering(index) for index in range(size)]
    heads = {s: SignedNote.parse(note).text for s, note in before}
    assert all(SignedNote.parse(note).text == heads[s] for s, note in after), "one text for a size, before and after"
    assert (after == before) is kept
    await decide(house, "vik", "validator")
    await settled(house)
    assert house.types(NAME)[-1] == "card.issued"
    await house.app.close()


async def test_what_the_ledgers_own_start_finds_is_written_down_too(town: Town, tmp_path: Path) -> None:
    house = town.open_house()
    await house.app.close()
    shutil.copytree(town.layout.service("gateway") / "data", tmp_path / "data")
    house = town.open_house()
    await house.upload("rita")
    await settled(house)
    await house.app.close()
    shutil.rmtree(town.layout.service("gateway") / "data")
    shutil.copytree(tmp_path / "data", town.layout.service("gateway") / "data")
    with pytest.raises(IntegrityError) as refused:
        town.open_house()
    assert refused.value.reason == "LOG_ROLLED_BACK"
    (path,) = fork.found_in(town.layout.service("gateway") / "forks")
    assert refused.value.metadata["evidence"] == path.name


async def test_a_fork_that_the_start_finds_is_written_down(town: Town, tmp_path: Path) -> None:
    """Two histories under one key, the database of the one beside the anchor of the other."""
    await town.open_house().app.close()
    data, anchor = town.layout.service("gateway") / "data", town.layout.anchor

    def keep(name: str) -> None:
        shutil.copytree(data, tmp_path / name / "data")
        shutil.copytree(anchor, tmp_path / name / "anchor")

    def put(name: str, *folders: Path) -> None:
        for folder in folders:
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / name / ("data" if folder == data else "anchor"), folder)

    async def live(*datasets: str) -> None:
        house = town.open_house()
        for dataset in datasets:
            await house.upload("rita", dataset=dataset, data=dataset.encode() * 50)
        await house.app.close()

    keep("before")
    town.shut_witness()
    await live("one")
    keep("one")
    put("before", data, anchor)
    await live("two", "three")
    put("one", anchor)
    with pytest.raises(IntegrityError) as refused:
        town.open_house()
    assert refused.value.reason == "LOG_FORKED"
    (path,) = fork.found_in(town.layout.service("gateway") / "forks")
    found = fork.Evidence.parse(path.read_bytes())
    assert refused.value.metadata["evidence"] == path.name and found.kind == "LOG_FORKED"
    key = load_ed25519(town.layout.service("gateway") / "log.key").public_key()
    heads = [fork.read_head(note, [Verifier.of("assay.local/log", key)]) for note in found.notes]
    assert heads[0].size + 1 == heads[1].size and heads[0].root != heads[1].root


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace("quorum local", "quorum nobody"), "POLICY_MALFORMED"),
        (lambda t: t.replace(" https://", " ftp://"), "POLICY_MALFORMED"),
        (lambda t: t.split(" https://")[0] + "\nquorum local\n", "WITNESS_ADDRESS"),
        (lambda t: t.replace("log assay.local/log+", "log other/log+"), "POLICY_MALFORMED"),
        (lambda t: t.replace("quorum local", "quorum none"), "QUORUM_DIFFERS"),
        (lambda t: t.splitlines()[0] + "\nquorum none\n", "QUORUM_DIFFERS"),
        (lambda t: t.replace("quorum local", "group g any local\nquorum g"), "QUORUM_DIFFERS"),
    ],
    ids=["quorum", "scheme", "no address", "log", "none", "no witness", "another quorum"],
)
async def test_a_policy_that_is_wrong_stops_the_start(town: Town, change: Callable[[str], str], reason: str) -> None:
    path = town.layout.witness_policy
    path.write_text(change(path.read_text()))
    with pytest.raises(InvalidInputError) as caught:
        town.open_house()
    assert caught.value.reason == reason


async def test_a_policy_for_another_log_stops_the_start(town: Town, founded: Path, tmp_path: Path) -> None:
    other = installation.create(tmp_path / "other", installation.Plan(installation.DEFAULT_PEOPLE, "oscar"))
    path, (log, *_) = town.layout.witness_policy, other.witness_policy.read_text().splitlines()
    path.write_text("\n".join([log, *path.read_text().splitlines()[1:], ""]))
    with pytest.raises(InvalidInputError) as caught:
        town.open_house()
    assert caught.value.reason == "POLICY_OTHER_KEY"


async def test_a_policy_file_that_is_gone_is_no_decision_to_ask_nobody(town: Town) -> None:
    """Attack 44: not while the trust file names a quorum, and not where witnesses were asked before."""
    await town.open_house().app.close()
    policy = town.layout.witness_policy.read_text()
    town.layout.witness_policy.unlink()
    for _ in ("a trust file with a quorum", "and one without"):
        with pytest.raises(InvalidInputError) as caught:
            town.open_house()
        assert caught.value.reason == "POLICY_MISSING" and "quorum none" in caught.value.remedy
        finding = next(f for f in doctor.run(town.layout.root) if f.name == "quorum")
        assert not finding.ok and finding.required and "quorum none" in finding.remedy
        town.layout.trust.write_text(unwitnessed(town.layout.trust.read_text()))
    town.layout.witness_policy.write_text(policy)
    house = town.open_house()
    assert house.app.store.publication.policy.describe() == "assay.local/witness", "more than the trust file demands"
    await house.app.close()


async def test_an_installation_that_never_asked_a_witness_needs_no_policy_file(opened: Callable[[], House]) -> None:
    house = opened()
    await house.app.close()
    house.layout.witness_policy.unlink()
    house = opened()
    assert house.app.store.publication.policy.asks_nobody
    await house.app.close()


def unwitnessed(text: str) -> str:
    """A policy or trust file that names no witness."""
    lines = [line for line in text.splitlines() if not line.startswith(("witness ", "quorum "))]
    return "\n".join([*lines, "quorum none", ""])


async def test_quorum_none_is_stamped_into_the_bundle_and_the_doctors_findings(town: Town, tmp_path: Path) -> None:
    """Attack 44: whoever takes the witnesses out of the installation's own files is found out by the trust file."""
    text = town.layout.trust.read_text()
    for path in (town.layout.witness_policy, town.layout.trust):
        path.write_text(unwitnessed(path.read_text()))
    house = town.open_house()
    bundle = await export(house, "anna", "units/-", [], tmp_path / "b.zip")
    await house.app.close()
    report = verify_bundle(bundle, TrustFile.parse(text), now())
    assert report.verdict == "invalid" and "QUORUM_DOWNGRADE" in report.text()
    lax = verify_bundle(bundle, TrustFile.parse(unwitnessed(text)), now())
    assert lax.verdict == "valid" and any("QUORUM NONE" in s for s in lax.stamps)
    finding = next(f for f in doctor.run(town.layout.root) if f.name == "quorum")
    assert not finding.ok and "QUORUM NONE" in finding.detail and not finding.required


async def test_the_doctor_sees_whether_the_witness_answers(town: Town) -> None:
    assert next(f for f in doctor.run(town.layout.root) if f.name == "quorum").ok
    town.shut_witness()
    finding = next(f for f in doctor.run(town.layout.root) if f.name == "quorum")
    assert not finding.ok and "no answer from local" in finding.detail
