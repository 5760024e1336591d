"""Fetching from stores: what is on the list comes in whole, and nothing becomes a way into the network."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import socket
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from assay.errors import (
    AlreadyExistsError,
    ExhaustedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from assay.v1 import dataset_pb2
from audit.ledger.records import read
from gateway import datasets, stores
from gateway.datasets import IMPORTS_AT_ONCE
from gateway.settings import Settings, StoreSettings
from tests.gateway.conftest import House

ROWS = b'{"messages": []}\n' * 40_000
TOKEN = "a-token-of-the-store"


class Shelf(http.server.BaseHTTPRequestHandler):
    """A store with one good file and some bad manners."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        Shelf.asked.append((self.path, self.headers.get("Authorization", "")))
        name = self.path.rsplit("/", 1)[-1]
        status = {"moved.jsonl": 302, "gone.jsonl": 404}.get(name, 200)
        body = {"empty.jsonl": b"", "rows.jsonl": ROWS}.get(name, ROWS if status == 200 else b"secret of the store")
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/exports/rows.jsonl")
        if name == "zipped.jsonl":
            self.send_header("Content-Encoding", "gzip")
        if name == "unannounced.jsonl":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body) + (name == "cut.jsonl")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = name in ("cut.jsonl", "unannounced.jsonl")

    def log_message(self, *_: Any) -> None:
        """Not on the test's screen."""


@pytest.fixture
def port(pristine: Path) -> Iterator[int]:
    """A real HTTPS server with a certificate of the installation's own authority."""
    Shelf.asked = []
    folder = pristine / "services" / "gateway"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def listed(port: int, **changed: Any) -> str:
    """The operator's entry for the store."""
    entry = {
        "prefix": f"https://localhost:{port}/exports/", "units": ["credit"], "networks": ["127.0.0.0/8", "::1/128"],
        "ca_file": "services-ca.crt", "token_file": "store.token", **changed,
    }  # fmt: skip
    return "\n[[stores]]\n" + "".join(f"{k} = {v!r}\n" for k, v in entry.items() if v != "")


@pytest.fixture
async def house(opened: Callable[[], House], port: int) -> AsyncIterator[House]:
    """An installation whose operator lists the store for one unit."""
    made = opened()
    await made.app.close()
    settings = made.layout.settings
    settings.write_text(settings.read_text().replace("[price_book] ", f"{listed(port)}\n[price_book] "))
    token = made.layout.service("gateway") / "store.token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    again = opened()
    yield again
    await again.app.close()


def request(source: str, sha256: str = hashlib.sha256(ROWS).hexdigest(), **changed: Any) -> Any:
    values = {
        "parent": "units/credit", "dataset_id": "rows", "format": dataset_pb2.DATASET_FORMAT_CHAT_JSONL,
        "datasheet": dataset_pb2.Datasheet(licence="CC0-1.0"), "request_id": str(uuid.uuid4()), **changed,
    }  # fmt: skip
    header = dataset_pb2.UploadDatasetHeader(**values)
    return dataset_pb2.ImportDatasetRequest(header=header, source=source, sha256=sha256)


async def fetch(house: House, wanted: Any, who: str = "rita") -> list[Any]:
    return [event async for event in house.app.datasets.import_dataset(await house.caller(who), wanted)]


async def refused(house: House, wanted: Any, kind: type[Exception], reason: str, who: str = "rita") -> Exception:
    size = house.app.ledger.size
    with pytest.raises(kind) as caught:
        await fetch(house, wanted, who)
    assert caught.value.reason == reason, caught.value  # type: ignore[attr-defined]
    assert house.app.ledger.size == size
    assert not house.app.blobs.exists("credit", wanted.sha256)
    assert list((house.app.settings.data / "blobs").rglob("*.part*")) == []
    return caught.value


async def test_a_file_comes_in_whole_and_its_record_names_the_address(house: House, port: int) -> None:
    source = f"https://localhost:{port}/exports/2026/rows.jsonl"
    *_, last = await fetch(house, request(source))
    assert last.dataset.size_bytes == len(ROWS)
    with house.app.blobs.open("credit", last.dataset.sha256) as stream:
        assert stream.read() == ROWS
    predicate = read(house.app.ledger.record(last.dataset.record_index).body).predicate
    assert predicate["source"] == source
    assert Shelf.asked == [("/exports/2026/rows.jsonl", f"Bearer {TOKEN}")]


