"""QEMU as somebody else and in cgroups of its own: for root, on a host that has cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs
import pytest

from pool.settings.config import load_settings
from tests.contract.subjects import MAX_MEMORY_MIB, MAX_VCPUS, qemu_spec
from vmm.initramfs.image import GuestImage
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.making import jailed, user_for
from vmm.qemu.confinement.plan import decide_cgroups
from vmm.qemu.confinement.tree import occupied
from vmm.spec import MachineSpec
from vmm.words.confinement import Requirement


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.qemu)
    item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason="only root can confine like this"))


@pytest.fixture
def spec(guest_image: GuestImage) -> MachineSpec:
    return attrs.evolve(
        qemu_spec(guest_image.kernel, guest_image.initrd), max_vcpus=MAX_VCPUS, max_memory_mib=MAX_MEMORY_MIB
    )


@pytest.fixture
def confinement() -> Iterator[Confinement]:
    """All that the host offers."""
    plan = decide_cgroups(Requirement.AUTO, look_at_host())
    settings = load_settings(None)
    with (
        occupied(plan, largest=Limits(memory_bytes=2**31, cpus=2, processes=100)) as applied,
        jailed(settings.service.confinement_wish, user=user_for(settings.service.confinement_wish)) as confinement,
    ):
        if not applied.places:
            pytest.skip(f"no cgroups here: {applied.missing}")
        yield attrs.evolve(confinement, cgroups=applied)
