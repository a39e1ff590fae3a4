"""One actor per VM: its life from birth to the end of its lease."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import attrs
import structlog
import trio

from actors.errors import describe, evidence
from actors.life import VmState, check_transition
from actors.messages import HandOutTimings, VmFact, VmGone, VmHandedOut, VmLost, VmReady
from actors.producer import Producer
from vmm.contract import RESEED_BYTES, Preparation, PreparationReport, Vm
from vmm.errors import AgentUnreachableError, StopError, VmExitedError, VmmError

_log = structlog.get_logger("vmpool.vm")

HAND_OUT_TIMEOUT_S = 15.0
"""Resume and prepare take milliseconds; a guest that needs this long is broken."""


@attrs.frozen(kw_only=True)
class HandOut:
    """The order to make the VM the caller's."""

    hostname: str


@attrs.define(eq=False, kw_only=True)
class VmActor:
    """Runs one VM. `report` receives its facts; it must not block and must not raise.

    `run` never raises an Exception: whatever goes wrong with this VM ends as a fact.
    """

    vm_id: str
    producer: Producer
    report: Callable[[VmFact], None]
    clock_ns: Callable[[], int] = time.time_ns
    entropy: Callable[[int], bytes] = os.urandom
    _state: VmState = VmState.PRODUCING
    _vm: Vm | None = None
    _unverified: BaseExceptionGroup[StopError] | None = attrs.field(default=None, repr=False)
    """Production failed and could not take back what it had started."""
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    _orders: trio.MemorySendChannel[HandOut] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[HandOut] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # At most one hand-out in a VM's life, so at most one order is ever sent; the bound is there to notice a bug.
        self._orders, self._inbox = trio.open_memory_channel[HandOut](1)

    @property
    def state(self) -> VmState:
        return self._state

    @property
    def vm(self) -> Vm:
        """The VM, once there is one. Raises VmExitedError before and after."""
        if self._vm is None:
            raise VmExitedError(vm_id=self.vm_id, reason="it is not running")
        return self._vm

    def hand_out(self, order: HandOut) -> None:
        """Orders the hand-out; the answer is a VmHandedOut or VmLost fact.

        Nothing happens when the VM is ending: its facts are on their way.
        """
        self._orders.send_nowait(order)

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
            ordered_at = trio.current_time()
            self._vm = vm = await self.producer.produce(vm_id=self.vm_id, nursery=nursery)
            self._to(VmState.READY)
            nursery.start_soon(self._watch, vm)
            self.report(VmReady(vm_id=self.vm_id, pid=vm.pid, production_s=trio.current_time() - ordered_at))

            order = await self._inbox.receive()
            self._to(VmState.HANDING_OUT)
            report, timings = await self._hand_out(vm, order)
            self._to(VmState.LEASED)
            self.report(VmHandedOut(vm_id=self.vm_id, report=report, timings=timings))

            await trio.sleep_forever()
        except* VmmError as errors:
            self._unverified = errors.subgroup(StopError)
            self._lost(errors)

    async def _hand_out(self, vm: Vm, order: HandOut) -> tuple[PreparationReport, HandOutTimings]:
        """Resumes and prepares in parallel: the request waits in the channel when the first vCPU runs."""
        began = trio.current_time()
        resumed_at = answered_at = math.nan

        async def resume() -> None:
            nonlocal resumed_at
            await vm.resume()
            resumed_at = trio.current_time()

        try:
            with trio.fail_after(HAND_OUT_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(resume)
                    report = await vm.agent.prepare(
                        Preparation(
                            entropy=self.entropy(RESEED_BYTES), wall_clock_ns=self.clock_ns(), hostname=order.hostname
                        )
                    )
                    answered_at = trio.current_time()
        except trio.TooSlowError as error:
            raise AgentUnreachableError(f"hand-out not done within {HAND_OUT_TIMEOUT_S:g} s") from error
        return report, HandOutTimings(
            resume_s=resumed_at - began, prepare_s=answered_at - began, total_s=trio.current_time() - began
        )

    async def _watch(self, vm: Vm) -> None:
        """Notices the death of the process at once, whatever the story is waiting for."""
        exit_report = await vm.wait_exited()
        if self._state not in (VmState.STOPPING, VmState.GONE):
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
        vm, self._vm = self._vm, None
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
