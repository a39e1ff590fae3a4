"""The ledger's policies: one for each profile, one for the whole service."""

from __future__ import annotations

import enum
import math

import attrs
from attrs.validators import ge, gt

from pool.ledger.demand import AdaptiveSize
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProductionCost


class OnEmpty(enum.Enum):
    """What to do when no VM is ready."""

    WAIT = "wait"
    """Wait until the deadline. Users take turns; the requests of one user are served in order of arrival."""
    FAIL = "fail"
    """Fail at once."""
    BOOT = "boot"
    """Produce one VM beyond the pool's size, as soon as there is room, even while the pool backs off; fail if that
    production fails, or if the circuit is open."""


@attrs.frozen(kw_only=True)
class PoolPolicy:
    """The policy of one profile."""

    size: int = attrs.field(validator=ge(0))
    """VMs that are ready or being produced for the pool; handed-out ones are not counted. A resize changes it."""
    adaptive: AdaptiveSize | None = None
    """The size follows the demand, whatever `size` says; a resize is refused."""
    min_ready: int = attrs.field(default=1, validator=ge(0))
    """At least this many VMs, or `size` if that is less, stay ready while stale ones are replaced."""
    max_vms: int | None = attrs.field(default=None, validator=attrs.validators.optional(ge(0)))
    """Maximum of the profile's VMs, including leased ones, without stopping ones. None: no limit."""
    within: str = ""
    """The profile on which a caller's own configuration is based; both share that profile's `max_vms`. Empty: none."""
    shells: int = attrs.field(default=0, validator=ge(0))
    """QEMU processes that are kept started, to be filled when a caller has to wait."""
    on_empty: OnEmpty = OnEmpty.WAIT
    """For callers who do not choose."""
    memory_mib: int = attrs.field(default=0, validator=ge(0))
    """Of a base VM; counts against the service's budget."""
    max_vcpus: int | None = None
    """Maximum that a caller may request; None: the machine's own maximum."""
    max_memory_mib: int | None = None
    cost: ProductionCost = ProductionCost.BOOT
    """Cost class of a production."""
    production_limit: int = attrs.field(default=2, validator=ge(1))
    """How many VMs may be in production for the pool at a time. Production for BOOT claims comes on top."""
    backoff: Backoff = attrs.field(factory=Backoff)
    breaker_threshold: int = attrs.field(default=5, validator=ge(1))
    """Failures in a row that open the circuit: BOOT requests are then refused until a trial succeeds."""
    max_age_s: float = attrs.field(default=math.inf, validator=gt(0))
    """A VM that has been idle for this long is replaced."""
    check_interval_s: float = attrs.field(default=math.inf, validator=gt(0))
    """Time between two checks of an idle VM's agent."""


@attrs.frozen(kw_only=True)
class ServicePolicy:
    """Limits of all profiles together. Infinity: no limit."""

    boots_at_once: float = attrs.field(default=math.inf, validator=ge(1))
    """Guests that boot at a time."""
    clones_at_once: float = attrs.field(default=math.inf, validator=ge(1))
    memory_budget_mib: float = attrs.field(default=math.inf, validator=gt(0))
    """Nominal memory of all VMs, from the start of their production until their process is gone."""
    leases_per_uid: float = attrs.field(default=math.inf, validator=ge(0))
    """Leases of one user, including requested ones."""
    requests_per_uid: float = attrs.field(default=math.inf, validator=ge(1))
    """Acquisitions of one user that wait at a time."""
    requests: float = attrs.field(default=math.inf, validator=ge(1))
    """Acquisitions of all users that wait at a time. One user may have at most as many as remain for others, so that
    room is left for the next user."""
    adoptions_at_once: int = attrs.field(default=8, validator=ge(1))
    """Idle VMs of an earlier run that are connected to at a time."""
    checks_at_once: int = attrs.field(default=2, validator=ge(1))
    """Idle VMs whose agents are checked at a time."""

    def at_once(self, cost: ProductionCost) -> float:
        """The maximum of productions of this class at a time."""
        match cost:
            case ProductionCost.BOOT:
                return self.boots_at_once
            case ProductionCost.CLONE:
                return self.clones_at_once
