"""The one task that owns the ledger and performs its effects."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, assert_never

import attrs
import trio

from actors.adoption import Adoption
from actors.clock import HostClock
from actors.handout import HandOutProcedure
from actors.journal import Journal
from actors.producer import Producer, ShellProducer
from actors.turns import Restraint, Turns
from actors.vigil import Vigil
from actors.vm import VmActor
from pool.core.reception import OwnConfiguration, Reception
from pool.core.requests import RefusedError
from pool.core.watch import Snapshot, WatchHub
from pool.ledger.book import Ledger
from pool.ledger.effects import (
    AdoptVm,
    CheckVm,
    Confirm,
    ConfirmRenewal,
    DetachVm,
    Effect,
    FillShell,
    Grant,
    HandOutVm,
    LeaseEnded,
    ProfileClosed,
    ReachVm,
    RecordExpiry,
    Refusal,
    Refuse,
    StartVm,
    StopVm,
    Tell,
)
from pool.ledger.events import (
    AcquireRequested,
    AdoptionRequested,
    Event,
    FoundVm,
    LeaseRelinquished,
    RenewalRecorded,
    Tick,
)
from pool.ledger.news import News
from pool.ledger.policy import PoolPolicy, ServicePolicy
from pool.ledger.records import Lease, Owner
from pool.ledger.refusals import vm_not_up
from pool.ledger.views import MemoryView, ProfileView
from pool.observe.measures import Measures
from pool.settings.limits import WATCHERS_PER_USER
from vmm.contract import Vm
from vmm.words.facts import VmGone

_PLAIN: Final = HandOutProcedure()
_USUAL_VIGIL: Final = Vigil()

REACHED_AT_ONCE: Final = 4
REACH_PATIENCE_S: Final = 5.0
"""A living guest of an adopted lease answers within milliseconds."""

ENDED_AT_ONCE: Final = 16
END_PATIENCE_S: Final = 5.0
"""Ending a VM takes some 50 ms. A longer end waits for QEMU or the kernel, not for the host's CPUs."""

CONSOLE_BYTES: Final = 64 * 1024
"""Returned end of a guest's console output: some thousand lines."""

EVENTS_AT_ONCE: Final = 8
"""Pending events that are applied in one turn of the scheduler; they take a millisecond."""


def new_id(prefix: str) -> str:
    """An id that does not repeat; lease ids cannot be guessed, VM ids stay short for socket paths."""
    return f"{prefix}-{secrets.token_hex(16 if prefix == 'lease' else 6)}"


@attrs.frozen(kw_only=True)
class CoordinatorStatistics:
    open_requests: int
    inbox_peak: int
    actors: int


