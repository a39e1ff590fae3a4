"""Real QEMU; every test here is checked for leaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.contract.subjects import qemu_spec
from vmm.initramfs.image import GuestImage
from vmm.qemu.instance import Instance
from vmm.spec import MachineSpec


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.qemu)


@pytest.fixture(autouse=True)
def _checked_for_leaks(leak_check: None) -> None:
    pass


@pytest.fixture
def spec(guest_image: GuestImage) -> MachineSpec:
    return qemu_spec(guest_image.kernel, guest_image.initrd)


@pytest.fixture
async def instance(spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> AsyncIterator[Instance]:
    """A QEMU that has just been started and answers QMP; its guest boots or not, nobody waits for it."""
    instance = Instance.start(spec, vm_id="instance", directory=vm_home / "instance")
    try:
        with trio.fail_after(60):
            await instance.connect_qmp(nursery=nursery)
        yield instance
    finally:
        await instance.kill()
