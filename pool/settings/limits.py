"""The `[limits]` table: quotas of one user, and of all users together."""

from __future__ import annotations

import math
from typing import Final

import attrs
from attrs.validators import and_, ge, gt, le, optional

from pool.ledger.policy import ServicePolicy

MIB: Final = 2**20

MAX_MESSAGE_BYTES: Final = 4 * MIB
"""Default for one gRPC message."""

MOST_CONNECTIONS: Final = 10_000
"""Default for all users together, where the limit on descriptors is not considered."""

WATCHERS_PER_USER: Final = 16
"""Default; with four users at their maximum, there is room for three more such users."""

UNREACHED: Final = 1_000_000
"""The highest value of a quota: in effect no limit."""


@attrs.frozen(kw_only=True)
class EdgeLimits:
    """Limits of the RPC layer; all but `connections` are per user."""

    connections: int = MOST_CONNECTIONS
    """Of all users together, RESERVED_CONNECTIONS included."""
    connections_per_user: int = 256
    calls_per_user: int = 1000
    execs_per_user: int = 256
    """Commands, and other calls that stream to or from a guest."""
    output_bytes_per_user: int = 32 * MIB
    """What these calls have received and not passed on yet."""
    request_bytes_per_user: int = 16 * MIB
    """Requests that are being received, or whose calls are still running; and long replies that are not read yet."""


@attrs.frozen(kw_only=True)
class LimitSettings:
    """The `[limits]` table."""

    max_message_mib: int = attrs.field(default=MAX_MESSAGE_BYTES // MIB, validator=and_(ge(1), le(1024)))
    acquire_timeout_s: float = attrs.field(default=60.0, validator=and_(gt(0), le(24 * 3600)))
    """How long an Acquire without a deadline waits."""
    max_open_requests: int = attrs.field(default=1000, validator=and_(ge(1), le(UNREACHED)))
    """Waiting acquisitions of all users. One user may have at most as many as stay free for others."""
    requests_per_user: int = attrs.field(default=100, validator=and_(ge(1), le(UNREACHED)))
    """Waiting acquisitions of one user. By default nine users can have all of theirs, and leave room for others."""
    leases_per_user: int = attrs.field(default=256, validator=and_(ge(0), le(UNREACHED)))
    """VMs that one user has leased or asked for; root has the same limit. The default is the number of threads of a
    large host: more busy VMs would wait for each other."""
    watchers_per_user: int = attrs.field(default=WATCHERS_PER_USER, validator=and_(ge(1), le(UNREACHED)))
    boots_at_once: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Guests of all profiles that boot at a time. None: as many as the service has CPUs."""
    clones_at_once: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Clones of all profiles that start at a time. None: twice as many as the service has CPUs."""
    memory_budget_mib: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Memory of the guests of all VMs together, clones at their nominal size. None: no limit."""
    checks_at_once: int = attrs.field(default=2, validator=and_(ge(1), le(1000)))
    """Idle VMs that have a health check at a time."""
    connections_per_user: int = attrs.field(default=256, validator=and_(ge(1), le(1_000_000)))
    calls_per_user: int = attrs.field(default=1000, validator=and_(ge(1), le(1_000_000)))
    """Open at a time, over all connections."""
    execs_per_user: int = attrs.field(default=256, validator=and_(ge(1), le(1_000_000)))
    """Commands, and other calls that stream to or from a guest, at a time."""
    output_mib_per_user: int = attrs.field(default=32, validator=and_(ge(1), le(65536)))
    """What these calls have received and not passed on yet."""
    request_mib_per_user: int | None = attrs.field(default=None, validator=optional(and_(ge(1), le(65536))))
    """Requests that are being received, or whose calls are still running. None: four messages of the largest size."""

    def problems(self) -> list[str]:
        """One message for each error, with its key."""
        if self.request_mib_per_user is not None and self.request_mib_per_user < self.max_message_mib:
            problem = f"{self.request_mib_per_user} is less than max_message_mib = {self.max_message_mib}"
            return [f"limits.request_mib_per_user: {problem}; raise it, so that the largest message can be sent"]
        return []

    def edge(self, *, connections: int) -> EdgeLimits:
        """For a service that can have so many connections in all."""
        return EdgeLimits(
            connections=connections,
            connections_per_user=self.connections_per_user,
            calls_per_user=self.calls_per_user,
            execs_per_user=self.execs_per_user,
            output_bytes_per_user=self.output_mib_per_user * MIB,
            request_bytes_per_user=(self.request_mib_per_user or 4 * self.max_message_mib) * MIB,
        )

    def policy(self, *, cpus: int) -> ServicePolicy:
        """For a service that may use so many CPUs."""
        return ServicePolicy(
            boots_at_once=self.boots_at_once or cpus,
            clones_at_once=self.clones_at_once or 2 * cpus,
            memory_budget_mib=math.inf if self.memory_budget_mib is None else self.memory_budget_mib,
            leases_per_uid=self.leases_per_user,
            requests_per_uid=self.requests_per_user,
            requests=self.max_open_requests,
            checks_at_once=self.checks_at_once,
        )
