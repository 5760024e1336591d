"""Two real worker processes beside an installation, running the tiny tasks; they can be killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import assay
from assay.identity import Layout
from gateway.settings import default_toml

SCRIPT = Path(__file__).parent / "tiny_worker.py"
KINDS = {"train-worker": '"train"', "audit-worker": '"prepare", "audit"'}


def python_path() -> dict[str, str]:
    """The environment of a child that finds the same packages as this process."""
    root = str(Path(assay.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(SCRIPT.parent), *filter(None, sys.path)])}


@dataclass
class Workers:
    """Both workers of an installation."""

    layout: Layout
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    drains: list[asyncio.Task[bytes]] = field(default_factory=list)

    def configure(self, postgres_url: str = "") -> None:
        """Writes the settings of gateway and workers on free ports."""
        ports = free_ports(3)
        addresses = [f"127.0.0.1:{p}" for p in ports]
        text = default_toml(listen=addresses[0], train=addresses[1], audit=addresses[2], postgres_url=postgres_url)
        self.layout.settings.write_text(text)
        self.gates.mkdir()
        for name, port in zip(KINDS, ports[1:], strict=True):
            text = f"""\
listen = "127.0.0.1:{port}"
subject = "spiffe://assay.local/services/{name}"
kinds = [{KINDS[name]}]
slot_file = "../{name}.slot"
models_dir = "{self.gates}"
watts_per_core = 10.0
"""
            (self.layout.service(name) / "worker.toml").write_text(text)

    @property
    def gates(self) -> Path:
        """Folder that tasks look into; an existing file is an open gate."""
        return self.layout.root / "gates"

    def open_gate(self, name: str) -> None:
        """Lets tasks go on that wait for this gate."""
        (self.gates / name).touch()

    async def start(self, *names: str) -> None:
        """Starts workers, all by default, and waits until they serve."""
        for name in names or KINDS:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SCRIPT),
                str(self.layout.service(name)),
                stderr=asyncio.subprocess.PIPE,
                env=python_path(),
            )
            self.processes[name] = process
        for name in names or KINDS:
            await self._serving(name)

    async def kill(self, name: str) -> None:
        """Ends a worker without warning."""
        process = self.processes.pop(name)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Ends both."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            await asyncio.wait_for(process.wait(), 30)
        await asyncio.gather(*self.drains, return_exceptions=True)

    async def _serving(self, name: str) -> None:
        listen = tomllib.loads((self.layout.service(name) / "worker.toml").read_text())["listen"]
        host, _, port = listen.rpartition(":")
        process = self.processes[name]
        assert process.stderr is not None
        self.drains.append(asyncio.create_task(process.stderr.read()))
        while True:
            assert process.returncode is None, f"{name} did not start"
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    for made in sockets:
        made.bind(("127.0.0.1", 0))
    ports = [int(made.getsockname()[1]) for made in sockets]
    for made in sockets:
        made.close()
    return ports


def rows(**behaviour: object) -> bytes:
    """A dataset whose first line says how the tiny tasks behave."""
    return json.dumps(behaviour).encode() + b"\n" + b"{}\n" * 10
