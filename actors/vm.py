"""One actor per VM: its life from birth to the end of its lease."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio

from actors.errors import describe, evidence
from actors.handout import HandOutProcedure
from actors.life import VmState, check_transition
from actors.messages import ShellReady, VmFact, VmGone, VmHandedOut, VmLost, VmReady, Wishes
from actors.producer import Producer, ShellProducer
from vmm.contract import Shell, Vm
from vmm.errors import StopError, VmExitedError, VmmError

_log = structlog.get_logger("vmpool.vm")


@attrs.define(eq=False, kw_only=True)
class VmActor:
    """Runs one VM. `report` receives its facts; it must not block and must not raise.

    `run` never raises an Exception: whatever goes wrong with this VM ends as a fact.
    """

    vm_id: str
    producer: Producer
    report: Callable[[VmFact], None]
    procedure: HandOutProcedure = attrs.field(factory=HandOutProcedure)
    shells: ShellProducer | None = None
    """Begin as a shell of this producer, and wait for `fill`."""
    _state: VmState = VmState.PRODUCING
    _shell: Shell | None = None
    _vm: Vm | None = None
    _unverified: BaseExceptionGroup[StopError] | None = attrs.field(default=None, repr=False)
    """Production failed and could not take back what it had started."""
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    _fill: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _orders: trio.MemorySendChannel[Wishes] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[Wishes] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # At most one hand-out in a VM's life, so at most one order is ever sent; the bound is there to notice a bug.
        self._orders, self._inbox = trio.open_memory_channel[Wishes](1)

    @property
    def state(self) -> VmState:
        return self._state

    @property
    def vm(self) -> Vm:
        """The VM, once there is one. Raises VmExitedError before and after."""
        if self._vm is None:
            raise VmExitedError(vm_id=self.vm_id, reason="it is not running")
        return self._vm

    def fill(self) -> None:
        """Orders the shell to become a VM; the answer is a VmReady or VmLost fact."""
        self._fill.set()

    def hand_out(self, wishes: Wishes) -> None:
        """Orders the hand-out; the answer is a VmHandedOut or VmLost fact.

        Nothing happens when the VM is ending: its facts are on their way.
        """
        self._orders.send_nowait(wishes)

    def stop(self, reason: str) -> None:
        """Orders the end, whatever the VM is doing; the answer is the VmGone fact."""
        self._life.cancel(reason=reason)

    async def run(self) -> None:
        """The VM's life story."""
        gone = VmGone(vm_id=self.vm_id)
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with self._life:
                        await self._live(nursery)
                finally:
                    gone = await self._end()
                    nursery.cancel_scope.cancel(reason="the VM is gone")
        except Exception as error:  # noqa: BLE001 - only a bug gets here; it must cost no more than this VM
            _log.exception("VM actor failed", vm_id=self.vm_id)
            self.report(VmLost(vm_id=self.vm_id, reason=f"internal error: {describe(error)}"))
        finally:
            self._to(VmState.GONE)
            self.report(gone)

    async def _live(self, nursery: trio.Nursery) -> None:
        try:
            vm = await self._produce(nursery)

            wishes = await self._inbox.receive()
            self._to(VmState.HANDING_OUT)
            report, timings = await self.procedure.run(vm, wishes)
            self._to(VmState.LEASED)
            self.report(VmHandedOut(vm_id=self.vm_id, report=report, timings=timings))

            await trio.sleep_forever()
        except* VmmError as errors:
            self._unverified = errors.subgroup(StopError)
            self._lost(errors)

    async def _produce(self, nursery: trio.Nursery) -> Vm:
        """From nothing, or by way of a shell, to a base VM."""
        ordered_at = trio.current_time()
        if self.shells is None:
            base = await self.producer.produce(vm_id=self.vm_id, nursery=nursery)
        else:
            self._shell = shell = await self.shells.start_shell(vm_id=self.vm_id, nursery=nursery)
            self._to(VmState.SHELL)
            nursery.start_soon(self._watch, shell)
            self.report(ShellReady(vm_id=self.vm_id, pid=shell.pid, generation=shell.generation))
            await self._fill.wait()
            ordered_at = trio.current_time()
            self._to(VmState.PRODUCING)
            base = await self.shells.fill_shell(shell, nursery=nursery)
        self._vm = base.vm
        self._to(VmState.READY)
        nursery.start_soon(self._watch, base.vm)
        self.report(
            VmReady(
                vm_id=self.vm_id,
                pid=base.vm.pid,
                production_s=trio.current_time() - ordered_at,
                generation=base.generation,
                made_by=base.made_by,
            )
        )
        return base.vm

    async def _watch(self, vm: Vm | Shell) -> None:
        """Notices the death of the process at once, whatever the story is waiting for."""
        exit_report = await vm.wait_exited()
        # A production notices by itself, and knows why: it ends what it cannot finish.
        if self._state not in (VmState.PRODUCING, VmState.STOPPING, VmState.GONE):
            self._lost(VmExitedError(vm_id=self.vm_id, reason=str(exit_report)))
            self._life.cancel(reason="QEMU exited")

    def _lost(self, error: BaseException) -> None:
        if self._state is VmState.STOPPING:
            return  # already told; this is the same end seen from elsewhere
        was = self._state
        self._to(VmState.STOPPING)
        reason = describe(error)
        _log.warning("VM lost", vm_id=self.vm_id, was=was.value, error=reason)
        self.report(VmLost(vm_id=self.vm_id, reason=reason, evidence=evidence(error)))

    async def _end(self) -> VmGone:
        if self._state is not VmState.STOPPING:
            self._to(VmState.STOPPING)
        vm, self._vm, self._shell = self._vm or self._shell, None, None
        if vm is None:
            return VmGone(vm_id=self.vm_id, error=describe(self._unverified) if self._unverified else None)
        try:
            await vm.stop()
        except Exception as error:  # noqa: BLE001 - StopError or a bug; either way nobody has seen the end
            _log.exception("VM could not be ended", vm_id=self.vm_id)
            return VmGone(vm_id=self.vm_id, error=describe(error))
        return VmGone(vm_id=self.vm_id)

    def _to(self, target: VmState) -> None:
        check_transition(vm_id=self.vm_id, state=self._state, target=target)
        self._state = target
