"""docs/keys.md is run: each of its blocks, as it stands, on an installation with an approved model and a permit."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.identity import Layout
from assay.modelfiles import BaseManifest
from audit.ledger.bundle import export
from gateway import install as installing
from gateway.application import Application
from gateway.cli.app import app as cli
from gateway.settings import Settings
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, House
from tests.gateway.judged import approved
from tests.gateway.test_card_check import pdf
from tests.gateway.test_permits import issued

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
# Shown in the text for what they are; the blocks below cannot run them, since they ask a running gateway.
ELSEWHERE = {"approval revoke", "audit export", "audit records", "role revoke", "role grant"}


@pytest.fixture(scope="module")
def made(pristine: Path, engine: PolicyEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's ``./bank`` lies, with a card beside it; the gateway has run and stands still."""
    folder = tmp_path_factory.mktemp("procedures")
    shutil.copytree(pristine, folder / "bank")

    async def run() -> None:
        house = House(Application.open(Settings.load(folder / "bank"), engine), Layout(folder / "bank"))
        await approved(house)
        await issued(house)
        (folder / "card.pdf").write_bytes(await pdf(house))
        await house.app.close()

    asyncio.run(run())
    return folder


@pytest.fixture
def bank(made: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


async def evidence(root: Path, engine: PolicyEngine) -> bytes:
    """What an auditor gets of the installation after its next start."""
    app = Application.open(Settings.load(root), engine)
    try:
        out = io.BytesIO()
        export(app.ledger, out, policy_text=f"log {app.ledger.vkey}\nquorum none\n")
        return out.getvalue()
    finally:
        await app.close()


@pytest.mark.parametrize("block", BLOCKS, ids=[" ".join(b.split()[1:4]) + f" {i}" for i, b in enumerate(BLOCKS)])
async def test_a_block_of_the_page(
    bank: Path, block: str, engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank)
    monkeypatch.setenv("ASSAY_HOME", str(bank / "home"))
    (bank / "home/models/tiny").mkdir(parents=True)
    (bank / "home/models/tiny/manifest.json").write_text("{}")
    monkeypatch.setattr(installing, "read_base_manifest", lambda path: BaseManifest(**BASE, files=()))
    for line in block.splitlines():
        command, _, note = line.partition("  # exit ")
        if "evidence.bundle.zip" in command:
            (bank / "evidence.bundle.zip").write_bytes(await evidence(bank / "bank", engine))
        words = ["bash", "-c", f"printf '%s\\n' {command}"]
        _, *arguments = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        # In a thread, since the library that reads signed PDFs starts an event loop of its own.
        ran = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env={"ASSAY_IDENTITY": ""})
        assert ran.exit_code == int(note or 0), (line, ran.output)


def test_every_command_of_the_page_is_in_a_block() -> None:
    run = {" ".join(line.split()[1:3]) for block in BLOCKS for line in block.splitlines()}
    spans = re.findall(r"`assay ([a-z]+(?: [a-z-]+)?)[^`]*`", re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S))
    shown = {span for span in spans if " " in span}
    assert len(BLOCKS) >= 12 and shown - run == ELSEWHERE, shown - run


def test_every_key_of_the_table_has_its_procedure() -> None:
    names = re.findall(r"`([a-z/A-Z-]+)`", " ".join(row.split("|")[2] for row in PAGE.splitlines() if row[:3] == "| a"
                                                    or (row[:2] == "| " and row.count("|") == 6)))  # fmt: skip
    rotated = {line.split()[3] for block in BLOCKS for line in block.splitlines() if line.startswith("assay key rot")}
    whole = {"log", "services-root", "people-root", "units-root", "witness"}
    assert {n for n in names if n != "people/NAME"} - rotated == whole and "people/vik" in rotated
