"""The world around a ledger: an inbox, VMs that live as their actors would, and callers, all without trio.

What is said to the ledger waits in the inbox, so that orders and facts cross as they do in the service: an actor
reports a death while the order to hand out is on its way, a caller leaves while the grant is.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping

import attrs

from pool.ledger.book import Ledger
from pool.ledger.effects import (
    Confirm,
    ConfirmRenewal,
    Effect,
    Grant,
    LeaseEnded,
    ProfileClosed,
    RecordExpiry,
    Refusal,
    Refuse,
    Tell,
)
from pool.ledger.events import (
    AcquireRequested,
    AdministrationRequest,
    AdoptionRequested,
    DrainRequested,
    Event,
    EvictRequested,
    FoundVm,
    GenerationChanged,
    GrantUndelivered,
    HandoverRequested,
    HostMemoryLow,
    HostMemoryOk,
    LeaseRelinquished,
    ReleaseRequested,
    RenewalRecorded,
    RenewRequested,
    RequestAbandoned,
    ResetRequested,
    ResizeRequested,
    ShutdownRequested,
    Tick,
    UndrainRequested,
)
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.records import Lease, Owner
from tests.properties.ledger.conduct import Record, SeenRequest, check_effect, check_step
from tests.properties.ledger.invariants import ViolationError, check_state
from tests.properties.ledger.vms import Vms
from vmm.words.facts import ShellReady, VmGone, VmHandedOut, VmLost, VmReady, WishRefused
from vmm.words.leases import LeaseRequest
from vmm.words.life import VmState
from vmm.words.wishes import Wishes

MANY = 2_000
"""More events than any world here produces by itself; who needs more is spinning."""


@attrs.define(eq=False)
class World(Vms):
    """Runs one ledger and checks it after every event; `only` restricts the checks to those named."""

    policies: Mapping[str, PoolPolicy]
    service: ServicePolicy = attrs.field(factory=ServicePolicy)
    make_ledger: Callable[..., Ledger] = Ledger
    only: Collection[str] | None = None
    now: float = 0.0
    found: tuple[FoundVm, ...] = ()
    """What an earlier run left."""
    expiries: dict[str, float] = attrs.field(factory=dict, init=False)
    """VM id to the end of its lease, as it was last recorded."""
    memory_low: bool = attrs.field(default=False, init=False)
    disk_is_full: bool = attrs.field(default=False, init=False)
    walked_away: set[int] = attrs.field(factory=set, init=False)
    undelivered: set[int] = attrs.field(factory=set, init=False)
    """Granted requests whose grant came back."""
    broken: bool = attrs.field(default=False, init=False)
    """A check or the ledger has failed; what comes after means nothing."""

    def __attrs_post_init__(self) -> None:
        serial = itertools.count(1)
        self.record = Record(profiles=set(self.policies))
        self.ledger = self.make_ledger(
            policies=self.policies,
            service=self.service,
            new_id=lambda prefix: f"{prefix}-{next(serial)}",
            rng=random.Random(1),
        )
        self.record.restored.update({f.lease.lease_id: f.lease for f in self.found if f.lease is not None})
        self._apply(AdoptionRequested(found=self.found))

    # -- callers -------------------------------------------------------------------------------------------------

    def acquire(
        self,
        profile: str,
        *,
        uid: int = 1000,
        key: str = "",
        on_empty: OnEmpty | None = OnEmpty.WAIT,
        patience_s: float = math.inf,
        ttl_s: float = math.inf,
        bound: bool = False,
        bare: bool = False,
        label: str = "",
        lease_name: str = "",
        vcpus: int | None = None,
        memory_mib: int | None = None,
        opens: PoolPolicy | None = None,
    ) -> int:
        """Returns the request's id."""
        if opens is not None:
            self.record.profiles.add(profile)
        request = SeenRequest(
            request_id=len(self.record.requests) + 1,
            profile=profile,
            owner=Owner(uid=uid),
            key=key,
            name=lease_name,
            deadline=self.now + patience_s,
            bare=bare,
            labels={"label": label} if label else {},
        )
        self.record.requests[request.request_id] = request
        self.inbox.append(
            AcquireRequested(
                request_id=request.request_id,
                profile=profile,
                owner=request.owner,
                request=LeaseRequest(
                    key=key,
                    ttl_s=ttl_s,
                    bound=bound,
                    bare=bare,
                    name=lease_name,
                    labels=request.labels,
                    wishes=Wishes(vcpus=vcpus, memory_mib=memory_mib),
                ),
                on_empty=on_empty,
                deadline=request.deadline,
                opens=opens,
            )
        )
        return request.request_id

    def release(self, lease_id: str, *, uid: int) -> int:
        request = SeenRequest(
            request_id=len(self.record.requests) + 1, profile="", owner=Owner(uid=uid), releases=lease_id
        )
        self.record.requests[request.request_id] = request
        self.inbox.append(ReleaseRequested(request_id=request.request_id, lease_id=lease_id, owner=request.owner))
        return request.request_id

    def renew(self, lease_id: str, *, uid: int, ttl_s: float) -> int:
        request = SeenRequest(
            request_id=len(self.record.requests) + 1, profile="", owner=Owner(uid=uid), renews=lease_id
        )
        self.record.requests[request.request_id] = request
        self.inbox.append(
            RenewRequested(request_id=request.request_id, lease_id=lease_id, owner=request.owner, ttl_s=ttl_s)
        )
        return request.request_id

    def open_requests(self) -> list[int]:
        """Acquisitions whose caller still waits."""
        return [
            r.request_id
            for r in self.record.requests.values()
            if r.acquires and not r.answers and r.request_id not in self.walked_away
        ]

    def walk_away(self, request_id: int) -> None:
        """The caller stops waiting; the ledger will hear of it."""
        self.walked_away.add(request_id)
        self.inbox.append(RequestAbandoned(request_id=request_id))

    def grants(self) -> dict[int, Lease]:
        """Requests whose caller has a lease in hand, living or ended."""
        return {
            r.request_id: r.answer
            for r in self.record.requests.values()
            if r.acquires and isinstance(r.answer, Lease) and r.request_id not in self.undelivered
        }

    def leases_in_hand(self) -> list[Lease]:
        """Of this run and of the one before, living or ended."""
        return [*self.grants().values(), *self.record.restored.values()]

    def return_undelivered(self, request_id: int) -> None:
        """A grant could not be put into its caller's hand."""
        lease = self.grants()[request_id]
        self.undelivered.add(request_id)
        self.inbox.append(GrantUndelivered(lease_id=lease.lease_id))

    def relinquish(self, request_id: int) -> None:
        """The VM of a bare lease is in its taker's hand: its actor knows at once, the ledger will hear of it."""
        lease = self.grants()[request_id]
        if self.living.get(lease.vm_id) is VmState.LEASED:
            self.disowned.add(lease.vm_id)
        self.inbox.append(LeaseRelinquished(lease_id=lease.lease_id))

    def bare_grants(self) -> list[int]:
        """Requests whose caller has a bare lease in hand and has not said what became of the VM."""
        return [
            request_id
            for request_id, lease in self.grants().items()
            if self.record.requests[request_id].bare and lease.vm_id not in self.disowned
        ]

    def shut_down(self) -> None:
        self.inbox.append(ShutdownRequested())

    # -- administrators and the host -----------------------------------------------------------------------------

    def resize(self, profile: str, size: int) -> int:
        return self._administer(lambda request_id: ResizeRequested(request_id=request_id, profile=profile, size=size))

    def drain(self, profile: str) -> int:
        return self._administer(lambda request_id: DrainRequested(request_id=request_id, profile=profile))

    def undrain(self, profile: str) -> int:
        return self._administer(lambda request_id: UndrainRequested(request_id=request_id, profile=profile))

    def reset(self, profile: str) -> int:
        return self._administer(lambda request_id: ResetRequested(request_id=request_id, profile=profile))

    def evict(self, *, profile: str = "", vm_id: str = "") -> int:
        return self._administer(lambda request_id: EvictRequested(request_id=request_id, profile=profile, vm_id=vm_id))

    def _administer(self, request: Callable[[int], AdministrationRequest]) -> int:
        request_id = len(self.record.requests) + 1
        self.record.requests[request_id] = SeenRequest(
            request_id=request_id, profile="", owner=Owner(uid=0), administers=True
        )
        self.inbox.append(request(request_id))
        return request_id

    def host_memory(self, *, low: bool) -> None:
        self.memory_low = low
        self.inbox.append(HostMemoryLow(detail="little is left") if low else HostMemoryOk())

    def hand_over(self) -> None:
        self.inbox.append(HandoverRequested())

    def change_generation(self, profile: str) -> None:
        """The producer's inputs changed. What is in production was begun before."""
        self.makes[profile] = f"generation-{int(self.makes.get(profile, 'generation-0').partition('-')[2]) + 1}"
        self.inbox.append(GenerationChanged(profile=profile, generation=self.makes[profile]))

    # -- time ----------------------------------------------------------------------------------------------------

    def process(self, events: int = MANY) -> None:
        """The coordinator reads up to so many events."""
        for _ in range(min(events, len(self.inbox))):
            self._apply(self.inbox.popleft())

    def stall(self, seconds: float) -> None:
        """Time passes and nobody reads the inbox."""
        self.now += seconds

    def advance(self, seconds: float) -> None:
        """Time passes, and the coordinator does what is due when it is due."""
        end = self.now + seconds
        for _ in range(MANY):
            while self.inbox:  # one event may lead to the next, at the same moment
                self.process()
            due = self.ledger.next_wakeup()
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self._apply(Tick())
        self._spinning("ticks_come_to_an_end")

    def run_undisturbed(self) -> None:
        """Every VM does what it is ordered to and nobody asks for anything, until nothing is left to do.

        Checks and ages are left: they come again and again.
        """
        for _ in range(MANY):
            self.process()
            busy = self.busy()
            for vm_id in busy:
                self.progress(vm_id)
            if not busy and not self.inbox:
                due = self.ledger.next_wakeup()
                if due == math.inf or (due == self.ledger._upkeep.next_wakeup() and self._only_upkeep_is_left()):
                    return
                self.now = max(self.now, due)
                self._apply(Tick())
        self._spinning("the_world_comes_to_rest")

    def _only_upkeep_is_left(self) -> bool:
        moves = self.ledger._moves
        retries = (page.next_wakeup() for page in moves.fleet.pages.values())
        return min(moves.claims.next_deadline(), moves.leases.next_expiry(), *retries) == math.inf

    def _spinning(self, check: str) -> None:
        if self.only is None or check in self.only:
            self.broken = True
            raise ViolationError(check=check, detail=f"not after {MANY} rounds, at {self.now}")

    # -- the ledger ----------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        self.broken = True
        self._apply_checked(event)
        self.broken = False

    def _apply_checked(self, event: Event) -> None:
        self._note(event)
        effects = self.ledger.apply(event, now=self.now)
        for effect in effects:
            check_effect(effect, self.record, only=self.only)
            self._perform(effect)
        if isinstance(event, VmLost | VmGone):
            # Only now: with the same event a deadline may have come that ends the same VM, and it is served first.
            self.record.vms[event.vm_id].told_lost = True
        check_step(effects, self.ledger, self.record, only=self.only)
        check_state(self.ledger, now=self.now, only=self.only)

    def _note(self, event: Event) -> None:
        self.record.now = self.now
        match event:
            case VmReady(vm_id=vm_id):
                self.record.vms[vm_id].told_ready = True
            case ShellReady(vm_id=vm_id):
                self.record.vms[vm_id].told_shell = True
            case VmHandedOut(vm_id=vm_id):
                self.record.vms[vm_id].told_handed_out = True
            case WishRefused(vm_id=vm_id):
                self.record.vms[vm_id].told_wish_refused = True
            case (
                AcquireRequested(request_id=request_id)
                | ReleaseRequested(request_id=request_id)
                | RenewRequested(request_id=request_id)
                | ResizeRequested(request_id=request_id)
                | DrainRequested(request_id=request_id)
                | UndrainRequested(request_id=request_id)
                | EvictRequested(request_id=request_id)
                | ResetRequested(request_id=request_id)
            ):
                self.record.requests[request_id].told = True
            case VmLost(vm_id=vm_id) | VmGone(vm_id=vm_id):
                vm = self.record.vms[vm_id]
                self.record.losses += not (vm.told_lost or vm.stop_ordered)
            case RequestAbandoned(request_id=request_id):
                request = self.record.requests[request_id]
                # A deadline that has come is answered first, as it would have been if the coordinator were not late.
                request.told_abandoned = self.now < request.deadline
            case LeaseRelinquished(lease_id=lease_id):
                self.record.relinquished.add(lease_id)
            case ShutdownRequested() | HandoverRequested():
                self.record.draining = True
            case HostMemoryLow():
                self.record.memory_low = True
            case HostMemoryOk():
                self.record.memory_low = False
            case _:
                pass

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Grant(request_id=request_id, lease=lease):
                self._answer(request_id, lease)
                if request_id in self.walked_away:
                    self.return_undelivered(request_id)
            case Refuse(request_id=request_id, refusal=refusal):
                self._answer(request_id, refusal)
            case Confirm(request_id=request_id):
                self._answer(request_id, None)
            case ConfirmRenewal(request_id=request_id, lease=lease):
                self._answer(request_id, lease)
            case LeaseEnded(lease_id=lease_id):
                self.record.ended_leases.append(lease_id)
            case ProfileClosed(profile=profile):
                self.record.closed.append(profile)
            case RecordExpiry(vm_id=vm_id, expires_at=expires_at, renewal=renewal):
                recorded = not self.disk_is_full
                if recorded:
                    self.expiries[vm_id] = expires_at
                self.inbox.append(RenewalRecorded(renewal=renewal, expires_at=expires_at, recorded=recorded))
            case Tell(news=news):
                self.record.news.append(news)
            case _:
                self.order(effect)

    def _answer(self, request_id: int, answer: Lease | Refusal | None) -> None:
        request = self.record.requests[request_id]
        request.answers += 1
        request.answer = answer
