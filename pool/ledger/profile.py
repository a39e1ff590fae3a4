"""One profile's page in the ledger: its queues, its counts and the number of VMs that it wants."""

from __future__ import annotations

import math
from collections import OrderedDict

import attrs

from pool.ledger.demand import Demand
from pool.ledger.failures import Failures
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.queue import ClaimQueue
from pool.ledger.ready import ReadyVms
from pool.ledger.reasons import StopReason
from pool.ledger.records import Claim, Place
from pool.ledger.shells import ShellRack
from pool.ledger.views import CircuitState, Counters, ProfileView


def _demand(policy: PoolPolicy) -> Demand | None:
    return Demand(policy=policy.adaptive, production_limit=policy.production_limit) if policy.adaptive else None


@attrs.define(eq=False)
class Room:
    """The `max_vms` that a profile shares with the configurations based on it."""

    vms: int = 0
    """VMs of all its pages, without stopping ones."""
    guests: dict[str, ProfilePage] = attrs.field(factory=dict)
    """Its passing pages."""

    def claimed(self, before: Place) -> int:
        """The number of VMs for claims of passing pages whose turn comes before this place."""
        claims = (page.unserved_boot_claims for page in self.guests.values())
        return sum(len(queue) for queue in claims if queue.first_place() < before)


