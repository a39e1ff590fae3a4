"""The state machine: Hypothesis plays callers, VMs and time against a ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from actors.backoff import Backoff
from actors.life import VmState
from pool.ledger import Ledger
from pool.ledger.records import OnEmpty, PoolPolicy
from tests.properties.ledger.invariants import ViolationError
from tests.properties.ledger.world import MANY, World

PROFILES = ("alpha", "beta", "gamma")
UIDS = st.sampled_from([0, 1000, 1001])
BUSY = (VmState.PRODUCING, VmState.HANDING_OUT, VmState.STOPPING)

policies = st.builds(
    PoolPolicy,
    size=st.integers(0, 4),
    min_ready=st.integers(0, 3),
    shells=st.sampled_from([0, 0, 1, 2]),
    production_limit=st.integers(1, 3),
    backoff=st.builds(
        Backoff,
        initial_s=st.sampled_from([0.25, 1.0, 3.0]),
        maximum_s=st.sampled_from([3.0, 30.0]),
        jitter=st.sampled_from([0.0, 0.1, 0.9]),
    ),
)
durations = st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0, 2.0, 5.0, 11.0, 60.0])
"""Few values, so that deadlines, back-offs and steps of time often fall together."""

TTLS = st.sampled_from([math.inf, math.inf, 0.25, 1.0, 5.0])

reads = st.sampled_from([MANY, MANY, 1, 0])
"""How much of the inbox the coordinator reads after something happened."""

FRAGILE = st.sampled_from(
    [
        VmState.HANDING_OUT,
        VmState.HANDING_OUT,
        VmState.PRODUCING,
        VmState.SHELL,
        VmState.READY,
        VmState.LEASED,
        VmState.STOPPING,
    ]
)


class LedgerMachine(RuleBasedStateMachine):
    """Every rule is something that may happen next; `World` checks the ledger after each event it reads."""

    make_ledger: Callable[..., Ledger] = Ledger
    only: Collection[str] | None = None

    @initialize(chosen=st.lists(policies, min_size=1, max_size=3), full=st.booleans())
    def open_the_pool(self, chosen: list[PoolPolicy], full: bool) -> None:
        self.world = World(
            dict(zip(PROFILES, chosen, strict=False)), make_ledger=type(self).make_ledger, only=type(self).only
        )
        if full:
            self.all_is_quiet_for_a_while()

    # Few rules with many variants: Hypothesis leaves out some rules in each run, and without VMs that do their work, or
    # without callers, not much of a history comes about.

    # -- callers -------------------------------------------------------------------------------------------------

    @rule(
        profile=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 2, None]),
        uid=UIDS,
        key=st.sampled_from(["", "", "", "k1", "k2"]),
        on_empty=st.sampled_from([OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.FAIL]),
        patience_s=st.one_of(st.just(math.inf), st.sampled_from([0.0, 0.25, 0.25, 1.0, 1.0, 5.0])),
        ttl_s=TTLS,
        read=reads,
    )
    def somebody_asks(
        self, profile: int | None, uid: int, key: str, on_empty: OnEmpty, patience_s: float, ttl_s: float, read: int
    ) -> None:
        known = list(self.world.policies)
        name = "no-such-profile" if profile is None else known[profile % len(known)]
        self.world.acquire(name, uid=uid, key=key, on_empty=on_empty, patience_s=patience_s, ttl_s=ttl_s)
        self.world.process(read)

    @rule(data=st.data(), read=reads)
    def somebody_stops_waiting(self, data: st.DataObject, read: int) -> None:
        if waiting := self.world.open_requests():
            self.world.walk_away(data.draw(st.sampled_from(waiting)))
            self.world.process(read)

    @rule(data=st.data(), uid=st.one_of(st.none(), UIDS), delivered=st.booleans(), read=reads)
    def somebody_gives_a_lease_back(self, data: st.DataObject, uid: int | None, delivered: bool, read: int) -> None:
        """Its owner (None), root or a stranger; a lease that lives, has ended, or never was; or it never arrived."""
        granted = self.world.grants()
        if not granted and uid == 0:
            self.world.release("lease-never", uid=uid)
        elif granted:
            request_id = data.draw(st.sampled_from(list(granted)))
            lease = granted[request_id]
            if delivered:
                self.world.release(lease.lease_id, uid=lease.owner.uid if uid is None else uid)
            else:
                self.world.return_undelivered(request_id)
        self.world.process(read)

    @rule(data=st.data(), uid=st.one_of(st.none(), UIDS), ttl_s=TTLS, read=reads)
    def somebody_renews_a_lease(self, data: st.DataObject, uid: int | None, ttl_s: float, read: int) -> None:
        """Its owner (None), root or a stranger; a lease that lives or has ended."""
        if granted := self.world.grants():
            lease = data.draw(st.sampled_from(list(granted.values())))
            self.world.renew(lease.lease_id, uid=lease.owner.uid if uid is None else uid, ttl_s=ttl_s)
            self.world.process(read)

    # -- VMs -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), all_of_them=st.booleans(), late_s=st.sampled_from([0.0, 0.0, 0.25, 1.0]), read=reads)
    def vms_do_what_they_should(self, data: st.DataObject, all_of_them: bool, late_s: float, read: int) -> None:
        if busy := self.world.in_state(*BUSY):
            self.world.stall(late_s)
            for vm_id in busy if all_of_them else [data.draw(st.sampled_from(busy))]:
                self.world.progress(vm_id)
            self.world.process(read)

    @rule(
        data=st.data(),
        state=FRAGILE,
        how=st.sampled_from(["dies", "dies", "dies", "vanishes", "vanishes unverified"]),
        read=reads,
    )
    def a_vm_breaks(self, data: st.DataObject, state: VmState, how: str, read: int) -> None:
        if candidates := self.world.in_state(state):
            vm_id = data.draw(st.sampled_from(candidates))
            if how == "dies" and state is not VmState.STOPPING:
                self.world.die(vm_id)
            else:
                self.world.vanish(vm_id, error="StopError" if how == "vanishes unverified" else None)
            self.world.process(read)

    @rule(profile=st.integers(0, 2), read=reads)
    def a_producer_makes_something_else(self, profile: int, read: int) -> None:
        known = list(self.world.policies)
        self.world.change_generation(known[profile % len(known)])
        self.world.process(read)

    # -- time ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.one_of(st.none(), durations), nobody_reads=st.booleans())
    def time_passes(self, seconds: float | None, nobody_reads: bool) -> None:
        """So many seconds, or until something is due."""
        if seconds is None:
            due = self.world.ledger.next_wakeup()
            seconds = 0.0 if due == math.inf else max(0.0, due - self.world.now)
        if nobody_reads:
            self.world.stall(seconds)
        else:
            self.world.advance(seconds)

    @rule()
    def all_is_quiet_for_a_while(self) -> None:
        self.world.run_undisturbed()
        self._must("the_pool_fills_up_in_quiet_times", self._full())

    @rule()
    def the_service_is_told_to_stop(self) -> None:
        if len(self.world.record.requests) > 12:  # or most histories would be short
            self.world.drain()

    # -- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever happened: left alone the pool fills up, and drained it becomes empty."""
        if not hasattr(self, "world") or self.world.broken:
            return
        self.world.run_undisturbed()
        self._must("the_pool_fills_up_in_quiet_times", self._full())
        self.world.drain()
        self.world.run_undisturbed()
        self._must("a_drained_ledger_is_empty", self.world.ledger.empty and not self.world.living)
        self._must("every_request_gets_its_answer", self._all_answered())

    def _full(self) -> bool:
        draining = self.world.ledger.draining
        return all(
            (view.ready, view.producing, view.handing_out, view.stopping, view.waiting, view.stale, view.shells)
            == (0 if draining else view.size, 0, 0, 0, 0, 0, 0 if draining else self.world.policies[view.name].shells)
            for view in self.world.ledger.views(now=self.world.now)
        )

    def _all_answered(self) -> bool:
        """Exactly one answer each, none for some of those that were abandoned."""
        return all(
            r.answers == (not r.told_abandoned) or r.request_id in self.world.walked_away
            for r in self.world.record.requests.values()
        )

    def _must(self, check: str, holds: bool) -> None:
        if not holds and (self.only is None or check in self.only):
            self.world.broken = True
            raise ViolationError(check=check, detail=self.world.ledger.views(now=self.world.now))
