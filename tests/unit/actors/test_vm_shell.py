"""A VM that begins as a shell: PRODUCING, SHELL, PRODUCING, READY, and on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.vm import VmActor
from tests.unit.actors.stage import ORDER, Story, simulated_journal
from tests.unit.actors.test_template import CLONE_S, Stage, stage
from tests.virtual_time import in_virtual_time
from vmm.words.facts import ShellReady, VmGone, VmHandedOut, VmLost, VmReady
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState
from vmm.words.processes import ExitReport


@attrs.define(eq=False, kw_only=True)
class ShellStory(Story):
    stage: Stage


@asynccontextmanager
async def shell_story() -> AsyncIterator[ShellStory]:
    async with stage() as on_stage:
        subject = ShellStory(host=on_stage.host, stage=on_stage)
        subject.actor = VmActor(
            vm_id="vm-1",
            profile="default",
            producer=on_stage.producer,
            shells=on_stage.producer,
            report=subject.hear,
            journal=simulated_journal(),
        )
        on_stage.nursery.start_soon(subject.actor.run)
        yield subject
        await subject.until(VmGone)
        assert not on_stage.host.alive


@in_virtual_time
async def test_a_whole_life() -> None:
    async with shell_story() as one:
        assert await one.until(ShellReady) == ShellReady(vm_id="vm-1", pid=0, generation="f1")
        assert one.actor.state is VmState.SHELL

        one.actor.fill()
        ready = await one.until(VmReady)
        assert ready == VmReady(
            vm_id="vm-1",
            pid=0,
            production_s=ready.production_s if isinstance(ready, VmReady) else 0,
            generation="f1",
            made_by=ProducerKind.TEMPLATE,
        )
        assert isinstance(ready, VmReady)
        assert abs(ready.production_s - CLONE_S) < 1e-6, "the shell's own start is not in it"

        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        one.actor.stop("enough")
    assert one.kinds() == ["ShellReady", "VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_it_is_stopped_while_it_waits() -> None:
    async with shell_story() as one:
        await one.until(ShellReady)
        one.actor.stop("its template is no more")
    assert one.kinds() == ["ShellReady", "VmGone"]


@in_virtual_time
async def test_its_death_is_noticed_at_once() -> None:
    async with shell_story() as one:
        await one.until(ShellReady)
        one.stage.templates.shells["vm-1"].crash(ExitReport(signal=9))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "killed by signal 9" in lost.reason
    assert one.kinds() == ["ShellReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_filling_that_fails_tells_its_own_reason() -> None:
    async with shell_story() as one:
        await one.until(ShellReady)
        one.stage.templates.clones_fail = True
        one.actor.fill()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "simulated" in lost.reason
    assert one.kinds() == ["ShellReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_the_vm_is_watched_after_it_was_filled() -> None:
    async with shell_story() as one:
        await one.until(ShellReady)
        one.actor.fill()
        await one.until(VmReady)
        vm = one.actor.vm
        vm.crash(ExitReport(signal=11))  # type: ignore[attr-defined]
        await one.until(VmLost)
        await trio.testing.wait_all_tasks_blocked()
    assert one.kinds() == ["ShellReady", "VmReady", "VmLost", "VmGone"]
