"""One actor per VM: its life from birth to the end of its lease."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from actors.adoption import ADOPT_TIMEOUT_S, Adoption, hold, reach
from actors.errors import cause_of, describe, evidence
from actors.handout import UNPREPARED, WishRefusedError
from actors.journal import JournalError
from actors.orders import VmOrders
from actors.parking import CHECK_TIMEOUT_S, check
from actors.record import LeaseRecord
from actors.watches import clear_up_after, protocols, wait_dead
from vmm.contract import Shell, Survivor, Vm
from vmm.errors import StopError, VmmError
from vmm.words.facts import (
    HandOutTimings,
    LeaseAdopted,
    ShellReady,
    VmGone,
    VmHandedOut,
    VmHealthy,
    VmLost,
    VmReady,
    VmSilent,
    WishRefused,
)
from vmm.words.leases import HandOutOrder, LeaseTerms
from vmm.words.life import VmState, check_transition

_log = structlog.get_logger("vmpool.vm")


@attrs.define(eq=False, kw_only=True)
class VmActor(VmOrders):
    """Runs one VM: `run` never raises an Exception; every failure of this VM ends as a fact.

    `actors.keeping` keeps its record on disk.
    """

    async def run(self) -> None:
        """The VM's life story."""
        gone = VmGone(vm_id=self.vm_id)
        vm: Vm | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with self._life:
                        await self._live(nursery)
                finally:
                    vm = self._vm if self._keeping.disowned else None
                    gone = await self._end()
                    nursery.cancel_scope.cancel(reason="the VM is gone")
        except Exception as error:  # noqa: BLE001 - only a bug gets here; it must cost no more than this VM
            _log.exception("VM actor failed", vm=self.vm_id)
            self.report(VmLost(vm_id=self.vm_id, reason=f"internal error: {describe(error)}"))
        finally:
            self._to(VmState.GONE)
            self.report(gone)
            if vm is not None:
                await clear_up_after(vm)

    async def _live(self, nursery: trio.Nursery) -> None:
        """`nursery` is for the VM's connections, which are still needed to end it; its watchers end with its life."""
        try:
            async with trio.open_nursery() as watchers:
                if self.adoption is None:
                    await self._produce(nursery, watchers)
                else:
                    await self._adopt(self.adoption, nursery, watchers)
                if self._state is VmState.READY:
                    await self._leave_the_pool()
                if self._state is VmState.LEASED and not self._keeping.offered:
                    assert self._vm is not None
                    await self.vigil.keep(
                        self._vm, turns=self.restraint.reaching, host_clock=self.host_clock, tell=self._tell_silence
                    )
                await trio.sleep_forever()
        except* (VmmError, JournalError) as errors:
            self._unverified = errors.subgroup(StopError)
            self._lost(errors)

    async def _produce(self, nursery: trio.Nursery, watchers: trio.Nursery) -> None:
        """From nothing, or by way of a shell, to a base VM."""
        ordered_at = trio.current_time()
        if self.shells is None:
            base = await self.producer.produce(vm_id=self.vm_id, nursery=nursery)
        else:
            self._shell = shell = await self.shells.start_shell(vm_id=self.vm_id, nursery=nursery)
            self._to(VmState.SHELL)
            watchers.start_soon(self._watch, shell)
            self.report(ShellReady(vm_id=self.vm_id, pid=shell.pid, generation=shell.generation))
            await self._fill.wait()
            ordered_at = trio.current_time()
            self._to(VmState.PRODUCING)
            base = await self.shells.fill_shell(shell, nursery=nursery)
        self._vm = base.vm
        # No checkpoint from here to the report: an order to stop in between would erase the record written here.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._keeping.write_base(base, profile=self.profile)
        self._to(VmState.READY)
        watchers.start_soon(self._watch, base.vm)
        self._watch_protocols(base.vm, watchers)
        self.report(
            VmReady(
                vm_id=self.vm_id,
                pid=base.vm.pid,
                production_s=trio.current_time() - ordered_at,
                generation=base.generation,
                made_by=base.made_by,
            )
        )

    async def _adopt(self, adoption: Adoption, nursery: trio.Nursery, watchers: trio.Nursery) -> None:
        """From a survivor of an earlier run to a base VM or a leased one, as it was."""
        record = adoption.record
        directory = self.journal.directory / self.vm_id
        self._survivor = survivor = await adoption.adopt(record.process, vm_id=self.vm_id, directory=directory)
        watchers.start_soon(self._watch, survivor)
        if record.lease is None:
            await self._turn.wait()
            began = trio.current_time()
            self._vm = vm = await hold(survivor, nursery=nursery)
            self._watch_protocols(vm, watchers)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._to(VmState.READY)
            self.report(
                VmReady(
                    vm_id=self.vm_id,
                    pid=vm.pid,
                    production_s=trio.current_time() - began,
                    generation=record.generation,
                    made_by=record.made_by,
                    adopted=True,
                )
            )
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._to(VmState.LEASED)
            self.report(LeaseAdopted(vm_id=self.vm_id, pid=survivor.pid))
            self._vm = await reach(survivor, turns=self.restraint.reaching, nursery=nursery)
            self._reached.set()
            self._watch_protocols(self._vm, watchers)

    async def _idle(self) -> HandOutOrder:
        """Answers checks until the order to hand out. After a crash, a VM that was being checked counts as idle."""
        while True:
            order = await self._inbox.receive()
            await trio.lowlevel.checkpoint_if_cancelled()  # the VM may have died since the order
            if isinstance(order, HandOutOrder):
                return order
            assert self._vm is not None
            # The agent of an adopted VM is not connected yet.
            known = self.adoption is None or self._reached.is_set()
            await check(self._vm, limit_s=CHECK_TIMEOUT_S if known else ADOPT_TIMEOUT_S)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._reached.set()
            self.report(VmHealthy(vm_id=self.vm_id))

    async def _leave_the_pool(self) -> None:
        """The order, which may hold files for the guest, is kept no longer than this takes: the lease may last."""
        order = await self._idle()
        await (self._offer() if order.terms.request.bare else self._hand_out(order.terms))

    async def _hand_out(self, terms: LeaseTerms) -> None:
        """From a base VM to a leased one; in between it has no owner and no record."""
        self._to(VmState.HANDING_OUT)
        vm, record = self._vm, self._keeping.withdraw()
        assert vm is not None
        try:
            report, timings = await self.procedure.run(vm, terms.request.wishes)
        except WishRefusedError as error:
            reason = describe(error)
            _log.info("a caller's wish was refused", vm=self.vm_id, error=reason)
            self.report(WishRefused(vm_id=self.vm_id, field=error.field, reason=error.reason, obstacle=error.obstacle))
            return  # the pool orders its end, as for every VM without an owner
        await trio.lowlevel.checkpoint_if_cancelled()
        self._reached.set()
        lease = LeaseRecord.grant(
            terms,
            now_ns=self.journal.now_ns(),
            report=report,
            timings=timings,
        )
        self._keeping.write_leased(record, lease)
        self._to(VmState.LEASED)
        self.report(VmHandedOut(vm_id=self.vm_id, report=report, timings=timings))

    async def _offer(self) -> None:
        """From a base VM to one that its taker can connect to, and that no run of the service ends unasked."""
        self._to(VmState.HANDING_OUT)
        vm, began = self._vm, trio.current_time()
        assert vm is not None
        self._keeping.withdraw()
        await vm.disconnect()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._keeping.offer()
        self._to(VmState.LEASED)
        timings = HandOutTimings(resume_s=0.0, prepare_s=0.0, total_s=trio.current_time() - began)
        self.report(VmHandedOut(vm_id=self.vm_id, report=UNPREPARED, timings=timings))

    async def _watch(self, vm: Vm | Shell | Survivor) -> None:
        error = await wait_dead(vm)
        # A production notices the death itself, and knows the reason.
        if self._state not in (VmState.PRODUCING, VmState.STOPPING, VmState.GONE):
            self._lost(error)
            self._life.cancel(reason="QEMU exited")

    def _watch_protocols(self, vm: Vm, watchers: trio.Nursery) -> None:
        for wait_broken in protocols(vm):
            watchers.start_soon(self._watch_protocol, wait_broken)

    async def _watch_protocol(self, wait_broken: Callable[[], Awaitable[VmmError]]) -> None:
        self._lost(await wait_broken())
        self._life.cancel(reason="its guest or its QEMU broke a protocol")

    def _tell_silence(self, detail: str) -> None:
        if detail:
            _log.warning("VM silent", vm=self.vm_id, detail=detail)
        else:
            _log.info("VM answers again", vm=self.vm_id)
        self.report(VmSilent(vm_id=self.vm_id, detail=detail))

    def _lost(self, error: BaseException) -> None:
        if self._state is VmState.STOPPING:
            return  # already reported; this is a consequence of the same loss
        was = self._state
        self._to(VmState.STOPPING)
        self._keeping.erase()
        reason, found = describe(error), evidence(error)
        # The pool's status has the evidence of its own failures; that of a lost lease is only here.
        of_lease = {"evidence": found} if was is VmState.LEASED and found else {}
        _log.warning("VM lost", vm=self.vm_id, was=was.value, error=reason, **of_lease)
        self.report(VmLost(vm_id=self.vm_id, reason=reason, cause=cause_of(error), evidence=found))

    async def _end(self) -> VmGone:
        vm, shell = self._vm or self._survivor, self._shell
        self._vm = self._survivor = self._shell = None
        if self._keeping.disowned:
            return VmGone(vm_id=self.vm_id, let_go=True)
        if vm is not None and self._keeping.record is not None and self._letting_go:
            await vm.detach()
            return VmGone(vm_id=self.vm_id, let_go=True)
        self._keeping.erase()
        if self._state is not VmState.STOPPING:
            self._to(VmState.STOPPING)
        mortal = vm or shell
        if mortal is None:
            return VmGone(vm_id=self.vm_id, error=describe(self._unverified) if self._unverified else None)
        try:
            with trio.CancelScope(shield=True):
                async with self.restraint.ending.turn(self.vm_id):
                    await mortal.stop()
        except Exception as error:  # noqa: BLE001 - StopError or a bug; either way the process may still run
            _log.exception("VM could not be ended", vm=self.vm_id)
            return VmGone(vm_id=self.vm_id, error=describe(error))
        return VmGone(vm_id=self.vm_id)

    def _to(self, target: VmState) -> None:
        check_transition(vm_id=self.vm_id, state=self._state, target=target)
        self._state = target
