"""A node under what a container runtime's default seccomp profile refuses a pod without CAP_SYS_ADMIN.

``pod_process.py DIR TRY``: takes the filter, then becomes ``node_process.py``. Calls that make or enter a namespace or
change mounts are refused with EPERM, clone3 with ENOSYS, and no privilege can be gained again.
"""

import errno
import os
import sys
from pathlib import Path

import pyseccomp

NAMESPACES = (0x10000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)
REFUSED = "unshare setns mount umount2 pivot_root move_mount open_tree fsopen fsmount mount_setattr".split()

if __name__ == "__main__":
    profile = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in REFUSED:
        profile.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    for flag in NAMESPACES:
        profile.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    profile.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    profile.load()
    node = Path(__file__).with_name("node_process.py")
    os.execv(sys.executable, [sys.executable, str(node), *sys.argv[1:]])
