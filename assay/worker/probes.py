"""The cut-off probes: run inside the sandbox, before any input is opened, and send no packet anywhere.

Each probe tries something that must fail. The supervisor made sure that the same thing works on the host (it really
wrote the decoy file and really listens on the decoy sockets), so that a refusal means the sandbox and not an empty
target. Standard library only, and little of it, for the reason that :mod:`assay.worker.entry` gives.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# TEST-NET-1 and the documentation prefix: never routed, and a UDP connect() only asks the routing table.
_UNROUTED_V4, _UNROUTED_V6 = "192.0.2.1", "2001:db8::1"
_NO_ROUTE = {errno.ENETUNREACH}
_NO_ROUTE_V6 = {errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EACCES}
_AF_PACKET, _AF_VSOCK = 17, 40
_SIGKILL = 9
_CHILD_SECONDS = 10.0
_FORK_LIMIT, _FORK_TRIES = 3, 6


def run(targets: Mapping[str, Any], *, pids: int) -> dict[str, Any]:
    """Runs every probe.

    Args:
        targets: what to try to reach, from :class:`assay.worker.decoys.Decoys`.
        pids: the pids limit that must hold.

    Returns:
        ``{"probes": {name: held}, "saw": {name: what was seen}}``; a probe that itself breaks counts as not held.
    """
    table: dict[str, Callable[[], tuple[bool, str]]] = {
        "no_route": lambda: _refused(_route_v4, _NO_ROUTE),
        "no_route_ipv6": lambda: _refused(_route_v6, _NO_ROUTE_V6),
        "only_loopback": _only_loopback,
        "host_ports_refused": lambda: _ports(targets["ports"]),
        "abstract_socket_refused": lambda: _refused(lambda: _unix("\0" + targets["abstract_socket"])),
        "path_socket_invisible": lambda: _refused(lambda: _unix(targets["path_socket"])),
        "decoy_files_unreadable": lambda: _unreadable(targets["decoy_files"]),
        "keys_unreadable": lambda: _unreadable(targets["keys"]),
        "shadow_unreadable": lambda: _unreadable(["/etc/shadow"]),
        "homes_hidden": lambda: _homes(targets["homes"]),
        "vsock_refused": lambda: _refused(lambda: _create(_AF_VSOCK, _socket.SOCK_STREAM)),
        "packet_refused": lambda: _refused(lambda: _create(_AF_PACKET, _socket.SOCK_DGRAM)),
        "own_namespaces": lambda: _namespaces(targets["namespaces"]),
        "no_privilege": _no_privilege,
        "inputs_read_only": lambda: _read_only(["/task/in", "/task/control", "/models"]),
        "pids_limited": lambda: _pids_limited(pids),
    }
    probes: dict[str, bool] = {}
    saw: dict[str, str] = {}
    for name, probe in table.items():
        try:
            probes[name], saw[name] = probe()
        except Exception as error:
            probes[name], saw[name] = False, f"probe broke: {type(error).__name__}"
    return {"probes": probes, "saw": saw}


def _refused(attempt: Callable[[], object], allowed: set[int] | None = None) -> tuple[bool, str]:
    try:
        attempt()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        return allowed is None or error.errno in allowed, name
    return False, "succeeded"


def _route_v4() -> None:
    _connect(_socket.AF_INET, _socket.SOCK_DGRAM, (_UNROUTED_V4, 9))


def _route_v6() -> None:
    _connect(_socket.AF_INET6, _socket.SOCK_DGRAM, (_UNROUTED_V6, 9))


def _only_loopback() -> tuple[bool, str]:
    names = sorted(name for _, name in _socket.if_nameindex())
    return names == ["lo"], ",".join(names)


def _ports(ports: Mapping[str, int]) -> tuple[bool, str]:
    results = {}
    for name, port in ports.items():
        results[name] = _refused(lambda port=port: _tcp(port), {errno.ECONNREFUSED})  # type: ignore[misc]
    return all(held for held, _ in results.values()), ",".join(f"{n}={word}" for n, (_, word) in results.items())


def _tcp(port: int) -> None:
    _connect(_socket.AF_INET, _socket.SOCK_STREAM, ("127.0.0.1", port))


def _unix(address: str) -> None:
    _connect(_socket.AF_UNIX, _socket.SOCK_STREAM, address)


def _connect(family: int, kind: int, address: Any) -> None:
    probe = _socket.socket(family, kind)
    try:
        probe.settimeout(2)
        probe.connect(address)
    finally:
        probe.close()


def _create(family: int, kind: int) -> None:
    _socket.socket(family, kind).close()


def _unreadable(paths: list[str]) -> tuple[bool, str]:
    words = []
    if not paths:
        return False, "nothing to try"
    for path in paths:
        held, word = _refused(lambda path=path: _bytes(path))  # type: ignore[misc]
        words.append(word)
        if not held:
            return False, "readable"
    return True, ",".join(sorted(set(words)))


def _bytes(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _homes(homes: Mapping[str, list[str]]) -> tuple[bool, str]:
    """A home may show only the way to the interpreter and to the installed packages."""
    for home, allowed in homes.items():
        try:
            extra = set(os.listdir(home)) - set(allowed)
        except OSError:
            continue
        if extra:
            return False, f"{len(extra)} names visible"
    return True, "nothing beyond the read-only binds"


def _namespaces(host: Mapping[str, str]) -> tuple[bool, str]:
    shared = [name for name, value in host.items() if os.readlink(f"/proc/self/ns/{name}") == value]
    return not shared, "shared: " + ",".join(shared) if shared else ",".join(sorted(host))


def _no_privilege() -> tuple[bool, str]:
    status = dict(line.split(":\t", 1) for line in _bytes("/proc/self/status").decode().splitlines() if ":\t" in line)
    facts = {name: status[name].strip() for name in ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")}
    held = int(facts["CapEff"], 16) == 0 and int(facts["CapPrm"], 16) == 0 and os.getuid() != 0
    held = held and facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2"
    return held, ",".join(f"{name}={value}" for name, value in facts.items())


def _read_only(folders: list[str]) -> tuple[bool, str]:
    words = []
    for folder in folders:
        held, word = _refused(lambda folder=folder: open(f"{folder}/.probe", "xb").close())  # type: ignore[misc]
        words.append(word)
        if not held:
            return False, f"{folder} is writable"
    return True, ",".join(sorted(set(words)))


def _pids_limited(limit: int) -> tuple[bool, str]:
    """Proves that RLIMIT_NPROC binds this identity: with a soft limit of 3, at most 3 of 6 forks may succeed.

    RLIMIT_NPROC does nothing for the host's uid 0, whatever uid a user namespace shows. The tries are bounded, so
    that the probe is harmless where the limit does not hold.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard == resource.RLIM_INFINITY or hard > limit:
        return False, "no hard limit is set"
    resource.setrlimit(resource.RLIMIT_NPROC, (min(_FORK_LIMIT, hard), hard))
    children: list[int] = []
    word = f"{_FORK_TRIES} forks passed a limit of {_FORK_LIMIT}"
    try:
        for _ in range(_FORK_TRIES):
            child = os.fork()
            if child == 0:
                time.sleep(_CHILD_SECONDS)
                os._exit(0)
            children.append(child)
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, "?")
    finally:
        for child in children:
            os.kill(child, _SIGKILL)
            os.waitpid(child, 0)
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return word == "EAGAIN" and len(children) <= _FORK_LIMIT, word
