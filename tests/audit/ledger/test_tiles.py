"""The log over HTTP: read back whole by a client written from the specification alone, and nothing beyond it."""

from __future__ import annotations

import base64
import hashlib
import http.client
from collections.abc import Iterator

import pytest

from audit.ledger import tree
from audit.ledger.httpd import Request, Server
from audit.ledger.note import Checkpoint, sign_note
from audit.ledger.publication import Unwitnessed
from audit.ledger.records import RecordDraft
from audit.ledger.tiles import Tiles, index_of
from tests.audit.ledger.ledger_world import ORIGIN, World, ed25519, refused

AUDITOR = "spiffe://assay.local/people/anna"


class TileClient:
    """Reads a log by c2sp.org/tlog-tiles; shares no code with what it reads but SHA-256."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def get(self, path: str, status: int = 200) -> bytes:
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        data = answer.read()
        assert answer.status == status, (path, answer.status, data[:200])
        self.headers = answer.headers
        return data

    def checkpoint(self) -> tuple[int, bytes]:
        lines = self.get("/checkpoint").decode().split("\n")
        return int(lines[1]), base64.b64decode(lines[2])

    def tile(self, level: int, n: int, width: int) -> list[bytes]:
        name = f"{n % 1000:03d}"
        rest = n // 1000
        while rest:
            name = f"x{rest % 1000:03d}/{name}"
            rest //= 1000
        data = self.get(f"/tile/{level}/{name}" + ("" if width == 256 else f".p/{width}"))
        assert len(data) == 32 * width
        return [data[i : i + 32] for i in range(0, len(data), 32)]

    def leaves(self, size: int) -> list[bytes]:
        return [h for n in range(-(-size // 256)) for h in self.tile(0, n, min(256, size - 256 * n))]


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it stands there."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node(merkle(leaves[:k]), merkle(leaves[k:]))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A log of 600 records: two full tiles, a partial one, and a partial tile of the level above."""
    world = World(tmp_path_factory.mktemp("tiles")).start()
    for start in range(1, 600, 60):
        count = min(60, 600 - start)

        def work(uow: object, count: int = count) -> None:
            for _ in range(count):
                uow.append(RecordDraft("credit", "dataset.created", "dataset", {"dataset": "d"}))  # type: ignore[attr-defined]

        world.ledger.run(work)
    assert world.ledger.size == 600
    yield world
    world.close()


class Upto(Unwitnessed):
    """Publishes only the first ``size`` records."""

    size = 600

    def latest(self) -> tuple[int, bytes]:
        root = self._ledger.root(self.size)
        return self.size, sign_note(Checkpoint(ORIGIN, self.size, root).text(), ORIGIN, ed25519("log"))


@pytest.fixture
def published(grown: World) -> Upto:
    return Upto(grown.ledger)


@pytest.fixture
def port(grown: World, published: Upto) -> Iterator[int]:
    tiles = Tiles(grown.ledger, published, lambda request: request.subject == AUDITOR)
    server = Server("127.0.0.1:0", tiles.handle, None)
    server.start()
    yield server.port
    server.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 255, 256, 257, 300, 511, 512, 513, 599, 600])
def test_the_whole_log_read_back_at_many_sizes(port: int, published: Upto, size: int) -> None:
    published.size = size
    client = TileClient(port)
    said, root = client.checkpoint()
    assert said == size
    leaves = client.leaves(size)
    assert merkle(leaves) == root
    full = size // 256
    if full:
        above = client.tile(1, 0, full)
        assert above == [merkle(leaves[256 * i : 256 * i + 256]) for i in range(full)]
        edge = [merkle(leaves[256 * full :])] if size % 256 else []
        whole = merkle(above) if len(above) in (1, 2) else b""
        assert whole and (node(whole, edge[0]) if edge else whole) == root


def test_inclusion_from_tiles_alone(port: int, grown: World) -> None:
    client = TileClient(port)
    size, root = client.checkpoint()
    leaves = client.leaves(size)

    def path(index: int, part: list[bytes]) -> list[bytes]:
        if len(part) == 1:
            return []
        k = 1
        while k * 2 < len(part):
            k *= 2
        if index < k:
            return [*path(index, part[:k]), merkle(part[k:])]
        return [*path(index - k, part[k:]), merkle(part[:k])]

    for index in (0, 255, 256, 511, 512, 599):
        body = grown.ledger.record(index).body
        leaf = hashlib.sha256(b"\x00" + body).digest()
        assert leaf == leaves[index]
        tree.verify_inclusion(index, size, leaf, path(index, leaves), root)


def test_entries_hash_to_the_tiles(grown: World, published: Upto) -> None:
    tiles = Tiles(grown.ledger, published, lambda request: request.subject == AUDITOR)
    for name, first, width in (("000", 0, 256), ("001", 256, 256), ("002.p/88", 512, 88), ("002.p/1", 512, 1)):
        answer = tiles.handle(Request("GET", f"/tile/entries/{name}", b"", AUDITOR))
        data, out = answer.body, []
        while data:
            length = int.from_bytes(data[:2])
            out.append(hashlib.sha256(b"\x00" + data[2 : 2 + length]).digest())
            data = data[2 + length :]
        assert out == [grown.ledger.record(first + i).leaf for i in range(width)]
        assert answer.headers["Cache-Control"].startswith("private")


