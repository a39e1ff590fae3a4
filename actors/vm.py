"""One actor per VM: its life from birth to the end of its lease."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from actors.adoption import ADOPT_TIMEOUT_S, Adoption, hold, reach
from actors.errors import describe, evidence
from actors.handout import UNPREPARED, HandOutProcedure, WishRefusedError
from actors.journal import HomeGoneError, Journal, JournalError
from actors.parking import CHECK_TIMEOUT_S, check
from actors.producer import BaseVm, BaseVmMaker, ShellProducer
from actors.record import LeaseRecord, VmRecord, expiry_ns
from actors.turns import Restraint
from actors.vigil import Vigil
from vmm.contract import Shell, Survivor, Vm
from vmm.errors import AgentUnreachableError, StopError, VmExitedError, VmmError
from vmm.words.facts import (
    HandOutTimings,
    LeaseAdopted,
    ShellReady,
    VmFact,
    VmGone,
    VmHandedOut,
    VmHealthy,
    VmLost,
    VmReady,
    VmSilent,
    WishRefused,
)
from vmm.words.leases import CheckOrder, HandOutOrder, LeaseTerms
from vmm.words.life import VmState, check_transition

_log = structlog.get_logger("vmpool.vm")


@attrs.define(eq=False, kw_only=True)
class VmActor:
    """Runs one VM. `report` receives its facts; it must not block and must not raise.

    `run` never raises an Exception: whatever goes wrong with this VM ends as a fact.

    The VM's record is on disk if and only if a later run of the service may adopt the VM: while it is READY or LEASED,
    and from before that is reported. A VM that is given away has none: a mark says that it is not ours to end. Nor has
    one whose directory somebody removed, once it is handed out or renewed after that.
    """

    vm_id: str
    profile: str
    producer: BaseVmMaker
    report: Callable[[VmFact], None]
    journal: Journal
    procedure: HandOutProcedure = attrs.field(factory=HandOutProcedure)
    vigil: Vigil = attrs.field(factory=Vigil)
    shells: ShellProducer | None = None
    """Begin as a shell of this producer, and wait for `fill`."""
    adoption: Adoption | None = None
    """Begin as a VM that an earlier run of the service made; a base VM then waits for `reach`."""
    restraint: Restraint = attrs.field(factory=Restraint)
    _state: VmState = attrs.field(init=False)
    _shell: Shell | None = None
    _survivor: Survivor | None = None
    _vm: Vm | None = None
    _record: VmRecord | None = attrs.field(init=False, repr=False)
    """What is on disk."""
    _unrecorded: bool = False
    """It is leased, and there is no place to record that."""
    _letting_go: bool = False
    _offered: bool = False
    """The mark is on disk."""
    _disowned: bool = False
    """It is its taker's."""
    _unverified: BaseExceptionGroup[StopError] | None = attrs.field(default=None, repr=False)
    """Production failed and could not take back what it had started."""
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    _reached: trio.Event = attrs.field(factory=trio.Event, repr=False)
    """The agent of an adopted VM has answered."""
    _turn: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _fill: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _orders: trio.MemorySendChannel[HandOutOrder | CheckOrder] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[HandOutOrder | CheckOrder] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._state = VmState.PRODUCING if self.adoption is None else VmState.ADOPTING
        self._record = None if self.adoption is None else self.adoption.record
        # One check at a time, and after it at most the one hand-out in a VM's life; the bound is there to notice a bug.
        self._orders, self._inbox = trio.open_memory_channel[HandOutOrder | CheckOrder](2)

    @property
    def state(self) -> VmState:
        return self._state

    @property
    def vm(self) -> Vm:
        """The VM, once there is one. Raises VmExitedError before and after; AgentUnreachableError if it was adopted
        with its lease and its agent has not answered since.
        """
        if self._vm is not None:
            return self._vm
        if self._state is VmState.LEASED:
            raise AgentUnreachableError(
                f"{self.vm_id}: its guest has not answered since the service was started anew; it is asked again until "
                "it does, or release the lease"
            )
        raise VmExitedError(vm_id=self.vm_id, reason="it is not running")

    async def wait_reached(self) -> Vm:
        """`vm`, waiting for the agent of a VM that was adopted with its lease. For as long as it takes."""
        if self.adoption is not None and self._state is VmState.LEASED:
            self.restraint.reaching.hurry(self.vm_id)
            await self._reached.wait()
        return self.vm

    def reach(self) -> None:
        """Orders that the base VM is adopted now; the answer is a VmReady or VmLost fact."""
        self._turn.set()

    def fill(self) -> None:
        """Orders the shell to become a VM; the answer is a VmReady or VmLost fact."""
        self._fill.set()

    def hand_out(self, order: HandOutOrder) -> None:
        """Orders the hand-out; the answer is a VmHandedOut, WishRefused or VmLost fact.

        Nothing happens when the VM is ending: its facts are on their way.
        """
        self._orders.send_nowait(order)

    def check(self) -> None:
        """Asks the agent of the idle VM whether it is there; the answer is a VmHealthy or VmLost fact.

        No answer comes if the VM is handed out or ended before it was asked.
        """
        self._orders.send_nowait(CheckOrder())

    def renew(self, expires_in_s: float) -> bool:
        """Records that the lease lives for so long from now on. Whether that was done.

        If not, because it is not leased any more or the disk is full, what is recorded still holds: a later run of the
        service would end the lease when it was to end before. A VM whose directory is gone is adopted by none, so that
        there is nothing to record, and nothing against it.
        """
        record = self._record
        # A lease that is adopted is one before its VM is found; its owner may be quicker than that.
        leased = self._state in (VmState.ADOPTING, VmState.LEASED)
        if leased and self._unrecorded:
            return True
        if not leased or record is None or record.lease is None:
            return False
        expires_at_ns = expiry_ns(now_ns=self.journal.now_ns(), expires_in_s=expires_in_s)
        try:
            self._write_leased(attrs.evolve(record, lease=attrs.evolve(record.lease, expires_at_ns=expires_at_ns)))
        except JournalError as error:
            _log.warning("renewal not recorded", vm=self.vm_id, error=str(error))
            return False
        return True

    def stop(self, reason: str) -> None:
        """Orders the end, whatever the VM is doing; the answer is the VmGone fact.

        When this returns the record is gone: the VM is not adopted again, even if the service is killed now. Should the
        disk refuse, that is logged, and the VM's death has to do.
        """
        self._erase()
        self._life.cancel(reason=reason)

    def detach(self, reason: str) -> None:
        """Lets go of the VM, for a later run of the service to adopt; one that may not be adopted is stopped.

        The answer is the VmGone fact, which says which of the two it was.
        """
        self._letting_go = True
        self._life.cancel(reason=reason)

    def disown(self) -> None:
        """The VM, which was handed out bare, is its taker's: from here on no order ends it, only our part in it.

        What it leaves when it has ended by itself is cleared away if the service lives to see it. Nothing happens if
        the VM has ended, or was ordered to.
        """
        self._disowned = self._offered

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
                    vm = self._vm if self._disowned else None
                    gone = await self._end()
                    nursery.cancel_scope.cancel(reason="the VM is gone")
        except Exception as error:  # noqa: BLE001 - only a bug gets here; it must cost no more than this VM
            _log.exception("VM actor failed", vm=self.vm_id)
            self.report(VmLost(vm_id=self.vm_id, reason=f"internal error: {describe(error)}"))
        finally:
            self._to(VmState.GONE)
            self.report(gone)
            if vm is not None:
                await self._clear_up_after(vm)

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
                if self._state is VmState.LEASED and not self._offered:
                    assert self._vm is not None
                    await self.vigil.keep(self._vm, turns=self.restraint.reaching, tell=self._tell_silence)
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
        # From here to the report nothing may come between: not an order to stop, which erases what is written here.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._write(self._new_record(base))
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
        """From what an earlier run left behind to what it was: a base VM, or a leased one."""
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
        """Answers checks until it is to be handed out. A VM that is being checked is as good as idle after a crash."""
        while True:
            order = await self._inbox.receive()
            await trio.lowlevel.checkpoint_if_cancelled()  # it may have died since the order came
            if isinstance(order, HandOutOrder):
                return order
            assert self._vm is not None
            # The agent of an adopted VM has to be connected to.
            known = self.adoption is None or self._reached.is_set()
            await check(self._vm, limit_s=CHECK_TIMEOUT_S if known else ADOPT_TIMEOUT_S)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._reached.set()
            self.report(VmHealthy(vm_id=self.vm_id))

    async def _leave_the_pool(self) -> None:
        """What was ordered, files for the guest among it, is kept no longer than this takes: the lease may last."""
        order = await self._idle()
        await (self._offer() if order.terms.request.bare else self._hand_out(order.terms))

    async def _hand_out(self, terms: LeaseTerms) -> None:
        """From a base VM to a leased one; it is nobody's in between, and would be nobody's after a crash."""
        self._to(VmState.HANDING_OUT)
        record, vm = self._record, self._vm
        assert record is not None
        assert vm is not None
        self.journal.erase(self.vm_id)
        self._record = None
        try:
            report, timings = await self.procedure.run(vm, terms.request.wishes)
        except WishRefusedError as error:
            reason = describe(error)
            _log.info("a caller's wish was refused", vm=self.vm_id, error=reason)
            self.report(WishRefused(vm_id=self.vm_id, field=error.field, reason=error.reason, obstacle=error.obstacle))
            return  # its end is ordered, as that of every VM that is nobody's
        await trio.lowlevel.checkpoint_if_cancelled()
        self._reached.set()
        lease = LeaseRecord.grant(
            terms,
            now_ns=self.journal.now_ns(),
            report=report,
            timings=timings,
        )
        self._write_leased(attrs.evolve(record, lease=lease))
        self._to(VmState.LEASED)
        self.report(VmHandedOut(vm_id=self.vm_id, report=report, timings=timings))

    async def _offer(self) -> None:
        """From a base VM to one that its taker can connect to, and that no run of the service ends by itself."""
        self._to(VmState.HANDING_OUT)
        vm, began = self._vm, trio.current_time()
        assert vm is not None
        self.journal.erase(self.vm_id)
        self._record = None
        await vm.disconnect()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._offered = True
        self.journal.offer(self.vm_id)
        self._to(VmState.LEASED)
        timings = HandOutTimings(resume_s=0.0, prepare_s=0.0, total_s=trio.current_time() - began)
        self.report(VmHandedOut(vm_id=self.vm_id, report=UNPREPARED, timings=timings))

    async def _clear_up_after(self, vm: Vm) -> None:
        """A VM that is somebody else's ends some day; then its directory goes, and its process is reaped."""
        try:
            await vm.wait_exited()
            await vm.stop()
        except Exception as error:  # noqa: BLE001 - what is left costs a directory, until the next start
            _log.warning("a VM that was given away left something", vm=self.vm_id, error=describe(error))
        except BaseException:
            await vm.detach()
            raise

    async def _watch(self, vm: Vm | Shell | Survivor) -> None:
        """Notices the death of the process at once, whatever the story is waiting for."""
        exit_report = await vm.wait_exited()
        # A production notices by itself, and knows why: it ends what it cannot finish.
        if self._state not in (VmState.PRODUCING, VmState.STOPPING, VmState.GONE):
            error = VmExitedError(vm_id=self.vm_id, reason=str(exit_report))
            if exit_report.console_tail:
                error.add_note(f"end of guest console:\n{exit_report.console_tail}")
            self._lost(error)
            self._life.cancel(reason="QEMU exited")

    def _tell_silence(self, detail: str) -> None:
        if detail:
            _log.warning("VM silent", vm=self.vm_id, detail=detail)
        else:
            _log.info("VM answers again", vm=self.vm_id)
        self.report(VmSilent(vm_id=self.vm_id, detail=detail))

    def _watch_protocols(self, vm: Vm, watchers: trio.Nursery) -> None:
        """A VM whose guest or QEMU broke its protocol is lost, though it runs: it cannot be asked for anything more."""
        for wait_broken in (vm.agent.wait_broken, vm.wait_broken):
            watchers.start_soon(self._watch_protocol, wait_broken)

    async def _watch_protocol(self, wait_broken: Callable[[], Awaitable[VmmError]]) -> None:
        self._lost(await wait_broken())
        self._life.cancel(reason="its guest or its QEMU broke a protocol")

    def _lost(self, error: BaseException) -> None:
        if self._state is VmState.STOPPING:
            return  # already told; this is the same end seen from elsewhere
        was = self._state
        self._to(VmState.STOPPING)
        self._erase()
        reason, found = describe(error), evidence(error)
        # What is the pool's failure stands in its status, with the evidence; what befell a lease stands only here.
        of_lease = {"evidence": found} if was is VmState.LEASED and found else {}
        _log.warning("VM lost", vm=self.vm_id, was=was.value, error=reason, **of_lease)
        self.report(VmLost(vm_id=self.vm_id, reason=reason, evidence=found))

    async def _end(self) -> VmGone:
        vm, shell = self._vm or self._survivor, self._shell
        self._vm = self._survivor = self._shell = None
        if self._disowned:
            return VmGone(vm_id=self.vm_id, let_go=True)
        if vm is not None and self._record is not None and self._letting_go:
            await vm.detach()
            return VmGone(vm_id=self.vm_id, let_go=True)
        self._erase()
        if self._state is not VmState.STOPPING:
            self._to(VmState.STOPPING)
        mortal = vm or shell
        if mortal is None:
            return VmGone(vm_id=self.vm_id, error=describe(self._unverified) if self._unverified else None)
        try:
            with trio.CancelScope(shield=True):
                async with self.restraint.ending.turn(self.vm_id):
                    await mortal.stop()
        except Exception as error:  # noqa: BLE001 - StopError or a bug; either way nobody has seen the end
            _log.exception("VM could not be ended", vm=self.vm_id)
            return VmGone(vm_id=self.vm_id, error=describe(error))
        return VmGone(vm_id=self.vm_id)

    def _new_record(self, base: BaseVm) -> VmRecord:
        return VmRecord(
            vm_id=self.vm_id,
            profile=self.profile,
            generation=base.generation,
            made_by=base.made_by,
            backend=self.journal.backend,
            process=base.vm.identity,
            boot_id=self.journal.boot_id,
            made_at_ns=self.journal.now_ns(),
            lease=None,
        )

    def _write(self, record: VmRecord) -> None:
        # In this order: a write that fails may have got through.
        self._record = record
        self.journal.write(record)

    def _write_leased(self, record: VmRecord) -> None:
        """`_write`, but a VM that runs is not to be lost because somebody removed its directory."""
        try:
            self._write(record)
        except HomeGoneError as error:
            self._record = None
            self._unrecorded = True
            _log.warning("leased without a record; no later run adopts it", vm=self.vm_id, error=str(error))

    def _erase(self) -> None:
        """Never raises: the VM is ending, and when its process is dead nobody can adopt it, whatever is on disk."""
        self._unrecorded = False
        if self._record is not None:
            try:
                self.journal.erase(self.vm_id)
            except JournalError as error:
                _log.warning("record not erased", vm=self.vm_id, error=str(error))
            else:
                self._record = None
        if self._offered and not self._disowned:
            try:
                self.journal.withdraw(self.vm_id)
            except JournalError as error:
                _log.warning("mark not removed", vm=self.vm_id, error=str(error))
            else:
                self._offered = False

    def _to(self, target: VmState) -> None:
        check_transition(vm_id=self.vm_id, state=self._state, target=target)
        self._state = target
