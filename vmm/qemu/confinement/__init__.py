"""QEMU's confinement: an unprivileged user, a cgroup with limits, and the layers around the process.

`user` and `plan` decide, from the settings and the host, and give a reason for each missing part; `host` looks at the
host; `tree` and `group` do the file operations; `inputs` has the files that QEMU reads.
"""

from vmm.qemu.confinement.record import UNCONFINED, Confinement

__all__ = ["UNCONFINED", "Confinement"]
