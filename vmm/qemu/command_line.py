"""QEMU's command line, as a pure function of what is wanted."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from vmm.qemu import processors
from vmm.spec import Accelerator, AgentChannel, AgentKind, MachineSpec

AGENT_PORT_NAMES: Final = {AgentKind.BUILTIN: "vmpool.agent.0", AgentKind.QGA: "org.qemu.guest_agent.0"}
"""The virtio-serial port on which an agent answers; /dev/virtio-ports/ of the guest shows it."""

VSOCK_PARAMETER: Final = "VMPOOL_CHANNEL=vsock"
"""Tells the built-in agent where to listen. The kernel makes what it does not know a variable of `init`."""

MEMORY_SLOTS = 10
"""How often memory can be hot-added, as in Kata."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

KERNEL_PARAMETERS = (
    # To the console only what matters: each line costs time on an emulated UART.
    "console=ttyS0 quiet "
    # A guest that dies takes QEMU with it (-no-reboot), at once and by the way that always works: a triple fault.
    "panic=1 reboot=t "
    # Kata's list of probes and waits that a virtual machine does not need.
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 noreplace-smp cryptomgr.notests pci=lastbus=0 selinux=0 "
    "i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 net.ifnames=0 "
    # With room for memory beyond 4 GiB of addresses the kernel keeps 64 MiB for devices that cannot reach there. There
    # are none: virtio reaches everywhere.
    "swiotlb=noforce"
)

_OUR_VSOCK = "vsock"
"""The id of the device behind which the built-in agent listens. One that is others' to use is called as Kata calls it,
with its CID."""

_CONSOLE_FD_SET = 0

_PLACE: Final = re.compile(r"@\d+:\d+$")
"""The end of what names a console. It is not there in those that older versions started."""

_UUID_NAMESPACE = uuid.UUID("7b1ec2a5-5f0b-4d55-9a3c-0f6c9ed5a1b6")


@attrs.frozen
class AnonymousMemory:
    """Guest memory that belongs to the process alone."""


@attrs.frozen(kw_only=True)
class FileMemory:
    """Guest memory mapped from a file: `shared` writes to it (a template), private copies on write (a clone)."""

    fd: int
    """The caller's; QEMU inherits it."""
    shared: bool


MemoryBacking = AnonymousMemory | FileMemory


@attrs.frozen(kw_only=True)
class BootFiles:
    """What a guest boots from, open for reading: the caller's descriptors, which QEMU inherits."""

    kernel_fd: int
    initrd_fd: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What QEMU has to be passed."""
        return self.kernel_fd, self.initrd_fd


def inherited(descriptor: int) -> Path:
    """The name under which a process opens anew what it has open: for that it needs the right to the file, and to no
    directory.
    """
    return Path(f"/proc/self/fd/{descriptor}")


class Start(enum.Enum):
    """What QEMU does first."""

    BOOT = "boot"
    INCOMING = "incoming"
    """Waits, without a guest, for `migrate-incoming`; vCPUs stay stopped after it."""


_SERIAL_PORTS: Final = 2
"""Ours, and port 0, which is a console's. QEMU's default of 31 has 64 queues, for each of which it opens an eventfd at
every `cont`, and closes it at `stop`."""

_KVM_TIMERS = {Accelerator.KVM: ("-global", "kvm-pit.lost_tick_policy=discard")}
_INCOMING: Final = ("-S", "-incoming", "defer")


@attrs.frozen(kw_only=True)
class VsockDevice:
    """An open /dev/vhost-vsock that has been given a CID."""

    fd: int
    cid: int


@attrs.frozen(kw_only=True)
class Channels:
    """What QEMU inherits, by descriptor: its listening sockets, the file of its serial console, what it is to read."""

    qmp_fd: int
    agent_fd: int | None = None
    """The listening socket of the agent's virtio-serial port, for agents that have one."""
    vsock: VsockDevice | None = None
    processors_fd: int | None = None
    """A file with `vmm.qemu.processors.table`, for machines that need it."""
    console_fd: int
    """Opened for appending."""
    console_log: Path
    """Where that file is. QEMU does not open it; who looks for a VM's process finds it by this."""
    place: str
    """What `vmm.identity.place_of` says of its directory."""

    @property
    def inherited(self) -> tuple[int, ...]:
        """What QEMU uses as it is passed."""
        vsock = None if self.vsock is None else self.vsock.fd
        descriptors = (self.qmp_fd, self.agent_fd, vsock, self.console_fd)
        return tuple(fd for fd in descriptors if fd is not None)

    @property
    def readable(self) -> tuple[int, ...]:
        """What it is passed, too, and opens anew."""
        return () if self.processors_fd is None else (self.processors_fd,)


