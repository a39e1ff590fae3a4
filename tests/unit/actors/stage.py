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
from actors.kinds import ProducerKind
from actors.machine import ResolvedMachine
from actors.messages import VmFact, Wishes
from actors.producer import BaseVm, ProducerStatistics
from actors.vm import VmActor
from vmm.contract import Vm
from vmm.simulated import Fault, SimulatedHost, SimulatedVm, scripted
from vmm.spec import Accelerator, MachineSpec

NOWHERE = Path("/nowhere")
SPEC = MachineSpec(qemu=NOWHERE, kernel=NOWHERE, initrd=NOWHERE, accelerator=Accelerator.TCG)
ORDER = Wishes(hostname="guest-1")


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
    """A simulated VM of which a test replaces what it likes."""

    def __init__(self, vm: SimulatedVm, **replaced: Any) -> None:
        self._vm = vm
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vm, name)


def one_vm(host: SimulatedHost, **replaced: Any) -> OneVm:
    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)
        return Wrapped(vm, **replaced)

    return OneVm(answer=answer)


async def paused_vm(host: SimulatedHost, nursery: trio.Nursery) -> SimulatedVm:
    vm = await host.launch(SPEC, vm_id="vm-1", directory=SPEC.qemu, nursery=nursery)
    await vm.pause()
    return vm


@attrs.define(eq=False, kw_only=True)
class Story:
    """An actor on its stage, and what it said so far."""

    host: SimulatedHost
    actor: VmActor = attrs.field(init=False)
    facts: list[VmFact] = attrs.field(factory=list)
    _told: trio.Event = attrs.field(factory=trio.Event)

    def hear(self, fact: VmFact) -> None:
        self.facts.append(fact)
        self._told.set()

    def kinds(self) -> list[str]:
        return [type(fact).__name__ for fact in self.facts]

    async def until(self, kind: type[VmFact]) -> VmFact:
        """The first fact of a kind; waits for it."""
        while not any(isinstance(fact, kind) for fact in self.facts):
            self._told = trio.Event()
            await self._told.wait()
        return next(fact for fact in self.facts if isinstance(fact, kind))


@asynccontextmanager
async def story(*faults: Fault, producer: OneVm | None = None, boot_s: float = 1.0) -> AsyncIterator[Story]:
    """Runs an actor over a simulated VM with these faults. In the end it must be over, with nothing left."""
    host = SimulatedHost(boot_s=boot_s, faults=scripted({0: faults}))
    source = producer or direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        subject = Story(host=host)
        actor = subject.actor = VmActor(
            vm_id="vm-1",
            producer=source,
            report=subject.hear,
            procedure=HandOutProcedure(clock_ns=lambda: 42, entropy=bytes),
        )
        ended = trio.Event()

        async def run() -> None:
            await actor.run()
            ended.set()

        nursery.start_soon(run)
        yield subject
        await ended.wait()
        assert subject.kinds()[-1] == "VmGone"
        assert subject.kinds().count("VmGone") == 1
        assert not host.alive
        nursery.cancel_scope.cancel(reason="the story is over")
