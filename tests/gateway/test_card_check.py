"""``assay model check-card``: says that a card is signed only after checking it by the trust file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assay.v1 import model_pb2
from tests.gateway.conftest import House
from tests.gateway.judged import MODEL, approved, awaiting

FORMAT = model_pb2.CARD_FORMAT_PDF


async def pdf(house: House) -> bytes:
    data = bytearray()
    request = model_pb2.DownloadCardRequest(name=MODEL, format=FORMAT)
    async for piece in house.app.models.download_card(await house.caller("rita"), request):
        data += piece.chunk
    return bytes(data)


def check(path: Path, trust: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "model", "check-card", str(path), "--trust", str(trust)]
    return subprocess.run([*command, *more], capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 10 and "CARD_SIGNATURE" in done.stderr and "Traceback" not in done.stderr


async def test_an_issued_card_holds_and_a_changed_one_is_refused(house: House, tmp_path: Path) -> None:
    await approved(house)
    card = tmp_path / "card.pdf"
    card.write_bytes(await pdf(house))
    done = check(card, house.layout.trust)
    assert done.returncode == 0 and "signature: holds over the whole file" in done.stdout
    data = card.read_bytes()
    card.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    assert refused(check(card, house.layout.trust))
    card.write_bytes(data + b"\n% one more page\n")
    assert refused(check(card, house.layout.trust))


async def test_a_card_signed_by_another_key_is_refused(house: House, tmp_path: Path) -> None:
    """The trust file names another certificate; that the same root issued both does not help."""
    await approved(house)
    card, other = tmp_path / "card.pdf", tmp_path / "trust.txt"
    card.write_bytes(await pdf(house))
    facts = dict(line.split(" ", 1) for line in house.layout.trust.read_text().splitlines() if line and line[0] != "#")
    other.write_text("".join(f"{k} {facts['services-root'] if k == 'pdf' else v}\n" for k, v in facts.items()))
    assert refused(check(card, other))
    assert check(card, house.layout.trust).returncode == 0


async def test_a_card_that_is_only_rendered_says_so(house: House, tmp_path: Path) -> None:
    await awaiting(house)
    card = tmp_path / "card.pdf"
    card.write_bytes(await pdf(house))
    done = check(card, house.layout.trust)
    assert refused(done) and "no signature" in done.stderr


@pytest.mark.parametrize("junk", [b"", b"%PDF-1.7\n", b"\x00" * 100])
def test_what_is_no_card_is_refused(junk: bytes, pristine: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.pdf"
    card.write_bytes(junk)
    assert refused(check(card, pristine / "trust.txt"))
