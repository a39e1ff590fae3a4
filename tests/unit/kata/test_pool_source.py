"""What the VMCache service is given of the pool's VMs."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from pool.kata.cache.pool_source import PoolSource
from pool.kata.cache.server import cached_vm
from tests.properties.qemu.test_command_line import passed_to
from tests.unit.kata.configs import vm_config
from tests.unit.rpc.served import SPEC, serving
from vmm.devices.usual import usual_devices
from vmm.qemu.command_line import build_argv
from vmm.spec import MachineSpec
from vmm.words.machines import AgentChannel, AgentKind

pytestmark = pytest.mark.usefixtures("leak_check")

CID = 77
"""As `passed_to` has it."""


def argv_of(spec: MachineSpec) -> list[str]:
    return build_argv(spec, vm_id="vm", passed=passed_to(spec), boot=None)


@pytest.mark.parametrize(
    ("agent", "channel", "context_id", "url"),
    [
        pytest.param(AgentKind.BUILTIN, AgentChannel.VIRTIO_SERIAL, 0, "", id="serial"),
        pytest.param(AgentKind.QGA, AgentChannel.VIRTIO_SERIAL, 0, "", id="qemu-ga"),
        pytest.param(AgentKind.BUILTIN, AgentChannel.VSOCK, CID, "", id="vsock"),
        pytest.param(AgentKind.NOOP, AgentChannel.VSOCK, CID, f"vsock://{CID}:1024", id="katas-own-agent"),
        pytest.param(AgentKind.NOOP, AgentChannel.VIRTIO_SERIAL, 0, "", id="nobody"),
    ],
)
async def test_a_vm_is_told_with_the_way_to_its_agent_if_that_is_katas(
    vm_home: Path, agent: AgentKind, channel: AgentChannel, context_id: int, url: str
) -> None:
    spec = attrs.evolve(SPEC, devices=usual_devices(agent=agent, channel=channel), pci_bridges=1)
    async with serving(vm_home) as served:
        source = PoolSource(
            coordinator=served.coordinator,
            profile="default",
            spec=spec,
            vms_directory=vm_home / "vms",
            vm_config=vm_config().valid(),
            quit=lambda: None,
            command_line=lambda _pid: argv_of(spec),
        )
        vm = await source.take_base()
        sent = cached_vm(vm)
        assert sent.qemu.context_id == context_id
        assert sent.agent_url == url
        assert [bridge.id for bridge in sent.qemu.state.bridges] == ["pci-bridge-0"]
        source.discard(vm)
    served.path.unlink()
