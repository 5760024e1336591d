"""A real Ray cluster of processes on this machine, with token authentication, for tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

import assay

_START_SECONDS = 90
_TRIES = 3
_STORE_BYTES = 80_000_000


def ray_command() -> str | None:
    """Where ``ray`` is: beside this Python, or where `make ray` put it."""
    root = Path(assay.__file__).parent.parent
    for place in (Path(sys.executable).parent, root / ".venv-ray" / "bin"):
        if (place / "ray").exists():
            return str(place / "ray")
    return shutil.which("ray")


class Cluster:
    """A head without resources and nodes that each take one attempt. Every process ends with :meth:`close`."""

    def __init__(self, ray: str) -> None:
        self._ray = ray
        self.token = secrets.token_hex(32)
        self._folder = tempfile.mkdtemp(prefix="assay-ray-")
        self.port, self.dashboard = _free_port(), _free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.head = self.start_head()

    def start_head(self) -> subprocess.Popen[bytes]:
        """Starts a head that knows nothing of an earlier one, and waits until its job service answers."""
        dashboard = ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}", "--include-dashboard=true"]
        self.head = self._start(
            ["--head", f"--port={self.port}", "--num-cpus=0", f"--ray-client-server-port={_free_port()}", *dashboard]
        )
        self._wait_for_service()
        return self.head

    def start_node(self) -> subprocess.Popen[bytes]:
        """Starts a node for one attempt at a time, and waits until the head has it.

        A port that was free when it was chosen may be taken by now, and a node without its ports never comes: then
        another is started.
        """
        resources = '--resources={"assay_attempt": 1}'
        for _ in range(_TRIES):
            known = self._nodes()
            node = self._start([f"--address=127.0.0.1:{self.port}", "--num-cpus=1", resources])
            end = time.monotonic() + _START_SECONDS
            while node.poll() is None and time.monotonic() < end:
                if self._nodes() - known:
                    return node
                time.sleep(0.3)
            self.kill(node)
        raise RuntimeError("no node of the Ray cluster starts")

    def _nodes(self) -> set[str]:
        """Ids of the nodes that the head takes for alive."""
        request = urllib.request.Request(
            f"{self.address}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = [node["raylet"] for node in json.load(answer)["data"]["summary"]]
        return {node["nodeId"] for node in found if node["state"] == "ALIVE" and not node["isHeadNode"]}

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(Path(assay.__file__).parent.parent),
        }
        common = ["--node-ip-address=127.0.0.1", f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats"]
        # The defaults are one machine's, and here every node of every cluster lies on the same one.
        agent = [f"--{name}-port={_free_port()}" for name in ("dashboard-agent-listen", "metrics-export")]
        ports = ["--min-worker-port=0", "--max-worker-port=0", *agent]
        where = [f"--temp-dir={self._folder}"] if "--head" in arguments else []
        process = subprocess.Popen(
            [self._ray, "start", "--block", *common, *ports, *where, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def _wait_for_service(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(self.address + "/api/jobs/", timeout=2)
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise RuntimeError("the head of the Ray cluster does not answer")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Ends one `ray start` with everything under it, at once."""
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            tree = []  # It ended by itself.
        for member in tree:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, timeout=20)
        process.wait()
        self.processes.remove(process)

    def close(self) -> None:
        """Ends every process and removes what they wrote."""
        for process in list(self.processes):
            self.kill(process)
        # What Ray started apart from its parents names the cluster's own folder.
        left = [p for p in psutil.process_iter(["cmdline"]) if self._folder in " ".join(p.info["cmdline"] or ())]
        for process_left in left:
            process_left.kill()
        psutil.wait_procs(left, timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