@pytest.mark.parametrize("subject", ["", "spiffe://assay.local/people/rita", AUDITOR + "x"])
@pytest.mark.parametrize("name", ["000", "002.p/88", "999"])
def test_entries_are_for_auditors(grown: World, published: Upto, subject: str, name: str) -> None:
    tiles = Tiles(grown.ledger, published, lambda request: request.subject == AUDITOR)
    refused("AUDITORS_ONLY", lambda: tiles.handle(Request("GET", f"/tile/entries/{name}", b"", subject)))


@pytest.mark.parametrize(
    "path",
    [
        "/", "/tile", "/tile/", "/tile/0", "/tile/0/", "/tile/0/0", "/tile/0/00", "/tile/0/0000", "/tile/0/x000/000",
        "/tile/0/x000/x000/001", "/tile/0/000/001", "/tile/0/X001/000", "/tile/0/-01", "/tile/0/+01", "/tile/0/1e3",
        "/tile/0/٠٠١", "/tile/0/%30%30%31", "/tile/00/000", "/tile/01/000", "/tile/-1/000", "/tile/64/000",
        "/tile/63/000", "/tile/99999999999999999999/000", "/tile/0/002", "/tile/0/003", "/tile/0/x999/999",
        "/tile/0/" + "x999/" * 6 + "999", "/tile/0/" + "x999/" * 50 + "999", "/tile/0/002.p/0", "/tile/0/002.p/00",
        "/tile/0/002.p/089", "/tile/0/002.p/89", "/tile/0/002.p/255", "/tile/0/002.p/256", "/tile/0/000.p/256",
        "/tile/0/002.p/-1", "/tile/0/002.p/", "/tile/0/002.p", "/tile/0/002.p/88/", "/tile/1/000", "/tile/1/000.p/3",
        "/tile/2/000.p/1", "/tile/0/../0/000", "/tile/../checkpoint", "/../../etc/passwd", "/tile/0/000/..",
        "//checkpoint", "/checkpoint/", "/checkpoint?x", "/checkpoint#x", "/CHECKPOINT", "/tile/0/000?x=1",
        "/tile/ENTRIES/000", "/tile/entries", "/tile/data/000",
    ],
)  # fmt: skip
def test_what_is_not_there(grown: World, published: Upto, path: str) -> None:
    tiles = Tiles(grown.ledger, published, lambda request: True)
    refused("NOT_FOUND", lambda: tiles.handle(Request("GET", path, b"", AUDITOR)))


def path_of(n: int) -> str:
    """How a tile's index is spelled: three digits an element, all but the last after an ``x``."""
    digits = f"{n:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])


@pytest.mark.parametrize("size", [1, 255, 256, 300, 512])
def test_nothing_beyond_the_published_checkpoint(grown: World, published: Upto, size: int) -> None:
    published.size = size
    tiles = Tiles(grown.ledger, published, lambda request: True)
    n, width = divmod(size, 256)
    beyond = [f"0/{path_of(n)}.p/{width + 1}", f"0/{path_of(n)}", f"0/{path_of(n + 1)}.p/1", f"1/000.p/{n + 1}"]
    for path in beyond if width < 255 else beyond[1:]:
        refused("NOT_FOUND", lambda p=path: tiles.handle(Request("GET", f"/tile/{p}", b"", AUDITOR)))
        entries = path.replace("0/", "entries/", 1)
        if path.startswith("0/"):
            refused("NOT_FOUND", lambda p=entries: tiles.handle(Request("GET", f"/tile/{p}", b"", AUDITOR)))


@pytest.mark.parametrize("method", ["POST", "HEAD", "GET"])
def test_read_only(port: int, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, "/checkpoint", b"x" if method == "POST" else None)
    answer = connection.getresponse()
    assert answer.status in ({"POST": (405, 413)}.get(method, (200,)))
    assert bool(answer.read()) is (method != "HEAD")


def test_headers(port: int) -> None:
    client = TileClient(port)
    client.get("/checkpoint")
    assert client.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert client.headers["Cache-Control"] == "no-cache"
    client.get("/tile/0/000")
    assert client.headers["Content-Type"] == "application/octet-stream"
    assert client.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    client.get("/tile/0/777", 404)
    assert "Cache-Control" not in client.headers


@pytest.mark.parametrize(("n", "text"), [(0, "000"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")])
def test_indices_have_one_spelling(n: int, text: str) -> None:
    assert path_of(n) == text and index_of(text) == n


def test_before_anything_is_published(grown: World) -> None:
    from audit.ledger.publication import not_met
    from audit.ledger.quorum import QuorumPolicy

    class Nothing(Unwitnessed):
        def latest(self) -> tuple[int, bytes]:
            raise not_met(QuorumPolicy(), "nobody was asked yet")

    server = Server("127.0.0.1:0", Tiles(grown.ledger, Nothing(grown.ledger), lambda s: True).handle, None)
    server.start()
    client = TileClient(server.port)
    assert b"QUORUM_NOT_MET" in client.get("/checkpoint", 503)
    client.get("/tile/0/000", 503)
    server.close()
