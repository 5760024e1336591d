"""docs/installation.md, "On several machines", walked: a folder stands for a machine, a loopback address for a name."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from assay.errors import UnavailableError
from assay.identity import Layout, service_tls
from assay.modelfiles import BaseManifest
from assay.worker.client import WorkerClient
from demo.processes import free_ports
from gateway import install as installing
from tests.gateway.conftest import BASE
from tests.gateway.test_keys import call
from tests.gateway.test_serve_witnessed import process, the_whole_way
from tests.gateway.workers import KINDS, Workers

pytestmark = pytest.mark.isolation
PAGE = (Path(__file__).parents[2] / "docs" / "installation.md").read_text("utf-8")
SECTION = PAGE.partition("\n## On several machines\n")[2].partition("\n## ")[0]
ADDRESSES = {
    "gw.bank.example": "127.0.0.2",
    "train.bank.example": "127.0.0.3",
    "audit.bank.example": "127.0.0.4",
    "witness.bank.example": "127.0.0.5",
}


def machines() -> dict[str, tuple[list[str], list[str]]]:
    """Of each machine of the page's first table: what lies on it, and what it starts."""
    table = SECTION.partition("\n| Machine |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: (re.findall(r"`([^`]+)`", gets), shlex.split(starts.strip("`"))) for name, gets, starts in rows}


def split(bank: Path, into: Path) -> dict[str, Path]:
    """Moves an installation apart; nothing of it stays."""
    homes = {}
    for name, (gets, _) in machines().items():
        homes[name] = into / name.replace(" ", "-") / "bank"
        for pattern in gets:
            found = sorted(bank.glob(pattern.replace("NAME", "*")))
            assert found, pattern
            for source in found:
                target = homes[name] / source.relative_to(bank)
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    shutil.rmtree(bank)
    return homes


@pytest.fixture
def port() -> int:
    return free_ports(6)


@pytest.fixture
def homes(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The installation that the page's command makes, on its machines."""
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "models/tiny/manifest.json").write_text("{}")
    monkeypatch.setattr(installing, "read_base_manifest", lambda path: BaseManifest(**BASE, files=()))
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    for name, address in ADDRESSES.items():
        command = command.replace(name, address)
    call(*shlex.split(command.replace("\\\n", " "))[1:], "--port", port)
    return split(tmp_path / "bank", tmp_path / "machines")


def test_no_private_key_lies_on_two_machines(homes: dict[str, Path]) -> None:
    found = [path.name for home in homes.values() for path in home.rglob("*.key")]
    contents = {path.read_bytes() for home in homes.values() for path in home.rglob("*.key")}
    assert len(contents) == len(found) > 15
    assert {p.name for p in homes["the authority's, offline"].rglob("*.key")} == {"people-ca.key", "services-ca.key"}


async def test_one_job_the_whole_way_over_five_machines(homes: dict[str, Path], port: int, tmp_path: Path) -> None:
    starts = {name: words for name, (_, words) in machines().items()}
    gateway, witness, desks = homes["gateway"], homes["witness"], homes["each person's"]
    workers = [Workers(Layout(homes[name.replace("-", " ")])) for name in KINDS]
    try:
        for name, one in zip(KINDS, workers, strict=True):
            # The page's command, with small tasks in place of the real ones.
            assert starts[name.replace("-", " ")] == [
                "python",
                "-m",
                "assay.worker",
                "--dir",
                f"./bank/services/{name}",
            ]
            await one.start(name)
        with ExitStack() as stack:
            for name, home, at in (("witness", witness, port + 5), ("gateway", gateway, port)):
                words = [
                    "gateway.cli",
                    *[str(home) + w.removeprefix("./bank") if "/" in w else w for w in starts[name][1:]],
                ]
                host = ADDRESSES["witness.bank.example" if name == "witness" else "gw.bank.example"]
                stack.enter_context(process(*words, port=at, host=host))
            address = f"{ADDRESSES['gw.bank.example']}:{port}"
            assert json.loads((desks / "people/rita/client.toml").read_text().partition("= ")[2]) == address
            await asyncio.to_thread(the_whole_way, Layout(desks), address, tmp_path)
            await asyncio.to_thread(enrolled, homes, address)
    finally:
        for one in workers:
            await one.stop()


