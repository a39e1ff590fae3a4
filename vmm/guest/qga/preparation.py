"""Makes a guest unique and configures it before it is handed out, with what qemu-ga can do.

qemu-ga has commands for the clock, CPUs and memory. It has none for the random number generator, the hostname and the
identity, which take a program in the guest; a shell is nearly always there. Crediting entropy and reseeding at once
takes two ioctls, so perl or python3. Without either, the bytes are mixed in without credit, and the report has
`reseeded = False`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

import trio

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.qga import execution, files
from vmm.guest.qga.channel import QgaChannel
from vmm.untrusted import is_number
from vmm.words.preparation import Preparation, PreparationReport

ONLINE_LIMIT_S: Final = 5.0
"""Time without progress after which waiting for CPUs or memory to come online fails."""

_FIRST_PAUSE_S: Final = 0.005
_LAST_PAUSE_S: Final = 0.1

_CLOCK_TOLERANCE_NS: Final = 5_000_000_000

_VM_UUID: Final = "/sys/class/dmi/id/product_uuid"
_MACHINE_ID: Final = "/etc/machine-id"
_HOSTNAME: Final = "/proc/sys/kernel/hostname"
_FIRMWARE_NODE: Final = "/sys/devices/system/cpu/cpu{}/firmware_node/hid"

# RNDADDENTROPY with the bytes on stdin, and RNDRESEEDCRNG; see random(4).
_PERL: Final = (
    "read(STDIN, $e, 512); open(R, '>', '/dev/random') or exit 1; my $p = pack('iia*', 8 * length $e, length $e, $e); "
    "ioctl(R, 0x40085203, $p) or exit 1; ioctl(R, 0x5207, 0) or exit 1"
)
_PYTHON: Final = (
    "import fcntl, struct, sys; e = sys.stdin.buffer.read(512); r = open('/dev/random', 'wb', 0); "
    "fcntl.ioctl(r, 0x40085203, struct.pack('ii', 8 * len(e), len(e)) + e); fcntl.ioctl(r, 0x5207)"
)

_SCRIPT: Final = f"""\
if [ -n "$VMPOOL_RESEED" ]; then
    if command -v perl >/dev/null 2>&1; then
        perl -e "$0" && echo reseeded
    elif command -v python3 >/dev/null 2>&1; then
        python3 -I -S -c "$1" && echo reseeded
    else
        cat > /dev/urandom
    fi
fi
[ -z "$VMPOOL_HOSTNAME" ] || printf %s "$VMPOOL_HOSTNAME" > /proc/sys/kernel/hostname
[ -z "$VMPOOL_MACHINE_ID" ] || printf '%s\\n' "$VMPOOL_MACHINE_ID" > {_MACHINE_ID}
if [ -n "$VMPOOL_UUID" ] && [ -e {_VM_UUID} ] && [ "$(cat {_VM_UUID})" != "$VMPOOL_UUID" ]; then
    # The firmware of a clone shows its template's UUID.
    [ -e /run/vmpool-uuid ] || {{ : > /run/vmpool-uuid && mount -o bind /run/vmpool-uuid {_VM_UUID}; }}
    printf '%s\\n' "$VMPOOL_UUID" > /run/vmpool-uuid