async def test_a_repeat_is_answered_without_asking_the_store_again(house: House, port: int) -> None:
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    *_, first = await fetch(house, wanted)
    assert await fetch(house, wanted) == [first] and len(Shelf.asked) == 1
    other = dataset_pb2.ImportDatasetRequest(header=wanted.header, source=wanted.source + "x", sha256=wanted.sha256)
    with pytest.raises(AlreadyExistsError) as caught:
        await fetch(house, other)
    assert caught.value.reason == "REQUEST_ID" and len(Shelf.asked) == 1


async def test_before_it_is_stored_its_caller_is_asked_about_once_more(house: House, port: int) -> None:
    """The gate admits before each answer, and so before the one behind which the file is registered."""
    coming = house.app.datasets.import_dataset(
        await house.caller("rita"), request(f"https://localhost:{port}/exports/rows.jsonl")
    )
    size = house.app.ledger.size
    assert (await anext(coming)).progress.received_bytes == len(ROWS)
    await coming.aclose()  # type: ignore[attr-defined]
    assert house.app.ledger.size == size
    assert not house.app.blobs.exists("credit", hashlib.sha256(ROWS).hexdigest())


async def test_a_store_that_announces_no_length_is_read_to_its_end(house: House, port: int) -> None:
    *_, last = await fetch(house, request(f"https://localhost:{port}/exports/unannounced.jsonl"))
    assert last.dataset.size_bytes == len(ROWS)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("moved.jsonl", UnavailableError, "STORE_ANSWER"),
        ("gone.jsonl", UnavailableError, "STORE_ANSWER"),
        ("zipped.jsonl", UnavailableError, "STORE_ANSWER"),
        ("cut.jsonl", UnavailableError, "STORE_ANSWER"),
    ],
)
async def test_bad_answers_leave_nothing_behind(house: House, port: int, name: str, kind: Any, reason: str) -> None:
    error = await refused(house, request(f"https://localhost:{port}/exports/{name}"), kind, reason)
    assert "secret of the store" not in str(error)


async def test_other_bytes_than_were_meant(house: House, port: int) -> None:
    source = f"https://localhost:{port}/exports/rows.jsonl"
    await refused(house, request(source, sha256="0" * 64), IntegrityError, "DIGEST_MISMATCH")


async def test_a_file_over_the_cap_is_not_fetched(house: House, port: int) -> None:
    limits = house.app.settings.limits.model_copy(update={"max_dataset_bytes": len(ROWS) - 1})
    changed = house.app.settings.model_copy(update={"limits": limits})
    object.__setattr__(house.app.datasets, "settings", changed)
    for name in ("rows.jsonl", "unannounced.jsonl"):
        wanted = request(f"https://localhost:{port}/exports/{name}")
        await refused(house, wanted, ExhaustedError, "DATASET_TOO_LARGE")


async def test_a_slow_store_is_left(house: House, port: int) -> None:
    limits = house.app.settings.limits.model_copy(update={"store_seconds": 0})
    object.__setattr__(house.app.datasets, "settings", house.app.settings.model_copy(update={"limits": limits}))
    await refused(house, request(f"https://localhost:{port}/exports/rows.jsonl"), UnavailableError, "STORE_SLOW")


async def test_a_certificate_of_another_authority(house: House, port: int) -> None:
    [store] = house.app.settings.stores
    strange = store.model_copy(update={"ca_file": "people-ca.crt"})
    object.__setattr__(house.app.datasets, "settings", house.app.settings.model_copy(update={"stores": (strange,)}))
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    await refused(house, wanted, UnavailableError, "STORE_UNREACHABLE")
    assert Shelf.asked == []


async def test_a_call_that_is_cancelled_leaves_nothing_behind(house: House, port: int) -> None:
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    running = asyncio.create_task(fetch(house, wanted))
    while not Shelf.asked:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not house.app.blobs.exists("credit", wanted.sha256)


