"""The command line against a real gateway: output for people, JSON for programs, documented exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import uuid
from pathlib import Path

from e2e_world import Bank, chat_rows

SHEET = """\
purposes: [support-replies]
legal_basis: no-personal-data
licence: Apache-2.0
classification: public
residency: any
retention_days: 30
provenance: Made up for a test; no row is about anybody.
"""


def assay(bank: Bank, person: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    if person:
        command += ["--as", str(bank.layout.person(person))]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)


def test_upload_ask_and_be_told_why_not(bank: Bank, tmp_path: Path):
    name = f"cli-{uuid.uuid4().hex[:8]}"
    rows, sheet = tmp_path / "rows.jsonl", tmp_path / "sheet.yaml"
    rows.write_bytes(chat_rows(30))
    sheet.write_text(SHEET)
    done = assay(bank, "rita", "dataset", "upload", "units/support", name, str(rows), "--datasheet", str(sheet))
    assert done.returncode == 0, done.stderr
    asked = assay(
        bank, "rita", "job", "create", "units/support", name, "--dataset", name, "--purpose", "support-replies",
        "--watch", "--output", "json",
    )  # fmt: skip
    assert asked.returncode == 6, asked.stderr
    job = json.loads(asked.stdout)
    assert job["state"] == "STATE_DENIED"
    shown = assay(bank, "rita", "job", "get", job["name"])
    assert "BASE-ROWS-ENOUGH" in shown.stdout and "to pass:" in shown.stdout


def on_a_terminal(bank: Bank, person: str, *arguments: str) -> str:
    """What a person sees who types a command: bars are drawn only where there is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway.cli", *arguments, "--as", str(bank.layout.person(person))]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = bytearray()
        # The terminal answers with an error once nobody has it open any more.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    assert process.returncode in (0, 6), shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_upload_and_stages_draw_their_progress(bank: Bank, tmp_path: Path):
    name = f"cli-{uuid.uuid4().hex[:8]}"
    rows, sheet = tmp_path / "rows.jsonl", tmp_path / "sheet.yaml"
    rows.write_bytes(chat_rows(40))
    sheet.write_text(SHEET)
    shown = on_a_terminal(
        bank, "rita", "dataset", "upload", "units/support", name, str(rows), "--datasheet", str(sheet)
    )
    size = rows.stat().st_size
    assert re.search(r"upload\s.*━", shown) and f"{size / 1000:.1f}/{size / 1000:.1f} kB" in shown, shown
    asked = ("job", "create", "units/support", name, "--dataset", name, "--purpose", "support-replies", "--watch")
    shown = on_a_terminal(bank, "rita", *asked)
    assert re.search(r"PREPARING prepare\s+━+.*%", shown) and "DENIED" in shown, shown


def test_a_persons_rows_are_found_by_their_value_which_is_kept_nowhere(bank: Bank, tmp_path: Path):
    name, value = f"cli-{uuid.uuid4().hex[:8]}", "Zebulon Quartermain 4711"
    rows, sheet = tmp_path / "rows.jsonl", tmp_path / "sheet.yaml"
    lines = [json.loads(line) | {"customer": f"c{i % 7}"} for i, line in enumerate(chat_rows(30).splitlines())]
    lines[4]["customer"] = lines[9]["customer"] = value
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sheet.write_text(SHEET + "group_field: customer\n")
    done = assay(bank, "rita", "dataset", "upload", "units/support", name, str(rows), "--datasheet", str(sheet))
    assert done.returncode == 0, done.stderr
    arguments = ["units/support", name, "--dataset", name, "--purpose", "support-replies", "--watch"]
    assert assay(bank, "rita", "job", "create", *arguments).returncode == 6
    lineage = ["dataset", "lineage", "units/support", "--subject", "-"]
    found = assay(bank, "cora", *lineage, "--output", "json", stdin=value + "\n")
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert [d["rows"] for d in answer["datasets"]] == [["5", "10"]]
    assert [j["name"] for j in answer["jobs"]] == [f"units/support/tuningJobs/{name}"]
    assert "holds subject" in assay(bank, "cora", *lineage, stdin=value).stdout
    assert assay(bank, "rita", *lineage, stdin=value).returncode == 5
    assert assay(bank, "cora", "dataset", "lineage", "units/support", "--subject", "x" * 5000).returncode == 3
    kept = [p for p in [*bank.layout.root.rglob("*"), bank.log] if p.is_file()]
    assert kept and not [p for p in kept if value.encode() in p.read_bytes()]


