"""First code inside the sandbox: gives up what is left of privilege, proves the cut-off, then lets one task run.

Gets what to try as an argument and answers over one inherited socket in JSON lines. The supervisor opens the inputs
and sends the order and the job's secret only after it has seen the proof. What the task prints goes to a log that
never leaves the worker.

    entry      -> {"type": "isolation", "probes": {name: bool}, "saw": {name: str}}
    supervisor -> {"run": {"task_id","kind","order","secret","work_key","module","processes","environment",
                  "memory_bytes"}}
                  (or closes the socket)
    entry      -> {"type": "progress", ...} ...
    entry      -> {"type": "end", "outcome": "done|paused|failed", ...}

Exit codes: 0 done, 75 paused, 70 failed, 77 the cut-off is not proven.

Every task waits for what is imported here, so the proof is made without ``site``, whose path files cost more than all
probes, and without ``json``, ``socket`` and ``signal``, which bring ``re`` and ``enum``: together they were more than
half of the time from start to proof. :mod:`assay.worker.running` has them all.
"""

from __future__ import annotations

import os
import resource
from _json import encode_basestring_ascii as quoted

from assay.worker import probes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

EXIT_DONE, EXIT_FAILED, EXIT_PAUSED, EXIT_NOT_ISOLATED = 0, 70, 75, 77
MAX_LINE = 8 << 20
_PR_SET_DUMPABLE = 4
_RLIMITS = {
    "nproc": resource.RLIMIT_NPROC,
    "fsize": resource.RLIMIT_FSIZE,
    "data": resource.RLIMIT_DATA,
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
}


def main(descriptor: int, settings: Mapping[str, Any]) -> int:
    """Proves the cut-off, then runs the task that comes over the socket.

    Args:
        descriptor: the inherited socket.
        settings: ``probe``, the targets of :func:`assay.worker.probes.run`; ``limits``, hard limits by name; and
            ``identity``, the ``uid`` and ``gid`` to become, or None.

    Returns:
        The exit code.
    """
    os.set_inheritable(descriptor, False)
    _drop_identity(settings["identity"])
    _limit(settings["limits"])
    report = probes.run(settings["probe"], pids=settings["limits"]["nproc"])
    os.write(descriptor, _line(report))
    if not all(report["probes"].values()):
        return EXIT_NOT_ISOLATED
    import site

    site.main()
    from assay.worker.running import serve

    return serve(descriptor)


def _drop_identity(identity: Mapping[str, int] | None) -> None:
    """Becomes the sandbox's own host uid for good; leaving uid 0 clears every capability."""
    if identity is None:
        return
    import ctypes

    os.setgroups([])
    os.setresgid(identity["gid"], identity["gid"], identity["gid"])
    os.setresuid(identity["uid"], identity["uid"], identity["uid"])
    # A change of uid hides /proc/self from the process itself, which subprocess and torch read; no core is ever dumped.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _limit(limits: Mapping[str, int]) -> None:
    """Sets hard limits. Never RLIMIT_AS: CUDA reserves huge address ranges."""
    for name, value in limits.items():
        which = _RLIMITS[name]
        hard = resource.getrlimit(which)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (capped, capped))


def _line(report: Mapping[str, Any]) -> bytes:
    """The report as one line of JSON."""
    held = ", ".join(f"{quoted(name)}: {'true' if value else 'false'}" for name, value in report["probes"].items())
    saw = ", ".join(f"{quoted(name)}: {quoted(word)}" for name, word in report["saw"].items())
    return f'{{"type": "isolation", "probes": {{{held}}}, "saw": {{{saw}}}}}\n'.encode()
