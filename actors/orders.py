"""The orders to a VM's actor; they return at once, and their results are reported as facts."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from actors.adoption import Adoption
from actors.clock import HostClock
from actors.handout import HandOutProcedure
from actors.journal import Journal
from actors.keeping import RecordKeeping
from actors.producer import BaseVmMaker, ShellProducer
from actors.turns import Restraint
from actors.vigil import Vigil
from vmm.contract import Shell, Survivor, Vm
from vmm.errors import AgentUnreachableError, StopError, VmExitedError
from vmm.words.facts import VmFact
from vmm.words.leases import CheckOrder, HandOutOrder
from vmm.words.life import VmState


@attrs.define(eq=False, kw_only=True)
class VmOrders:
    """The public interface of a VM's actor. `report` receives its facts; it must not block and must not raise."""

    vm_id: str
    profile: str
    producer: BaseVmMaker
    report: Callable[[VmFact], None]
    journal: Journal
    procedure: HandOutProcedure = attrs.field(factory=HandOutProcedure)
    vigil: Vigil = attrs.field(factory=Vigil)
    host_clock: HostClock = attrs.field(factory=HostClock)
    """A leased guest's clock is held against it."""
    shells: ShellProducer | None = None
    """Begin as a shell of this producer, and wait for `fill`."""
    adoption: Adoption | None = None
    """Begin as a VM that an earlier run of the service made; a base VM then waits for `reach`."""
    restraint: Restraint = attrs.field(factory=Restraint)
    _state: VmState = attrs.field(init=False)
    _shell: Shell | None = None
    _survivor: Survivor | None = None
    _vm: Vm | None = None
    _keeping: RecordKeeping = attrs.field(init=False, repr=False)
    _letting_go: bool = False
    _unverified: BaseExceptionGroup[StopError] | None = attrs.field(default=None, repr=False)
    """Production failed, and a process that it started could not be ended."""
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)
    _reached: trio.Event = attrs.field(factory=trio.Event, repr=False)
    """The agent of an adopted VM has answered."""
    _turn: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _fill: trio.Event = attrs.field(factory=trio.Event, repr=False)
    _orders: trio.MemorySendChannel[HandOutOrder | CheckOrder] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[HandOutOrder | CheckOrder] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._state = VmState.PRODUCING if self.adoption is None else VmState.ADOPTING
        record = None if self.adoption is None else self.adoption.record
        self._keeping = RecordKeeping(vm_id=self.vm_id, journal=self.journal, record=record)
        # One check at a time, and after it at most the one hand-out in a VM's life; more would be a bug.
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
                f"{self.vm_id}: its guest has not answered since the service was restarted; wait until it does, or "
                "release the lease"
            )
        raise VmExitedError(vm_id=self.vm_id, reason="it is not running")

    async def console(self, *, limit: int) -> str | None:
        """The last `limit` bytes of the guest's console; None if no VM exists, or none yet.

        Works while the guest does not answer, too.
        """
        vm = self._vm or self._survivor
        return None if vm is None else await vm.console(limit=limit)

    async def wait_reached(self) -> Vm:
        """`vm`, after waiting for the agent of a VM that was adopted with its lease, without a time limit."""
        if self.adoption is not None and self._state is VmState.LEASED:
            self.restraint.reaching.hurry(self.vm_id)
            await self._reached.wait()
        return self.vm

    def reach(self) -> None:
        """Orders the adoption of the base VM; the answer is a VmReady or VmLost fact."""
        self._turn.set()

    def fill(self) -> None:
        """Orders the shell to become a VM; the answer is a VmReady or VmLost fact."""
        self._fill.set()

    def hand_out(self, order: HandOutOrder) -> None:
        """Orders the hand-out; the answer is a VmHandedOut, WishRefused or VmLost fact.

        Does nothing while the VM is ending: its facts are on their way.
        """
        self._orders.send_nowait(order)

    def check(self) -> None:
        """Orders a check that the idle VM's agent answers; the answer is a VmHealthy or VmLost fact.

        No answer comes if the VM is handed out or ended before the check.
        """
        self._orders.send_nowait(CheckOrder())

    def renew(self, expires_in_s: float) -> bool:
        """Records the lease's new expiry. Returns whether it is recorded.

        If not, because the VM is no longer leased or the disk is full, the old record holds: a later run of the service
        would end the lease at its old expiry. For a VM whose directory is gone the result is true: no later run can
        adopt it.
        """
        # A lease is adopted before its VM is found, and its owner may renew it in between.
        return self._state in (VmState.ADOPTING, VmState.LEASED) and self._keeping.renew(expires_in_s)

    def stop(self, reason: str) -> None:
        """Orders the end, whatever the VM is doing; the answer is the VmGone fact.

        When this returns, the record is gone: the VM is not adopted again, even if the service is killed now. An error
        of the disk is logged; a record that stays is useless once the VM is dead.
        """
        self._keeping.erase()
        self._life.cancel(reason=reason)

    def detach(self, reason: str) -> None:
        """Detaches the VM for a later run of the service to adopt; a VM that may not be adopted is stopped.

        The answer is the VmGone fact, which says whether it was detached or stopped.
        """
        self._letting_go = True
        self._life.cancel(reason=reason)

    def disown(self) -> None:
        """Gives away a VM that was handed out bare: from here on an order ends only this actor, not the VM.

        When the VM has ended by itself, its directory is removed if the service still runs. Does nothing if the VM has
        ended or was ordered to.
        """
        self._keeping.disown()
