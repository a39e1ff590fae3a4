"""What QEMU is started as: an unprivileged user, in a cgroup of its own with limits.

`user` and `plan` decide, from what is asked for and what the host offers, and say what is not applied and why;
`host` looks at the host; `tree` and `group` do the file operations; `inputs` has the files that QEMU reads.
"""

from vmm.qemu.confinement.record import UNCONFINED, Confinement

__all__ = ["UNCONFINED", "Confinement"]