def enrolled(homes: dict[str, Path], address: str) -> None:
    """Somebody new gets a folder on the authority's machine, takes it home, and a role from the operator."""
    authority, desks = homes["the authority's, offline"], homes["each person's"]
    call("identity", "enrol", authority, "vera")
    shutil.move(authority / "people/vera", desks / "people/vera")
    vera, oscar = desks / "people/vera", desks / "people/oscar"
    subject = "spiffe://assay.local/people/vera"
    assert json.loads(call("role", "whoami", "--as", vera, "--output", "json")) == {"subject": subject}
    call("role", "grant", subject, "validator", "--unit", "credit", "--as", oscar)
    assert "validator in credit" in call("role", "whoami", "--as", vera, "--address", address)


@asynccontextmanager
async def asking(address: str, gateway: Path) -> AsyncIterator[WorkerClient]:
    """As the gateway asks, on a connection of its own: gRPC would share a refused one."""
    credentials = service_tls(gateway / "services/gateway").channel_credentials()
    async with WorkerClient(address, credentials) as client:
        yield client


def own_name() -> str:
    """A name of this machine that no certificate has by itself; skips the test where there is none."""
    name = socket.gethostname()
    try:
        if socket.gethostbyname(name).startswith("127.") and name != "localhost":
            return name
    except OSError:
        pass
    pytest.skip("this machine's name means another")


@pytest.mark.parametrize("by", ["address", "name"])
async def test_a_worker_is_believed_under_the_names_of_its_certificate_alone(
    homes: dict[str, Path], port: int, by: str
) -> None:
    host = "127.0.0.6" if by == "address" else own_name()
    gateway, home, authority = homes["gateway"], homes["train worker"], homes["the authority's, offline"]
    folder = home / "services/train-worker"
    text = (folder / "worker.toml").read_text()
    (folder / "worker.toml").write_text(text.replace(ADDRESSES["train.bank.example"], host))
    address, worker = f"{host}:{port + 1}", Workers(Layout(home))
    await worker.start("train-worker")
    try:
        async with asking(address, gateway) as client:
            with pytest.raises(UnavailableError) as caught:
                await client.describe()
        assert caught.value.reason == "WORKER_UNREACHABLE" and "mismatch" in why(address, gateway)
        # The authority has the old certificate only; what it makes is carried to the worker's machine.
        done = json.loads(call("identity", "renew", authority, "train-worker", "--host", host, "--output", "json"))
        assert done["restart"] == ["train-worker"] and len(done["files"]) == 2
        await worker.stop()
        for path in map(Path, done["files"]):
            shutil.move(path, folder / path.name)
        worker = Workers(Layout(home))
        await worker.start("train-worker")
        async with asking(address, gateway) as client:
            assert (await client.describe()).subject == "spiffe://assay.local/services/train-worker"
        assert why(address, gateway) == ""
        # And the other way: whoever shows no certificate of the services root hears nothing.
        roots = (gateway / "services/gateway/services-ca.crt").read_bytes()
        async with WorkerClient(address, grpc.ssl_channel_credentials(roots)) as stranger:
            with pytest.raises(UnavailableError):
                await stranger.describe()
    finally:
        await worker.stop()


def why(address: str, gateway: Path) -> str:
    """What TLS has against the server at this address, by another library than gRPC's; empty for nothing."""
    folder = gateway / "services/gateway"
    context = ssl.create_default_context(cafile=str(folder / "services-ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw, server_hostname=host):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)


def test_the_page_names_every_place_of_an_address(homes: dict[str, Path]) -> None:
    """Nothing else in the installation says where a service is; what the page's second table leaves out would stay."""
    written = re.compile(rf"({'|'.join(map(re.escape, ADDRESSES.values()))}):")
    files = [path for home in homes.values() for path in home.rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix in (".toml", ".txt", ".json", ".pub")]
    said = {path.name for path in texts if written.search(path.read_text())}
    table = SECTION.partition("\n| Service | It listens by")[2].partition("\n\n")[0]
    assert said == set(re.findall(r"`(?:[a-z/-]+/)?([a-z-]+\.(?:toml|txt))`", table)), said
