"""The state machine: Hypothesis plays callers, VMs and time against a ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from hypothesis import strategies as st

from pool.ledger.book import Ledger
from pool.ledger.demand import AdaptiveSize
from pool.ledger.events import FoundVm
from pool.ledger.facts import MAX_HAND_OUT_ATTEMPTS
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.records import Lease
from pool.ledger.views import ProfileView
from tests.properties.ledger.histories import Historic, begins, happens
from tests.properties.ledger.invariants import ViolationError
from tests.properties.ledger.vms import REPORT, TIMINGS
from tests.properties.ledger.world import MANY, World
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProductionCost
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.life import VmState

PROFILES = ("alpha", "beta", "gamma")
UIDS = st.sampled_from([0, 1000, 1000, 1001])

policies = st.builds(
    PoolPolicy,
    size=st.integers(0, 4),
    min_ready=st.integers(0, 3),
    max_vms=st.sampled_from([None, None, 1, 3, 5]),
    max_vcpus=st.sampled_from([None, None, 2]),
    max_memory_mib=st.sampled_from([None, None, 512]),
    on_empty=st.sampled_from(OnEmpty),
    adaptive=st.sampled_from([None, None, None, AdaptiveSize(minimum=0, maximum=3, window_s=60.0, hold_s=5.0)]),
    memory_mib=st.sampled_from([0, 256, 512]),
    cost=st.sampled_from(ProductionCost),
    breaker_threshold=st.integers(1, 5),
    max_age_s=st.sampled_from([math.inf, math.inf, 5.0, 60.0]),
    check_interval_s=st.sampled_from([math.inf, math.inf, 2.0, 11.0]),
    shells=st.sampled_from([0, 0, 1, 2]),
    production_limit=st.integers(1, 3),
    backoff=st.builds(
        Backoff,
        initial_s=st.sampled_from([0.25, 1.0, 3.0]),
        maximum_s=st.sampled_from([3.0, 30.0]),
        jitter=st.sampled_from([0.0, 0.1, 0.9]),
    ),
)
services = st.builds(
    ServicePolicy,
    boots_at_once=st.sampled_from([math.inf, math.inf, 1, 2]),
    clones_at_once=st.sampled_from([math.inf, math.inf, 1]),
    memory_budget_mib=st.sampled_from([math.inf, math.inf, 512, 1024]),
    leases_per_uid=st.sampled_from([math.inf, math.inf, math.inf, 1, 2]),
    requests_per_uid=st.sampled_from([math.inf, math.inf, math.inf, 1, 2]),
    requests=st.sampled_from([math.inf, math.inf, math.inf, 2, 4]),
    checks_at_once=st.integers(1, 2),
    adoptions_at_once=st.integers(1, 2),
)
durations = st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0, 2.0, 5.0, 11.0, 60.0])
"""Few values, so that deadlines, back-offs and steps of time often fall together."""

NO_LIMITS = ServicePolicy()

TTLS = st.sampled_from([math.inf, math.inf, math.inf, 0.25, 1.0, 5.0])

reads = st.sampled_from([MANY, MANY, 1, 0])
"""How much of the inbox the coordinator reads after something happened."""

FRAGILE = st.sampled_from(
    [
        VmState.HANDING_OUT,
        VmState.HANDING_OUT,
        VmState.PRODUCING,
        VmState.PRODUCING,
        VmState.ADOPTING,
        VmState.SHELL,
        VmState.READY,
        VmState.LEASED,
        VmState.STOPPING,
    ]
)


def old_lease(number: int) -> Lease:
    """Of an earlier run: of a profile that is still there, or is no more."""
    return Lease(
        vm_id=f"old-leased-{number}",
        pid=1,
        profile=(PROFILES[0], "profile-that-was")[number],
        terms=LeaseTerms(
            lease_id=f"old-lease-{number}",
            owner_uid=1000,
            request=LeaseRequest(key=("k1", "k2")[number], name=("n1", "n2")[number], bound=not number),
        ),
        granted_at=-1.0,
        expires_at=(5.0, math.inf)[number],
        report=REPORT,
        timings=TIMINGS,
    )


class LedgerMachine(Historic):
    """Every rule is something that may happen next; `World` checks the ledger after each event it reads."""

    make_ledger: Callable[..., Ledger] = Ledger
    only: Collection[str] | None = None

    @begins(
        chosen=st.lists(policies, min_size=1, max_size=3),
        service=services,
        left_idle=st.sampled_from([0, 0, 1, 3]),
        left_leased=st.sampled_from([0, 0, 1, 2]),
        full=st.booleans(),
    )
    def open_the_pool(
        self,
        chosen: list[PoolPolicy],
        service: ServicePolicy = NO_LIMITS,
        left_idle: int = 0,
        left_leased: int = 0,
        full: bool = False,
    ) -> None:
        leases = [old_lease(number) for number in range(left_leased)]
        self.world = World(
            dict(zip(PROFILES, chosen, strict=False)),
            service,
            make_ledger=type(self).make_ledger,
            only=type(self).only,
            found=(
                *(FoundVm(vm_id=f"old-idle-{number}", profile=PROFILES[number % 2]) for number in range(left_idle)),
                *(FoundVm(vm_id=lease.vm_id, profile=lease.profile, lease=lease, memory_mib=512) for lease in leases),
            ),
        )
        if full:
            self.all_is_quiet_for_a_while()

    # Few rules with many variants: Hypothesis leaves out some rules in each run, and without VMs that do their work, or
    # without callers, not much of a history comes about.

    # -- callers -------------------------------------------------------------------------------------------------

    @happens(
        profile=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 2, None]),
        uid=UIDS,
        key=st.sampled_from(["", "", "", "k1", "k1", "k2"]),
        on_empty=st.sampled_from(
            [OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.WAIT, OnEmpty.BOOT, OnEmpty.FAIL, OnEmpty.FAIL, None]
        ),
        patience_s=st.one_of(st.just(math.inf), st.sampled_from([0.0, 0.25, 0.25, 1.0, 1.0, 5.0])),
        ttl_s=TTLS,
        bound=st.booleans(),
        bare=st.sampled_from([False, False, True]),
        label=st.sampled_from(["", "", "one", "another"]),
        lease_name=st.sampled_from(["", "", "", "n1", "n1", "n2"]),
        vcpus=st.sampled_from([*[None] * 9, 4]),
        memory_mib=st.sampled_from([*[None] * 6, 512, 1024, 2048]),
        read=reads,
        times=st.sampled_from([1, 1, 2, 2, 4]),
        then=st.sampled_from(
            [
                "",
                "",
                *["handed out", "handed out late", "not handed out"] * 2,
                "never handed out",
                "refused",
                "not produced",
            ]
        ),
    )
    def somebody_asks(
        self,
        profile: int | None = 0,
        uid: int = 0,
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
        read: int = MANY,
        times: int = 1,
        then: str = "",
    ) -> None:
        """For a VM of a profile, of one that is not there, or of a configuration of his own; once or again and again.

        Nobody wants a bare VM with a key, a name or wishes. And then what is under way for callers comes to its end,
        one way or another.
        """
        known = list(self.world.policies)
        own = profile is None and key != "k2"
        bare = bare and not (own or key or lease_name or vcpus or memory_mib)
        name = "no-such-profile" if profile is None else known[profile % len(known)]
        for _ in range(times):
            self.world.acquire(
                "own-configuration" if own else name,
                uid=uid,
                key=key,
                on_empty=OnEmpty.BOOT if own else on_empty,
                patience_s=patience_s,
                ttl_s=ttl_s,
                bound=key == "k1" if key else bound,  # a key is for one or the other
                bare=bare,
                label=label,
                lease_name=lease_name,
                vcpus=vcpus,
                memory_mib=memory_mib,
                opens=self._own_policy() if own else None,
            )
        self.world.process(read)
        if then == "handed out late":
            self.world.stall(0.25)
        for _ in range(MAX_HAND_OUT_ATTEMPTS if then == "never handed out" else bool(then)):
            state = VmState.PRODUCING if then == "not produced" else VmState.HANDING_OUT
            for vm_id in (vm_id for vm_id in self.world.in_state(state) if vm_id not in self.world.refused):
                if then.startswith("handed out"):
                    self.world.progress(vm_id)
                elif then == "refused":
                    if not self.world.record.vms[vm_id].bare:  # of which nothing is wished
                        self.world.refuse_wish(vm_id)
                else:
                    self.world.die(vm_id)
            self.world.process(read)

    def _own_policy(self) -> PoolPolicy:
        """It is based on the first profile, as all configurations of callers' own are on one."""
        base = PROFILES[0]
        return PoolPolicy(size=0, memory_mib=256, within=base, max_vms=self.world.policies[base].max_vms)

    @happens(data=st.data(), read=reads)
    def somebody_stops_waiting(self, data: st.DataObject, read: int = MANY) -> None:
        if waiting := self.world.open_requests():
            self.world.walk_away(self.choose(data, waiting))
            self.world.process(read)

    @happens(
        data=st.data(),
        what=st.sampled_from(["release", "release", "renew", "undelivered"]),
        uid=st.one_of(st.none(), UIDS),
        ttl_s=TTLS,
        read=reads,
    )
    def somebody_uses_a_lease(
        self,
        data: st.DataObject,
        what: str = "release",
        uid: int | None = None,
        ttl_s: float = math.inf,
        read: int = MANY,
    ) -> None:
        """Its owner (None), root or a stranger; a lease that lives, has ended, or never was; or it never arrived."""
        leases, granted = self.world.leases_in_hand(), self.world.grants()
        if what == "undelivered":
            if granted:
                self.world.return_undelivered(self.choose(data, list(granted)))
        elif leases:
            lease = self.choose(data, leases)
            speaker = lease.owner.uid if uid is None else uid
            if what == "release":
                self.world.release(lease.lease_id, uid=speaker)
            else:
                self.world.renew(lease.lease_id, uid=speaker, ttl_s=ttl_s)
        elif uid == 0:
            self.world.release("lease-never", uid=uid)
        self.world.process(read)

    @happens(data=st.data(), read=reads)
    def somebody_has_a_bare_vm_in_hand(self, data: st.DataObject, read: int = MANY) -> None:
        if granted := self.world.bare_grants():
            self.world.relinquish(self.choose(data, granted))
            self.world.process(read)

    # -- administrators and the host -----------------------------------------------------------------------------

    @happens(
        profile=st.integers(0, 2),
        what=st.sampled_from(["resize", "resize", "drain", "resume", "resume", "reset", "replace", "evict"]),
        size=st.integers(0, 4),
        data=st.data(),
        read=reads,
    )
    def somebody_administers(
        self, data: st.DataObject, profile: int = 0, what: str = "resize", size: int = 0, read: int = MANY
    ) -> None:
        known = list(self.world.policies)
        name = known[profile % len(known)]
        match what:
            case "resize":
                self.world.resize(name, size)
            case "drain":
                self.world.drain(name)
            case "resume":
                self.world.undrain(name)
            case "reset":
                self.world.reset(name)
            case "replace":
                self.world.evict(profile=name)
            case _:
                vms = [*self.world.living, "vm-never"]
                self.world.evict(vm_id=self.choose(data, vms))
        self.world.process(read)

    @happens(
        what=st.sampled_from(["low", "enough", "enough", "new", "new", "new"]), profile=st.integers(0, 2), read=reads
    )
    def the_world_changes(self, what: str = "low", profile: int = 0, read: int = MANY) -> None:
        """The host's memory, or what a producer makes."""
        known = list(self.world.policies)
        if what == "new":
            self.world.change_generation(known[profile % len(known)])
        else:
            self.world.host_memory(low=what == "low")
        self.world.process(read)

    # -- VMs -----------------------------------------------------------------------------------------------------

    @happens(data=st.data(), all_of_them=st.booleans(), late_s=st.sampled_from([0.0, 0.0, 0.25, 1.0]), read=reads)
    def vms_do_what_they_should(
        self, data: st.DataObject, all_of_them: bool = False, late_s: float = 0.0, read: int = MANY
    ) -> None:
        if busy := self.world.busy():
            self.world.stall(late_s)
            for vm_id in busy if all_of_them else [self.choose(data, busy)]:
                self.world.progress(vm_id)
            self.world.process(read)

    @happens(
        data=st.data(),
        state=FRAGILE,
        how=st.sampled_from(["dies", "dies", "dies", "vanishes", "vanishes unverified", "falls silent"]),
        all_of_them=st.booleans(),
        read=reads,
    )
    def vms_break(
        self,
        data: st.DataObject,
        state: VmState = VmState.HANDING_OUT,
        how: str = "dies",
        all_of_them: bool = False,
        read: int = MANY,
    ) -> None:
        candidates = self.world.in_state(state)
        for vm_id in candidates if all_of_them or not candidates else [self.choose(data, candidates)]:
            if how == "falls silent":
                for leased in self.world.in_state(VmState.LEASED):
                    self.world.fall_silent(leased, detail="" if all_of_them else "its guest does not answer")
            elif how == "dies" and state is not VmState.STOPPING:
                self.world.die(vm_id)
            else:
                self.world.vanish(vm_id, error="StopError" if how == "vanishes unverified" else None)
        self.world.process(read)

    # -- time ----------------------------------------------------------------------------------------------------

    @happens(seconds=st.one_of(st.none(), durations), nobody_reads=st.booleans())
    def time_passes(self, seconds: float | None = None, nobody_reads: bool = False) -> None:
        """So many seconds, or until something is due."""
        if seconds is None:
            due = self.world.ledger.next_wakeup()
            seconds = 0.0 if due == math.inf else max(0.0, due - self.world.now)
        if nobody_reads:
            self.world.stall(seconds)
        else:
            self.world.advance(seconds)

    @happens()
    def all_is_quiet_for_a_while(self) -> None:
        self.world.run_undisturbed()
        self._must("the_pool_fills_up_in_quiet_times", self._full())

    @happens(hands_over=st.booleans())
    def the_service_is_told_to_stop(self, hands_over: bool = False) -> None:
        if len(self.world.record.requests) > 12:  # or most histories would be short
            if hands_over:
                self.world.hand_over()
            else:
                self.world.shut_down()

    # -- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever happened: left alone the pool fills up, and drained it becomes empty."""
        if not hasattr(self, "world") or self.world.broken:
            return
        self.world.host_memory(low=False)
        self.world.run_undisturbed()
        self._must("the_pool_fills_up_in_quiet_times", self._full())
        self.world.shut_down()
        self.world.run_undisturbed()
        self._must("a_drained_ledger_is_empty", self.world.ledger.empty and not self.world.living)
        self._must("every_request_gets_its_answer", self._all_answered())

    def _full(self) -> bool:
        """Each pool has what it wants, or there is no room for more; and nothing is under way or outdated."""
        return all(self._is_full(view) for view in self.world.ledger.views(now=self.world.now))

    def _is_full(self, view: ProfileView) -> bool:
        policy = self.world.policies[view.name]
        wanted = 0 if self.world.ledger.draining or view.drained else view.size
        if policy.max_vms is not None:
            wanted = min(wanted, max(0, policy.max_vms - view.leased - self._of_own_configurations(view)))
        taken_mib = sum(vm.memory_mib for vm in self.world.ledger.vms())
        taken_mib += self.world.ledger._moves.admission.reserved_mib
        crowded = self.world.memory_low or taken_mib + policy.memory_mib > self.world.service.memory_budget_mib
        under_way = view.producing + view.handing_out + view.stopping
        # Claims that wait for more memory than there is keep what was booted for them.
        enough = wanted <= view.ready <= wanted + view.waiting or (crowded and view.ready < wanted)
        shells = 0 if self.world.ledger.draining or view.drained else policy.shells
        return (
            enough
            and not under_way
            and (not view.waiting or crowded or not wanted or self._is_at_its_maximum(view))
            # While production fails a stale VM is better than none, and there may be no room to try beside it.
            and (not view.stale or crowded or bool(view.failures_in_a_row))
            and (view.shells == shells or crowded)
        )

    def _is_at_its_maximum(self, view: ProfileView) -> bool:
        return view.leased + self._of_own_configurations(view) == self.world.policies[view.name].max_vms

    def _of_own_configurations(self, view: ProfileView) -> int:
        """VMs that are counted with those of this profile."""
        pages = self.world.ledger._moves.fleet.pages.values()
        return sum(page.out() + page.present() for page in pages if page.policy.within == view.name)

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
