"""First code inside the sandbox: gives up what is left of privilege, proves the cut-off, then runs one task module.

Talks to the supervisor over one inherited socket in JSON lines. The supervisor opens the inputs and sends the order
and the job's secret only after it has seen the proof. What the task prints goes to a log that never leaves the
worker.

    supervisor -> {"probe": targets, "limits": limits, "identity": {"uid","gid"} | null}
    entry      -> {"type": "isolation", "probes": {name: bool}, "saw": {name: str}}
    supervisor -> {"run": {"task_id","kind","order","secret","module"}}   (or closes the socket)
    entry      -> {"type": "progress", ...} ...
    entry      -> {"type": "end", "outcome": "done|paused|failed", ...}

Exit codes: 0 done, 75 paused, 70 failed, 77 the cut-off is not proven.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import importlib
import json
import os
import resource
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.worker import probes
from assay.worker.task import TaskContext, TaskPaused

EXIT_DONE, EXIT_FAILED, EXIT_PAUSED, EXIT_NOT_ISOLATED = 0, 70, 75, 77
MAX_LINE = 8 << 20
_PR_SET_DUMPABLE = 4
_CLOSE_SECONDS = 30.0
_RLIMITS = {
    "nproc": resource.RLIMIT_NPROC,
    "fsize": resource.RLIMIT_FSIZE,
    "data": resource.RLIMIT_DATA,
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
}


def main(descriptor: int) -> int:
    """Runs the whole exchange on the inherited socket and returns the exit code."""
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    lines = channel.makefile("rb")
    settings = _receive(lines)
    _drop_identity(settings["identity"])
    _limit(settings["limits"])
    report = probes.run(settings["probe"], pids=settings["limits"]["nproc"])
    _send(channel, {"type": "isolation", **report})
    if not all(report["probes"].values()):
        return EXIT_NOT_ISOLATED
    order = lines.readline(MAX_LINE)
    if not order:
        return EXIT_NOT_ISOLATED
    code = _run(channel, json.loads(order)["run"])
    # The supervisor measures this process tree once more, then closes its end.
    channel.settimeout(_CLOSE_SECONDS)
    with contextlib.suppress(OSError):
        lines.readline(1)
    return code


def _run(channel: socket.socket, run: Mapping[str, Any]) -> int:
    root = Path("/task")
    context = TaskContext(
        task_id=run["task_id"],
        kind=run["kind"],
        order=run["order"],
        inputs=root / "in" / "files",
        outputs=root / "out",
        work=root / "work",
        models=Path("/models"),
        secret=base64.b64decode(run["secret"]),
        pause_flag=root / "control" / "pause",
        send=channel.sendall,
    )
    try:
        claim = importlib.import_module(run["module"]).run(context)
        _send(channel, {"type": "end", "outcome": "done", "claim": claim})
        return EXIT_DONE
    except TaskPaused:
        _send(channel, {"type": "end", "outcome": "paused"})
        return EXIT_PAUSED
    except AssayError as error:
        traceback.print_exc()
        _send(
            channel,
            {
                "type": "end",
                "outcome": "failed",
                "code": error.code,
                "reason": error.reason,
                "message": error.message[:500],
                "remedy": error.remedy[:500],
                "violations": [[v.field[:200], v.description[:300]] for v in error.violations[:50]],
            },
        )
    except MemoryError:
        _send(channel, {"type": "end", "outcome": "failed", "reason": "TASK_MEMORY", "message": "memory ran out"})
    except Exception as error:
        # The text of a foreign error may quote a row, so only its type leaves the sandbox.
        traceback.print_exc()
        words = f"the task ended by {type(error).__name__}"
        _send(channel, {"type": "end", "outcome": "failed", "reason": "TASK_CRASHED", "message": words})
    return EXIT_FAILED


def _drop_identity(identity: Mapping[str, int] | None) -> None:
    """Becomes the sandbox's own host uid for good; leaving uid 0 clears every capability."""
    if identity is None:
        return
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


def _receive(lines: Any) -> dict[str, Any]:
    value = json.loads(lines.readline(MAX_LINE))
    if not isinstance(value, dict):
        raise ValueError("the supervisor sent no settings")
    return value


def _send(channel: socket.socket, value: Mapping[str, Any]) -> None:
    channel.sendall(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
