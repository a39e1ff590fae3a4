"""A VM's life: pause and resume, death, stop, and launches that do not get through."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import trio
import trio.testing

from actors.parking import check
from tests.contract.subjects import Subject
from vmm.contract import Vm
from vmm.errors import AgentUnreachableError, VmExitedError
from vmm.words.commands import CommandSpec
from vmm.words.processes import ExitReport


async def test_a_paused_guest_answers_only_once_it_is_resumed(vm: Vm) -> None:
    await vm.pause()
    answered = trio.Event()

    async def ask() -> None:
        await vm.agent.ping()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            await vm.pause()  # a round trip to the VM, in which a running guest would have had time to answer
        assert not answered.is_set()
        await vm.resume()
        await answered.wait()


async def test_pausing_and_resuming_twice_is_pausing_and_resuming_once(vm: Vm) -> None:
    await vm.resume()
    await vm.pause()
    await vm.pause()
    await vm.resume()
    await vm.resume()
    assert await vm.agent.ping()


async def test_whether_it_runs_is_told_whatever_the_guest_does(vm: Vm) -> None:
    assert await vm.run_state() == "running"
    await vm.pause()
    assert await vm.run_state() == "paused"
    await vm.resume()
    assert await vm.run_state() == "running"


async def test_the_end_of_the_console_is_told_whatever_the_guest_does(subject: Subject, vm: Vm) -> None:
    await subject.write_to_console(vm, "written by its guest\n")
    assert (await vm.console(limit=1024)).endswith("written by its guest")
    await vm.pause()
    assert len(await vm.console(limit=10)) <= 10
    assert (await vm.console(limit=10)).endswith("guest")
    await vm.resume()


async def test_a_check_leaves_an_idle_vm_paused(vm: Vm) -> None:
    await vm.pause()
    await check(vm)
    answered = trio.Event()

    async def ask() -> None:
        await vm.agent.ping()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            await vm.pause()  # a round trip, as above
        assert not answered.is_set()
        await vm.resume()
        await answered.wait()


async def test_a_command_continues_after_a_pause(vm: Vm) -> None:
    command = await vm.agent.start_command(CommandSpec(argv=["cat"]))
    await vm.pause()
    async with trio.open_nursery() as nursery:

        async def feed() -> None:
            await command.send_stdin(b"kept")
            await command.close_stdin()

        nursery.start_soon(feed)
        await trio.testing.wait_all_tasks_blocked()
        await vm.resume()
        events = [event async for event in command.events()]
    await command.aclose()
    assert len(events) == 2


async def test_stop_leaves_nothing_and_may_be_repeated(subject: Subject, fresh_vm: Vm) -> None:
    assert subject.exists(fresh_vm.id)
    report = await fresh_vm.stop()
    assert report.signal is None
    assert not subject.exists(fresh_vm.id)
    assert await fresh_vm.stop() == report
    assert await fresh_vm.wait_exited() == report


async def test_what_is_disconnected_is_still_watched_and_can_be_ended(
    subject: Subject, fresh_vm: Vm, nursery: trio.Nursery
) -> None:
    await fresh_vm.pause()
    ended = trio.Event()

    async def watch() -> None:
        await fresh_vm.wait_exited()
        ended.set()

    nursery.start_soon(watch)
    await fresh_vm.disconnect()
    await trio.testing.wait_all_tasks_blocked()
    assert not ended.is_set()
    assert subject.exists("fresh")
    await fresh_vm.stop()
    await ended.wait()
    assert not subject.exists("fresh")


async def test_stop_of_a_paused_vm_by_several_tasks(subject: Subject, fresh_vm: Vm) -> None:
    await fresh_vm.pause()
    reports: list[ExitReport] = []

    async def wait() -> None:
        reports.append(await fresh_vm.wait_exited())

    async def stop() -> None:
        reports.append(await fresh_vm.stop())

    async with trio.open_nursery() as nursery:
        for task in (wait, stop, wait, stop):
            nursery.start_soon(task)
    assert len(reports) == 4
    assert len(set(reports)) == 1
    assert not subject.exists(fresh_vm.id)


async def test_stop_runs_to_its_end_under_cancellation(subject: Subject, fresh_vm: Vm) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await fresh_vm.stop()
    assert not subject.exists(fresh_vm.id)


async def test_stop_works_after_the_nursery_of_its_background_tasks_was_cancelled(subject: Subject) -> None:
    async with trio.open_nursery() as nursery:
        vm = await subject.launch("orphan", nursery)
        nursery.cancel_scope.cancel()
    await vm.stop()
    assert not subject.exists("orphan")


async def test_the_dead_are_reported_and_answer_nothing(subject: Subject, fresh_vm: Vm) -> None:
    subject.kill(fresh_vm)
    report = await fresh_vm.wait_exited()
    assert report.signal == signal.SIGKILL
    for operation in (fresh_vm.pause, fresh_vm.resume, partial(fresh_vm.grow, vcpus=2, memory_mib=256)):
        with pytest.raises(VmExitedError, match="signal 9"):
            await operation()
    with pytest.raises((AgentUnreachableError, VmExitedError)):
        await fresh_vm.agent.ping()
    assert await fresh_vm.stop() == report


async def test_what_waits_for_a_guest_fails_when_it_dies(subject: Subject, fresh_vm: Vm) -> None:
    command = await fresh_vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
    await fresh_vm.pause()

    async def expect_unreachable() -> None:
        with pytest.raises((AgentUnreachableError, VmExitedError)):
            await fresh_vm.agent.ping()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_unreachable)
        await trio.testing.wait_all_tasks_blocked()
        subject.kill(fresh_vm)
        with pytest.raises((AgentUnreachableError, VmExitedError)):
            await anext(command.events())
    await command.aclose()


async def test_a_cancelled_launch_leaves_nothing(subject: Subject, nursery: trio.Nursery) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as launching:
            launching.start_soon(subject.launch, "never", nursery)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert not subject.exists("never")
