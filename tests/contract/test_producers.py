"""What every producer does, whatever it makes VMs of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from actors.handout import HandOutProcedure, WishRefusedError
from actors.producer import BaseVm
from actors.uniqueness import Witness
from tests.contract.producers import ProducerSubject, QemuProducer, SimulatedProducer
from tests.contract.subjects import BOOT_LIMIT_S, MAX_MEMORY_MIB, MAX_VCPUS
from tests.contract.test_guest import run
from tests.contract.test_shape import cpus, mem_total_mib
from vmm.errors import VmmError
from vmm.qemu.template.store import Template, TemplateStore
from vmm.spec import MachineSpec
from vmm.words.kinds import ProducerKind
from vmm.words.machines import Accelerator
from vmm.words.wishes import GuestFile, Wishes

NOWHERE = Path("/nowhere")
SIMULATED_SPEC = MachineSpec(
    qemu=NOWHERE,
    kernel=NOWHERE,
    initrd=NOWHERE,
    accelerator=Accelerator.TCG,
    max_vcpus=MAX_VCPUS,
    max_memory_mib=MAX_MEMORY_MIB,
)


@pytest.fixture(autouse=True)
def _checked_for_leaks(subject: object, leak_check: None) -> None:
    """In place of the conftest's, which is about VMs that were launched."""


@pytest.fixture(
    params=[
        "simulated-direct",
        "simulated-template",
        pytest.param("qemu-direct", marks=pytest.mark.qemu),
        pytest.param("qemu-template", marks=pytest.mark.qemu),
    ]
)
def subject(request: pytest.FixtureRequest, vm_home: Path) -> ProducerSubject:
    where, _, name = request.param.partition("-")
    kind = ProducerKind(name)
    if where == "simulated":
        return SimulatedProducer(kind=kind, spec=SIMULATED_SPEC)
    template: Template = request.getfixturevalue("template")
    spec: MachineSpec = request.getfixturevalue("template_spec")
    return QemuProducer(kind=kind, spec=spec, home=vm_home, store=TemplateStore(template.directory))


@attrs.define(eq=False, kw_only=True)
class Stage:
    """A producer, and what it has made so far."""

    subject: ProducerSubject
    nursery: trio.Nursery
    made: list[BaseVm] = attrs.field(factory=list)

    async def start(self) -> None:
        with trio.fail_after(BOOT_LIMIT_S):
            await self.nursery.start(self.subject.producer.run)

    async def produce(self, vm_id: str = "vm-1") -> BaseVm:
        with trio.fail_after(BOOT_LIMIT_S):
            base = await self.subject.producer.produce(vm_id=vm_id, nursery=self.nursery)
        self.made.append(base)
        return base

    async def fail_to_produce(self, vm_id: str) -> None:
        async def fail() -> None:
            with pytest.raises(VmmError):
                await self.produce(vm_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.subject.sabotage, vm_id)
            nursery.start_soon(fail)


@pytest.fixture
async def idle_stage(subject: ProducerSubject, nursery: trio.Nursery) -> AsyncIterator[Stage]:
    """The producer does not run yet. All that it makes is stopped in the end, and nothing is left then."""
    stage = Stage(subject=subject, nursery=nursery)
    yield stage
    with trio.CancelScope(shield=True):
        for base in stage.made:
            await base.vm.stop()
    assert subject.left() == set()


@pytest.fixture
async def stage(idle_stage: Stage) -> Stage:
    await idle_stage.start()
    return idle_stage


async def test_a_produced_vm_is_paused_and_its_agent_answers_once_it_is_resumed(stage: Stage) -> None:
    vm = (await stage.produce()).vm
    answered = trio.Event()

    async def ask() -> None:
        await vm.agent.ping()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not answered.is_set(), "a paused guest says nothing"
        await vm.resume()
        with trio.fail_after(BOOT_LIMIT_S):
            await answered.wait()
    assert vm.id == "vm-1"


async def test_it_says_of_which_generation_its_vms_are_and_by_whom_they_were_made(stage: Stage) -> None:
    base = await stage.produce()
    assert stage.subject.generations == [base.generation]
    assert base.made_by is stage.subject.producer.kind


async def test_a_vm_says_whether_it_is_a_clone(stage: Stage) -> None:
    """Then it must be reseeded before anybody uses it."""
    base = await stage.produce()
    assert base.vm.is_clone == (base.made_by is ProducerKind.TEMPLATE)


