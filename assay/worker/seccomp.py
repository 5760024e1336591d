"""The system-call filter of the sandbox, as BPF bytes for ``bwrap --seccomp``.

A deny list over an allowing default: torch and CUDA need too many calls for an allow list to stay true from release to
release. Socket families are an allow list, since a network namespace does not stop ``socket(AF_VSOCK)``. Argument
comparisons see all 64 bits, so a family with high bits set falls into the last, denying range.
"""

from __future__ import annotations

import errno
import functools
import os
import socket

from assay.errors import PreconditionError

_ALLOWED_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_NETLINK_ROUTE = 0
_FIRST_UNKNOWN_FAMILY = 64

# clone(2) flags that make namespaces; CLONE_NEWUSER first, the door to the others.
_NAMESPACE_FLAGS = (0x10000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)

_DENIED = (
    # other processes and tracing
    "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise "
    # kernel programs, counters, keys
    "bpf perf_event_open keyctl add_key request_key userfaultfd "
    # asynchronous calls that pass this filter by
    "io_uring_setup io_uring_enter io_uring_register "
    # mounts and namespaces
    "mount umount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick "
    "mount_setattr unshare setns "
    # files by handle, past the mount namespace
    "open_by_handle_at name_to_handle_at "
    # the machine itself
    "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl quotactl_fd "
    "settimeofday clock_settime clock_adjtime adjtimex iopl ioperm syslog vhangup lookup_dcookie nfsservctl uselib "
    "personality sethostname setdomainname"
).split()


@functools.cache
def program() -> bytes:
    """Compiles the filter for this machine's architecture, once a process.

    Raises:
        PreconditionError: ``SECCOMP_MISSING`` when libseccomp is not installed.
    """
    try:
        import pyseccomp as s
    except (ImportError, OSError, RuntimeError) as error:
        raise PreconditionError(
            "SECCOMP_MISSING",
            "libseccomp cannot be loaded, so no system-call filter can be made",
            remedy="apt-get install libseccomp2 (or dnf install libseccomp) and pip install pyseccomp",
        ) from error
    filter_ = s.SyscallFilter(s.ALLOW)
    denied = s.ERRNO(errno.EPERM)
    for name in _DENIED:
        # A call that this architecture or this libseccomp does not know cannot be named, hence not filtered by name.
        if s.resolve_syscall(s.system_arch(), name) >= 0:
            filter_.add_rule(denied, name)
    # glibc falls back to clone(2), whose flags are an argument that a filter can see.
    filter_.add_rule(s.ERRNO(errno.ENOSYS), "clone3")
    for flag in _NAMESPACE_FLAGS:
        filter_.add_rule(denied, "clone", s.Arg(0, s.MASKED_EQ, flag, flag))
    for call in ("socket", "socketpair"):
        for family in set(range(_FIRST_UNKNOWN_FAMILY)) - {int(f) for f in _ALLOWED_FAMILIES}:
            filter_.add_rule(denied, call, s.Arg(0, s.EQ, family))
        filter_.add_rule(denied, call, s.Arg(0, s.GE, _FIRST_UNKNOWN_FAMILY))
    filter_.add_rule(denied, "socket", s.Arg(0, s.EQ, int(socket.AF_NETLINK)), s.Arg(2, s.NE, _NETLINK_ROUTE))
    descriptor = os.memfd_create("assay-seccomp", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "r+b") as stream:
        filter_.export_bpf(stream)
        stream.seek(0)
        return stream.read()
