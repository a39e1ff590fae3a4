"""The direct-boot producer: every VM boots its own kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import trio
from trio_util import AsyncValue

from actors.errors import evidence
from actors.producer import Launch, ProducerKind, ProducerStatistics
from vmm.contract import RESEED_BYTES, BootStage, Preparation, Vm
from vmm.errors import BootError
from vmm.spec import MachineSpec


@attrs.frozen(kw_only=True)
class ResolvedMachine:
    """A spec whose accelerator is decided, with the sentence that says why."""

    spec: MachineSpec
    reason: str


ResolveMachine = Callable[[], Awaitable[ResolvedMachine]]
"""Decides the accelerator and completes the spec; may boot a VM to find out. Raises VmmError."""


@attrs.define(eq=False, kw_only=True)
class DirectBootProducer:
    """Boots VMs one by one as they are asked for. How many boot at once is the ledger's decision."""

    resolve: ResolveMachine
    launch: Launch
    vms_directory: Path
    boot_timeout_s: float
    kind: Final = ProducerKind.DIRECT
    _machine: AsyncValue = attrs.field(factory=lambda: AsyncValue(None), repr=False)
    _produced: int = 0
    _failed: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Decides what machine to boot, then stands ready until cancelled."""
        try:
            self._machine.value = await self.resolve()
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._machine.value = None

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> Vm:
        """See `Producer.produce`. The boot timeout covers launch and pause, not the wait for readiness."""
        machine: ResolvedMachine = await self._machine.wait_value(lambda value: value is not None)
        vm: Vm | None = None
        notes = ""
        try:
            with trio.fail_after(self.boot_timeout_s):
                try:
                    vm = await self.launch(
                        machine.spec, vm_id=vm_id, directory=self.vms_directory / vm_id, nursery=nursery
                    )
                    # Rehearses the hand-out: the first of its kind pages in and, under TCG, translates code. Measured
                    # there: 20 ms for the first, 3 to 5 for those that follow.
                    await vm.agent.prepare(Preparation(entropy=os.urandom(RESEED_BYTES), wall_clock_ns=time.time_ns()))
                    await vm.pause()
                except BaseException as error:
                    # A cancel scope swallows Cancelled, and with it the console tail that launch noted on it.
                    notes = evidence(error)
                    raise
        except BaseException as error:
            if isinstance(error, Exception):  # a production that was cancelled has not failed
                self._failed += 1
            if vm is not None:
                await vm.stop()
            if not isinstance(error, trio.TooSlowError):
                raise
            # The guest is what takes the time: QEMU itself answers, or is dead, within a fraction of a second.
            timeout = BootError(stage=BootStage.GUEST, reason=f"not ready within {self.boot_timeout_s:g} s")
            if notes:
                timeout.add_note(notes)
            raise timeout from error
        self._produced += 1
        return vm

    def statistics(self) -> ProducerStatistics:
        machine: ResolvedMachine | None = self._machine.value
        return ProducerStatistics(
            kind=self.kind,
            ready=machine is not None,
            accelerator=machine.spec.accelerator.value if machine else None,
            detail=machine.reason if machine else "deciding on the accelerator",
            produced=self._produced,
            failed=self._failed,
        )
