"""Hostile bundles in a process with limits: the verifier ends with a named refusal, and never by running out.

Each case runs ``python -m audit.verify`` under RLIMIT_AS and RLIMIT_CPU. A verifier that copies, parses or loops
without bound dies of a signal or a MemoryError there, and has no verdict to show.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from assay import canonical
from audit.ledger import evidence, records
from audit.ledger.note import Checkpoint, ProofFile, sign_note
from tests.audit.verify.forge import LOG_KEY, ORIGIN, edited, forge, pack, plain_trust

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests/data/vectors/records"
OPENING = (VECTORS / "log.opened.json").read_bytes()
GIB = 1 << 30


def limited(memory: int, seconds: int) -> Callable[[], None]:
    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    return apply


def verdict(folder: Path, trust: str = "", memory: int = GIB, seconds: int = 60) -> tuple[int, str, list[str]]:
    """Exit code, verdict and failing checks of ``folder/bundle.zip`` under the limits."""
    (folder / "trust.txt").write_text(trust or plain_trust())
    command = [sys.executable, "-m", "audit.verify", str(folder / "bundle.zip"), "--trust", str(folder / "trust.txt")]
    done = subprocess.run(
        [*command, "--output", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(memory, seconds),
    )
    assert done.returncode in (0, 1, 3, 4), done.stderr[-2000:]
    said = json.loads(done.stdout)
    return done.returncode, said["verdict"], [c["detail"] for c in said["checks"] if c["outcome"] == "failed"]


def refused_as(folder: Path, data: bytes, reason: str, **limits: int) -> None:
    (folder / "bundle.zip").write_bytes(data)
    code, said, details = verdict(folder, **limits)
    assert (code, said) == (1, "invalid")
    assert details[0].startswith(reason), details[0]


def files_of(bodies: Sequence[bytes]) -> dict[str, bytes]:
    return evidence.read_zip(forge(bodies))


def test_the_forge_makes_valid_bundles(tmp_path: Path) -> None:
    """Else every refusal below could be for another reason."""
    (tmp_path / "bundle.zip").write_bytes(forge([OPENING]))
    assert verdict(tmp_path) == (0, "valid", [])


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "bundle.zip").open("wb") as stream:
        stream.truncate(1 << 40)
    code, said, details = verdict(tmp_path, memory=GIB // 4, seconds=10)
    assert (code, said) == (1, "invalid") and details[0].startswith("BUNDLE_MALFORMED")


def test_a_file_within_the_cap_but_beyond_this_process_is_refused_by_name(tmp_path: Path) -> None:
    with (tmp_path / "bundle.zip").open("wb") as stream:
        stream.truncate(evidence.MAX_BYTES)
    code, said, details = verdict(tmp_path, memory=GIB // 4, seconds=10)
    assert (code, said) == (1, "invalid") and details[0].startswith("BUNDLE_TOO_LARGE")


def test_a_directory_that_claims_more_than_there_is(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65_000, 65_000, 46 * 65_000, 0, 0)
    refused_as(tmp_path, bytes(46 * 65_000) + end, "BUNDLE_MALFORMED")


def test_more_entries_than_allowed(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 0, 0, 0)
    refused_as(tmp_path, end, "BUNDLE_MALFORMED")


def test_sixty_thousand_names_for_the_same_bytes(tmp_path: Path) -> None:
    """Overlapping entries: a small file that unpacks to very much, were each entry copied."""
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 10, 0, 0, 0, 33, 0, 1 << 20, 1 << 20, 5, 0) + b"00000"
    fields = (b"PK\x01\x02", 778, 10, 0, 0, 0, 33, 0, 1 << 20, 1 << 20, 5, 0, 0, 0, 0, 0, 0)
    entry = struct.pack("<4s6H3I5H2I", *fields)
    body, table = head + bytes(1 << 20), b"".join(entry + b"%05d" % number for number in range(60_000))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(table), len(body), 0)
    refused_as(tmp_path, body + table + end, "BUNDLE_MALFORMED")


def test_attack_14_a_checkpoint_of_a_million_signatures(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["checkpoint"] += b"\xe2\x80\x94 x AAAAAAAA\n" * 1_000_000
    refused_as(tmp_path, pack(files), "NOTE_MALFORMED")


def test_a_checkpoint_of_a_hundred_megabytes(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["checkpoint"] = b"x" * 100_000_000
    refused_as(tmp_path, pack(files), "NOTE_MALFORMED")


def test_a_proof_of_a_hundred_megabytes(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["proofs/0.tlog-proof"] = b"c2sp.org/tlog-proof@v1\n" * 4_000_000
    refused_as(tmp_path, pack(files), "PROOF_MALFORMED")


def test_a_manifest_of_millions_of_lists(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["manifest.json"] = b'{"a":[' + b"[]," * 10_000_000 + b"[]]}"
    refused_as(tmp_path, pack(files), "BUNDLE_MALFORMED")


@pytest.mark.parametrize("value", [b'"ab"', b"257"])
@pytest.mark.parametrize("others", [0, 10_000])
def test_a_manifest_of_millions_of_values(tmp_path: Path, value: bytes, others: int) -> None:
    """Refused before it is parsed, however many files come with it; parsed, it takes twenty times its bytes."""
    files = files_of([OPENING]) | {f"attachments/{n}": b"" for n in range(others)}
    files["manifest.json"] = b'{"a":[' + (value + b",") * 1_000_000 + b"0]}"
    refused_as(tmp_path, pack(files), "BUNDLE_MALFORMED: the manifest")


def test_a_manifest_of_one_long_text(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["manifest.json"] = b'{"a":"' + b"x" * 5_000_000 + b'"}'
    refused_as(tmp_path, pack(files), "BUNDLE_MALFORMED: the manifest holds more than a list")


def test_a_manifest_nested_thousands_deep(tmp_path: Path) -> None:
    files = files_of([OPENING])
    files["manifest.json"] = b"[" * 4_000 + b"]" * 4_000
    refused_as(tmp_path, pack(files), "NOT_CANONICAL")


def test_a_record_too_long_or_too_deep(tmp_path: Path) -> None:
    refused_as(tmp_path, forge([b"x" * 50_000_000]), "RECORD_TOO_LARGE")
    refused_as(tmp_path, forge([b"[" * 30_000 + b"]" * 30_000]), "NOT_CANONICAL")
    refused_as(tmp_path, forge([b"[" * 90 + b"]" * 90]), "NOT_CANONICAL")


@pytest.mark.parametrize(("item", "repeat"), [(b'{"":0},', 8_500), (b'"ab",', 11_900), (b"257,", 14_900)])
def test_records_that_take_many_times_their_bytes_once_parsed(tmp_path: Path, item: bytes, repeat: int) -> None:
    """Refused before they are parsed; without the cap this takes up to two gigabytes."""
    body = b'{"a":[' + item * repeat + b"0]}"
    files = files_of([OPENING])
    files |= {f"records/{index}.json": body for index in range(1_000)}
    refused_as(tmp_path, pack(files), "BUNDLE_TOO_LARGE: the records hold more values")


def test_a_consistency_proof_of_fifty_megabytes(tmp_path: Path) -> None:
    signature = [{"keyid": "", "sig": "AAAA", "cert": "AAAA"}]
    approval = canonical.decode((VECTORS / "approval.decided.json").read_bytes())
    approval["statement"]["predicate"] |= {"evidence_size": 1, "evidence_root": "0" * 64}
    body = edited(OPENING, type="approval.decided", statement=approval["statement"], sigs=signature)
    files = files_of([OPENING, OPENING])
    files["records/1.json"] = body
    files = evidence.read_zip(forge([OPENING, body]))
    files["consistency/1-2"] = b"A\n" * 25_000_000
    refused_as(tmp_path, pack(files), "PROOF_MALFORMED")


def test_certificates_too_long_or_too_many(tmp_path: Path) -> None:
    """The record is in the log; its signatures are not looked into beyond the caps."""
    record = canonical.decode((VECTORS / "grant.issued.json").read_bytes())
    long = [{**record["sigs"][0], "cert": "A" * 20_000}]
    many = [{"keyid": "", "sig": "AAAA", "cert": "AAAA"}] * 9
    assert records.read(edited(canonical.encode(record), sigs=long))
    (tmp_path / "bundle.zip").write_bytes(forge([OPENING, edited(canonical.encode(record), sigs=long)]))
    code, said, details = verdict(tmp_path)
    assert (code, said) == (1, "invalid") and any("ENVELOPE_MALFORMED" in d for d in details)
    refused_as(tmp_path, forge([OPENING, edited(canonical.encode(record), sigs=many)]), "RECORD_MALFORMED")


def test_more_statements_in_a_record_than_a_worker_makes(tmp_path: Path) -> None:
    record = canonical.decode((VECTORS / "audit.completed.json").read_bytes())
    statement = record["statement"]["predicate"]["statement"]
    record["statement"]["predicate"] = {f"s{i}": statement for i in range(20)} | {"job": "units/credit/tuningJobs/x"}
    (tmp_path / "bundle.zip").write_bytes(forge([OPENING, canonical.encode(record)]))
    code, said, details = verdict(tmp_path)
    assert (code, said) == (1, "invalid") and any("more than 4 statements" in d for d in details)


def test_a_report_cannot_be_flooded(tmp_path: Path) -> None:
    """Hundreds of records with a fault each make a report of bounded length."""
    value = canonical.decode((VECTORS / "job.preparing.json").read_bytes())
    bodies = []
    for index in range(400):
        value["statement"]["predicate"]["transition"] = {"from": "X" * 2_000, "to": "Y" * 2_000, "version": index}
        bodies.append(canonical.encode(value))
    (tmp_path / "bundle.zip").write_bytes(forge([OPENING, *bodies]))
    (tmp_path / "trust.txt").write_text(plain_trust())
    code, said, details = verdict(tmp_path)
    assert (code, said) == (1, "invalid")
    assert len(details) < 200 and sum(map(len, details)) < 100_000
    assert any(d.startswith("and ") and d.endswith(" more") for d in details)


def test_times_at_both_ends_of_the_calendar(tmp_path: Path) -> None:
    """Whoever holds the log's key writes any time; the verifier still ends with a verdict."""
    first, last = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
    created = canonical.decode((VECTORS / "dataset.created.json").read_bytes())
    created["statement"]["predicate"]["datasheet"]["retention_days"] = 30
    erased = canonical.decode((VECTORS / "erasure.executed.json").read_bytes())
    erased["statement"]["predicate"] |= {"reason_code": "retention-ended", "order_index": 2}
    bodies = [
        edited(OPENING, ts=first),
        edited(OPENING, ts=first, nonce="1" * 32),
        canonical.encode(created | {"ts": last}),
        canonical.encode(erased | {"ts": last}),
    ]
    (tmp_path / "bundle.zip").write_bytes(forge(bodies))
    code, said, details = verdict(tmp_path, plain_trust() + "max-age 60\n")
    assert (code, said) == (1, "invalid") and any("TIME_IN_FUTURE" in d for d in details)


def test_a_trust_file_without_end(tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(forge([OPENING]))
    command = [sys.executable, "-m", "audit.verify", str(tmp_path / "bundle.zip"), "--trust", "/dev/zero"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limited(GIB // 4, 10)
    )
    assert done.returncode == 2 and "TRUST_MALFORMED" in done.stderr


def test_a_proof_under_another_checkpoint_of_the_same_key(tmp_path: Path) -> None:
    files = files_of([OPENING])
    other = sign_note(Checkpoint(ORIGIN, 1, b"r" * 32).text(), ORIGIN, LOG_KEY)
    proof = ProofFile.parse(files["proofs/0.tlog-proof"])
    files["proofs/0.tlog-proof"] = ProofFile(proof.index, proof.hashes, other).encode()
    refused_as(tmp_path, pack(files), "PROOF_OF_ANOTHER_CHECKPOINT")


@pytest.mark.parametrize("name", ["checkpoint", "manifest.json", "policy.txt"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    refused_as(tmp_path, pack(files_of([OPENING]) | {name: b""}), {
        "checkpoint": "NOTE_MALFORMED", "manifest.json": "NOT_CANONICAL", "policy.txt": "MANIFEST_MISMATCH",
    }[name])  # fmt: skip
