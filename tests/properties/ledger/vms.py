"""The VMs around a ledger, each living as its actor would: what they are told to do, and what they report."""

from __future__ import annotations

from collections import deque

import attrs

from pool.ledger.book import Ledger
from pool.ledger.effects import AdoptVm, CheckVm, DetachVm, Effect, FillShell, HandOutVm, ReachVm, StartVm, StopVm
from pool.ledger.events import Event
from tests.properties.ledger.conduct import Record, SeenVm
from tests.properties.ledger.invariants import FAULT_OF_A_LEASE
from vmm.words.facts import (
    HandOutTimings,
    LeaseAdopted,
    LossCause,
    Obstacle,
    ShellReady,
    VmGone,
    VmHandedOut,
    VmHealthy,
    VmLost,
    VmReady,
    VmSilent,
    WishRefused,
)
from vmm.words.life import VmState
from vmm.words.preparation import PreparationReport

REPORT = PreparationReport(reseeded=True, wall_clock_ns=1, hostname="guest", cpus_online=1, memory_mib=256)
TIMINGS = HandOutTimings(resume_s=0.001, prepare_s=0.002, total_s=0.003)


@attrs.define(eq=False)
class Vms:
    """What they report waits in the inbox, so that orders and facts cross."""

    ledger: Ledger = attrs.field(init=False)
    record: Record = attrs.field(init=False)
    inbox: deque[Event] = attrs.field(factory=deque, init=False)
    living: dict[str, VmState] = attrs.field(factory=dict, init=False)
    """VM id to what its actor knows: STOPPING is one that died or was told to stop."""
    shells: set[str] = attrs.field(factory=set, init=False)
    """VMs that began as shells and have not been filled."""
    makes: dict[str, str] = attrs.field(factory=dict, init=False)
    """Profile to the generation that its producer makes now."""
    made_of: dict[str, str] = attrs.field(factory=dict, init=False)
    """VM id to the generation that its production, or its shell, began with."""
    unreached: set[str] = attrs.field(factory=set, init=False)
    """Idle VMs of an earlier run whose turn has not come."""
    missed: set[str] = attrs.field(factory=set, init=False)
    """Leased VMs of an earlier run that have not been found."""
    checking: set[str] = attrs.field(factory=set, init=False)
    """Ready VMs that were asked whether they are there, and have not answered."""
    detached: set[str] = attrs.field(factory=set, init=False)
    """VMs that live on without the service."""
    refused: set[str] = attrs.field(factory=set, init=False)
    """VMs that are being handed out and that refused what their caller wishes."""
    disowned: set[str] = attrs.field(factory=set, init=False)
    """VMs that are their takers', whatever the ledger orders."""

    def in_state(self, *states: VmState) -> list[str]:
        return [vm_id for vm_id, state in self.living.items() if state in states]

    def progress(self, vm_id: str) -> None:
        """The VM does what it was ordered to, and says so: becomes ready, is handed out, is gone."""
        match self.living[vm_id]:
            case VmState.PRODUCING if vm_id in self.shells:
                self.living[vm_id] = VmState.SHELL
                self.inbox.append(ShellReady(vm_id=vm_id, pid=1, generation=self.made_of[vm_id]))
            case VmState.PRODUCING | VmState.ADOPTING as was:
                self.living[vm_id] = VmState.READY
                self.inbox.append(
                    VmReady(
                        vm_id=vm_id,
                        pid=1,
                        production_s=0.1,
                        generation=self.made_of[vm_id],
                        adopted=was is VmState.ADOPTING,
                    )
                )
            case VmState.HANDING_OUT:
                self.living[vm_id] = VmState.LEASED
                self.inbox.append(VmHandedOut(vm_id=vm_id, report=REPORT, timings=TIMINGS))
            case VmState.STOPPING:
                del self.living[vm_id]
                self.checking.discard(vm_id)
                self.inbox.append(VmGone(vm_id=vm_id))
            case VmState.LEASED if vm_id in self.missed:
                self.missed.remove(vm_id)
                self.inbox.append(LeaseAdopted(vm_id=vm_id, pid=1))
            case VmState.READY if vm_id in self.checking:
                self.checking.remove(vm_id)
                self.inbox.append(VmHealthy(vm_id=vm_id))
            case _:
                raise AssertionError(f"{vm_id} has nothing to do")

    def die(self, vm_id: str, *, cause: LossCause = LossCause.DEAD, said: str = "fault") -> None:
        """Production fails, the process dies, the hand-out fails or it does not answer; its files are still there."""
        self.checking.discard(vm_id)
        self.missed.discard(vm_id)
        self.unreached.discard(vm_id)
        reason = FAULT_OF_A_LEASE if self.living[vm_id] is VmState.LEASED else said
        self.living[vm_id] = VmState.STOPPING
        self.inbox.append(VmLost(vm_id=vm_id, reason=reason, cause=cause, evidence=reason))

    def fall_silent(self, vm_id: str, *, detail: str = "its guest does not answer") -> None:
        """The guest of a leased VM does not answer for a while, or does again."""
        self.inbox.append(VmSilent(vm_id=vm_id, detail=detail))

    def refuse_wish(self, vm_id: str, *, obstacle: Obstacle = Obstacle.REQUEST) -> None:
        """The guest does not do what its caller wishes; its actor waits for the order to end it."""
        self.refused.add(vm_id)
        self.inbox.append(WishRefused(vm_id=vm_id, field="files[0].path", reason="ENOENT", obstacle=obstacle))

    def vanish(self, vm_id: str, *, error: str | None = None) -> None:
        """The VM ends without having said why: nobody but a bug does that, and it must not cost the pool."""
        self.checking.discard(vm_id)
        self.missed.discard(vm_id)
        self.unreached.discard(vm_id)
        del self.living[vm_id]
        self.inbox.append(VmGone(vm_id=vm_id, error=error))

    def busy(self) -> list[str]:
        """VMs that have something to do."""
        at_work = self.in_state(VmState.PRODUCING, VmState.ADOPTING, VmState.HANDING_OUT, VmState.STOPPING)
        waiting = {vm_id for vm_id in self.refused if self.living.get(vm_id) is VmState.HANDING_OUT}
        at_work = [vm_id for vm_id in at_work if vm_id not in self.unreached | waiting]
        return [*at_work, *sorted(self.checking), *sorted(self.missed)]

    def order(self, effect: Effect) -> None:
        """What a VM is told to do, and does, unless it has died meanwhile."""
        match effect:
            case StartVm(vm_id=vm_id, profile=profile, as_shell=as_shell):
                self.record.vms[vm_id] = SeenVm(profile=profile)
                self.living[vm_id] = VmState.PRODUCING
                self.made_of[vm_id] = self.makes.get(profile, "")
                if as_shell:
                    self.shells.add(vm_id)
            case AdoptVm(vm_id=vm_id, profile=profile):
                self._adopt(vm_id, profile)
            case ReachVm(vm_id=vm_id):
                self.record.vms[vm_id].reaches_ordered += 1
                self.unreached.discard(vm_id)
            case FillShell(vm_id=vm_id):
                self.record.vms[vm_id].fill_ordered = True
                if self.living.get(vm_id) is VmState.SHELL:
                    self.living[vm_id] = VmState.PRODUCING
                    self.shells.discard(vm_id)
            case CheckVm(vm_id=vm_id):
                self.record.vms[vm_id].checks_ordered += 1
                if self.living.get(vm_id) is VmState.READY:
                    self.checking.add(vm_id)
            case HandOutVm(vm_id=vm_id, order=order):
                self.record.vms[vm_id].hand_out_ordered = True
                self.record.vms[vm_id].bare = order.terms.request.bare
                self.checking.discard(vm_id)
                if self.living.get(vm_id) is VmState.READY:
                    self.living[vm_id] = VmState.HANDING_OUT
            case StopVm(vm_id=vm_id) | DetachVm(vm_id=vm_id):
                self.record.vms[vm_id].stop_ordered = True
                self.checking.discard(vm_id)
                self.missed.discard(vm_id)
                self.unreached.discard(vm_id)
                if vm_id in self.living:
                    self.living[vm_id] = VmState.STOPPING
                    if isinstance(effect, DetachVm):
                        self.detached.add(vm_id)

    def _adopt(self, vm_id: str, profile: str) -> None:
        leased = vm_id in {lease.vm_id for lease in self.ledger.leases()}
        seen = SeenVm(profile=profile, adopted=True)
        seen.told_handed_out = seen.hand_out_ordered = seen.told_ready = leased
        self.record.vms[vm_id] = seen
        self.living[vm_id] = VmState.LEASED if leased else VmState.ADOPTING
        (self.missed if leased else self.unreached).add(vm_id)
        self.made_of[vm_id] = self.makes.get(profile, "")
