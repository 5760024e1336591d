from __future__ import annotations

import datetime as dt
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import canonical
from assay.digests import sha256_bytes
from assay.errors import AssayError
from audit.ledger import evidence
from audit.ledger.note import Checkpoint, ProofFile, sign_note
from audit.ledger.records import RecordDraft
from audit.verify import Report, verify_bundle
from audit.verify.trust import TrustFile
from tests.audit.ledger.ledger_world import (
    CARD_JSON,
    CARD_PDF,
    JOB,
    ORIGIN,
    START,
    Story,
    World,
    digest,
    ed25519,
    refused,
)
from tests.audit.verify.forge import edited, forge, plain_trust

CARDS = {"card.pdf": CARD_PDF, "card.json": CARD_JSON}
ROOT = Path(__file__).parents[3]


def report_on(folder: Path, data: bytes, trust: TrustFile, now: dt.datetime = START) -> Report:
    path = folder / "bundle.zip"
    path.write_bytes(data)
    return verify_bundle(path, trust, now)


def failing(report: Report) -> list[str]:
    return [f"{c.name}: {c.detail}" for c in report.checks if c.outcome != "passed"]


def test_the_whole_log_is_valid(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    report = report_on(tmp_path, told[0], told[1])
    assert failing(report) == []
    assert report.verdict == "valid"
    assert (report.scope, report.records, report.size) == ("log", 21, 21)
    assert any("QUORUM NONE" in stamp for stamp in report.stamps)
    assert not any("founding operator" in line for line in report.not_checked)
    assert "VALID" in report.text()


def test_bundles_are_deterministic(world: World) -> None:
    Story(world).whole()
    assert world.export(attachments=CARDS) == world.export(attachments=dict(reversed(CARDS.items())))


def test_other_tools_can_read_the_zip(told: tuple[bytes, TrustFile, Path]) -> None:
    with zipfile.ZipFile(io.BytesIO(told[0])) as archive:
        assert archive.testzip() is None
        assert archive.read("attachments/card.pdf") == CARD_PDF
        assert archive.namelist() == sorted(archive.namelist())
        assert all(info.date_time[:3] == (1980, 1, 1) for info in archive.infolist())


def test_unit_bundle(world: World, tmp_path: Path) -> None:
    story = Story(world).whole()
    world.append_one()
    world.append(RecordDraft("support", "dataset.created", "dataset", {}))
    report = report_on(tmp_path, world.export(unit=story.unit), world.trust)
    assert (report.verdict, report.scope) == ("valid", "unit"), failing(report)
    assert report.records == world.ledger.size - 1


def test_selection_of_a_job(world: World, tmp_path: Path) -> None:
    story = Story(world).whole()
    other = Story(world, job="units/credit/tuningJobs/other").ask()
    data = world.export(jobs=[JOB], unit="credit")
    report = report_on(tmp_path, data, world.trust)
    assert (report.verdict, report.scope) == ("valid", "selection"), failing(report)
    shown = evidence.read_zip(data)
    assert evidence.record_path(other.indices["job.received"]) not in shown
    assert evidence.record_path(story.indices["permit.issued"]) in shown
    assert {r.index for u in ("credit", "system") for r in world.ledger.records(u, None, -1, 500)} - {
        r.index for r in world.ledger.records("credit", other.job, -1, 500)
    } == {int(path[8:-5]) for path in shown if path.startswith("records/")}


def test_selection_without_grants_is_incomplete_not_invalid(world: World, tmp_path: Path) -> None:
    story = Story(world).whole()
    indices = [i for k, i in story.indices.items() if not k.startswith("grant")]
    report = report_on(tmp_path, world.export(indices=indices), world.trust)
    assert report.verdict == "incomplete", failing(report)


def test_empty_selection(world: World, tmp_path: Path) -> None:
    report = report_on(tmp_path, world.export(indices=[]), world.trust)
    assert (report.verdict, report.records) == ("valid", 0)
    assert any("record 0" in line for line in report.not_checked)


def test_an_index_beyond_the_log_cannot_be_exported(world: World) -> None:
    refused("RECORD_NOT_FOUND", lambda: world.export(indices=[5]))


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a\0", "é", "x" * 200])
def test_attachment_names(world: World, name: str) -> None:
    refused("ATTACHMENT_NAME", lambda: world.export(attachments={name: b""}))


def test_attachment_that_no_record_names(world: World, tmp_path: Path) -> None:
    Story(world).whole()
    report = report_on(tmp_path, world.export(attachments={"card.pdf": CARD_PDF + b"x"}), world.trust)
    assert failing(report) == ["attachments are named by records: no card record names the digest of card.pdf"]
    assert report.verdict == "invalid"


def test_export_at_the_evidence_size_itself(world: World, tmp_path: Path) -> None:
    """People signed over the newest checkpoint, and the bundle is made right after."""
    story = Story(world).found().ask().decide().train().audit()
    size, _ = story.evidence
    assert size == world.ledger.size
    assert report_on(tmp_path, world.export(), world.trust).verdict == "valid"


def test_stale(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    text = (told[2] / "trust.txt").read_text() + "max-age 3600\n"
    trust = TrustFile.parse(text)
    assert report_on(tmp_path, told[0], trust, START + dt.timedelta(minutes=59)).verdict == "valid"
    assert report_on(tmp_path, told[0], trust, START + dt.timedelta(minutes=61)).verdict == "stale"


def test_a_record_of_the_future_never_grows_old(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    trust = TrustFile.parse((told[2] / "trust.txt").read_text() + "max-age 3600\n")
    at = [report_on(tmp_path, told[0], trust, START - dt.timedelta(minutes=minutes)) for minutes in (4, 6)]
    assert [report.verdict for report in at] == ["valid", "invalid"]
    assert any(c.name == "age" and c.detail.startswith("TIME_IN_FUTURE") for c in at[1].checks)


def test_an_empty_log_has_no_age(tmp_path: Path) -> None:
    trust = TrustFile.parse(plain_trust() + "max-age 60\n")
    report = report_on(tmp_path, forge([]), trust)
    assert report.verdict == "incomplete" and not any("max-age" in line for line in report.not_checked)
    assert [(c.outcome, c.detail) for c in report.checks if c.name == "age"] == [
        ("missing", "no record and no quorum says how old it is")
    ]


def test_attack_9_another_log_key(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    other = World(make(tmp_path / "other"))
    other.services["log"] = ed25519("attacker")
    other.ledger = other.open()
    Story(other.start()).whole()
    report = report_on(tmp_path, other.export(), told[1])
    assert report.verdict == "invalid"
    assert "NOTE_SIGNATURE_BAD" in failing(report)[0]
    other.close()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def repack(data: bytes, change: Callable[[dict[str, bytes]], None], remake_manifest: bool = True) -> bytes:
    """A bundle with files changed by somebody who knows the format."""
    files = evidence.read_zip(data)
    change(files)
    if remake_manifest and evidence.MANIFEST in files:
        value = canonical.decode(files.pop(evidence.MANIFEST))
        header = evidence.Header(
            value["log"], value["size"], bytes.fromhex(value["root"]), value["scope"], value["unit"], value["quorum"]
        )
        files[evidence.MANIFEST] = evidence.manifest(header, files)
    out = io.BytesIO()
    evidence.write_zip(files, out)
    return out.getvalue()


def drop(*paths: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: [files.pop(path) for path in paths] and None


def put(path: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(path, data)


def edit(path: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        assert old in files[path]
        files[path] = files[path].replace(old, new, 1)

    return change


def swap(a: str, b: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[a], files[b] = files[b], files[a]

    return change


def without_record(index: int) -> Callable[[dict[str, bytes]], None]:
    """Leaves a record out and mends everything derived."""

    def change(files: dict[str, bytes]) -> None:
        from audit.ledger import records, tree

        for path in (f"records/{index}.json", f"proofs/{index}.tlog-proof"):
            del files[path]
        files.pop(f"dsse/{index}.json", None)
        left = sorted(int(p[8:-5]) for p in files if p.startswith("records/"))
        entries = []
        for i in left:
            body = files[f"records/{i}.json"]
            entries.append(evidence.Entry(i, body, tree.leaf_hash(body), records.read(body)))
        files |= evidence.derived_files(entries)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit("records/8.json", b"replies", b"replied"), "INCLUSION_BAD"),
        (edit("records/5.json", b'"nonce":"', b'"nonce":"0'), "RECORD_MALFORMED"),
        (swap("records/5.json", "records/6.json"), "INCLUSION_BAD"),
        (swap("proofs/5.tlog-proof", "proofs/6.tlog-proof"), "PROOF_OF_ANOTHER_CHECKPOINT"),
        (drop("proofs/5.tlog-proof"), "BUNDLE_MALFORMED"),
        (drop("checkpoint"), "BUNDLE_MALFORMED"),
        (drop("manifest.json"), "BUNDLE_MALFORMED"),
        (drop("policy.txt"), "BUNDLE_MALFORMED"),
        (drop("README.txt"), "MANIFEST_MISMATCH"),
        (drop("tenant-chain.json"), "MANIFEST_MISMATCH"),
        (drop("dsse/1.json"), "MANIFEST_MISMATCH"),
        (drop("consistency/16-21"), "BUNDLE_MALFORMED"),
        (drop("records/5.json"), "MANIFEST_MISMATCH"),
        (put(f"payloads/{digest('x')}", bytes(40)), "no record here names a payload"),
        (put("README.txt", b"trust me"), "MANIFEST_MISMATCH"),
        (put("extra.txt", b"x"), "MANIFEST_MISMATCH"),
        (put("records/99.json", b"{}"), "RECORD_MALFORMED"),
        (put("records/05.json", b"{}"), "MANIFEST_MISMATCH"),
        (put("dsse/2.json", b"{}"), "MANIFEST_MISMATCH"),
        (put("tenant-chain.json", b"{}"), "MANIFEST_MISMATCH"),
        (put("manifest.json", b"{}"), "BUNDLE_MALFORMED"),
        (put("policy.txt", b"\xff"), "BUNDLE_MALFORMED"),
        (put("policy.txt", b"log other+00000000+AAAA\nquorum none\n"), "POLICY_OTHER_KEY"),
        (put("policy.txt", b"quorum all\n"), "MANIFEST_MISMATCH"),
        (put("consistency/16-21", b"AAAA\n"), "PROOF_MALFORMED"),
        (put("consistency/3-21", b""), "MANIFEST_MISMATCH"),
        (
            put("checkpoint", sign_note(Checkpoint(ORIGIN, 21, b"x" * 32).text(), ORIGIN, ed25519("log"))),
            "MANIFEST_MISMATCH",
        ),
    ],
    ids=range(27),
)
def test_changed_by_someone_who_knows_the_format(
    told: tuple[bytes, TrustFile, Path], tmp_path: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    files = evidence.read_zip(told[0])
    changed = dict(files)
    change(changed)
    data = repack(told[0], change, remake_manifest=changed.get("manifest.json") == files["manifest.json"])
    report = report_on(tmp_path, data, told[1])
    assert report.verdict == "invalid"
    assert reason in failing(report)[0]


@pytest.mark.parametrize("index", [3, 8, 20])
def test_a_record_left_out_of_the_whole_log(told: tuple[bytes, TrustFile, Path], tmp_path: Path, index: int) -> None:
    report = report_on(tmp_path, repack(told[0], without_record(index)), told[1])
    assert report.verdict in ("incomplete", "invalid")
    assert any(c.name == "completeness" and c.outcome == "missing" for c in report.checks)


def test_a_fork_that_people_never_signed(world: World, tmp_path: Path) -> None:
    """The evidence root that people signed is not that of a prefix of this log."""
    story = Story(world).found().ask().decide().train().audit()
    story.evidence = (story.evidence[0], digest("another history"))
    story.release()
    report = report_on(tmp_path, world.export(), world.trust)
    assert report.verdict == "invalid"
    assert "CONSISTENCY_BAD" in failing(report)[0]


def vector(kind: str) -> bytes:
    return (ROOT / f"tests/data/vectors/records/{kind}.json").read_bytes()


def test_a_record_of_another_log(tmp_path: Path) -> None:
    data = forge([vector("log.opened"), edited(vector("job.preparing"), log="other/log")])
    assert "record 1 is of another log" in failing(report_on(tmp_path, data, TrustFile.parse(plain_trust())))[0]


@pytest.mark.parametrize("root", ["", "x", "0" * 63, "A" * 64])
def test_people_who_signed_over_what_is_no_root(tmp_path: Path, root: str) -> None:
    approval = canonical.decode(vector("approval.decided"))
    approval["statement"]["predicate"] |= {"evidence_size": 1, "evidence_root": root}
    data = forge([vector("log.opened"), canonical.encode(approval)])
    assert "evidence root is not a hex hash" in failing(report_on(tmp_path, data, TrustFile.parse(plain_trust())))[0]


def test_a_reader_of_proofs_that_takes_two_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's takes one; nothing else accounts for a proof's bytes."""
    read = ProofFile.parse
    monkeypatch.setattr(ProofFile, "parse", lambda data: read(data.replace(b"index  0", b"index 0")))
    data = repack(forge([vector("log.opened")]), edit("proofs/0.tlog-proof", b"index 0", b"index  0"))
    assert "another spelling" in failing(report_on(tmp_path, data, TrustFile.parse(plain_trust())))[0]


# The ZIP as a container of hostile bytes


def test_a_compressed_zip_is_refused(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("records/0.json", b"0" * 50_000_000)
    report = report_on(tmp_path, out.getvalue(), told[1])
    assert "BUNDLE_MALFORMED" in failing(report)[0]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b/c", "a\\b", ".x", "a//b", "records/../x", "x:y", "a" * 300, "records/é.json"]
)
def test_names_that_climb(told: tuple[bytes, TrustFile, Path], tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"x")
    report = report_on(tmp_path, out.getvalue(), told[1])
    assert "BUNDLE_MALFORMED" in failing(report)[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("checkpoint", b"a")
        archive.writestr("checkpoint", b"b")
    assert "BUNDLE_MALFORMED" in failing(report_on(tmp_path, out.getvalue(), told[1]))[0]


def test_bytes_before_between_and_after(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    data = told[0]
    (start,) = struct.unpack("<I", data[-6:-2])
    padded = bytearray(data[:start] + b"smuggled" + data[start:])
    padded[-6:-2] = struct.pack("<I", start + 8)
    for changed in (b"x" + data, data + b"x", data[:-2] + b"\1\0x", bytes(padded)):
        assert report_on(tmp_path, changed, told[1]).verdict == "invalid"


def test_not_a_plain_file(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path("/dev/zero")):
        assert verify_bundle(path, told[1], START).verdict == "invalid"


@settings(max_examples=100)
@given(data=st.binary(max_size=400))
def test_noise_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(AssayError):
        evidence.read_zip(data)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8})?", fullmatch=True), st.binary(max_size=60), max_size=6
    )
)
def test_zip_round_trip(files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    evidence.write_zip(files, out)
    assert evidence.read_zip(out.getvalue()) == files
    with zipfile.ZipFile(out) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


# The command, and what it needs


def command(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "audit.verify"]
    return subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_and_exit_codes(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    data, _, folder = told
    bundle, trust = tmp_path / "b.zip", folder / "trust.txt"
    bundle.write_bytes(data)
    done = command(str(bundle), "--trust", str(trust), "--output", "json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["verdict"], said["records"], said["size"]) == ("valid", 21, 21)
    text = command(str(bundle), "--trust", str(trust))
    assert text.stdout.startswith("verdict: VALID") and "not checked:" in text.stdout
    broken = bytearray(data)
    broken[data.index(b'"statement"')] ^= 1
    (tmp_path / "broken.zip").write_bytes(broken)
    assert command(str(tmp_path / "broken.zip"), "--trust", str(trust)).returncode == 1
    (tmp_path / "old.txt").write_text(trust.read_text() + "max-age 60\n")
    late = ("--now", "2030-01-01T00:00:00Z")
    assert command(str(bundle), "--trust", str(tmp_path / "old.txt"), *late).returncode == 3
    (tmp_path / "part.zip").write_bytes(repack(data, without_record(20)))
    assert command(str(tmp_path / "part.zip"), "--trust", str(trust)).returncode == 4
    (tmp_path / "bad.txt").write_text("origin x\n")
    assert command(str(bundle), "--trust", str(tmp_path / "bad.txt")).returncode == 2
    assert command(str(tmp_path / "absent.zip"), "--trust", str(trust)).returncode == 2
    assert command(str(bundle)).returncode == 2
    assert command(str(bundle), "--trust", str(trust), "--now", "2030-01-01").returncode == 2


LONELY = """
import sys
allowed = set(sys.stdlib_module_names) | {"cryptography", "assay", "audit", "cffi", "_cffi_backend"}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
from audit.verify.__main__ import main
import audit.verify.permit
code = main(sys.argv[1:])
ours = sorted(m for m in sys.modules if m.partition(".")[0] in ("assay", "audit", "gateway", "policies", "trainer"))
print("\\nMODULES " + " ".join(ours))
sys.exit(code)
"""


def test_needs_nothing_but_stdlib_and_cryptography(told: tuple[bytes, TrustFile, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(told[0])
    done = command(str(bundle), "--trust", str(told[2] / "trust.txt"), code=LONELY)
    assert done.returncode == 0, done.stderr
    ours = done.stdout.split("MODULES ")[1].split()
    names = ("commitment", "evidence", "cosignature", "note", "quorum", "records", "tree")
    pure = {f"audit.ledger.{name}" for name in names}
    allowed = {
        "assay",
        "audit",
        "audit.ledger",
        "assay.canonical",
        "assay.certificates",
        "assay.digests",
        "assay.dp_sgd",
        "assay.dsse",
        "assay.errors",
        "assay.key_events",
        "assay.policy_text",
        "assay.provenance",
        "assay.webauthn",
        *pure,
    }
    assert {m for m in ours if not m.startswith("audit.verify")} <= allowed


def test_foreign_text_cannot_move_the_cursor() -> None:
    report = Report()
    report.add("x", "failed", "\x1b[2J\rverdict: VALID\nand more")
    assert "\x1b" not in report.text() and "\r" not in report.text()
    assert "\nand more" not in report.text()


def test_proof_files_stand_alone(told: tuple[bytes, TrustFile, Path]) -> None:
    files = evidence.read_zip(told[0])
    proof = ProofFile.parse(files["proofs/7.tlog-proof"])
    assert proof.checkpoint == files["checkpoint"] and proof.index == 7
    assert sha256_bytes(b"\0" + files["records/7.json"]) in files["tenant-chain.json"].decode()
