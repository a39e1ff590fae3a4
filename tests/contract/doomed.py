"""A service that makes two VMs, a base VM and a leased one, and does nothing more: it is there to be killed.

As a program: `python -m tests.contract.doomed KIND AGENT VMS STORE KERNEL INITRD` says "there" once both are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import trio

from actors.adoption import Adoption
from actors.journal import Journal
from actors.producer import Producer
from actors.vm import VmActor
from tests.contract.producers import make_producer
from tests.contract.subjects import qemu_spec
from vmm.devices.usual import usual_devices
from vmm.qemu.template.store import TemplateStore
from vmm.words.facts import VmFact, VmGone, VmHandedOut, VmReady
from vmm.words.kinds import ProducerKind
from vmm.words.leases import HandOutOrder, LeaseRequest, LeaseTerms
from vmm.words.machines import AgentKind
from vmm.words.wishes import Wishes

BASE, LEASED = "vm-base", "vm-leased"
MARK = "/tmp/mark"
ORDER = HandOutOrder(
    terms=LeaseTerms(
        lease_id="lease-1",
        owner_uid=1000,
        request=LeaseRequest(
            key="job-7", ttl_s=600.0, wishes=Wishes(hostname="guest-1", environment={"WISHED": "for"})
        ),
        fencing_token=7,
    )
)


@attrs.define(eq=False, kw_only=True)
class Told:
    """An actor, and what it said."""

    actor: VmActor = attrs.field(init=False)
    facts: list[VmFact] = attrs.field(factory=list)
    _told: trio.Event = attrs.field(factory=trio.Event)

    def hear(self, fact: VmFact) -> None:
        self.facts.append(fact)
        self._told.set()

    async def until(self, kind: type[VmFact]) -> VmFact:
        while not any(isinstance(fact, kind) for fact in self.facts):
            assert not any(isinstance(fact, VmGone) for fact in self.facts), self.facts
            self._told = trio.Event()
            await self._told.wait()
        return next(fact for fact in self.facts if isinstance(fact, kind))


def start(
    vm_id: str, producer: Producer, journal: Journal, nursery: trio.Nursery, *, adoption: Adoption | None = None
) -> Told:
    one = Told()
    one.actor = VmActor(
        vm_id=vm_id, profile="default", producer=producer, report=one.hear, journal=journal, adoption=adoption
    )
    nursery.start_soon(one.actor.run)
    return one


async def make_both(producer: Producer, journal: Journal, nursery: trio.Nursery) -> None:
    """Returns when both are as they are to be found."""
    await nursery.start(producer.run)
    base, leased = (start(vm_id, producer, journal, nursery) for vm_id in (BASE, LEASED))
    await base.until(VmReady)
    await leased.until(VmReady)
    leased.actor.hand_out(ORDER)
    await leased.until(VmHandedOut)
    await leased.actor.vm.agent.put_file(MARK, b"the caller's")


async def main(kind: str, agent: str, vms: str, store: str, kernel: str, initrd: str) -> None:
    producer = make_producer(
        ProducerKind(kind),
        spec=attrs.evolve(qemu_spec(Path(kernel), Path(initrd)), devices=usual_devices(agent=AgentKind(agent))),
        home=Path(vms),
        store=TemplateStore(Path(store)),
        on_generation=lambda _: None,
    )
    async with trio.open_nursery() as nursery:
        await make_both(producer, Journal(directory=Path(vms)), nursery)
        print("there", flush=True)


if __name__ == "__main__":
    kind, agent, vms, store, kernel, initrd = sys.argv[1:]
    trio.run(main, kind, agent, vms, store, kernel, initrd)
