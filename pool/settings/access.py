"""Who may call, and how much: the tables `[access]` and `[limits]`, and the host's users and groups in them."""

from __future__ import annotations

import grp
import math
import pwd
from collections.abc import Iterable
from typing import Any, Final

import attrs
from attrs.validators import and_, ge, gt, le, optional

from pool.core.watch import WATCHERS_PER_USER
from pool.ledger.policy import ServicePolicy
from pool.rpc.framing import MAX_MESSAGE_BYTES
from pool.rpc.peer import default_uids
from pool.rpc.permissions import Permitted
from pool.rpc.users import EdgeLimits

Account = str | int
"""A name, or a number."""

MIB: Final = 2**20

UNREACHED: Final = 1_000_000
"""The most that a quota can be set to: as good as none."""

MAX_ID: Final = 2**32 - 2
"""Of users and groups; the number above it is no one."""


def structure_account(value: Any, _: Any) -> Account:
    """For cattrs. A number need not be known to the host, a name must be; that is told by `problems`."""
    if (isinstance(value, str) and "\0" not in value) or (type(value) is int and 0 <= value <= MAX_ID):
        return value
    raise TypeError(f"must be a name or a number, not {value!r}")


@attrs.frozen(kw_only=True)
class CustomMachineSettings:
    """The `[access.custom_machines]` table: who may describe a machine in place of a profile, of those who may call."""

    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()


@attrs.frozen(kw_only=True)
class AccessSettings:
    """The `[access]` table. Root and the service's user may always call."""

    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()
    """Primary or supplementary."""
    socket_group: Account | None = None
    """Whose members can reach the socket. None: nobody but root and the service's user."""
    custom_machines: CustomMachineSettings = attrs.field(factory=CustomMachineSettings)

    def problems(self) -> list[str]:
        """What is wrong, a sentence each, with the key."""
        problems = []
        for table, admitted in (("access", self), ("access.custom_machines", self.custom_machines)):
            unknown = (user for user in admitted.users if _uid(user) is None)
            problems += [f"{table}.users: there is no user {user!r}" for user in unknown]
            unknown = (group for group in admitted.groups if _gid(group) is None)
            problems += [f"{table}.groups: there is no group {group!r}" for group in unknown]
        if self.socket_group is not None and _gid(self.socket_group) is None:
            problems.append(f"access.socket_group: there is no group {self.socket_group!r}")
        admits = bool(self.users or self.groups)
        if admits and self.socket_group is None:
            problems.append("access.socket_group: without it nobody but root and the service's user reaches the socket")
        if self.socket_group is not None and not admits:
            problems.append("access.socket_group: its members reach the socket; say in users or groups who may call")
        return problems

    @property
    def uids(self) -> frozenset[int]:
        return _uids(self.users)

    @property
    def gids(self) -> frozenset[int]:
        return _gids(self.groups)

    @property
    def may_describe_machines(self) -> Permitted:
        return Permitted(uids=_uids(self.custom_machines.users), gids=_gids(self.custom_machines.groups))

    @property
    def socket_gid(self) -> int | None:
        return None if self.socket_group is None else _gid(self.socket_group)


@attrs.frozen(kw_only=True)
class LimitSettings:
    """The `[limits]` table."""

    max_message_mib: int = attrs.field(default=MAX_MESSAGE_BYTES // MIB, validator=and_(ge(1), le(1024)))
    acquire_timeout_s: float = attrs.field(default=60.0, validator=and_(gt(0), le(24 * 3600)))
    """How long an Acquire without a deadline waits."""
    max_open_requests: int = attrs.field(default=1000, validator=and_(ge(1), le(UNREACHED)))
    """Acquisitions of all users that wait at a time. One user may have no more of them than are left for others."""
    requests_per_user: int = attrs.field(default=100, validator=and_(ge(1), le(UNREACHED)))
    """Acquisitions of one user that wait at a time. By default nine users can have all of theirs, and leave room
    for others.
    """
    leases_per_user: int = attrs.field(default=256, validator=and_(ge(0), le(UNREACHED)))
    """VMs that one user has, or has asked for. Root is a user like others. By default as many as a large host has
    threads: more VMs of one user that work wait for each other."""
    watchers_per_user: int = attrs.field(default=WATCHERS_PER_USER, validator=and_(ge(1), le(UNREACHED)))
    boots_at_once: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Guests that boot at a time, of all profiles. None: as many as the service has CPUs."""
    clones_at_once: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """None: twice as many as the service has CPUs."""
    memory_budget_mib: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """What the guests of all VMs may have together, clones at their nominal size. None: no limit."""
    checks_at_once: int = attrs.field(default=2, validator=and_(ge(1), le(1000)))
    """Idle VMs whose agents are asked at a time whether they are there."""
    connections_per_user: int = attrs.field(default=256, validator=and_(ge(1), le(1_000_000)))
    calls_per_user: int = attrs.field(default=1000, validator=and_(ge(1), le(1_000_000)))
    """Open at a time, over all connections."""
    execs_per_user: int = attrs.field(default=256, validator=and_(ge(1), le(1_000_000)))
    """Commands that run at a time."""
    output_mib_per_user: int = attrs.field(default=32, validator=and_(ge(1), le(65536)))
    """Of what commands write or are sent, and nobody has read."""
    request_mib_per_user: int | None = attrs.field(default=None, validator=optional(and_(ge(1), le(65536))))
    """Of requests that are being received, or whose calls go on. None: four messages of the largest size."""

    def problems(self) -> list[str]:
        """What is wrong, a sentence each, with the key."""
        if self.request_mib_per_user is not None and self.request_mib_per_user < self.max_message_mib:
            problem = f"{self.request_mib_per_user} is less than max_message_mib = {self.max_message_mib}"
            return [f"limits.request_mib_per_user: {problem}; nobody could send such a message"]
        return []

    def edge(self, *, connections: int) -> EdgeLimits:
        """On a service that can have so many connections in all."""
        return EdgeLimits(
            connections=connections,
            connections_per_user=self.connections_per_user,
            calls_per_user=self.calls_per_user,
            execs_per_user=self.execs_per_user,
            output_bytes_per_user=self.output_mib_per_user * MIB,
            request_bytes_per_user=(self.request_mib_per_user or 4 * self.max_message_mib) * MIB,
        )

    def policy(self, *, cpus: int) -> ServicePolicy:
        """On a service that may use so many CPUs."""
        return ServicePolicy(
            boots_at_once=self.boots_at_once or cpus,
            clones_at_once=self.clones_at_once or 2 * cpus,
            memory_budget_mib=math.inf if self.memory_budget_mib is None else self.memory_budget_mib,
            leases_per_uid=self.leases_per_user,
            requests_per_uid=self.requests_per_user,
            requests=self.max_open_requests,
            checks_at_once=self.checks_at_once,
        )


def _uids(users: Iterable[Account]) -> frozenset[int]:
    return default_uids() | {uid for user in users if (uid := _uid(user)) is not None}


def _gids(groups: Iterable[Account]) -> frozenset[int]:
    return frozenset(gid for group in groups if (gid := _gid(group)) is not None)


def _uid(user: Account) -> int | None:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _gid(group: Account) -> int | None:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