@attrs.define(eq=False, kw_only=True)
class Coordinator(Reception):
    """Receives events one by one, applies them to the ledger, and performs its effects. Never waits for a VM.

    If it fails, the pool's state is lost: `run` lets errors escape, and the service ends with them. VMs with a record
    live on for the next run, as after a kill.
    """

    policies: Mapping[str, PoolPolicy]
    producers: Mapping[str, Producer]
    """By profile name."""
    journal: Journal
    service: ServicePolicy = attrs.field(factory=ServicePolicy)
    watchers_per_user: int = WATCHERS_PER_USER
    found: tuple[FoundVm, ...] = ()
    """VMs that an earlier run left; each has its adoption."""
    adoptions: Mapping[str, Adoption] = attrs.field(factory=dict)
    """By VM id."""
    shell_producers: Mapping[str, ShellProducer] = attrs.field(factory=dict)
    """By profile name, for the profiles whose policy has shells."""
    procedures: Mapping[str, HandOutProcedure] = attrs.field(factory=dict)
    """By profile name; others use the default procedure."""
    vigils: Mapping[str, Vigil] = attrs.field(factory=dict)
    """Checks of leased VMs, by profile name; others use the default."""
    readers: tuple[Callable[[News], None], ...] = ()
    """Receive all news, in addition to the watchers. They must not wait or raise."""
    make_id: Callable[[str], str] = new_id
    rng: random.Random = attrs.field(factory=random.Random)
    clock_ns: Callable[[], int] = time.time_ns
    host_clock: HostClock = attrs.field(factory=HostClock)
    """Whoever runs the coordinator runs this beside it."""
    make_actor: Callable[..., VmActor] = VmActor
    _ledger: Ledger = attrs.field(init=False)
    _watchers: WatchHub = attrs.field(init=False)
    _actors: dict[str, VmActor] = attrs.field(factory=dict, init=False)
    _restraint: Restraint = attrs.field(init=False)
    _own_pages: dict[str, OwnConfiguration] = attrs.field(factory=dict, init=False)
    """By the name of their page in the ledger."""
    _lease_ends: dict[str, trio.Event] = attrs.field(factory=dict, init=False)
    """By lease id, for the calls that wait for a lease's end."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        # The wall clock exceeds the tokens of earlier runs, which grant less than one lease per nanosecond; if it was
        # set back, the adopted leases give the lower bound.
        tokens = (found.lease.terms.fencing_token for found in self.found if found.lease is not None)
        self._ledger = Ledger(
            policies=self.policies,
            service=self.service,
            new_id=self.make_id,
            rng=self.rng,
            first_fencing_token=max(self.clock_ns(), *tokens, 0) + 1,
        )
        self._restraint = Restraint(
            reaching=Turns(at_once=REACHED_AT_ONCE, patience_s=REACH_PATIENCE_S),
            ending=Turns(at_once=ENDED_AT_ONCE, patience_s=END_PATIENCE_S),
        )
        self.measures = Measures(profiles=self.policies.keys())
        self._watchers = WatchHub(take_snapshot=self.snapshot, per_user=self.watchers_per_user)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. Cancelling it ends every remaining VM, with the bounded escalation of `Vm.stop`."""
        async with trio.open_nursery() as vms:
            try:
                self._apply(AdoptionRequested(found=self.found), vms)
                task_status.started()
                await self._read_events(vms)
            except Exception:
                self.let_go()
                raise

    async def _read_events(self, vms: trio.Nursery) -> None:
        while True:
            event: Event = Tick()
            with trio.move_on_at(self._ledger.next_wakeup()):
                event = await self._inbox.receive()
            self._apply(event, vms)
            for _ in range(min(EVENTS_AT_ONCE, self._inbox.statistics().current_buffer_used)):
                self._apply(self._inbox.receive_nowait(), vms)

    def let_go(self) -> None:
        """Leaves the VMs for a later run to adopt, because this one has failed; VMs without a record end.

        Does not wait. The caller then cancels `run`, or lets it fail.
        """
        for actor in self._actors.values():
            actor.detach("the service has failed")

    def _apply(self, event: Event, vms: trio.Nursery) -> None:
        if isinstance(event, AcquireRequested) and (own := self._own.pop(event.request_id, None)) is not None:
            # Not earlier: the page may have been closed since the request was made.
            self._own_pages.setdefault(own.name, own)
        for effect in self._ledger.apply(event, now=trio.current_time()):
            self._perform(effect, vms)
        while isinstance(event, Tick) and self._proofs:
            self._proofs.pop().set()
        if isinstance(event, VmGone):
            # Not when the actor's task ends: until the ledger has read the last fact it may still send an order.
            del self._actors[event.vm_id]
        if self._ledger.draining and self._ledger.empty:
            self._drained.set()

    def _perform(self, effect: Effect, vms: trio.Nursery) -> None:
        match effect:
            case StartVm() | AdoptVm():
                self._start(effect, vms)
            case FillShell(vm_id=vm_id):
                self._actors[vm_id].fill()
            case ReachVm(vm_id=vm_id):
                self._actors[vm_id].reach()
            case CheckVm(vm_id=vm_id):
                self._actors[vm_id].check()
            case HandOutVm(vm_id=vm_id, order=order):
                self._actors[vm_id].hand_out(order)
            case RecordExpiry(vm_id=vm_id, expires_at=expires_at, renewal=renewal):
                recorded = self._actors[vm_id].renew(expires_at - trio.current_time())
                self._send.send_nowait(RenewalRecorded(renewal=renewal, expires_at=expires_at, recorded=recorded))
            case StopVm(vm_id=vm_id, reason=reason, detail=detail):
                self._actors[vm_id].stop(detail or reason.value)
            case DetachVm(vm_id=vm_id):
                self._actors[vm_id].detach("it lives on without this service")
            case Tell(news=news):
                self.measures.tell(news)
                self._watchers.tell(news)
                for reader in self.readers:
                    reader(news)
            case ProfileClosed(profile=profile):
                self._own_pages.pop(profile, None)
            case _:
                self._answer(effect)

    def _start(self, effect: StartVm | AdoptVm, vms: trio.Nursery) -> None:
        profile = effect.profile
        as_shell = isinstance(effect, StartVm) and effect.as_shell
        own = self._own_pages.get(profile)
        actor = self.make_actor(
            vm_id=effect.vm_id,
            profile=profile,
            producer=self.producers.get(profile) if own is None else own.producer,
            report=self._send.send_nowait,
            journal=self.journal,
            procedure=self.procedures.get(profile, _PLAIN) if own is None else own.procedure,
            vigil=self.vigils.get(profile, _USUAL_VIGIL) if own is None else own.vigil,
            shells=self.shell_producers[profile] if as_shell else None,
            restraint=self._restraint,
            host_clock=self.host_clock,
            adoption=self.adoptions[effect.vm_id] if isinstance(effect, AdoptVm) else None,
        )
        self._actors[effect.vm_id] = actor
        run = actor.run if isinstance(effect, AdoptVm) else partial(self._run_in_a_moment, actor)
        vms.start_soon(run, name=effect.vm_id)

    async def _run_in_a_moment(self, actor: VmActor) -> None:
        """Waits for pending replies first, since spawning QEMU blocks the event loop."""
        await self._deliveries.wait_none()
        await actor.run()

    def _answer(self, effect: Grant | Refuse | Confirm | ConfirmRenewal | LeaseEnded) -> None:
        match effect:
            case Grant(request_id=request_id, lease=lease):
                if self._requests.answer(request_id, lease):
                    self._deliveries.begin(lease.lease_id)
                else:
                    # The caller went away before the grant reached it.
                    self.give_back(lease)
            case Refuse(request_id=request_id, refusal=refusal):
                self._requests.answer(request_id, refusal)
            case ConfirmRenewal(request_id=request_id, lease=lease):
                self._requests.answer(request_id, lease)
            case Confirm(request_id=request_id):
                self._requests.answer(request_id, None)
            case LeaseEnded(lease_id=lease_id):
                if lease_id in self._lease_ends:
                    self._lease_ends.pop(lease_id).set()
            case _:
                assert_never(effect)

    # -- the VMs of leases ---------------------------------------------------------------------------------------------

    def relinquish(self, lease: Lease) -> None:
        """Reports that the VM of a bare lease was given away; does not wait.

        The VM leaves the service, which does not end it, now or in a later run. Does nothing if the VM has ended, or
        was ordered to stop.
        """
        actor = self._actors.get(lease.vm_id)
        if actor is not None:
            actor.disown()
        self._deliveries.end(lease.lease_id)
        self._send.send_nowait(LeaseRelinquished(lease_id=lease.lease_id))

    def vm_of(self, lease_id: str, *, owner: Owner) -> Vm:
        """The VM of a live lease, to talk to its agent. Raises RefusedError; VmExitedError while the VM is dying."""
        found = self._ledger.find_lease(lease_id, owner=owner)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        return self._actors[found.vm_id].vm

    async def wait_vm_of(self, lease_id: str, *, owner: Owner, limit_s: float) -> Vm:
        """`vm_of`, but waits up to `limit_s` for the guest of an adopted lease to answer."""
        found = self._ledger.find_lease(lease_id, owner=owner)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        actor = self._actors[found.vm_id]
        with trio.move_on_after(limit_s):
            return await actor.wait_reached()
        return actor.vm

    async def console(self, vm_id: str, *, owner: Owner) -> str:
        """The end of the guest's console output, for the owner of the VM's lease and for root. Raises RefusedError."""
        found = self._ledger.find_vm(vm_id, owner=owner)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        text = await self._actors[vm_id].console(limit=CONSOLE_BYTES)
        if text is None:
            raise RefusedError(vm_not_up(vm_id))
        return text

    async def wait_lease_ended(self, lease_id: str, *, owner: Owner) -> Refusal:
        """Waits until the lease has ended. Returns how it ended, as the refusal of its use."""
        found = self._ledger.find_lease(lease_id, owner=owner)
        while not isinstance(found, Refusal):
            await self._lease_ends.setdefault(lease_id, trio.Event()).wait()
            found = self._ledger.find_lease(lease_id, owner=owner)
        return found

    def find_lease(self, *, lease_id: str = "", name: str = "", owner: Owner) -> Lease:
        """The lease of this id if `owner` may use it, or the owner's own of this name. Raises RefusedError."""
        ledger = self._ledger
        found = ledger.find_lease_by_name(name, owner=owner) if name else ledger.find_lease(lease_id, owner=owner)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        return found

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._ledger.draining

    @property
    def watchers(self) -> WatchHub:
        return self._watchers

    def snapshot(self) -> Snapshot:
        return Snapshot(profiles=self.views(), vms=self._ledger.vms(), leases=self.leases())

    def views(self) -> tuple[ProfileView, ...]:
        """The current state of the profiles."""
        return self._ledger.views(now=trio.current_time())

    def leases(self) -> tuple[Lease, ...]:
        return self._ledger.leases()

    def memory(self) -> MemoryView:
        return self._ledger.memory()

    def waiting(self) -> int:
        """The number of requests that wait for a VM to be chosen, of all profiles."""
        return self._ledger.waiting()

    def can_hand_out(self, profile: str) -> bool:
        """`Ledger.can_hand_out`, now. The result changes only with news of the profile."""
        return self._ledger.can_hand_out(profile, now=trio.current_time())

    def statistics(self) -> CoordinatorStatistics:
        return CoordinatorStatistics(
            open_requests=len(self._requests),
            inbox_peak=self._inbox.statistics().peak_buffer_used,
            actors=len(self._actors),
        )
