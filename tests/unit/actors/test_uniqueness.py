"""The witness of uniqueness: what repeats is refused, but for what callers chose to be alike."""

from __future__ import annotations

import contextlib

import pytest
import trio

from actors.handout import HandOutProcedure
from actors.uniqueness import Witness
from tests.unit.actors.stage import NOWHERE, SPEC
from tests.virtual_time import in_virtual_time
from vmm.errors import NotUniqueError
from vmm.fresh import FreshSources
from vmm.simulated import SimulatedHost
from vmm.words.wishes import Wishes


async def hand_out_two(*, procedure: HandOutProcedure, wishes: Wishes) -> None:
    host = SimulatedHost()
    async with trio.open_nursery() as nursery:
        try:
            for number in range(2):
                vm = await host.launch(SPEC, vm_id=f"vm-{number}", directory=NOWHERE, nursery=nursery)
                await vm.pause()
                report, _ = await procedure.run(vm, wishes)
                assert report.hostname == (wishes.hostname or vm.id)
                await vm.stop()
        finally:
            nursery.cancel_scope.cancel()


@in_virtual_time
async def test_two_callers_may_choose_the_same_hostname() -> None:
    """Or one caller could burn the others' VMs, three for each acquisition, by asking for their name first."""
    await hand_out_two(procedure=HandOutProcedure(witness=Witness()), wishes=Wishes(hostname="db"))


@in_virtual_time
async def test_a_machine_id_that_repeats_is_refused() -> None:
    procedure = HandOutProcedure(witness=Witness(), fresh=FreshSources(new_machine_id=lambda: "0" * 32))
    with pytest.raises(ExceptionGroup) as caught:
        await hand_out_two(procedure=procedure, wishes=Wishes())
    assert caught.group_contains(NotUniqueError, match="machine-id")


@pytest.mark.parametrize("clone", [False, True])
@in_virtual_time
async def test_a_clone_whose_guest_was_not_reseeded_is_refused_without_a_witness_too(clone: bool) -> None:
    """One that was booted has random numbers of its own."""
    host = SimulatedHost()
    async with trio.open_nursery() as nursery:
        vm = await host.launch(SPEC, vm_id="vm-1", directory=NOWHERE, nursery=nursery)
        vm.machine.is_clone = clone
        await vm.pause()
        procedure = HandOutProcedure(
            fresh=FreshSources(entropy=lambda _count: b"")
        )  # to the simulated agent, nothing to reseed with
        refused = pytest.raises(NotUniqueError, match="random numbers are those of its template's other clones")
        with refused if clone else contextlib.nullcontext():
            await procedure.run(vm, Wishes())
        await vm.stop()
        nursery.cancel_scope.cancel()
