"""The clock of a real guest that stood still, and of one in which somebody set it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from actors.clock import TOLERANCE_NS, GuestClockWatch, HostClock, is_off
from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S
from tests.templates import clone
from vmm.contract import Vm
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.preparation import GuestClock

STOOD_S = 2.0
FAR_FUTURE_S = 4_000_000_000


@pytest.fixture
async def vm(template: Template, template_spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> AsyncIterator[Vm]:
    """A clone whose clock was set as at a hand-out."""
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await clone(template_spec, template, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
    await vm.agent.set_clock(time.time_ns())
    yield vm
    await vm.stop()


async def clock_of(vm: Vm) -> tuple[GuestClock, bool]:
    """What the guest says, and whether it is to be set."""
    asked_ns = time.time_ns()
    clock = (await vm.agent.ping()).clock
    assert clock is not None
    return clock, is_off(clock, asked_ns=asked_ns, answered_ns=time.time_ns())


async def test_a_guest_that_stood_still_is_on_time_again(vm: Vm) -> None:
    watch = GuestClockWatch(vm=vm, host=HostClock(), answer_limit_s=10.0)
    await vm.pause()
    await trio.sleep(STOOD_S)  # that the guest then lacks
    await vm.resume()
    clock, off = await clock_of(vm)
    assert off
    assert abs(clock.moved_ns) < TOLERANCE_NS, "standing still is not moving the clock"
    assert await watch.ask()
    clock, off = await clock_of(vm)
    assert not off
    assert abs(clock.moved_ns) < TOLERANCE_NS


async def test_a_clock_that_was_set_in_the_guest_stays(vm: Vm) -> None:
    outcome = await collect(await vm.agent.start_command(CommandSpec(argv=["date", "-s", f"@{FAR_FUTURE_S}"])))
    assert outcome.exit == CommandExit(status=0), outcome
    assert await GuestClockWatch(vm=vm, host=HostClock(), answer_limit_s=10.0).ask()
    clock, off = await clock_of(vm)
    assert not off
    assert clock.wall_clock_ns >= FAR_FUTURE_S * 10**9
    assert clock.moved_ns == pytest.approx(clock.wall_clock_ns - time.time_ns(), abs=TOLERANCE_NS)
    await vm.agent.set_clock(time.time_ns())
    clock, _ = await clock_of(vm)
    assert abs(clock.moved_ns) < TOLERANCE_NS, "it is the host's again"
