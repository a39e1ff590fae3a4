"""Clones of one template are different machines, as long as each is reseeded; and the proof that this matters.

Without RDRAND and RDSEED nothing but the reseed makes them differ: a processor that has them hides the fault.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.agents import collect
from tests.templates import build, built_template, clone, template_store
from vmm.qemu.template.store import Template
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.preparation import RESEED_BYTES, Preparation, PreparationReport

CLONES = int(os.environ.get("VMPOOL_CLONES", "20"))
UNSEEDED_CLONES = 4
UNSEEDED_TEMPLATES = 6

SEEN_FROM_INSIDE = """
hostname
cat /etc/machine-id /sys/class/dmi/id/product_uuid /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
head -c 32 /dev/urandom | sha256sum
mktemp -u /tmp/XXXXXXXX
"""


@attrs.frozen(kw_only=True)
class Cloning:
    """Makes clones of one template, one after the other."""

    spec: MachineSpec
    template: Template
    home: Path

    @asynccontextmanager
    async def clone(self, number: int) -> AsyncIterator[QemuVm]:
        directory = self.home / f"clone-{number}"
        async with trio.open_nursery() as nursery:
            with trio.fail_after(60):
                vm = await clone(self.spec, self.template, vm_id=directory.name, directory=directory, nursery=nursery)
            try:
                yield vm
            finally:
                await vm.stop()
            nursery.cancel_scope.cancel(reason="the clone was seen")


@pytest.fixture(scope="module")
def unseeded_template(template_spec: MachineSpec) -> Iterator[tuple[MachineSpec, Template]]:
    spec = attrs.evolve(template_spec, cpu_model="max,-rdrand,-rdseed")
    with built_template(spec) as template:
        yield spec, template


@pytest.fixture
def cloning(unseeded_template: tuple[MachineSpec, Template], vm_home: Path, leak_check: None) -> Cloning:
    spec, template = unseeded_template
    return Cloning(spec=spec, template=template, home=vm_home)


@pytest.mark.timeout(60 + 10 * CLONES)
async def test_reseeded_clones_have_nothing_in_common(cloning: Cloning) -> None:
    reports: list[PreparationReport] = []
    seen: list[list[str]] = []
    for number in range(CLONES):
        async with cloning.clone(number) as vm:
            wanted = Preparation(
                entropy=os.urandom(RESEED_BYTES),
                random_bytes=32,
                hostname=vm.id,
                machine_id=uuid.uuid4().hex,
                vm_uuid=str(uuid.uuid4()),
            )
            reports.append(await vm.agent.prepare(wanted))
            outcome = await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", SEEN_FROM_INSIDE])))
            seen.append(outcome.stdout.decode().splitlines())
            assert seen[-1][:3] == [wanted.hostname, wanted.machine_id, wanted.vm_uuid]
    assert all(report.reseeded for report in reports)
    assert len({report.random for report in reports}) == CLONES
    for what in zip(*seen, strict=True):
        assert len(set(what)) == CLONES, f"clones share {what}"


async def test_clones_that_are_not_reseeded_draw_the_same_numbers(cloning: Cloning) -> None:
    """The negative control: the test above would notice.

    A young kernel gives its generator a new key by itself every second or few. If that falls between the save of a
    template and the first draw, each of its clones draws numbers of its own; another template is saved at another
    time. That any two agree in 256 bits is the proof.
    """
    drawn = [await draws_without_reseed(cloning)]
    while len(set(drawn[-1])) == UNSEEDED_CLONES and len(drawn) < UNSEEDED_TEMPLATES:
        with template_store() as store:
            another = await build(cloning.spec, store, home=store.directory.parent)
            drawn.append(await draws_without_reseed(attrs.evolve(cloning, template=another)))
            store.clear()
    assert len(set(drawn[-1])) < UNSEEDED_CLONES, drawn


async def draws_without_reseed(cloning: Cloning) -> list[bytes]:
    """The first 32 random bytes of each of a few clones."""
    drawn = []
    for number in range(UNSEEDED_CLONES):
        async with cloning.clone(number) as vm:
            report = await vm.agent.prepare(Preparation(random_bytes=32, hostname=vm.id))
            assert not report.reseeded
            drawn.append(report.random)
    return drawn
