"""VMs outlive their service, and the next one has them as they were: booted, cloned and simulated ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import pytest
import trio

from actors.adoption import Adoption
from actors.journal import Journal, Recorded
from actors.producer import Adopt, Producer
from tests.contract.doomed import BASE, LEASED, MARK, ORDER, Told, make_both, start
from tests.contract.producers import make_producer
from tests.contract.subjects import BOOT_LIMIT_S, qemu_spec
from tests.contract.test_guest import run
from tests.contract.test_producers import SIMULATED_SPEC
from tests.unit.actors.stage import VMS, simulated_journal
from tests.waiting import until
from vmm.contract import Vm
from vmm.devices.usual import usual_devices
from vmm.errors import AgentUnreachableError
from vmm.initramfs.image import GuestImage
from vmm.qemu.adopt import adopt
from vmm.qemu.orphans import end_orphan, find_orphans
from vmm.qemu.template.store import Template, TemplateStore
from vmm.simulated import SimulatedHost
from vmm.simulated.disk import SimulatedDisk
from vmm.words.facts import LeaseAdopted, VmGone, VmHandedOut, VmReady
from vmm.words.kinds import ProducerKind
from vmm.words.machines import AgentKind


class Estate(Protocol):
    """What a service that was killed has left: a base VM, a leased VM, and their records."""

    kind: ProducerKind
    journal: Journal

    @property
    def adopt(self) -> Adopt: ...

    def producer(self) -> Producer:
        """Of the service that comes after it; nobody runs it."""

    def left(self) -> set[str]:
        """The ids of all VMs of which there is anything: a process, a directory."""


@attrs.define(eq=False, kw_only=True)
class SimulatedEstate:
    kind: ProducerKind
    host: SimulatedHost
    journal: Journal

    @property
    def adopt(self) -> Adopt:
        return self.host.adopt

    def producer(self) -> Producer:
        return make_producer(self.kind, spec=SIMULATED_SPEC, home=VMS, on_generation=lambda _: None, host=self.host)

    def left(self) -> set[str]:
        return set(self.host.alive)


@attrs.define(eq=False, kw_only=True)
class QemuEstate:
    kind: ProducerKind
    agent: AgentKind
    image: GuestImage
    vms: Path
    store: TemplateStore
    journal: Journal
    adopt: Adopt = adopt

    def producer(self) -> Producer:
        spec = attrs.evolve(qemu_spec(self.image.kernel, self.image.initrd), devices=usual_devices(agent=self.agent))
        return make_producer(self.kind, spec=spec, home=self.vms, on_generation=lambda _: None, store=self.store)

    def left(self) -> set[str]:
        return {orphan.vm_id for orphan in find_orphans(self.vms)}


@asynccontextmanager
async def simulated_estate(kind: ProducerKind) -> AsyncIterator[SimulatedEstate]:
    host, disk = SimulatedHost(), SimulatedDisk()
    async with trio.open_nursery() as nursery:
        producer = make_producer(kind, spec=SIMULATED_SPEC, home=VMS, on_generation=lambda _: None, host=host)
        await make_both(producer, simulated_journal(disk), nursery)
        host.kill_service()
        journal = simulated_journal(disk.after_kill())
        nursery.cancel_scope.cancel()
    yield SimulatedEstate(kind=kind, host=host, journal=journal)


@asynccontextmanager
async def qemu_estate(
    kind: ProducerKind, *, agent: AgentKind, image: GuestImage, vms: Path, store: TemplateStore
) -> AsyncIterator[QemuEstate]:
    """A real process that is really killed. Whatever is left of its VMs in the end is ended."""
    arguments = (kind.value, agent.value, vms, store.directory, image.kernel, image.initrd)
    argv = [sys.executable, "-W", "error", "-m", "tests.contract.doomed", *map(str, arguments)]
    try:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as service:
            try:
                await trio.to_thread.run_sync(_wait_for, service, b"there\n")
            finally:
                service.kill()
        assert service.returncode == -signal.SIGKILL
        yield QemuEstate(kind=kind, agent=agent, image=image, vms=vms, store=store, journal=Journal(directory=vms))
    finally:
        with trio.CancelScope(shield=True):
            for orphan in find_orphans(vms):
                await end_orphan(orphan)


def _wait_for(service: subprocess.Popen[bytes], line: bytes) -> None:
    assert service.stdout is not None
    assert line in service.stdout, "it ended before"


@pytest.fixture(autouse=True)
def _checked_for_leaks(killed_service: object, leak_check: None) -> None:
    """In place of the conftest's, which is about VMs that were launched."""


