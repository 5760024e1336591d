"""What this machine lacks for the sandbox, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from assay.errors import PreconditionError

Finding = tuple[str, bool, str, str]

_INSTALL = "apt-get install bubblewrap libseccomp2 (Debian, Ubuntu) or dnf install bubblewrap libseccomp (Fedora, RHEL)"
_OLDEST = (0, 8)
_TRIAL = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--unshare-net", "--unshare-ipc")


def bubblewrap() -> str:
    """Path of bubblewrap.

    Raises:
        PreconditionError: ``ISOLATION_MISSING``; a worker never runs a task without its sandbox.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise PreconditionError(
            "ISOLATION_MISSING", "bubblewrap is not installed, and no task runs without it", remedy=_INSTALL
        )
    return path


def diagnose() -> list[Finding]:
    """Looks at every part that the sandbox stands on.

    Returns:
        ``(name, ok, detail, remedy)`` for bubblewrap, libseccomp, namespaces and the identity that limits bind to.
    """
    return [_bubblewrap(), _seccomp(), _namespaces(), _identity()]


def _bubblewrap() -> Finding:
    try:
        text = subprocess.run([bubblewrap(), "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
    except (PreconditionError, OSError, subprocess.SubprocessError):
        return "bubblewrap", False, "not found", _INSTALL
    found = re.search(r"(\d+)\.(\d+)", text)
    recent = found is not None and (int(found[1]), int(found[2])) >= _OLDEST
    return "bubblewrap", recent, text, "" if recent else "install bubblewrap 0.8 or newer"


def _seccomp() -> Finding:
    from assay.worker import seccomp

    try:
        size = len(seccomp.program())
    except PreconditionError as error:
        return "libseccomp", False, error.message, error.remedy
    return "libseccomp", True, f"filter of {size} bytes for {platform.machine()}", ""


def _namespaces() -> Finding:
    user = [] if os.geteuid() == 0 else ["--unshare-user", "--disable-userns"]
    try:
        trial = subprocess.run(
            [bubblewrap(), *user, *_TRIAL, "--", "/bin/true"], capture_output=True, text=True, timeout=20
        )
    except (PreconditionError, OSError, subprocess.SubprocessError) as error:
        return "namespaces", False, f"not tried: {type(error).__name__}", _INSTALL
    if trial.returncode == 0:
        return "namespaces", True, "pid, network, ipc and mount namespaces can be made", ""
    return "namespaces", False, trial.stderr.strip()[:200], _namespace_remedy()


def _namespace_remedy() -> str:
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts unprivileged user namespaces: install an AppArmor profile for bwrap with `userns,` "
            "or set sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "set sysctl kernel.unprivileged_userns_clone=1"
    if _read("/proc/sys/user/max_user_namespaces") == "0":
        return "set sysctl user.max_user_namespaces to more than 0"
    return "in a container, allow CAP_SYS_ADMIN or user namespaces (docker run --security-opt seccomp=unconfined)"


def _identity() -> Finding:
    if os.geteuid() != 0:
        return "limits", True, f"RLIMIT_NPROC binds uid {os.getuid()}", ""
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if mapped < 61_200:
        remedy = "run the worker as an ordinary user, or map at least 65,536 uids into the container"
        return "limits", False, f"only {mapped} uids are mapped here", remedy
    return "limits", True, "tasks run under a host uid of their own, which RLIMIT_NPROC binds", ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