class Hanging:
    """A download from a store that answers, and then says nothing more until it is let go."""

    total = 0

    def __init__(self, *_: object, **__: object) -> None:
        self.asked, self.let, self.closed_in = threading.Event(), threading.Event(), ""
        hanging.append(self)

    def chunks(self) -> Iterator[bytes]:
        self.asked.set()
        self.let.wait(60)
        yield from ()

    def close(self) -> None:
        self.closed_in = threading.current_thread().name


hanging: list[Hanging] = []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def hung(house: House, port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """As many imports of one unit as there may be, all of which wait for their store."""
    hanging.clear()
    with monkeypatch.context() as patch:
        patch.setattr(stores, "Download", Hanging)
        source = f"https://localhost:{port}/exports/rows.jsonl"
        under_way = [asyncio.create_task(fetch(house, request(source))) for _ in range(IMPORTS_AT_ONCE)]
        await until(lambda: len(hanging) == IMPORTS_AT_ONCE and all(one.asked.is_set() for one in hanging))
    yield under_way
    for one in hanging:
        one.let.set()
    await asyncio.gather(*under_way, return_exceptions=True)


async def test_a_store_that_hangs_holds_no_thread_that_others_read_with(
    house: House, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging.clear()
    monkeypatch.setattr(stores, "Download", Hanging)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    running = asyncio.create_task(fetch(house, request(f"https://localhost:{port}/exports/rows.jsonl")))
    await until(lambda: bool(hanging) and hanging[0].asked.is_set())
    try:
        async with asyncio.timeout(20):
            assert await house.app.store.fetch(lambda connection: "a row") == "a row"
    finally:
        hanging[0].let.set()
    with pytest.raises(InvalidInputError):
        await running


async def test_a_unit_fetches_two_files_at_once(house: House, port: int, hung: list[asyncio.Task[Any]]) -> None:
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    error = await refused(house, wanted, ExhaustedError, "IMPORTS_BUSY")
    assert "units/credit" in str(error) and Shelf.asked == []
    [store] = house.app.settings.stores
    both = store.model_copy(update={"units": ("credit", "support")})
    object.__setattr__(house.app.datasets, "settings", house.app.settings.model_copy(update={"stores": (both,)}))
    *_, last = await fetch(house, request(wanted.source, parent="units/support"))
    assert last.dataset.name == "units/support/datasets/rows"
    hanging[0].let.set()
    [over], _ = await asyncio.wait(hung, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(over.exception(), InvalidInputError)
    await until(lambda: hanging[0].closed_in != "")
    *_, last = await fetch(house, wanted)
    assert last.dataset.size_bytes == len(ROWS)


async def test_an_import_that_is_given_up_counts_until_its_thread_comes_back(
    house: House, port: int, hung: list[asyncio.Task[Any]]
) -> None:
    """And no close waits on the event loop for the read that is under way."""
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    for one in hung:
        one.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    assert [one.closed_in for one in hanging] == ["", ""]
    await refused(house, wanted, ExhaustedError, "IMPORTS_BUSY")
    for one in hanging:
        one.let.set()
    await until(lambda: all(one.closed_in.startswith("import") for one in hanging))
    *_, last = await fetch(house, wanted)
    assert last.dataset.size_bytes == len(ROWS)


async def test_an_import_that_is_left_while_it_tells_how_far_it_is_ends_its_connection(
    house: House, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trickling(Hanging):
        def chunks(self) -> Iterator[bytes]:
            yield b"x"
            yield from super().chunks()

    hanging.clear()
    monkeypatch.setattr(stores, "Download", Trickling)
    monkeypatch.setattr(datasets, "_PROGRESS_SECONDS", 0.0)
    wanted = request(f"https://localhost:{port}/exports/rows.jsonl")
    coming = house.app.datasets.import_dataset(await house.caller("rita"), wanted)
    assert (await anext(coming)).progress.received_bytes == 1
    await coming.aclose()  # type: ignore[attr-defined]
    await until(lambda: hanging[0].closed_in.startswith("import"))


@pytest.mark.parametrize(
    "source",
    [
        "https://elsewhere.example/exports/rows.jsonl",
        "https://localhost/exports/rows.jsonl",
        "https://localhost:{port}/other/rows.jsonl",
        "https://localhost:{port}/exports",
        "https://localhost:{port}/exports/../other/rows.jsonl",
        "https://localhost:{port}/exports/./rows.jsonl",
        "https://localhost:{port}/exports/%2e%2e/other/rows.jsonl",
        "https://localhost:{port}/exports//rows.jsonl",
        "https://localhost:{port}/exports/rows.jsonl?key=1",
        "https://localhost:{port}/exports/rows.jsonl#x",
        "https://localhost:{port}/exports\\rows.jsonl",
        "https://localhost:{port}@evil.example/exports/rows.jsonl",
        "https://evil.example@localhost:{port}/exports/rows.jsonl",
        "https://localhost:{port}.evil.example/exports/rows.jsonl",
        "https://localhost:99999/exports/rows.jsonl",
        "https://localhost:{port}/exports/rows\x00.jsonl",
        "https://localhost:{port}/exports/ro\nws.jsonl",
        " https://localhost:{port}/exports/rows.jsonl",
        "http://localhost:{port}/exports/rows.jsonl",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/exports/rows.jsonl",
        "/etc/passwd",
        "../exports/rows.jsonl",
        "file:///etc/passwd",
        "https://lоcalhost:{port}/exports/rows.jsonl",
        "https://[::1/exports/rows.jsonl",
        "",
    ],
)
async def test_attack_32_an_address_that_is_not_on_the_list(house: House, port: int, source: str) -> None:
    wanted = request(source.replace("{port}", str(port)))
    await refused(house, wanted, PermissionDeniedError, "STORE_NOT_ALLOWED")
    assert Shelf.asked == []


async def test_another_units_store_is_not_there(house: House, port: int) -> None:
    theirs = request(f"https://localhost:{port}/exports/rows.jsonl", parent="units/claims")
    mine = await refused(house, theirs, PermissionDeniedError, "STORE_NOT_ALLOWED", who="mia")
    none = await refused(
        house, request("https://nowhere.example/rows.jsonl", parent="units/claims"), PermissionDeniedError,
        "STORE_NOT_ALLOWED", who="mia",
    )  # fmt: skip
    assert str(mine) == str(none)
    await refused(house, theirs, NotFoundError, "NOT_FOUND", who="carl")


@pytest.mark.parametrize(
    "found",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_attack_32_a_public_store_whose_name_leads_inside(found: str) -> None:
    store = StoreSettings(prefix="https://store.example/", units=("credit",))
    assert [str(a) for a in stores.reachable(store, ["93.184.216.34"])] == ["93.184.216.34"]
    for answer in ([found], ["93.184.216.34", found]):
        with pytest.raises(PermissionDeniedError) as caught:
            stores.reachable(store, answer)
        assert caught.value.reason == "STORE_NETWORK" and found not in str(caught.value)


def test_networks_that_the_operator_names_are_the_only_ones() -> None:
    store = StoreSettings(prefix="https://store.example/", units=("credit",), networks=("10.2.0.0/16",))
    assert stores.reachable(store, ["10.2.3.4"])
    for found in ("10.3.0.1", "93.184.216.34", "::ffff:10.3.0.1", "127.0.0.1"):
        with pytest.raises(PermissionDeniedError):
            stores.reachable(store, [found])


async def test_attack_32_a_name_that_changes_after_the_look(
    house: House, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved once, and what it was then is where the connection goes."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *rest: Any, **named: Any) -> Any:
        if host != "localhost":
            return real(host, *rest, **named)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "169.254.169.254", *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    *_, last = await fetch(house, request(f"https://localhost:{port}/exports/rows.jsonl"))
    assert last.dataset.size_bytes == len(ROWS) and asked == ["localhost"]


def test_the_operators_list_is_checked_when_it_is_read(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "assay.toml").write_text((pristine / "assay.toml").read_text())
    good = (tmp_path / "assay.toml").read_text()
    for fault in (
        {"prefix": "http://store.example/"}, {"prefix": "https://store.example"}, {"prefix": "https://a@b.example/"},
        {"units": []}, {"networks": ["10.2.0.0/99"]}, {"token_file": "../authority/people-ca.key"}, {"colour": "red"},
    ):  # fmt: skip
        (tmp_path / "assay.toml").write_text(good + listed(443, **fault))
        with pytest.raises(InvalidInputError) as caught:
            Settings.load(tmp_path)
        assert any(v.field.startswith("stores.0") for v in caught.value.violations)
