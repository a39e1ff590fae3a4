"""What a seed means: profiles, policies, how many clients, which faults, how each run of the service ends."""

from __future__ import annotations

import enum
import math
from random import Random
from typing import Final

import attrs

from actors.vigil import Vigil
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProductionCost

NAMES: Final = ("alpha", "beta", "gamma")
UIDS: Final = (0, 1000, 1000, 1001)
GREEDY_UID: Final = 2000
"""Of somebody who asks for much at once, again and again."""
MAX_TTL_S: Final = 90.0
BOOT_TIMEOUT_S: Final = 10.0
VIGIL: Final = Vigil(interval_s=3.0, silence_limit_s=12.0, answer_limit_s=1.0)
"""Short, as lives are here."""


@attrs.frozen
class Randomness:
    """All that is random in a simulation, by what it is for: one who draws more does not change what others draw."""

    seed: int

    def of(self, purpose: str) -> Random:
        """The same for the same seed and purpose, in every process."""
        return Random(f"{self.seed}/{purpose}")


class Trouble(enum.Enum):
    """Kinds of faults. Each seed has some of them, so that some faults are also seen alone, and some not at all."""

    BOOTS_FAIL = "boots fail"
    BOOTS_HANG = "boots hang"
    BOOTS_ARE_SLOW = "boots are slow"
    VMS_DIE = "VMs die"
    VMS_DIE_AT_MOMENTS = "VMs die at moments of their lives"
    AGENTS_GO_MUTE = "agents go mute"
    PROCESSES_HANG = "QEMUs hang"
    AGENTS_BREAK_PROTOCOL = "agents break the protocol"
    PREPARATIONS_FAIL = "preparations fail"
    WISHES_ARE_REFUSED = "wishes are refused"
    STOPS_ARE_SLOW = "stops are slow"
    DISK_IS_FULL = "the disk is full"
    DISK_FAILS = "the disk fails"
    TEMPLATES_FAIL = "templates fail"
    TEMPLATES_ARE_DAMAGED = "templates are damaged"
    INPUTS_CHANGE = "the machines' inputs change"
    CLOCK_JUMPS = "the wall clock jumps ahead"
    MEMORY_GETS_LOW = "the host's memory gets low"


class EndKind(enum.Enum):
    """How a run of the service ends."""

    KILLED_AT_TIME = "killed after a time"
    KILLED_AT_EVENT = "killed while an event's effects are performed"
    KILLED_AT_DISK_STEP = "killed in the midst of writing a record"
    KILLED_AT_START = "killed while it starts"
    HAND_OVER = "hands over"
    DRAIN = "drains"


@attrs.frozen(kw_only=True)
class Ending:
    kind: EndKind
    after_s: float
    """From its start; one that is to be killed at something is killed after this if it did not come to that."""
    count: int
    """Which effect or step of the disk it is; or so many rounds of the scheduler after the time."""
    pause_s: float
    """Until the next run starts."""


@attrs.frozen(kw_only=True)
class ProfilePlan:
    name: str
    policy: PoolPolicy
    boot_s: float
    clone_s: float
    fallback: bool


@attrs.frozen(kw_only=True)
class Plan:
    profiles: tuple[ProfilePlan, ...]
    service: ServicePolicy
    troubles: frozenset[Trouble]
    endings: tuple[Ending, ...]
    clients: int
    greedy: int
    """Clients of the greedy user, who all ask at the same moments."""
    administrators: int
    guests_lose_time: bool
    """Their VMs stand still now and then, which nobody is told."""
    busy_s: float
    """For so long faults happen and clients come."""


def make_plan(randomness: Randomness) -> Plan:
    random = randomness.of("plan")
    profiles = tuple(_profile(name, random) for name in NAMES[: random.randint(1, 3)])
    busy_s = random.choice([20.0, 40.0, 80.0, 120.0])
    # One seed in eight has no faults at all but the ends of the service: what is wrong then is wrong every day.
    greedy = randomness.of("greed").choice([0, 0, 0, 6, 12])
    troubles = random.sample(list(Trouble), random.choice([0, 1, 2, 3, 3, 5, 8, len(Trouble)]))
    return Plan(
        profiles=profiles,
        service=_with_room_for_all(_service(random), randomness.of("room")) if greedy else _service(random),
        troubles=frozenset(troubles),
        endings=tuple(_ending(random, busy_s) for _ in range(random.choice([0, 1, 1, 2, 3, 5]))),
        clients=random.randint(1, 12),
        greedy=greedy,
        administrators=random.choice([0, 0, 1, 1, 2]),
        guests_lose_time=randomness.of("guests' clocks").random() < 0.3,
        busy_s=busy_s,
    )


def _profile(name: str, random: Random) -> ProfilePlan:
    template = random.random() < 0.5
    policy = PoolPolicy(
        size=random.choice([0, 1, 1, 2, 3, 4]),
        min_ready=random.randint(0, 2),
        max_vms=random.choice([None, None, 2, 4, 6]),
        shells=random.choice([0, 1, 2]) if template else 0,
        on_empty=random.choice(list(OnEmpty)),
        memory_mib=random.choice([0, 256, 256, 512]),
        max_memory_mib=random.choice([None, None, 512]),
        cost=ProductionCost.CLONE if template else ProductionCost.BOOT,
        production_limit=random.randint(1, 3),
        backoff=Backoff(initial_s=random.choice([0.25, 1.0]), maximum_s=random.choice([4.0, 16.0])),
        breaker_threshold=random.randint(1, 5),
        max_age_s=random.choice([math.inf, math.inf, 15.0, 60.0]),
        check_interval_s=random.choice([math.inf, 5.0, 20.0]),
    )
    return ProfilePlan(
        name=name,
        policy=policy,
        boot_s=random.choice([0.0, 0.2, 1.5, 4.0]),
        clone_s=random.choice([0.0, 0.05, 0.2]),
        fallback=random.random() < 0.7,
    )


def _service(random: Random) -> ServicePolicy:
    return ServicePolicy(
        boots_at_once=random.choice([math.inf, 1, 2]),
        clones_at_once=random.choice([math.inf, 1, 2]),
        memory_budget_mib=random.choice([math.inf, math.inf, 1024, 2048, 4096]),
        leases_per_uid=random.choice([math.inf, math.inf, math.inf, 2, 4]),
        requests_per_uid=random.choice([math.inf, math.inf, math.inf, 2, 4]),
        checks_at_once=random.randint(1, 3),
    )


def _with_room_for_all(policy: ServicePolicy, random: Random) -> ServicePolicy:
    """As by default: all users at their maximum leave room for one more of them."""
    requests_per_uid = random.choice([2, 4, 8])
    users = len({*UIDS, GREEDY_UID})
    return attrs.evolve(policy, requests_per_uid=requests_per_uid, requests=requests_per_uid * (users + 1))


def _ending(random: Random, busy_s: float) -> Ending:
    kind = random.choice([*EndKind, EndKind.KILLED_AT_TIME, EndKind.KILLED_AT_EVENT, EndKind.KILLED_AT_DISK_STEP])
    rounds = {EndKind.KILLED_AT_TIME: 60, EndKind.KILLED_AT_EVENT: 300, EndKind.KILLED_AT_DISK_STEP: 200}
    return Ending(
        kind=kind,
        after_s=random.uniform(0.0, busy_s / 2),
        count=random.randint(0, rounds.get(kind, 40)),
        pause_s=random.choice([0.0, 0.0, 0.5, 5.0]),
    )
