"""The guest's first program, a shell script."""

from __future__ import annotations

from collections.abc import Iterable

from vmm.words.machines import AgentKind

_SYSTEM = """\
#!/bin/busybox sh
# The guest's first process: sets up the system for the agent.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
# Files live in memory: their content, and 1 KiB for each. One bounded file system holds them all: filling it up fails
# with an error, while a guest without memory dies. Kernel, agent and a small program need 48 MiB. The agent applies the
# same rule again when memory is added.
read -r _ total _ < /proc/meminfo
size=$((total * 6 / 10))
if [ $((total - 49152)) -lt $size ]; then
    size=$((total - 49152))
fi
mount -o remount,size=${{size}}k,nr_inodes=$((total / 10)) rootfs /
chmod 755 / # the kernel makes it for everybody to write to
mkdir /dev/pts /dev/shm
mkdir -m 1777 /run/shm
mount -o bind /run/shm /dev/shm
# Group 5 is tty, as everywhere: programs of all users open terminals.
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -o remount,size=1m,nr_inodes=4k dev /dev
cat /etc/hostname > /proc/sys/kernel/hostname
# If the agent dies, the machine resets at once, which ends a QEMU that runs with -no-reboot.
echo -1 > /proc/sys/kernel/panic
for module in {modules}; do
    insmod /lib/modules/$module.ko
done
"""

_BUILTIN = """\
# With this option a process enters its cgroup at once, without it after a grace period; kernels before 6.0 lack it.
mount -t cgroup2 -o favordynmods cgroup /sys/fs/cgroup 2> /dev/null || mount -t cgroup2 cgroup /sys/fs/cgroup
# The firmware of a clone shows its template's UUID. The agent writes the right one to the file mounted over it here.
uuid=/sys/class/dmi/id/product_uuid
if [ -e $uuid ]; then
    cat $uuid > /run/vm-uuid
    mount -o bind /run/vm-uuid $uuid
fi
if [ "$VMPOOL_CHANNEL" = vsock ]; then
    for module in {vsock_modules}; do
        insmod /lib/modules/$module.ko
    done
fi
exec /bin/python3 -I -S -B -c 'from vmpool_agent.main import main; main()'
"""

_QGA = """\
# `halt`, `poweroff` and `reboot` send these signals to the first process. A halted machine would stay for ever.
trap 'poweroff -f' USR1 USR2
trap 'reboot -f' TERM
# The port appears a moment after the driver is loaded. On a machine without the port the guest just runs.
for attempt in $(seq 40); do
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat $port/name 2>/dev/null)" = org.qemu.guest_agent.0 ]; then
            qemu-ga --method=virtio-serial --path=/dev/${{port##*/}} --statedir=/run &
            wait $!
            poweroff -f
        fi
    done
    sleep 0.05
done
while :; do
    sleep 3600 &
    wait $!
done
"""


def script(modules: Iterable[str], vsock_modules: Iterable[str], *, agent: AgentKind) -> str:
    """The text of `/init`, which loads the modules in the given order and then runs the agent."""
    text = _SYSTEM + (_QGA if agent is AgentKind.QGA else _BUILTIN)
    return text.format(modules=" ".join(modules), vsock_modules=" ".join(vsock_modules))
