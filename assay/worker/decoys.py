"""Targets that must be out of reach inside the sandbox and are, provably, within reach on the host.

A probe that finds nothing proves nothing. So the supervisor really writes a world-readable decoy file and really
listens on decoy sockets, reaches each of them itself, and only then asks the sandbox to try.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from assay.errors import InternalError

_PUBLIC = ("/var/tmp", "/tmp")  # noqa: S108


class Decoys:
    """A context in which the decoys exist; ``targets`` is what :func:`assay.worker.probes.run` takes."""

    def __init__(
        self, folder: Path, *, ports: Mapping[str, int], keys: Sequence[Path], visible: Sequence[Path]
    ) -> None:
        """Prepares the decoys.

        Args:
            folder: a folder outside every bind of the sandbox; the decoy file is written below it.
            ports: further ports on 127.0.0.1 that must be refused inside, such as the gateway's.
            keys: files of the worker that must be unreadable inside.
            visible: host paths that the sandbox binds; only the way to them may show in a home folder.
        """
        self._folder = folder
        self._ports = dict(ports)
        self._keys = [str(key) for key in keys]
        self._visible = visible
        self._stack = ExitStack()
        self.targets: dict[str, Any] = {}

    def __enter__(self) -> Decoys:
        with ExitStack() as stack:
            token = secrets.token_hex(16)
            # One where secrets lie, one that any user of the host can read: a mode must not pass for a mount namespace.
            public = _public_folder(stack)
            files = [self._folder / f".decoy-{token}", public / "decoy"]
            for path in files:
                stack.callback(path.unlink, missing_ok=True)
                path.write_text(token)
                path.chmod(0o644)
                if path.read_text() != token:
                    raise InternalError("DECOY_UNREADABLE", "the decoy file cannot be read on the host")
            path_socket = str(public / "decoy.sock")
            tcp = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
            _listen(stack, socket.AF_UNIX, path_socket)
            _listen(stack, socket.AF_UNIX, "\0assay-" + token)
            self.targets = {
                "ports": {**self._ports, "decoy": tcp.getsockname()[1]},
                "abstract_socket": "assay-" + token,
                "path_socket": path_socket,
                "decoy_files": [str(path) for path in files],
                "keys": self._keys,
                "homes": _homes(self._visible),
                "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "mnt", "ipc")},
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the decoys; they need not outlive the probes. May be called again."""
        self._stack.close()


def _public_folder(stack: ExitStack) -> Path:
    """A folder open to every user; short, since a socket path has room for 107 bytes only."""
    # Not /tmp where it can be helped, since the sandbox covers /tmp anyway.
    where = next((place for place in _PUBLIC if os.access(place, os.W_OK)), None)
    folder = Path(tempfile.mkdtemp(prefix="assay-decoy-", dir=where))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return folder


def _listen(stack: ExitStack, family: int, address: Any) -> socket.socket:
    listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    listener.bind(address)
    listener.listen(4)
    with socket.socket(family, socket.SOCK_STREAM) as check:
        check.settimeout(2)
        check.connect(listener.getsockname())
    return listener


def _homes(visible: Sequence[Path]) -> dict[str, list[str]]:
    homes = {pwd.getpwuid(0).pw_dir}
    try:
        homes.add(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        # A container may run under a uid that has no account, and so no home to hide.
        pass
    out: dict[str, list[str]] = {}
    for home in sorted(homes - {"/"}):
        below = [path.relative_to(home).parts for path in visible if path.is_relative_to(home)]
        out[home] = sorted({parts[0] for parts in below if parts})
    return out
