"""The template producer: one build, many clones, and what happens when either does not work."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from actors.machine import WATCH_S, ResolvedMachine
from actors.producer import BaseVm
from actors.supervisor import NEVER_GIVE_UP, Supervised
from actors.template import SUSPECT_AFTER, TemplateProducer
from tests.unit.actors.stage import NOWHERE, SPEC
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import BootError, TemplateError, VmmError
from vmm.simulated import SimulatedHost
from vmm.simulated.templates import SimulatedTemplate, SimulatedTemplates
from vmm.spec import MachineSpec
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProducerKind
from vmm.words.processes import BootStage, ExitReport

BOOT_S = 5.0
BUILD_S = 6.0
SHELL_S = 0.05
CLONE_S = 0.05


@attrs.define(eq=False, kw_only=True)
class Machine:
    """What the producer resolves; a test changes it under the producer's feet."""

    fingerprint: str = "f1"

    async def resolve(self) -> ResolvedMachine:
        return CurrentAsLongAs(spec=SPEC, reason="simulated", fingerprint=self.fingerprint, machine=self)


@attrs.frozen(kw_only=True)
class CurrentAsLongAs(ResolvedMachine):
    """Current as long as the machine has the fingerprint that it had then."""

    machine: Machine

    def is_current(self) -> bool:
        return self.machine.fingerprint == self.fingerprint


@attrs.define(eq=False, kw_only=True)
class Stage:
    host: SimulatedHost
    templates: SimulatedTemplates
    producer: TemplateProducer
    machine: Machine
    generations: list[str]
    nursery: trio.Nursery
    vms: list[Vm] = attrs.field(factory=list)
    numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    async def produce(self) -> BaseVm:
        base = await self.producer.produce(vm_id=f"vm-{next(self.numbers)}", nursery=self.nursery)
        self.vms.append(base.vm)
        return base


