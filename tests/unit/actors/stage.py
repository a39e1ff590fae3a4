"""A stage for one VM actor: it runs over simulated VMs or a producer made for the test, and its facts are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from actors.direct import DirectBootProducer
from actors.handout import HandOutProcedure
from actors.journal import Journal, Recorded, Unusable
from actors.machine import ResolvedMachine
from actors.producer import BaseVm, ProducerStatistics
from actors.record import VmRecord
from actors.vm import VmActor
from vmm.contract import Vm
from vmm.fresh import FreshSources
from vmm.simulated import Fault, SimulatedHost, SimulatedVm, scripted
from vmm.simulated.disk import SimulatedDisk
from vmm.spec import MachineSpec
from vmm.words.facts import VmFact
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import HandOutOrder, LeaseRequest, LeaseTerms
from vmm.words.life import VmState
from vmm.words.machines import Accelerator
from vmm.words.wishes import Wishes

NOWHERE = Path("/nowhere")
SPEC = MachineSpec(qemu=NOWHERE, kernel=NOWHERE, initrd=NOWHERE, accelerator=Accelerator.TCG)
VMS = Path("/run/vms")
BOOT_ID = "4f9d1c1e-boot"
TERMS = LeaseTerms(
    lease_id="lease-1",
    owner_uid=1000,
    request=LeaseRequest(key="job-7", ttl_s=600.0),
    fencing_token=7,
    queued_s=0.5,
    was_ready=True,
)


def asking(**asked: Any) -> HandOutOrder:
    """An order for a caller who asks for this of the lease."""
    return HandOutOrder(terms=attrs.evolve(TERMS, request=attrs.evolve(TERMS.request, **asked)))


def wanting(**wishes: Any) -> HandOutOrder:
    """An order for a caller who wishes for this of the VM."""
    return asking(wishes=Wishes(**wishes))


ORDER = wanting(hostname="guest-1")
BOOTED_S = 1000
"""How long the host has been up when a test begins."""


def simulated_journal(disk: SimulatedDisk | None = None) -> Journal:
    """In virtual time, and where nothing is really written."""
    return Journal(
        directory=VMS,
        backend=BackendKind.SIMULATED,
        disk=disk or SimulatedDisk(),
        boot_id=BOOT_ID,
        now_ns=lambda: int((BOOTED_S + trio.current_time()) * 10**9),
    )


def resolved(reason: str = "it is simulated") -> ResolvedMachine:
    return ResolvedMachine(spec=SPEC, reason=reason, fingerprint="generation-1")


async def resolve() -> ResolvedMachine:
    return resolved()


async def produce(producer: DirectBootProducer, *, nursery: trio.Nursery, vm_id: str = "vm-1") -> SimulatedVm:
    """One VM from a producer over simulated VMs."""
    base = await producer.produce(vm_id=vm_id, nursery=nursery)
    assert isinstance(base.vm, SimulatedVm)
    return base.vm


def direct(host: SimulatedHost, *, boot_timeout_s: float = 30.0) -> DirectBootProducer:
    return DirectBootProducer(resolve=resolve, launch=host.launch, vms_directory=NOWHERE, boot_timeout_s=boot_timeout_s)


@attrs.frozen(kw_only=True)
class OneVm:
    """A producer with one answer."""

    answer: Callable[[trio.Nursery], Awaitable[Vm]]
    kind = ProducerKind.DIRECT

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        return BaseVm(vm=await self.answer(nursery), generation="generation-1", made_by=self.kind)

    def statistics(self) -> ProducerStatistics:
        raise NotImplementedError


class Wrapped:
    """A simulated VM, or something else, of which a test replaces what it likes."""

    def __init__(self, vm: Any, **replaced: Any) -> None:
        self._vm = vm
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vm, name)


def one_vm(host: SimulatedHost, **replaced: Any) -> OneVm:
    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)
        return Wrapped(vm, **replaced)

    return OneVm(answer=answer)


async def paused_vm(host: SimulatedHost, nursery: trio.Nursery, *, spec: MachineSpec = SPEC) -> SimulatedVm:
    vm = await host.launch(spec, vm_id="vm-1", directory=SPEC.qemu, nursery=nursery)
    await vm.pause()
    return vm


@attrs.define(eq=False, kw_only=True)
class Story:
    """An actor on its stage, and what it said so far."""

    host: SimulatedHost
    journal: Journal = attrs.field(factory=simulated_journal)
    actor: VmActor = attrs.field(init=False)
    facts: list[VmFact] = attrs.field(factory=list)
    on_disk: dict[str, VmRecord | None] = attrs.field(factory=dict)
    """The VM's record when it said this."""
    _told: trio.Event = attrs.field(factory=trio.Event)

    def hear(self, fact: VmFact) -> None:
        self.facts.append(fact)
        self.on_disk[type(fact).__name__] = self.recorded()
        self._told.set()

    def recorded(self) -> VmRecord | None:
        """What the next run of the service would find."""
        for found in self.journal.read_all():
            assert not isinstance(found, Unusable)
            if isinstance(found, Recorded):
                return found.record
        return None

    def state(self) -> VmState:
        return self.actor.state

    def kinds(self) -> list[str]:
        return [type(fact).__name__ for fact in self.facts]

    async def until(self, kind: type[VmFact]) -> VmFact:
        """The first fact of a kind; waits for it."""
        while not any(isinstance(fact, kind) for fact in self.facts):
            self._told = trio.Event()
            await self._told.wait()
        return next(fact for fact in self.facts if isinstance(fact, kind))


@asynccontextmanager
async def story(
    *faults: Fault, producer: OneVm | None = None, boot_s: float = 1.0, disk: SimulatedDisk | None = None
) -> AsyncIterator[Story]:
    """Runs an actor over a simulated VM with these faults. In the end it must be over, with nothing left."""
    host = SimulatedHost(boot_s=boot_s, faults=scripted({0: faults}))
    source = producer or direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        subject = Story(host=host, journal=simulated_journal(disk))
        subject.actor = make_actor(subject, source)
        async with told(subject, nursery):
            yield subject
        assert not host.alive
        assert subject.recorded() is None
        nursery.cancel_scope.cancel(reason="the story is over")


@asynccontextmanager
async def told(subject: Story, nursery: trio.Nursery) -> AsyncIterator[None]:
    """Runs the actor of a story to its end."""
    ended = trio.Event()

    async def run() -> None:
        await subject.actor.run()
        ended.set()

    nursery.start_soon(run)
    yield
    await ended.wait()
    assert subject.kinds()[-1] == "VmGone"
    assert subject.kinds().count("VmGone") == 1


def make_actor(subject: Story, producer: OneVm | DirectBootProducer, **rest: Any) -> VmActor:
    return VmActor(
        vm_id="vm-1",
        profile="default",
        producer=producer,
        report=subject.hear,
        journal=subject.journal,
        procedure=HandOutProcedure(fresh=FreshSources(clock_ns=lambda: 42, entropy=bytes)),
        **rest,
    )
