"""The virtio-serial port of the guest's agent, as a listening Unix socket in the VM's directory."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

import attrs
import trio

from vmm.devices.device import Attachment, Bus, Device, OpenInput
from vmm.devices.options import options
from vmm.errors import AgentUnreachableError
from vmm.sockets import connect, listen
from vmm.words.machines import AgentKind
from vmm.words.processes import ExitReport

PORT_NAMES: Final = {AgentKind.BUILTIN: "vmpool.agent.0", AgentKind.QGA: "org.qemu.guest_agent.0"}
"""The virtio-serial port on which the agent answers; the guest sees it in /dev/virtio-ports/."""

_SERIAL_PORTS: Final = 2
"""The agent's port, and port 0, which is reserved for a console. QEMU's default of 31 has 64 queues, for each of which
it opens an eventfd at every `cont`, and closes it at `stop`."""

_SILENCE_S: Final = 2.0

_SOCKET: Final = "agent.sock"


@attrs.frozen(kw_only=True)
class AgentPort(Device):
    """The port; the agent behind it is not NOOP."""

    setting: ClassVar[str] = "channel"
    bus: ClassVar[Bus] = Bus.PCI
    sockets: ClassVar[tuple[str, ...]] = (_SOCKET,)

    kind: AgentKind = AgentKind.BUILTIN

    @property
    def agent(self) -> AgentKind:
        return self.kind

    def open(self, directory: Path, *, open_input: OpenInput, opened: contextlib.ExitStack) -> Attachment:  # noqa: ARG002
        return self.attached(opened.enter_context(listen(directory / _SOCKET)).fileno())

    def attached(self, fd: int) -> Attachment:
        """`fd` is the listening socket."""
        return Attachment(
            options=(
                *("-chardev", options("socket", id="agent", fd=fd, server="on", wait="off")),
                # This property has an underscore, unlike most.
                *("-device", options("virtio-serial-pci", id="serial") + f",max_ports={_SERIAL_PORTS}"),
                *("-device", options("virtserialport", bus="serial.0", chardev="agent", name=PORT_NAMES[self.kind])),
            ),
            inherited=(fd,),
        )

    def fingerprint(self) -> tuple[str, ...]:
        return self.attached(0).options


@attrs.frozen(kw_only=True)
class PortLink:
    """Implements `vmm.devices.links.AgentLink`."""

    agent: AgentKind
    silence_s: ClassVar[float | None] = _SILENCE_S
    """Data that a guest sends at the moment when its host hangs up may get stuck in QEMU (7.2: one element of the
    port's queue is in use, and the port throttled), and no later data gets out until the host hangs up again. A guest
    that boots needs longer, and is not disturbed by a new connection."""

    async def open(self, directory: Path, *, gone: Callable[[], Awaitable[ExitReport]]) -> trio.SocketStream:  # noqa: ARG002
        path = directory / _SOCKET
        try:
            return await connect(path)
        except OSError as error:
            raise AgentUnreachableError(f"{path}: {error}; QEMU is dead, or another client is connected") from error


def link_of(driver: str, properties: Mapping[str, str]) -> PortLink | None:
    """The link of a running QEMU's `-device`, if that is an agent's port."""
    for kind, name in PORT_NAMES.items():
        if driver == "virtserialport" and properties.get("name") == name:
            return PortLink(agent=kind)
    return None
