"""The state machine: Hypothesis plays callers, VMs and time against a ledger."""

from __future__ import annotations

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
ALIVE = (VmState.PRODUCING, VmState.READY, VmState.HANDING_OUT, VmState.LEASED)

policies = st.builds(
    PoolPolicy,
    size=st.integers(0, 4),
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

reads = st.sampled_from([MANY, MANY, 1, 0])
"""How much of the inbox the coordinator reads after something happened."""


class LedgerMachine(RuleBasedStateMachine):
    """Every rule is something that may happen next; `World` checks the ledger after each event it reads."""

    make_ledger: Callable[..., Ledger] = Ledger
    only: Collection[str] | None = None

    @initialize(chosen=st.lists(policies, min_size=1, max_size=3))
    def open_the_pool(self, chosen: list[PoolPolicy]) -> None:
        self.world = World(
            dict(zip(PROFILES, chosen, strict=False)), make_ledger=type(self).make_ledger, only=type(self).only
        )

    # -- callers -------------------------------------------------------------------------------------------------

    @rule(
        profile=st.sampled_from(["alpha", "alpha", "alpha", "beta", "gamma", "no-such-profile"]),
        uid=UIDS,
        key=st.sampled_from(["", "", "", "k1", "k2"]),
        on_empty=st.sampled_from(OnEmpty),
        patience_s=st.one_of(st.just(float("inf")), durations),
        read=reads,
    )
    def somebody_asks(
        self, profile: str, uid: int, key: str, on_empty: OnEmpty, patience_s: float, read: int
    ) -> None:
        self.world.acquire(profile, uid=uid, key=key, on_empty=on_empty, patience_s=patience_s)
        self.world.process(read)

    @rule(data=st.data(), read=reads)
    def somebody_stops_waiting(self, data: st.DataObject, read: int) -> None:
        if waiting := self.world.open_requests():
            self.world.walk_away(data.draw(st.sampled_from(waiting)))
            self.world.process(read)

    @rule(data=st.data(), uid=st.one_of(st.none(), UIDS), read=reads)
    def somebody_releases(self, data: st.DataObject, uid: int | None, read: int) -> None:
        """Its owner (None), root or a stranger; a lease that lives or one that has ended."""
        if granted := list(self.world.grants().values()):
            lease = data.draw(st.sampled_from(granted))
            self.world.release(lease.lease_id, uid=lease.owner.uid if uid is None else uid)
            self.world.process(read)

    @rule()
    def somebody_releases_what_never_was(self) -> None:
        self.world.release("lease-never", uid=1000)

    @rule(data=st.data(), read=reads)
    def an_answer_cannot_be_delivered(self, data: st.DataObject, read: int) -> None:
        if granted := list(self.world.grants()):
            self.world.return_undelivered(data.draw(st.sampled_from(granted)))
            self.world.process(read)

    # -- VMs -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), read=reads)
    def a_vm_does_what_it_should(self, data: st.DataObject, read: int) -> None:
        if busy := self.world.in_state(*BUSY):
            self.world.progress(data.draw(st.sampled_from(busy)))
            self.world.process(read)

    @rule(read=reads)
    def all_vms_do_what_they_should(self, read: int) -> None:
        for vm_id in self.world.in_state(*BUSY):
            self.world.progress(vm_id)
        self.world.process(read)

    @rule(data=st.data(), state=st.sampled_from(ALIVE), read=reads)
    def a_vm_dies(self, data: st.DataObject, state: VmState, read: int) -> None:
        if candidates := self.world.in_state(state):
            self.world.die(data.draw(st.sampled_from(candidates)))
            self.world.process(read)

    @rule(data=st.data(), error=st.sampled_from([None, "StopError"]))
    def a_vm_vanishes(self, data: st.DataObject, error: str | None) -> None:
        if self.world.living:
            self.world.vanish(data.draw(st.sampled_from(list(self.world.living))), error=error)

    # -- time ----------------------------------------------------------------------------------------------------

    @rule(events=reads)
    def the_coordinator_reads(self, events: int) -> None:
        self.world.process(events)

    @rule(seconds=durations)
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(seconds=durations)
    def the_coordinator_is_late(self, seconds: float) -> None:
        self.world.stall(seconds)

    @rule()
    def all_is_quiet_for_a_while(self) -> None:
        self.world.run_undisturbed()
        self._must("the_pool_fills_up_in_quiet_times", self._full())

    @rule()
    def the_service_is_told_to_stop(self) -> None:
        if len(self.world.record.requests) > 10:  # or most histories would be short
            self.world.drain()

    # -- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever happened: left alone the pool fills up, and drained it becomes empty."""
        if not hasattr(self, "world"):
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
            (view.ready, view.producing, view.handing_out, view.stopping, view.waiting)
            == (0 if draining else view.size, 0, 0, 0, 0)
            for view in self.world.ledger.views(now=self.world.now)
        )

    def _all_answered(self) -> bool:
        """Exactly one answer each, none for some of those that were abandoned."""
        return all(r.answers == (not r.told_abandoned) or r.request_id in self.world.walked_away for r in self.world.record.requests.values())

    def _must(self, check: str, holds: bool) -> None:
        if not holds and (self.only is None or check in self.only):
            raise ViolationError(check=check, detail=self.world.ledger.views(now=self.world.now))
