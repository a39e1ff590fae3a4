"""The guest's first program."""

from __future__ import annotations

from collections.abc import Iterable

_SCRIPT = """\
#!/bin/busybox sh
# The guest's first process: makes a system that the agent can live in, and becomes the agent.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
cat /etc/hostname > /proc/sys/kernel/hostname
# The firmware of a clone gives the UUID of its template. The agent writes the right one to what lies over it here.
uuid=/sys/class/dmi/id/product_uuid
if [ -e $uuid ]; then
    cat $uuid > /run/vm-uuid
    mount -o bind /run/vm-uuid $uuid
fi
# Should the agent die without a word, the machine resets at once, which ends a QEMU that has -no-reboot.
echo -1 > /proc/sys/kernel/panic
for module in {modules}; do
    insmod /lib/modules/$module
done
exec /bin/python3 -I -S -B -c 'from vmpool_agent.main import main; main()'
"""


def script(modules: Iterable[str]) -> str:
    """The text of `/init`, which loads the modules in their order."""
    return _SCRIPT.format(modules=" ".join(modules))