@attrs.define(eq=False, kw_only=True)
class ProfilePage:
    """Mutable state of one profile. Every query costs the same with 10 VMs and with 10,000."""

    name: str
    policy: PoolPolicy
    passing: bool = False
    """Opened for a caller's configuration, or for VMs of a removed profile; closed when it is empty."""
    room: Room = attrs.field(factory=Room, repr=False)
    size: int = attrs.field(default=attrs.Factory(lambda self: self.policy.size, takes_self=True))
    """The wanted number of VMs: the policy's, until the pool is resized."""
    demand: Demand | None = attrs.field(
        default=attrs.Factory(lambda self: _demand(self.policy), takes_self=True), repr=False
    )
    """Set if the size follows the demand."""
    review_at: float = math.inf
    """When the size could change without an event."""
    shrinks_for: StopReason = StopReason.SURPLUS
    """The reason to stop VMs that are now too many."""
    drained: bool = False
    """No VM is handed out or produced, and no claim waits."""
    ready: ReadyVms = attrs.field(factory=ReadyVms)
    producing_for_pool: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    adopting: set[str] = attrs.field(factory=set)
    """VMs in production that an earlier run of the service made."""
    unreached: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """VMs of `adopting` to which no connection has been started yet."""
    producing_for_claim: OrderedDict[str, int] = attrs.field(factory=OrderedDict)
    """VM id to the waiting BOOT claim for which it was started."""
    waiting: ClaimQueue = attrs.field(factory=ClaimQueue)
    unserved_boot_claims: ClaimQueue = attrs.field(factory=ClaimQueue)
    """Waiting BOOT claims without a production of their own: no room is left, or the circuit is half open."""
    shells: ShellRack = attrs.field(factory=ShellRack)
    generation: str = ""
    """The producer's current generation; empty until the producer has reported it."""
    boot_claims: int = 0
    """All waiting BOOT claims."""
    handing_out: int = 0
    leased: int = 0
    stopping: int = 0
    failures: Failures = attrs.field(factory=Failures)
    last_error: str = ""
    last_evidence: str = ""
    last_production_s: float = 0.0
    counters: Counters = attrs.field(factory=Counters)

    def follow_demand(self, *, now: float) -> bool:
        """Adjusts the size to the demand. Returns whether it has changed."""
        if self.demand is None:
            return False
        # At least one VM while a claim waits, however low the demand was: the claim may wait for memory, or a repair.
        before, self.size = self.size, max(self.demand.size(now), len(self.waiting) > self.boot_claims)
        self.review_at = self.demand.next_review(now)
        return self.size != before

    def wanted(self) -> int:
        """The number of VMs that should be ready or in production.

        Beyond the pool's size: one for each waiting BOOT claim, one for each other waiting claim for which a shell is
        being filled, and one to replace a stale VM if the pool is at its minimum or production has failed. The
        profile's `max_vms` limits the sum.
        """
        if self.drained:
            return 0
        filled = sum(vm_id in self.producing_for_pool for vm_id in self.shells.filling)
        for_claims = min(filled, len(self.waiting) - self.boot_claims)
        wanted = self.size + self.boot_claims + for_claims + self.wants_surge()
        if self.policy.max_vms is None:
            return wanted
        elsewhere = self.room.vms - self.present()
        if self.room.guests and not self.passing:
            elsewhere += self.room.claimed(self.waiting.first_place())
        return min(wanted, max(0, self.policy.max_vms - elsewhere))

    def wants_surge(self) -> bool:
        if not self.ready.stale or len(self.ready) > self.size:
            return False
        return len(self.ready) <= self.min_ready() or bool(self.failures.in_a_row)

    def min_ready(self) -> int:
        return min(self.policy.min_ready, self.size)

    def present(self) -> int:
        """VMs that are ready or in production."""
        return len(self.ready) + self.producing()

    def producing(self) -> int:
        return len(self.producing_for_pool) + len(self.producing_for_claim)

    def out(self) -> int:
        """VMs that are leased or being handed out."""
        return self.handing_out + self.leased

    def shortage(self) -> int:
        return self.wanted() - self.present()

    def next_to_serve(self) -> Claim | None:
        """The first waiting claim without a VM in production.

        A BOOT claim has a production of its own; other VMs in production go to the first claims in the queue.
        """
        if self.ready:
            return self.waiting.first()
        alone, behind = self.unserved_boot_claims.first(), self.waiting.at(self.producing())
        if alone is None or behind is None:
            return alone or behind
        return alone if alone.place <= behind.place else behind

    def has_room(self) -> bool:
        """Whether the profile may have one more VM."""
        return self.policy.max_vms is None or self.room.vms < self.policy.max_vms

    def is_over(self) -> bool:
        """Whether this is a passing page without VMs and claims."""
        there = self.present() + self.out() + self.stopping + len(self.shells)
        return self.passing and not there and not self.waiting

    def enqueue(self, claim: Claim) -> None:
        """Puts a claim in its place, the same as before if it comes back from a hand-out."""
        self.waiting.add(claim)
        if claim.on_empty is OnEmpty.BOOT:
            self.boot_claims += 1
            self.unserved_boot_claims.add(claim)

    def dequeue(self, claim: Claim) -> None:
        """Removes a claim from the queue; a production started for it goes to the next BOOT claim, else to the pool."""
        self.waiting.remove(claim)
        if claim.on_empty is OnEmpty.BOOT:
            self.boot_claims -= 1
            if claim in self.unserved_boot_claims:
                self.unserved_boot_claims.remove(claim)
            # Few at a time, and only for claims that had to wait: a scan is cheaper than a second index.
            for vm_id, claim_id in self.producing_for_claim.items():
                if claim_id == claim.claim_id:
                    del self.producing_for_claim[vm_id]
                    heir = self.unserved_boot_claims.first()
                    self.production_started(vm_id, claim_id=None if heir is None else heir.claim_id)
                    break

    def withdraw(self, claim: Claim) -> None:
        """Removes a claim that will not be served."""
        self.dequeue(claim)
        self.waiting.close_ranks(claim)
        self.unserved_boot_claims.reorder()

    def production_started(self, vm_id: str, *, claim_id: int | None) -> None:
        if claim_id is None:
            self.producing_for_pool[vm_id] = None
        else:
            self.unserved_boot_claims.remove(self.waiting[claim_id])
            self.producing_for_claim[vm_id] = claim_id

    def production_ended(self, vm_id: str) -> int | None:
        """Removes a VM from production. Returns the BOOT claim for which it was started, if that claim still waits."""
        self.shells.forget(vm_id)
        self.adopting.discard(vm_id)
        self.unreached.pop(vm_id, None)
        self.producing_for_pool.pop(vm_id, None)
        return self.producing_for_claim.pop(vm_id, None)

    def production_succeeded(self, vm_id: str, *, production_s: float | None, current: bool, now: float) -> None:
        """A VM is ready. It is for the head of the queue, so the BOOT claim for which it was made may need another one.

        Without a duration the VM was adopted, and proves nothing about production.
        """
        claim_id = self.production_ended(vm_id)
        if claim_id is not None:
            self.unserved_boot_claims.add(self.waiting[claim_id])
        self.ready.add(vm_id, current=current)
        self.counters.produced += 1
        if production_s is not None:
            self.last_production_s = production_s
            if self.demand is not None:
                self.demand.produced(production_s, now)
            self.failures.none()

    def pass_on_production(self, claim_id: int) -> None:
        """The pool's oldest production becomes that of a waiting BOOT claim."""
        vm_id, _ = self.producing_for_pool.popitem(last=False)
        self.production_started(vm_id, claim_id=claim_id)

    def cheapest(self) -> str:
        """The VM to stop first: a stale one, the youngest in production for the pool, or the oldest ready one."""
        if self.ready.stale and len(self.ready) > self.min_ready():
            return next(iter(self.ready.stale))
        return next(reversed(self.producing_for_pool)) if self.producing_for_pool else next(iter(self.ready))

    def has_too_many(self) -> bool:
        """Whether an idle VM, or one in production for the pool, should be stopped."""
        return self.shortage() < 0 and bool(self.ready or self.producing_for_pool)

    def may_roll(self, *, may_surge: bool) -> bool:
        """Whether one more stale VM may be stopped now: few at a time, enough stay ready, and production works.

        Without room for an additional VM the minimum cannot be kept: one VM is stopped before its replacement is made.
        """
        if not self.ready.stale or self.failures.in_a_row or self.drained:
            return False
        # A VM in excess of the size, which may take the last room, is the replacement on its way.
        surging = len(self.ready) + len(self.producing_for_pool) > self.size
        if surging or (may_surge and self.has_room()):
            in_flight = len(self.producing_for_pool) + max(0, self.shortage())
            return len(self.ready) > self.min_ready() and in_flight < self.policy.production_limit
        return len(self.producing_for_pool) + self.stopping < self.policy.production_limit

    def circuit(self, *, now: float) -> CircuitState:
        return self.failures.circuit(threshold=self.policy.breaker_threshold, now=now)

    def may_boot_for_claim(self, *, now: float) -> bool:
        """Whether the circuit allows a production for a BOOT claim; claims are not subject to back-off."""
        match self.circuit(now=now):
            case CircuitState.CLOSED:
                return True
            case CircuitState.OPEN:
                return False
            case CircuitState.HALF_OPEN:
                return self.producing() == len(self.adopting)

    def may_refill(self, *, now: float) -> bool:
        """Whether this profile may start one more VM for the pool now. Limits of the host are checked elsewhere."""
        if not self.failures.may_try(now=now):
            return False
        # After a failure one VM at a time is tried, until one succeeds.
        limit = self.policy.production_limit if not self.failures.in_a_row else 1
        half_open = self.circuit(now=now) is CircuitState.HALF_OPEN
        # Adoption is no production: it is cheap, and proves nothing.
        busy = (self.producing() if half_open else len(self.producing_for_pool)) - len(self.adopting)
        # A VM is replaced after its hand-out, milliseconds later: a boot would compete with the hand-out.
        return self.shortage() > self.handing_out and busy < limit

    def wants_shell(self, *, now: float) -> bool:
        """Whether to start a shell now."""
        return self.lacks_shell() and self.shells.may_start(now=now)

    def lacks_shell(self) -> bool:
        """Whether a shell is missing; the pool itself comes first."""
        return (
            not self.drained
            and not self.passing
            and len(self.shells) < self.policy.shells
            and self.shortage() <= self.handing_out
        )

    def shell_to_fill(self, *, now: float) -> str | None:
        """A shell for a waiting claim for which no shell is being filled yet."""
        if not self.shells.idle or len(self.waiting) <= len(self.shells.filling) or not self.has_room():
            return None
        if self.ready:
            return None  # the claim waits for memory, not for a VM
        if now < self.failures.retry_at and not self.boot_claims:
            return None
        return next(iter(self.shells.idle))

    def boot_claim_for_shell(self) -> int | None:
        """The first BOOT claim without a production, else one with a slower production, which the pool then gets."""
        unserved = self.unserved_boot_claims.first()
        if unserved is not None:
            return unserved.claim_id
        slower = next((vm_id for vm_id in self.producing_for_claim if vm_id not in self.shells.filling), None)
        if slower is None:
            return None
        claim_id = self.producing_for_claim.pop(slower)
        self.producing_for_pool[slower] = None
        self.unserved_boot_claims.add(self.waiting[claim_id])
        return claim_id

    def next_wakeup(self) -> float:
        """When a back-off ends that delays VMs or shells, or the size is reviewed; infinity if neither is due."""
        pool = self.failures.retry_at if self.failures.retry_at and self.shortage() > 0 else math.inf
        shells = self.shells.failures.retry_at
        shells = shells if shells and self.lacks_shell() else math.inf
        return min(pool, shells, self.review_at)

    def view(self, *, held_back: str, now: float) -> ProfileView:
        return ProfileView(
            name=self.name,
            size=self.size,
            ready=len(self.ready),
            producing=self.producing(),
            handing_out=self.handing_out,
            leased=self.leased,
            stopping=self.stopping,
            waiting=len(self.waiting),
            shells=len(self.shells.idle),
            stale=len(self.ready.stale),
            drained=self.drained,
            generation=self.generation,
            circuit=self.circuit(now=now),
            failures_in_a_row=self.failures.in_a_row,
            retry_in_s=max(0.0, self.failures.retry_at - now) if self.failures.retry_at else 0.0,
            held_back=held_back,
            last_error=self.last_error,
            last_evidence=self.last_evidence,
            last_production_s=self.last_production_s,
            counters=attrs.evolve(self.counters, stopped=self.counters.stopped.copy()),
        )