@pytest.fixture(
    params=[
        "simulated-direct",
        "simulated-template",
        pytest.param("qemu-direct", marks=pytest.mark.qemu),
        pytest.param("qemu-template", marks=pytest.mark.qemu),
        pytest.param("qga-direct", marks=pytest.mark.qemu),
    ]
)
def killed_service(request: pytest.FixtureRequest, vm_home: Path) -> AbstractAsyncContextManager[Estate]:
    where, _, name = request.param.partition("-")
    kind = ProducerKind(name)
    if where == "simulated":
        return simulated_estate(kind)
    agent, image = (AgentKind.QGA, "qga_image") if where == "qga" else (AgentKind.BUILTIN, "guest_image")
    template: Template = request.getfixturevalue("template")
    store = TemplateStore(template.directory)
    return qemu_estate(kind, agent=agent, image=request.getfixturevalue(image), vms=vm_home, store=store)


@asynccontextmanager
async def next_service(estate: Estate) -> AsyncIterator[dict[str, Told]]:
    """Adopts what is recorded. In the end it is over with both VMs."""
    with trio.fail_after(BOOT_LIMIT_S):
        async with trio.open_nursery() as nursery:
            actors = {}
            for found in estate.journal.read_all():
                assert isinstance(found, Recorded)
                adoption = Adoption(record=found.record, adopt=estate.adopt)
                one = start(found.vm_id, estate.producer(), estate.journal, nursery, adoption=adoption)
                one.actor.reach()
                actors[found.vm_id] = one
            assert actors.keys() == {BASE, LEASED} == estate.left()
            yield actors


async def reached(one: Told) -> Vm:
    """The VM of an adopted lease, once its agent has answered."""

    async def there() -> bool:
        try:
            return bool(one.actor.vm)
        except AgentUnreachableError:
            return False

    await until(there)
    return one.actor.vm


async def is_paused(vm: Vm) -> bool:
    with trio.move_on_after(0.2) as limit:
        await vm.agent.ping()
    return limit.cancelled_caught


async def test_the_vms_of_a_killed_service_are_the_next_ones(
    killed_service: AbstractAsyncContextManager[Estate],
) -> None:
    async with killed_service as estate:
        async with next_service(estate) as actors:
            base, leased = actors[BASE], actors[LEASED]
            ready = await base.until(VmReady)
            assert isinstance(ready, VmReady)
            assert (ready.adopted, ready.made_by) == (True, estate.kind)
            await leased.until(LeaseAdopted)
            for one in (base, leased):
                one.actor.detach("another service takes over")
                assert await one.until(VmGone) == VmGone(vm_id=one.actor.vm_id, let_go=True)
        assert estate.left() == {BASE, LEASED}

        async with next_service(estate) as actors:
            base, leased = actors[BASE], actors[LEASED]
            await leased.until(LeaseAdopted)
            vm = await reached(leased)
            assert await vm.agent.get_file(MARK) == b"the caller's"
            assert "WISHED=for" in (await run(vm.agent, "env")).stdout.decode().splitlines()

            await base.until(VmReady)
            assert await is_paused(base.actor.vm)
            base.actor.hand_out(ORDER)
            handed_out = await base.until(VmHandedOut)
            assert isinstance(handed_out, VmHandedOut)
            assert (handed_out.report.reseeded, handed_out.report.hostname) == (True, "guest-1")
            for one in (base, leased):
                one.actor.stop("enough")
                await one.until(VmGone)
                assert one.facts[-1] == VmGone(vm_id=one.actor.vm_id)
        assert estate.left() == set()
