"""What cannot be wished of VMs whose guest nobody can ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.rpc.served import Served, serving
from vmm.words.machines import AgentKind
from vmpool.client import CallError, GuestFile, Wishes


@pytest.fixture
async def silent(vm_home: Path) -> AsyncIterator[Served]:
    async with serving(vm_home, agent=AgentKind.NOOP) as service:
        await service.until(lambda: service.coordinator.views()[0].ready == 2)
        yield service


@pytest.mark.parametrize(
    ("field", "wishes"),
    [
        ("vcpus", Wishes(vcpus=2)),
        ("memory_mib", Wishes(memory_mib=512)),
        ("environment", Wishes(environment={"SHAPE": "round"})),
        ("files", Wishes(files=(GuestFile(path="/tmp/file", data=b"x"),))),
    ],
)
async def test_what_somebody_in_the_guest_would_have_to_do_is_refused_before_a_vm_is_spent(
    silent: Served, field: str, wishes: Wishes
) -> None:
    ready = silent.host.alive
    async with silent.client() as client:
        with pytest.raises(CallError, match=f'refused {field}: UNSUPPORTED: .*agent = "noop"') as error:
            await client.acquire(wishes=wishes)
    assert error.value.status == "FAILED_PRECONDITION"
    assert silent.host.alive == ready
    assert silent.host.launched == 2


async def test_what_the_vm_has_anyway_may_be_wished(silent: Served) -> None:
    async with silent.client() as client:
        vm = await client.acquire(wishes=Wishes(vcpus=1, memory_mib=128))
    assert not vm.guest.reseeded
    assert vm.guest.hostname == ""
