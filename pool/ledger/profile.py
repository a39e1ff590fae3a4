"""One profile's page in the ledger: its queues, its counts, and how many VMs it wants."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict

import attrs

from pool.ledger.records import Claim, OnEmpty, PoolPolicy
from pool.ledger.shells import ShellRack


@attrs.define(kw_only=True)
class Counters:
    """Since the service started."""

    hits: int = 0
    """Claims that found a ready VM."""
    misses: int = 0
    """Claims that had to wait or were refused because nothing was ready."""
    granted: int = 0
    refused: int = 0
    produced: int = 0
    production_failures: int = 0
    lost_idle: int = 0
    lost_leased: int = 0
    hand_out_failures: int = 0
    lost_shells: int = 0
    rolled: int = 0
    """Stale VMs that were stopped, to be replaced by ones of the current generation."""


@attrs.frozen(kw_only=True)
class ProfileView:
    """A profile as `status` shows it. Times are seconds from now."""

    name: str
    size: int
    ready: int
    producing: int
    handing_out: int
    leased: int
    stopping: int
    waiting: int
    shells: int
    """Started and waiting for a guest."""
    stale: int
    """Ready, but of an older generation."""
    generation: str
    failures_in_a_row: int
    retry_in_s: float
    """0 when the pool does not back off."""
    last_error: str
    last_evidence: str
    last_production_s: float
    """Duration of the last successful production; 0 before the first."""
    counters: Counters


@attrs.define(eq=False, kw_only=True)
class ProfilePage:
    """Mutable state of one profile. Every question it answers costs the same with 10 VMs and with 10,000."""

    name: str
    policy: PoolPolicy
    ready: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """Oldest first; handed out in this order."""
    producing_for_pool: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    producing_for_claim: OrderedDict[str, int] = attrs.field(factory=OrderedDict)
    """VM id to the waiting BOOT claim that it was started for."""
    waiting: OrderedDict[int, Claim] = attrs.field(factory=OrderedDict)
    """First come first served."""
    unserved_boot_claims: OrderedDict[int, None] = attrs.field(factory=OrderedDict)
    """Waiting BOOT claims without a production of their own; empty once an event is settled, but for a drain."""
    shells: ShellRack = attrs.field(factory=ShellRack)
    generation: str = ""
    """What the producer makes; empty until it has said so."""
    stale: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """Those of the ready VMs that are of another generation, oldest first."""
    boot_claims: int = 0
    """All waiting BOOT claims."""
    handing_out: int = 0
    leased: int = 0
    stopping: int = 0
    failures_in_a_row: int = 0
    retry_at: float = 0.0
    """End of the back-off; 0 when there is none."""
    last_error: str = ""
    last_evidence: str = ""
    last_production_s: float = 0.0
    counters: Counters = attrs.field(factory=Counters)

    def wanted(self) -> int:
        """VMs that should be ready or in production.

        Beyond the pool's size: one for each waiting BOOT claim, one for each other waiting claim that a shell is being
        filled for, and one to replace a stale VM without falling below the minimum, or without knowing that production
        works at all.
        """
        filled = sum(vm_id in self.producing_for_pool for vm_id in self.shells.filling)
        for_claims = min(filled, len(self.waiting) - self.boot_claims)
        surge = bool(self.stale) and (len(self.ready) <= self.min_ready() or bool(self.failures_in_a_row))
        return self.policy.size + self.boot_claims + for_claims + surge

    def min_ready(self) -> int:
        return min(self.policy.min_ready, self.policy.size)

    def present(self) -> int:
        """VMs that are."""
        return len(self.ready) + len(self.producing_for_pool) + len(self.producing_for_claim)

    def shortage(self) -> int:
        return self.wanted() - self.present()

    def enqueue(self, claim: Claim) -> None:
        """Puts a claim where its arrival belongs: at the end, or near the head if it comes back from a hand-out."""
        earlier = (
            list(itertools.takewhile(lambda other: other < claim.claim_id, self.waiting)) if claim.attempts else ()
        )
        self.waiting[claim.claim_id] = claim
        if claim.attempts:
            for claim_id in (claim.claim_id, *reversed(earlier)):
                self.waiting.move_to_end(claim_id, last=False)
        if claim.on_empty is OnEmpty.BOOT:
            self.boot_claims += 1
            self.unserved_boot_claims[claim.claim_id] = None

    def dequeue(self, claim: Claim) -> None:
        """Takes a claim out of the queue; a production started for it goes to the next BOOT claim, else to the pool."""
        del self.waiting[claim.claim_id]
        if claim.on_empty is OnEmpty.BOOT:
            self.boot_claims -= 1
            self.unserved_boot_claims.pop(claim.claim_id, None)
            # Few at a time, and only for claims that had to wait: a scan is cheaper than a second index.
            for vm_id, claim_id in self.producing_for_claim.items():
                if claim_id == claim.claim_id:
                    del self.producing_for_claim[vm_id]
                    heir = next(iter(self.unserved_boot_claims), None)
                    self.production_started(vm_id, claim_id=heir)
                    break

    def production_started(self, vm_id: str, *, claim_id: int | None) -> None:
        if claim_id is None:
            self.producing_for_pool[vm_id] = None
        else:
            del self.unserved_boot_claims[claim_id]
            self.producing_for_claim[vm_id] = claim_id

    def production_ended(self, vm_id: str) -> int | None:
        """Takes a VM out of production; returns the BOOT claim that it was started for, if that still waits."""
        self.shells.forget(vm_id)
        self.producing_for_pool.pop(vm_id, None)
        return self.producing_for_claim.pop(vm_id, None)

    def production_succeeded(self, vm_id: str, *, production_s: float, current: bool) -> None:
        """A VM is ready. It goes to the head of the queue, so the BOOT claim that paid for it may need another."""
        claim_id = self.production_ended(vm_id)
        if claim_id is not None:
            self.unserved_boot_claims[claim_id] = None
        self.ready[vm_id] = None
        if not current:
            self.stale[vm_id] = None
        self.counters.produced += 1
        self.last_production_s = production_s
        self.failures_in_a_row = 0
        self.retry_at = 0.0

    def pass_on_production(self, claim_id: int) -> None:
        """The pool's oldest production becomes that of a waiting BOOT claim."""
        vm_id, _ = self.producing_for_pool.popitem(last=False)
        self.production_started(vm_id, claim_id=claim_id)

    def cheapest(self) -> str:
        """The VM that is missed least: a stale one, the youngest in production for the pool, the one ready longest."""
        if self.stale and len(self.ready) > self.min_ready():
            return next(iter(self.stale))
        return next(reversed(self.producing_for_pool)) if self.producing_for_pool else next(iter(self.ready))

    def take_ready(self) -> str:
        """The VM to hand out: the one that is ready longest, of the current generation if there is any."""
        vm_id = next((vm_id for vm_id in self.ready if vm_id not in self.stale), None) or next(iter(self.ready))
        self.not_ready(vm_id)
        return vm_id

    def not_ready(self, vm_id: str) -> None:
        del self.ready[vm_id]
        self.stale.pop(vm_id, None)

    def may_roll(self) -> bool:
        """Whether one more stale VM may be stopped now: few at a time, enough stay ready, and production works."""
        in_flight = len(self.producing_for_pool) + max(0, self.shortage())
        return (
            bool(self.stale)
            and not self.failures_in_a_row
            and len(self.ready) > self.min_ready()
            and in_flight < self.policy.production_limit
        )

    def wants_shell(self, *, now: float) -> bool:
        """Whether to start one now."""
        return self.lacks_shell() and self.shells.may_start(now=now)

    def lacks_shell(self) -> bool:
        """Whether one is missing; the pool itself comes first."""
        return len(self.shells) < self.policy.shells and self.shortage() <= self.handing_out

    def shell_to_fill(self, *, now: float) -> str | None:
        """A shell for a claim that waits and that no shell is being filled for yet."""
        if not self.shells.idle or len(self.waiting) <= len(self.shells.filling):
            return None
        if now < self.retry_at and not self.boot_claims:
            return None
        return next(iter(self.shells.idle))

    def back_off(self, *, now: float, randomness: float) -> None:
        """One more failure: nothing is produced for the pool for a while."""
        self.failures_in_a_row += 1
        self.retry_at = now + self.policy.backoff.delay(self.failures_in_a_row, randomness=randomness)

    def may_produce(self, *, now: float) -> bool:
        """Whether VMs may be started for the pool; ends a back-off that is over."""
        if now < self.retry_at:
            return False
        self.retry_at = 0.0
        return True

    def next_wakeup(self) -> float:
        """When production may be tried again, if there is any to try; infinity if not.

        It stays when that time has come, until `may_produce` was asked: no wake-up is lost if nobody looked in time.
        """
        pool = self.retry_at if self.retry_at and self.shortage() > 0 else math.inf
        shells = self.shells.retry_at if self.shells.retry_at and self.lacks_shell() else math.inf
        return min(pool, shells)

    def view(self, *, now: float) -> ProfileView:
        return ProfileView(
            name=self.name,
            size=self.policy.size,
            ready=len(self.ready),
            producing=len(self.producing_for_pool) + len(self.producing_for_claim),
            handing_out=self.handing_out,
            leased=self.leased,
            stopping=self.stopping,
            waiting=len(self.waiting),
            shells=len(self.shells.idle),
            stale=len(self.stale),
            generation=self.generation,
            failures_in_a_row=self.failures_in_a_row,
            retry_in_s=max(0.0, self.retry_at - now) if self.retry_at else 0.0,
            last_error=self.last_error,
            last_evidence=self.last_evidence,
            last_production_s=self.last_production_s,
            counters=attrs.evolve(self.counters),
        )