fi
:
"""
"""Each line does its best. The results are read back from the guest afterwards."""


async def prepare(channel: QgaChannel, wanted: Preparation) -> PreparationReport:
    """See `vmm.contract.Agent`. The client handles the environment. Raises AgentError."""
    # First: until then a clone draws the same random numbers as its siblings.
    reseeded = await _run_script(channel, wanted)
    random = b""
    if wanted.random_bytes:
        random = await files.read_some(channel, "/dev/urandom", wanted.random_bytes, request="prepare")
    if wanted.wall_clock_ns is not None:
        await _set_clock(channel, wanted.wall_clock_ns)
    cpus_online, memory_online_mib = await _bring_online(channel, vcpus=wanted.vcpus, memory_mib=wanted.memory_mib)
    return PreparationReport(
        reseeded=reseeded,
        hostname=await _hostname(channel),
        cpus_online=cpus_online,
        memory_mib=_mem_total_mib(await _content(channel, "/proc/meminfo")),
        memory_online_mib=memory_online_mib,
        random=random,
        machine_id="" if wanted.machine_id is None else await _content(channel, _MACHINE_ID),
        vm_uuid="" if wanted.vm_uuid is None else await _content(channel, _VM_UUID),
        wall_clock_ns=await _clock_ns(channel),
    )


async def _run_script(channel: QgaChannel, wanted: Preparation) -> bool:
    """Returns whether the guest was reseeded."""
    environment = {
        "VMPOOL_RESEED": "yes" if wanted.entropy else "",
        "VMPOOL_HOSTNAME": wanted.hostname or "",
        "VMPOOL_MACHINE_ID": wanted.machine_id or "",
        "VMPOOL_UUID": wanted.vm_uuid or "",
    }
    if not any(environment.values()):
        return False
    try:
        end = await execution.run(
            channel,
            [execution.SHELL, "-c", _SCRIPT, _PERL, _PYTHON],
            request="prepare",
            environment=environment,
            stdin=wanted.entropy,
        )
    except AgentRequestError as error:
        if error.part != execution.PROGRAM and error.code != "UNSUPPORTED":
            raise
        # Without a usable shell this is the best that can be done.
        if wanted.entropy:
            await files.write(channel, "/dev/urandom", wanted.entropy, request="prepare")
        return False
    return b"reseeded" in end.stdout.split()


async def _set_clock(channel: QgaChannel, wall_clock_ns: int) -> None:
    try:
        await channel.execute("guest-set-time", {"time": wall_clock_ns}, request="prepare")
    except AgentRequestError:
        # qemu-ga sets the system clock and then the RTC with `hwclock`, which may be missing; only the first matters.
        if abs(await _clock_ns(channel) - wall_clock_ns) > _CLOCK_TOLERANCE_NS:
            raise


async def _clock_ns(channel: QgaChannel) -> int:
    value = await channel.execute("guest-get-time", request="prepare")
    if type(value) is not int:
        raise AgentProtocolError("qemu-ga sent a time that is not a number")
    return value


async def _bring_online(channel: QgaChannel, *, vcpus: int | None, memory_mib: int | None) -> tuple[int, int | None]:
    """Brings up plugged-in devices until at least so many CPUs and so much memory are online. Returns both, None for
    memory that was not requested.

    The kernel takes a moment to notice a hotplug, and qemu-ga reports only when asked: hence the pauses.
    """
    best = (0, 0)
    pause_s = _FIRST_PAUSE_S
    deadline = trio.current_time() + ONLINE_LIMIT_S
    while True:
        with _for("vcpus"):
            cpus = await _list(channel, "guest-get-vcpus")
        with _for("memory_mib"):
            blocks = [] if memory_mib is None else await _list(channel, "guest-get-memory-blocks")
            block_mib = 0 if memory_mib is None else await _block_mib(channel)
        online = (_online(cpus), _online(blocks) * block_mib)
        if online[0] >= (vcpus or 0) and online[1] >= (memory_mib or 0):
            return online[0], None if memory_mib is None else online[1]
        if online > best:
            best, deadline = online, trio.current_time() + ONLINE_LIMIT_S
        elif trio.current_time() >= deadline:
            message = (
                f"{online[0]} CPUs and {online[1]} MiB are online, {vcpus or 0} CPUs and {memory_mib or 0} MiB were "
                "requested; no more appeared"
            )
            part = "vcpus" if online[0] < (vcpus or 0) else "memory_mib"
            raise AgentRequestError(request="prepare", code="ETIMEDOUT", message=message, part=part)
        off = [] if vcpus is None else await _plugged(channel, _offline(cpus, "logical-id"))
        if off:
            with _for("vcpus"):
                await channel.execute("guest-set-vcpus", {"vcpus": off}, request="prepare")
        elif off := _offline(blocks, "phys-index"):
            with _for("memory_mib"):
                await channel.execute("guest-set-memory-blocks", {"mem-blks": off}, request="prepare")
        else:
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)


@contextlib.contextmanager
def _for(part: str) -> Iterator[None]:
    """Attributes refusals to this part of the preparation."""
    try:
        yield
    except AgentRequestError as error:
        error.part = part
        raise


async def _plugged(channel: QgaChannel, cpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """CPUs found by ACPI. The others may be empty CPU slots (`vmm.qemu.processors`); starting one of those fails after
    ten seconds.
    """
    if not cpus or not await _content(channel, _FIRMWARE_NODE.format(0)):
        return cpus
    return [cpu for cpu in cpus if await _content(channel, _FIRMWARE_NODE.format(cpu.get("logical-id")))]


def _online(things: list[dict[str, Any]]) -> int:
    return sum(thing.get("online") is True for thing in things)


def _offline(things: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{key: thing.get(key), "online": True} for thing in things if thing.get("online") is False]


async def _block_mib(channel: QgaChannel) -> int:
    size = (await _ask(channel, "guest-get-memory-block-info")).get("size")
    if not is_number(size, most=2**63):
        raise AgentProtocolError("qemu-ga sent no valid size of memory blocks")
    return size // 2**20


async def _content(channel: QgaChannel, path: str) -> str:
    """A small file's text, empty if there is no such file."""
    try:
        return (await files.get(channel, path, limit=65536, request="prepare")).decode(errors="replace").strip()
    except AgentRequestError as error:
        if error.code == "ENOENT":
            return ""
        raise


async def _hostname(channel: QgaChannel) -> str:
    """The kernel's hostname. qemu-ga before 5.1 reports the one in effect when it was first asked."""
    hostname = await _content(channel, _HOSTNAME)
    return hostname or str((await _ask(channel, "guest-get-host-name")).get("host-name", ""))


def _mem_total_mib(meminfo: str) -> int:
    total = re.search(r"^MemTotal:\s+([0-9]{1,15}) kB$", meminfo, re.MULTILINE)
    return int(total[1]) // 1024 if total else 0


async def _ask(channel: QgaChannel, command: str) -> dict[str, Any]:
    value = await channel.execute(command, request="prepare")
    if not isinstance(value, dict):
        raise AgentProtocolError(f"qemu-ga's answer to {command} is not an object")
    return value


async def _list(channel: QgaChannel, command: str) -> list[dict[str, Any]]:
    value = await channel.execute(command, request="prepare")
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise AgentProtocolError(f"qemu-ga's answer to {command} is not a list of objects")
    return value