@attrs.frozen(kw_only=True)
class AgentLink:
    """How the agent of a QEMU is reached."""

    agent: AgentKind
    vsock_cid: int | None = None
    """None: not by vsock. A guest whose agent is others' only may have one."""


def needs_agent_port(spec: MachineSpec) -> bool:
    """Whether the machine's agent is reached through a virtio-serial port."""
    return spec.agent in AGENT_PORT_NAMES and spec.channel is AgentChannel.VIRTIO_SERIAL


def agent_link(argv: Sequence[str]) -> AgentLink:
    """What a command line of `build_argv` says of the agent, so that a QEMU can be adopted without its spec."""
    devices = [argv[at + 1].split(",") for at in range(len(argv) - 1) if argv[at] == "-device"]
    for driver, *properties in devices:
        values = dict(text.partition("=")[::2] for text in properties)
        if driver == "vhost-vsock-pci":
            ours = values.get("id") == _OUR_VSOCK
            agent = AgentKind.BUILTIN if ours else AgentKind.NOOP
            return AgentLink(agent=agent, vsock_cid=int(values["guest-cid"]))
        for kind, name in AGENT_PORT_NAMES.items():
            if driver == "virtserialport" and values.get("name") == name:
                return AgentLink(agent=kind)
    return AgentLink(agent=AgentKind.NOOP)


@attrs.frozen(kw_only=True)
class PciBridge:
    """A bridge with the id and the place that Kata's have."""

    id: str
    slot: int
    """Of the root bus."""
    option: str
    """QEMU's."""


BRIDGE_SLOTS = 30
"""Devices that a bridge takes, as Kata counts."""

_FIRST_BRIDGE_SLOT = 2


def pci_bridge(number: int) -> PciBridge:
    """The n-th, from 0."""
    bridge, slot = f"pci-bridge-{number}", _FIRST_BRIDGE_SLOT + number
    option = (
        f"pci-bridge,bus=pcie.0,id={bridge},chassis_nr={number + 1},shpc=off,addr={slot:x},"
        "io-reserve=4k,mem-reserve=1m,pref64-reserve=1m"
    )
    return PciBridge(id=bridge, slot=slot, option=option)


def machine_uuid(vm_id: str) -> str:
    """What the firmware says of the machine with that id, unless it is a clone: then it is the template's."""
    return str(uuid.uuid5(_UUID_NAMESPACE, vm_id))


def names_console(argv: Sequence[str], console_log: Path) -> bool:
    """Whether this is the command line of the VM with that console: it names the VM's own directory, once."""
    marker = "," + _options(opaque=console_log)
    return any(_PLACE.sub("", argument).endswith(marker) for argument in argv)


def build_argv(
    spec: MachineSpec,
    *,
    vm_id: str,
    channels: Channels,
    memory: MemoryBacking | None = None,
    boot: BootFiles | None,
) -> list[str]:
    """The argv that starts `spec` under the name `vm_id`; memory is anonymous unless told otherwise.

    Without `boot` QEMU waits for `migrate-incoming`; see `Start`.
    """
    return [
        str(spec.qemu),
        *("-name", _options(guest=vm_id, debug_threads="on")),
        *("-uuid", machine_uuid(vm_id)),
        *("-machine", _options(type=spec.machine_type, memory_backend="memory")),
        *("-accel", spec.accelerator.value),
        *("-cpu", _cpu(spec)),
        *("-smp", _options(cpus=spec.vcpus, maxcpus=spec.max_vcpus, sockets=spec.max_vcpus, cores=1, threads=1)),
        *("-m", _memory_size(spec)),
        *("-object", _memory_object(spec, memory or AnonymousMemory())),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *("-rtc", "base=utc"),
        *_KVM_TIMERS.get(spec.accelerator, ()),
        *(() if channels.processors_fd is None else processors.options(inherited(channels.processors_fd))),
        *("-chardev", _options("socket", id="qmp", fd=channels.qmp_fd, server="on", wait="off")),
        # Not -mon, of which QEMU 11 says at each start that it is deprecated.
        *("-qmp", "chardev:qmp"),
        *(
            "-add-fd",
            _options(fd=channels.console_fd, set=_CONSOLE_FD_SET, opaque=f"{channels.console_log}@{channels.place}"),
        ),
        *("-chardev", _options("file", id="console", path=f"/dev/fdset/{_CONSOLE_FD_SET}", append="on")),
        *("-serial", "chardev:console"),
        # First: these have places of their own on the root bus, and the rest takes what is free.
        *(word for number in range(spec.pci_bridges) for word in ("-device", pci_bridge(number).option)),
        *_agent_options(spec, channels),
        *("-object", _options("rng-random", id="rng", filename="/dev/urandom")),
        *("-device", _options("virtio-rng-pci", rng="rng")),
        *(_INCOMING if boot is None else _guest_options(spec, boot)),
    ]