async def test_a_production_waits_until_the_producer_is_ready(idle_stage: Stage) -> None:
    producer = idle_stage.subject.producer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_stage.produce)
        await trio.testing.wait_all_tasks_blocked()
        assert not producer.statistics().ready
        assert idle_stage.made == []
        assert idle_stage.subject.left() == set()
        await idle_stage.start()
        assert producer.statistics().ready
    assert len(idle_stage.made) == 1


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.1, 0.4, 0.8])
async def test_a_production_that_is_cancelled_leaves_nothing(stage: Stage, after_s: float) -> None:
    """At whatever step it was; one that was done by then is stopped like any other."""
    with trio.move_on_after(after_s) as scope:
        await stage.produce()
    if scope.cancelled_caught:
        assert stage.subject.left() == set()
        assert stage.subject.producer.statistics().failed == 0, "nobody failed"


async def test_several_productions_at_once_are_vms_of_their_own(stage: Stage) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(stage.produce, f"vm-{number}")
    vms = [base.vm for base in stage.made]
    assert {vm.id for vm in vms} == stage.subject.left() == {"vm-0", "vm-1", "vm-2"}
    assert len({vm.uuid for vm in vms}) == 3

    for vm in vms:
        await vm.resume()
        await vm.agent.put_file("/tmp/name", vm.id.encode())
    assert [await vm.agent.get_file("/tmp/name") for vm in vms] == [vm.id.encode() for vm in vms]

    await vms[0].stop()
    assert stage.subject.left() == {vm.id for vm in vms[1:]}
    assert await vms[1].agent.ping(), "the end of one is not the end of another"


async def test_a_production_that_fails_leaves_nothing_and_the_next_one_works(stage: Stage) -> None:
    await stage.fail_to_produce("vm-bad")
    assert stage.subject.left() == set()
    await stage.produce("vm-good")
    assert stage.subject.left() == {"vm-good"}


async def test_it_counts_what_it_made_and_what_failed(stage: Stage) -> None:
    await stage.produce("vm-1")
    await stage.fail_to_produce("vm-2")
    await stage.produce("vm-3")

    statistics = stage.subject.producer.statistics()
    assert statistics.kind is stage.subject.producer.kind
    assert (statistics.produced, statistics.failed, statistics.fallbacks) == (2, 1, 0)
    assert statistics.ready
    assert statistics.accelerator == "tcg"
    assert "it is a test" in statistics.detail


async def test_what_it_made_is_handed_out_as_it_is_wished_for(stage: Stage) -> None:
    vm = (await stage.produce()).vm
    wishes = Wishes(
        vcpus=MAX_VCPUS,
        memory_mib=MAX_MEMORY_MIB,
        hostname="wished",
        environment={"WISHED": "for"},
        files=(GuestFile(path="/tmp/wished", data=b"for this", mode=0o600),),
    )
    report, _ = await HandOutProcedure().run(vm, wishes)

    assert (report.reseeded, report.hostname) == (True, "wished")
    assert (report.cpus_online, report.memory_online_mib) == (MAX_VCPUS, MAX_MEMORY_MIB)
    assert await cpus(vm) == MAX_VCPUS
    assert await mem_total_mib(vm) == report.memory_mib > MAX_MEMORY_MIB - 150
    assert "WISHED=for" in (await run(vm.agent, "env")).stdout.decode().splitlines()
    assert (await run(vm.agent, "cat", "/tmp/wished")).stdout == b"for this"
    assert (await run(vm.agent, "cat", "/etc/machine-id")).stdout.decode() == f"{report.machine_id}\n"
    uuid = (await run(vm.agent, "cat", "/sys/class/dmi/id/product_uuid")).stdout.decode()
    assert uuid == f"{vm.uuid}\n" == f"{report.vm_uuid}\n"


async def test_without_wishes_it_is_as_it_was_made_and_has_its_ids_name(stage: Stage) -> None:
    vm = (await stage.produce()).vm
    report, _ = await HandOutProcedure().run(vm, Wishes())
    assert (report.hostname, report.cpus_online) == ("vm-1", 1)
    assert report.memory_mib <= 256


async def test_more_than_the_machines_maximum_is_refused_before_the_guest_runs(stage: Stage) -> None:
    vm = (await stage.produce()).vm
    with pytest.raises(WishRefusedError, match=r"^vcpus: .*max_vcpus"):
        await HandOutProcedure().run(vm, Wishes(vcpus=MAX_VCPUS + 1))


async def test_the_strict_witness_finds_no_two_alike(stage: Stage) -> None:
    """Of clones, this is the proof of the reseed; that it would notice: tests/integration/template/test_uniqueness."""
    procedure = HandOutProcedure(witness=Witness())
    reports = []
    for number in range(3):
        vm = (await stage.produce(f"vm-{number}")).vm
        reports.append((await procedure.run(vm, Wishes()))[0])
    assert len({report.random for report in reports}) == 3
    assert len({report.machine_id for report in reports}) == 3
    assert len({report.vm_uuid for report in reports}) == 3
