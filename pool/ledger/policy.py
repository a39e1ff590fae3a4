"""What the ledger is told to do: one policy for each profile, one for the whole service."""

from __future__ import annotations

import enum
import math

import attrs
from attrs.validators import ge, gt

from pool.ledger.demand import AdaptiveSize
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProductionCost


class OnEmpty(enum.Enum):
    """What the caller wants when nothing is ready."""

    WAIT = "wait"
    """Until the deadline. Users take turns; of one user who came first is served first."""
    FAIL = "fail"
    """At once."""
    BOOT = "boot"
    """Produce one more than the pool's size, as soon as there is room, even while the pool backs off; fail if that
    production fails, or if the circuit is open."""


@attrs.frozen(kw_only=True)
class PoolPolicy:
    """What the ledger needs to know of a profile."""

    size: int = attrs.field(validator=ge(0))
    """VMs that are ready or being produced for the pool; handed-out ones are not counted. A resize changes it."""
    adaptive: AdaptiveSize | None = None
    """The size follows the demand, whatever `size` says; a resize is refused."""
    min_ready: int = attrs.field(default=1, validator=ge(0))
    """Replacing stale VMs never leaves fewer than this ready, or than `size` if that is less."""
    max_vms: int | None = attrs.field(default=None, validator=attrs.validators.optional(ge(0)))
    """Of all VMs of the profile, leased ones too; only those on their way out are not counted. None: no limit."""
    within: str = ""
    """The profile whose VMs count towards `max_vms`, too, as these do there: what a caller's own configuration is based
    on. Empty: none."""
    shells: int = attrs.field(default=0, validator=ge(0))
    """Processes that are kept started, to be filled when a caller has to wait."""
    on_empty: OnEmpty = OnEmpty.WAIT
    """For callers who do not say."""
    memory_mib: int = attrs.field(default=0, validator=ge(0))
    """Of a base VM; what it takes of the service's budget."""
    max_vcpus: int | None = None
    """What a caller may wish for; None: whatever the machine takes."""
    max_memory_mib: int | None = None
    cost: ProductionCost = ProductionCost.BOOT
    """What a production costs the host."""
    production_limit: int = attrs.field(default=2, validator=ge(1))
    """How many VMs may be in production for the pool at a time. Production for BOOT claims comes on top."""
    backoff: Backoff = attrs.field(factory=Backoff)
    breaker_threshold: int = attrs.field(default=5, validator=ge(1))
    """So many failures in a row open the circuit: callers who want to boot are refused until a trial succeeds."""
    max_age_s: float = attrs.field(default=math.inf, validator=gt(0))
    """An idle VM that was ready for so long is replaced."""
    check_interval_s: float = attrs.field(default=math.inf, validator=gt(0))
    """How often an idle VM's agent is asked whether it is there."""


@attrs.frozen(kw_only=True)
class ServicePolicy:
    """What holds for all profiles together. Infinity: no limit."""

    boots_at_once: float = attrs.field(default=math.inf, validator=ge(1))
    """Guests that boot at a time, for whomever."""
    clones_at_once: float = attrs.field(default=math.inf, validator=ge(1))
    memory_budget_mib: float = attrs.field(default=math.inf, validator=gt(0))
    """Nominal memory of all VMs, from the start of their production until their process is gone."""
    leases_per_uid: float = attrs.field(default=math.inf, validator=ge(0))
    """Of one user, those that are on their way included."""
    requests_per_uid: float = attrs.field(default=math.inf, validator=ge(1))
    """Acquisitions of one user that wait at a time."""
    requests: float = attrs.field(default=math.inf, validator=ge(1))
    """Acquisitions of all users that wait at a time. Nobody may have more of them than are left for others, so that
    there is room for whoever comes next."""
    adoptions_at_once: int = attrs.field(default=8, validator=ge(1))
    """Idle VMs of an earlier run that are connected to at a time."""
    checks_at_once: int = attrs.field(default=2, validator=ge(1))
    """Idle VMs whose agents are asked at a time."""

    def at_once(self, cost: ProductionCost) -> float:
        """Productions of that class that may be under way at a time."""
        match cost:
            case ProductionCost.BOOT:
                return self.boots_at_once
            case ProductionCost.CLONE:
                return self.clones_at_once