def _agent_options(spec: MachineSpec, channels: Channels) -> tuple[str, ...]:
    if channels.vsock is not None:
        vsock = channels.vsock
        device = _OUR_VSOCK if spec.agent is AgentKind.BUILTIN else f"{_OUR_VSOCK}-{vsock.cid}"
        return ("-device", _options("vhost-vsock-pci", id=device, guest_cid=vsock.cid, vhostfd=vsock.fd))
    if channels.agent_fd is not None:
        port = AGENT_PORT_NAMES[spec.agent]
        return (
            *("-chardev", _options("socket", id="agent", fd=channels.agent_fd, server="on", wait="off")),
            # This property is among the few that have an underscore.
            *("-device", _options("virtio-serial-pci", id="serial") + f",max_ports={_SERIAL_PORTS}"),
            *("-device", _options("virtserialport", bus="serial.0", chardev="agent", name=port)),
        )
    return ()


def _guest_options(spec: MachineSpec, boot: BootFiles) -> tuple[str, ...]:
    """What a guest boots from. A clone's is in its memory already: QEMU would only keep a copy of these files, 35 MB
    for the default guest, and take 10 ms to read them.
    """
    listens = spec.agent is AgentKind.BUILTIN and spec.channel is AgentChannel.VSOCK
    channel = f"{VSOCK_PARAMETER} " if listens else ""
    cpus = processors.kernel_parameters(spec)
    parameters = f"{KERNEL_PARAMETERS} {cpus} {channel}{spec.kernel_parameters}".strip()
    kernel, initrd = inherited(boot.kernel_fd), inherited(boot.initrd_fd)
    return ("-kernel", str(kernel), "-initrd", str(initrd), "-append", parameters)


def _cpu(spec: MachineSpec) -> str:
    """TCG runs string instructions a byte at a time, however fast a CPU says that they are. A guest that is not told so
    copies words and vectors, and boots in 8 % less of QEMU's CPU time. What the caller wants comes last.
    """
    model, comma, features = spec.cpu_model.partition(",")
    if spec.accelerator is Accelerator.TCG and model == "max":
        return f"max,erms=off,fsrm=off{comma}{features}"
    return spec.cpu_model


def _memory_size(spec: MachineSpec) -> str:
    if spec.max_memory_mib == spec.memory_mib:
        return _options(size=f"{spec.memory_mib}M")
    return _options(size=f"{spec.memory_mib}M", slots=MEMORY_SLOTS, maxmem=f"{spec.max_memory_mib}M")


def _memory_object(spec: MachineSpec, memory: MemoryBacking) -> str:
    size = f"{spec.memory_mib}M"
    match memory:
        case AnonymousMemory():
            return _options("memory-backend-ram", id="memory", size=size)
        case FileMemory(fd=fd, shared=shared):
            share = "on" if shared else "off"
            return _options("memory-backend-file", id="memory", size=size, mem_path=inherited(fd), share=share)


def _options(kind: str | None = None, /, **values: object) -> str:
    """QEMU's `kind,key=value,...`; in values a comma is doubled, in keys an underscore stands for a dash."""
    parts = [f"{key.replace('_', '-')}={str(value).replace(',', ',,')}" for key, value in values.items()]
    return ",".join(parts if kind is None else [kind, *parts])
