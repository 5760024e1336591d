"""The monitors' port of a real installation: HTTPS for everybody, entries for auditors by their certificate."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from assay.errors import UnavailableError
from audit.ledger.note import Verifier, open_checkpoint
from gateway.monitors import open_monitors
from tests.gateway.conftest import House, forged_person
from tests.gateway.test_freezing import call


@pytest.fixture
async def port(house: House) -> AsyncIterator[int]:
    server = open_monitors(house.app, "127.0.0.1:0")
    server.start()
    yield server.port
    server.close()


def get(house: House, port: int, path: str, folder: Path | None = None) -> tuple[int, bytes]:
    root = house.layout.service("gateway") / "services-ca.crt"
    context = ssl.create_default_context(cafile=str(root))
    if folder is not None:
        stem = "person" if (folder / "person.key").exists() else "tls"
        context.load_cert_chain(folder / f"{stem}.crt", folder / f"{stem}.key")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


async def test_everybody_reads_checkpoint_and_hashes(house: House, port: int) -> None:
    status, note = get(house, port, "/checkpoint")
    log = Verifier.parse(house.app.ledger.vkey)
    size = open_checkpoint(note, log).size
    assert status == 200 and size == house.app.ledger.size
    status, tile = get(house, port, f"/tile/0/000.p/{size}")
    assert status == 200 and tile == b"".join(house.app.ledger.record(i).leaf for i in range(size))


async def test_an_auditor_reads_entries_until_the_grant_ends(house: House, port: int) -> None:
    size = house.app.ledger.size
    path = f"/tile/entries/000.p/{size}"
    status, data = get(house, port, path, house.layout.person("anna"))
    assert status == 200
    length = int.from_bytes(data[:2])
    assert json.loads(data[2 : 2 + length])["type"] == "log.opened"

    def revoke(uow: object) -> None:
        from gateway.store import rows
        from gateway.store.tables import GrantRow

        anna = {"subject": house.subject("anna")}
        rows.update(uow.connection, GrantRow, anna, {"revoked_us": 1})  # type: ignore[attr-defined]

    house.app.ledger.run(revoke)
    assert get(house, port, path, house.layout.person("anna"))[0] == 403


@pytest.mark.parametrize("who", ["nobody", "rita", "cora", "oscar", "train-worker", "gateway"])
async def test_nobody_else_reads_entries(house: House, port: int, who: str) -> None:
    folders = {w: house.layout.person(w) for w in ("rita", "cora", "oscar")}
    folders |= {w: house.layout.service(w) for w in ("train-worker", "gateway")}
    for path in ("/tile/entries/000.p/1", "/tile/entries/999", "/tile/entries/000"):
        status, data = get(house, port, path, folders.get(who))
        assert status == 403 and b"log.opened" not in data


async def test_a_refusal_of_somebody_known_is_recorded(house: House, port: int) -> None:
    before = house.app.ledger.size
    assert (await asyncio.to_thread(get, house, port, "/tile/entries/000.p/1", house.layout.person("rita")))[0] == 403
    for _ in range(600):
        if house.app.ledger.size > before:
            break
        await asyncio.sleep(0.05)
    said = json.loads(house.app.ledger.record(before).body)
    assert said["type"] == "request.refused"
    assert said["statement"]["predicate"]["reason"] == "AUDITORS_ONLY"
    assert said["statement"]["predicate"]["actor"] == house.subject("rita")


async def test_a_stolen_auditors_key_reads_nothing_once_it_is_reported(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    house = opened()
    await house.app.close()
    anna, oscar = house.layout.person("anna"), house.layout.person("oscar")
    thief = shutil.copytree(anna, tmp_path / "thief")
    call("key", "compromised", "people/anna", house.layout.root, "--since", "1", "--as", oscar)
    house = opened()
    server = open_monitors(house.app, "127.0.0.1:0")
    server.start()
    path = "/tile/entries/000.p/1"
    status, data = await asyncio.to_thread(get, house, server.port, path, thief)
    assert status == 401 and data.startswith(b"KEY_NOT_IN_FORCE") and b"log.opened" not in data
    assert (await asyncio.to_thread(get, house, server.port, "/checkpoint", thief))[0] == 200, "that is for everybody"
    server.close()
    await house.app.close()


async def test_the_services_root_makes_no_auditor(house: House, port: int, tmp_path: Path) -> None:
    forged = forged_person(house.layout, "anna", tmp_path / "forged")
    status, data = await asyncio.to_thread(get, house, port, "/tile/entries/000.p/1", forged)
    assert status == 401 and data.startswith(b"CERTIFICATE_BAD") and b"log.opened" not in data
    assert (await asyncio.to_thread(get, house, port, "/checkpoint", forged))[0] == 200, "that is for everybody"


async def test_strangers_certificates_do_not_pass_the_handshake(house: House, port: int, tmp_path: Path) -> None:
    from assay import installation

    other = installation.create(tmp_path / "other", installation.Plan(installation.DEFAULT_PEOPLE, "oscar"))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        get(house, port, "/tile/entries/000.p/1", other.person("anna"))


async def test_the_port_may_be_taken(house: House, port: int) -> None:
    with pytest.raises(UnavailableError) as caught:
        open_monitors(house.app, f"127.0.0.1:{port}")
    assert caught.value.reason == "PORT_TAKEN"