def test_exit_codes(bank: Bank, tmp_path: Path):
    assert assay(bank, "rita", "job", "get", "units/support/tuningJobs/none").returncode == 4
    assert assay(bank, "rita", "job", "get", "not a name").returncode == 3
    denied = assay(bank, "dana", "job", "create", "units/support", "x", "--dataset", "x", "--purpose", "x-y")
    assert denied.returncode == 5
    assert assay(bank, "rita", "role", "whoami", "--address", "127.0.0.1:1").returncode == 9
    assert assay(bank, "", "role", "whoami").returncode == 3
    assert assay(bank, "rita", "no-such-noun").returncode == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("classification: [nonsense")
    upload = assay(bank, "rita", "dataset", "upload", "units/support", "x", str(bad), "--datasheet", str(bad))
    assert upload.returncode == 3 and "Traceback" not in upload.stderr


def test_roles_are_granted_and_revoked_by_signature(bank: Bank):
    subject = "spiffe://assay.local/people/temp"
    granted = assay(bank, "oscar", "role", "grant", subject, "validator", "--unit", "credit", "--output", "json")
    assert granted.returncode == 0, granted.stderr
    name = json.loads(granted.stdout)["name"]
    assert assay(bank, "rita", "role", "grant", subject, "operator", "--unit", "-").returncode == 5
    assert assay(bank, "oscar", "role", "revoke", name, "--reason", "role-changed").returncode == 0
    listed = json.loads(assay(bank, "oscar", "role", "list", "--all", "--output", "json").stdout)
    mine = next(g for g in listed["role_grants"] if g["name"] == name)
    assert "revoke_time" in mine


def test_evidence_is_exported_and_verified(bank: Bank, tmp_path: Path):
    out = tmp_path / "e.zip"
    assert assay(bank, "anna", "audit", "export", "units/-", "--out", str(out)).returncode == 0
    trust = ["--trust", str(bank.layout.trust)]
    assert assay(bank, "", "verify", str(out), *trust).returncode == 0
    data = bytearray(out.read_bytes())
    data[len(data) // 2] ^= 1
    out.write_bytes(bytes(data))
    assert assay(bank, "", "verify", str(out), *trust).returncode == 1
    assert assay(bank, "rita", "audit", "export", "units/-", "--out", str(out)).returncode == 5


def test_every_command_has_help_with_an_example():
    from typer.main import get_command

    from gateway.cli.app import app

    root = get_command(app)
    for noun in root.commands.values():
        for verb in getattr(noun, "commands", {"": noun}).values():
            assert "Example: assay " in (verb.help or ""), verb.name


def test_doctor_names_what_it_looked_at(bank: Bank):
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "doctor", str(bank.layout.root), "--output", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert found["bubblewrap"]["ok"] and found["settings"]["ok"] and found["key files"]["ok"]
    assert done.returncode == 0


def test_doctor_says_how_to_get_the_sandbox_where_there_is_none():
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "doctor", "--output", "json"],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": "/nonexistent"},
    )  # fmt: skip
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 1 and not found["bubblewrap"]["ok"]
    assert "apt-get install bubblewrap" in found["bubblewrap"]["remedy"]


def test_a_dataset_is_erased_on_a_signed_order(bank: Bank, tmp_path: Path):
    name = f"gone-{uuid.uuid4().hex[:8]}"
    rows, sheet = tmp_path / "rows.jsonl", tmp_path / "sheet.yaml"
    rows.write_bytes(chat_rows(3) + name.encode() + b"\n")
    sheet.write_text(SHEET)
    done = assay(bank, "rita", "dataset", "upload", "units/support", name, str(rows), "--datasheet", str(sheet))
    assert done.returncode == 0, done.stderr
    order = ("erase", f"units/support/datasets/{name}", "--reason-code")
    assert assay(bank, "rita", *order, "retention-ended").returncode == 5
    assert assay(bank, "cora", *order, "Mrs Doe asked").returncode == 3
    erased = assay(bank, "cora", *order, "retention-ended", "--output", "json")
    assert erased.returncode == 0, erased.stderr
    assert json.loads(erased.stdout)["blobs"] == "1"
    again = assay(bank, "cora", *order, "retention-ended")
    assert again.returncode == 7 and "ERASED_BEFORE" in again.stderr
