"""From settings to devices."""

from __future__ import annotations

from vmm.devices.agent_port import AgentPort
from vmm.devices.console import Console
from vmm.devices.device import Device
from vmm.devices.vsock import Vsock
from vmm.errors import SpecError
from vmm.words.machines import AgentChannel, AgentKind


def usual_devices(
    *, agent: AgentKind = AgentKind.BUILTIN, channel: AgentChannel = AgentChannel.VIRTIO_SERIAL
) -> tuple[Device, ...]:
    """The devices of a machine with that agent behind that channel. Raises SpecError for an unsupported pair."""
    if channel is AgentChannel.VSOCK and agent is AgentKind.QGA:
        raise SpecError(
            field="channel",
            value=channel.value,
            reason='qemu-ga does not answer there; leave channel out with agent = "qga"',
        )
    devices: list[Device] = [Console()]
    if channel is AgentChannel.VSOCK:
        devices.append(Vsock(ours=agent is AgentKind.BUILTIN))
    elif agent is not AgentKind.NOOP:
        devices.append(AgentPort(kind=agent))
    return tuple(devices)