@asynccontextmanager
async def stage(
    *,
    fallback: bool = True,
    fetch_only: bool = False,
    template: SimulatedTemplate | None = None,
    backend: type[SimulatedTemplates] = SimulatedTemplates,
    **faults: Any,
) -> AsyncIterator[Stage]:
    """A supervised producer over a simulated backend. At the end nothing may be alive on the host."""
    host = SimulatedHost(boot_s=BOOT_S)
    templates = backend(host=host, build_s=BUILD_S, shell_s=SHELL_S, clone_s=CLONE_S, template=template, **faults)
    machine, generations = Machine(), list[str]()
    producer = TemplateProducer(
        resolve=machine.resolve,
        backend=templates,
        launch=host.launch,
        vms_directory=NOWHERE,
        new_vm_id=lambda: "vm-template",
        boot_timeout_s=30.0,
        fallback=fallback,
        fetch_only=fetch_only,
        on_generation=generations.append,
    )
    policy = attrs.evolve(NEVER_GIVE_UP, backoff=Backoff(initial_s=1.0, maximum_s=60.0, jitter=0.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Supervised(name="template", main=producer.run, policy=policy).run)
        on_stage = Stage(
            host=host,
            templates=templates,
            producer=producer,
            machine=machine,
            generations=generations,
            nursery=nursery,
        )
        yield on_stage
        for vm in on_stage.vms:
            await vm.stop()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not host.alive


@in_virtual_time
async def test_one_build_many_clones() -> None:
    async with stage() as it:
        first = await it.produce()
        assert trio.current_time() == pytest.approx(BUILD_S + SHELL_S + CLONE_S)
        assert (first.made_by, first.generation) == (ProducerKind.TEMPLATE, "f1")

        for _ in range(5):
            assert (await it.produce()).made_by is ProducerKind.TEMPLATE

        assert trio.current_time() == pytest.approx(BUILD_S + 6 * (SHELL_S + CLONE_S))
        assert it.templates.built == 1
        assert it.generations == ["f1"]


@in_virtual_time
async def test_a_template_that_is_there_is_used_again() -> None:
    async with stage(template=SimulatedTemplate(fingerprint="f1")) as it:
        await it.produce()
        assert it.templates.built == 0


@in_virtual_time
async def test_that_of_another_machine_is_replaced() -> None:
    async with stage(template=SimulatedTemplate(fingerprint="f0")) as it:
        assert (await it.produce()).generation == "f1"
        assert it.templates.built == 1


@in_virtual_time
async def test_fetch_only_never_builds() -> None:
    async with stage(fetch_only=True, fallback=False) as it:
        with pytest.raises(TemplateError, match="it does not exist"):
            await it.produce()
        assert it.templates.built == 0

        it.templates.template = SimulatedTemplate(fingerprint="f1")
        await trio.sleep(5)
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE


@in_virtual_time
async def test_fetch_only_shares_with_an_owner_and_discards_nothing() -> None:
    shared = SimulatedTemplate(fingerprint="f1")
    async with stage(fetch_only=True, template=shared, owned_elsewhere=True) as it:
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE
        shared.damaged = True
        await trio.sleep(2 * WATCH_S)
        assert it.templates.template is shared


@in_virtual_time
async def test_while_the_place_is_anothers_it_boots_and_says_whose_it_is() -> None:
    theirs = SimulatedTemplate(fingerprint="f0")
    async with stage(template=theirs, owned_elsewhere=True) as it:
        assert (await it.produce()).made_by is ProducerKind.DIRECT
        assert "process 4711 uses it" in it.producer.statistics().detail
        assert it.templates.template is theirs

        it.templates.owned_elsewhere = False
        await trio.sleep(BOOT_S + BUILD_S + 60)
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE


@in_virtual_time
async def test_while_builds_fail_it_boots_and_says_why() -> None:
    async with stage(builds_fail=True) as it:
        fallen_back = await it.produce()

        assert fallen_back.made_by is ProducerKind.DIRECT
        assert fallen_back.generation == "f1", "a booted VM is as good as a clone: it does not become stale"
        statistics = it.producer.statistics()
        assert not statistics.ready
        assert statistics.fallbacks == 1
        assert "saving a template failed" in statistics.detail
        assert "booting directly until it works" in statistics.detail


@in_virtual_time
async def test_it_returns_to_clones_by_itself() -> None:
    async with stage(builds_fail=True) as it:
        await it.produce()
        it.templates.builds_fail = False
        await trio.sleep(100)
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE
        assert it.producer.statistics().ready


@in_virtual_time
async def test_without_fallback_production_fails_with_the_reason() -> None:
    async with stage(builds_fail=True, fallback=False) as it:
        with pytest.raises(TemplateError, match="saving a template failed"):
            await it.produce()
        assert it.producer.statistics().failed == 1


@in_virtual_time
async def test_clones_that_keep_failing_cost_the_template() -> None:
    async with stage() as it:
        await it.produce()
        it.templates.clones_fail = True
        for _ in range(SUSPECT_AFTER):
            with pytest.raises(BootError):
                await it.produce()
        await trio.testing.wait_all_tasks_blocked()

        assert (await it.produce()).made_by is ProducerKind.DIRECT, "meanwhile it boots"
        assert "clones in a row failed" in it.producer.statistics().detail

        it.templates.clones_fail = False
        await trio.sleep(100)
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE
        assert it.templates.built == 2
        assert it.generations == ["f1"], "the same machine: nothing that was made became stale"


@in_virtual_time
async def test_one_failed_clone_does_not_cost_the_template() -> None:
    async with stage() as it:
        await it.produce()
        for _ in range(3 * SUSPECT_AFTER):
            it.templates.clones_fail = True
            with pytest.raises(BootError):
                await it.produce()
            it.templates.clones_fail = False
            await it.produce()
        assert it.templates.built == 1


@in_virtual_time
async def test_qemus_that_cannot_be_started_do_not_cost_the_template() -> None:
    """A full disk, or no descriptor or process left: to build another one takes more of the same."""

    async def fail(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise BootError(stage=BootStage.SPAWN, reason="No space left on device")

    async with stage() as it:
        await it.produce()
        with pytest.MonkeyPatch.context() as full:
            full.setattr(SimulatedTemplates, "start_shell", fail)
            for _ in range(SUSPECT_AFTER):
                with pytest.raises(BootError):
                    await it.produce()
            await trio.testing.wait_all_tasks_blocked()
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE
        assert it.templates.built == 1


@in_virtual_time
async def test_a_damaged_template_is_noticed_and_built_anew() -> None:
    async with stage() as it:
        await it.produce()
        assert it.templates.template is not None
        it.templates.template.damaged = True

        with pytest.raises(TemplateError):
            await it.produce()
        await trio.sleep(WATCH_S)
        assert (await it.produce()).made_by is ProducerKind.TEMPLATE
        assert it.templates.built == 2
        first, second = it.generations
        assert first == "f1" != second, "its clones have its memory mapped: they are as damaged"


@in_virtual_time
async def test_clones_that_fail_because_of_a_damaged_template_make_the_others_stale() -> None:
    async with stage() as it:
        await it.produce()
        shell = await it.producer.start_shell(vm_id="vm-shell", nursery=it.nursery)
        assert it.templates.template is not None
        it.templates.template.damaged = True
        for _ in range(SUSPECT_AFTER):
            with pytest.raises(TemplateError):
                await it.produce()
        await trio.testing.wait_all_tasks_blocked()

        assert (await it.produce()).generation == it.generations[1] != "f1"
        with pytest.raises(TemplateError, match="this shell is of an earlier template"):
            await it.producer.fill_shell(shell, nursery=it.nursery)
        assert it.templates.built == 2


@in_virtual_time
async def test_what_is_made_of_other_files_is_another_generation() -> None:
    async with stage() as it:
        assert (await it.produce()).generation == "f1"
        it.machine.fingerprint = "f2"
        await trio.sleep(WATCH_S)

        assert (await it.produce()).generation == "f2"
        assert it.generations == ["f1", "f2"]


@in_virtual_time
async def test_a_shell_takes_the_start_out_of_the_production() -> None:
    async with stage() as it:
        shell = await it.producer.start_shell(vm_id="vm-shell", nursery=it.nursery)
        began = trio.current_time()
        base = await it.producer.fill_shell(shell, nursery=it.nursery)
        it.vms.append(base.vm)

        assert trio.current_time() - began == pytest.approx(CLONE_S)
        assert base.made_by is ProducerKind.TEMPLATE
        assert base.vm.id == "vm-shell"


@in_virtual_time
async def test_a_shell_of_an_older_template_is_not_filled() -> None:
    async with stage() as it:
        shell = await it.producer.start_shell(vm_id="vm-shell", nursery=it.nursery)
        it.machine.fingerprint = "f2"
        await trio.sleep(WATCH_S)
        with pytest.raises(TemplateError, match="this shell is of an earlier template"):
            await it.producer.fill_shell(shell, nursery=it.nursery)
        assert not it.host.alive


@in_virtual_time
async def test_there_are_no_shells_without_a_template() -> None:
    async with stage(builds_fail=True) as it:
        with pytest.raises(TemplateError, match="none is available to start a shell from"):
            await it.producer.start_shell(vm_id="vm-shell", nursery=it.nursery)


@in_virtual_time
async def test_a_shell_that_died_is_told_as_such() -> None:
    async with stage() as it:
        shell = await it.producer.start_shell(vm_id="vm-shell", nursery=it.nursery)
        it.templates.shells["vm-shell"].crash(ExitReport(signal=9))
        with pytest.raises(VmmError, match="died as a shell"):
            await it.producer.fill_shell(shell, nursery=it.nursery)


@in_virtual_time
async def test_a_build_that_hangs_is_an_error() -> None:
    async with stage() as it:
        it.templates.build_s = 1_000.0
        assert (await it.produce()).made_by is ProducerKind.DIRECT
        assert "not done within boot_timeout_s (30 s)" in it.producer.statistics().detail


@pytest.mark.parametrize("after_s", [0.0, 1.0, BUILD_S, BUILD_S + SHELL_S, BUILD_S + SHELL_S + CLONE_S / 2])
@in_virtual_time
async def test_a_cancelled_production_leaves_nothing(after_s: float) -> None:
    async with stage() as it:
        with trio.move_on_after(after_s):
            await it.produce()
        assert it.host.alive <= {"vm-template"}, "the template is built for whoever comes next"
        await trio.sleep(BUILD_S + 1)
        assert not it.host.alive


class FailsInAGroup(SimulatedTemplates):
    async def build(self, spec: MachineSpec, *, fingerprint: str, vm_id: str, directory: Path) -> SimulatedTemplate:
        raise ExceptionGroup("from a nursery", [BootError(stage=BootStage.GUEST, reason="killed"), KeyError("bug")])


@in_virtual_time
async def test_whatever_a_build_fails_with_it_boots_meanwhile() -> None:
    """Also an error in a group, or a bug: nothing may leave production waiting for ever."""
    async with stage(backend=FailsInAGroup) as it:
        assert (await it.produce()).made_by is ProducerKind.DIRECT
        assert "killed" in it.producer.statistics().detail


@in_virtual_time
async def test_what_is_booted_for_want_of_a_template_is_of_the_generation_that_was_told() -> None:
    """Or it would be stale when it comes, and so would be what it is replaced with, without end."""
    async with stage() as on_stage:
        await on_stage.produce()
        on_stage.templates.builds_fail = True
        on_stage.machine.fingerprint = "f2"
        await trio.sleep(WATCH_S + BUILD_S + 1.0)
        base = await on_stage.produce()
        assert base.made_by is ProducerKind.DIRECT
        assert (base.generation, on_stage.generations) == ("f2", ["f1", "f2"])
