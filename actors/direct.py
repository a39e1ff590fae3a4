"""The direct-boot producer: every VM boots its own kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
from trio_util import AsyncValue

from actors.machine import WATCH_S, ResolvedMachine, ResolveMachine
from actors.parking import park
from actors.producer import BaseVm, Launch, ProducerStatistics
from vmm.words.kinds import ProducerKind


@attrs.frozen(kw_only=True)
class MachineBoot:
    """Boots VMs of one resolved machine."""

    machine: ResolvedMachine
    launch: Launch
    vms_directory: Path
    timeout_s: float

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        """See `BaseVmMaker.produce`. The time limit covers launch, rehearsal and pause."""
        bring_up = partial(
            self.launch, self.machine.spec, vm_id=vm_id, directory=self.vms_directory / vm_id, nursery=nursery
        )
        vm = await park(bring_up, timeout_s=self.timeout_s)
        return BaseVm(vm=vm, generation=self.machine.fingerprint, made_by=ProducerKind.DIRECT)


@attrs.define(eq=False, kw_only=True)
class DirectBootProducer:
    """Boots each VM when it is requested. The ledger decides how many boot at once."""

    resolve: ResolveMachine
    launch: Launch
    vms_directory: Path
    boot_timeout_s: float
    on_generation: Callable[[str], None] = lambda _: None
    """Called with the fingerprint of the VMs made from now on."""
    kind: Final = ProducerKind.DIRECT
    _machine: AsyncValue = attrs.field(factory=lambda: AsyncValue(None), repr=False)
    _produced: int = 0
    _failed: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resolves the machine to boot, and resolves it again when its kernel, initramfs or QEMU changes."""
        try:
            while True:
                machine = await self.resolve()
                self._machine.value = machine
                self.on_generation(machine.fingerprint)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                while machine.is_current():  # noqa: ASYNC110 - no event to wait for; three stat calls need no thread
                    await trio.sleep(WATCH_S)
        finally:
            self._machine.value = None

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        """See `Producer.produce`. The boot timeout covers launch, rehearsal and pause, not the wait for readiness."""
        machine: ResolvedMachine = await self._machine.wait_value(lambda value: value is not None)
        boot = MachineBoot(
            machine=machine, launch=self.launch, vms_directory=self.vms_directory, timeout_s=self.boot_timeout_s
        )
        try:
            base = await boot.produce(vm_id=vm_id, nursery=nursery)
        except Exception:
            self._failed += 1
            raise
        self._produced += 1
        return base

    def statistics(self) -> ProducerStatistics:
        machine: ResolvedMachine | None = self._machine.value
        return ProducerStatistics(
            kind=self.kind,
            ready=machine is not None,
            accelerator=machine.spec.accelerator.value if machine else None,
            detail=machine.reason if machine else "choosing the accelerator",
            produced=self._produced,
            failed=self._failed,
        )
