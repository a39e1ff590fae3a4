"""Limits on each user's share of connections, calls and memory of the RPC layer.

All usage is counted by uid, over all its connections. Nothing here waits or does I/O.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import attrs
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.rpc.flood import CONNECT, USER_CAPACITY, USER_REFILL_PER_S, TokenBucket
from pool.rpc.output import GuestRoom, OutputBudget
from pool.settings.limits import EdgeLimits
from pool.settings.permissions import Caller, Permitted, default_uids

RESERVED_CONNECTIONS: Final = 16
"""Of all connections, for root and the service's user."""

RESERVED_CALLS: Final = 64
"""Of each user, beyond limits.calls_per_user, for methods that end at once or release something."""

BRIEF_METHODS: Final = frozenset(
    {
        "/vmpool.v1.Pool/Status",
        "/vmpool.v1.Pool/Release",
        "/vmpool.v1.Pool/Renew",
        "/vmpool.v1.Pool/GetLease",
        "/vmpool.v1.Pool/ListLeases",
        "/vmpool.v1.Processes/Signal",
        "/vmpool.v1.Processes/Forget",
        "/grpc.health.v1.Health/Check",
    }
)
"""These methods, and all of ADMIN, may use RESERVED_CALLS too."""

ADMIN: Final = "/vmpool.v1.Admin/"

TURNED_AWAY_PER_USER: Final = 8
TURNED_AWAY_IN_ALL: Final = 64
"""Refused connections that stay open to report the reason. Further ones are closed without a reason."""

COURTESY: Final = 20
COURTESY_PER_S: Final = 10
"""Refused connections of one user that get a reason: at once, and each second later. Closing one costs a tenth."""

MAX_KNOWN_USERS: Final = 1024
"""Users that are remembered without a connection."""


@attrs.define(eq=False, kw_only=True)
class User:
    """The current usage of one uid."""

    uid: int
    limits: EdgeLimits
    connections: int = 0
    turned_away: int = 0
    calls: int = 0
    """Open calls of all methods."""
    request_bytes: int = 0
    output: OutputBudget = attrs.field(
        default=attrs.Factory(
            lambda user: OutputBudget(
                uid=user.uid, limit=user.limits.output_bytes_per_user, most_streams=user.limits.execs_per_user
            ),
            takes_self=True,
        )
    )
    courtesy: TokenBucket = attrs.field(factory=lambda: TokenBucket(capacity=COURTESY, refill_per_s=COURTESY_PER_S))
    budget: TokenBucket = attrs.field(
        factory=lambda: TokenBucket(capacity=USER_CAPACITY, refill_per_s=USER_REFILL_PER_S)
    )

    def begin_call(self, method: str) -> GRPCError | None:
        """The reason to refuse another call of this method. None: the call counts until `end_call`."""
        limit = self.limits.calls_per_user
        if method in BRIEF_METHODS or method.startswith(ADMIN):
            limit += RESERVED_CALLS
        if self.calls >= limit:
            return _exhausted(
                f"uid {self.uid} has {self.calls} calls open, the maximum for one user (limits.calls_per_user); wait "
                "until some have ended"
            )
        self.calls += 1
        return None

    def end_call(self) -> None:
        self.calls -= 1

    @contextlib.contextmanager
    def guest_stream(self, *, given: int = 0) -> Iterator[GuestRoom]:
        """Counts one command, or another call that streams to or from a guest, while it runs; `given` bytes of stdin
        come with its start. Raises GRPCError RESOURCE_EXHAUSTED, NoRoomError.
        """
        running = self.output.streams
        if running >= self.limits.execs_per_user:
            raise _exhausted(
                f"uid {self.uid} has {running} commands and streams of files and ports, the maximum for one user "
                "(limits.execs_per_user); wait until one has ended"
            )
        room = self.output.begin(given=given)
        try:
            yield room
        finally:
            room.end()

    def take_request_bytes(self, size: int) -> None:
        """Raises GRPCError RESOURCE_EXHAUSTED without taking anything. The caller must give the bytes back."""
        limit = self.limits.request_bytes_per_user
        if self.request_bytes + size > limit:
            raise _exhausted(
                f"the message takes {size} bytes; open calls of uid {self.uid} take {self.request_bytes}, and the "
                f"maximum is {limit} (limits.request_mib_per_user); wait until some have ended, or send less"
            )
        self.request_bytes += size

    @property
    def has_nothing(self) -> bool:
        return not (self.connections or self.turned_away or self.calls)


@attrs.define(eq=False, kw_only=True)
class RequestBytes:
    """The part of a user's request bytes that one call takes."""

    user: User
    _held: int = attrs.field(default=0, init=False)

    def begin(self, size: int) -> None:
        """Takes the bytes of the next message, and gives back those of the one before. Raises GRPCError
        RESOURCE_EXHAUSTED.
        """
        self.end()
        self.add(size)

    def add(self, size: int) -> None:
        """Takes more bytes for the same message. Raises GRPCError RESOURCE_EXHAUSTED."""
        self.user.take_request_bytes(size)
        self._held += size

    def end(self) -> None:
        """Gives all bytes back."""
        self.user.request_bytes -= self._held
        self._held = 0


@attrs.define(eq=False, kw_only=True)
class Users:
    """All users that have, or recently had, connections."""

    access: Permitted
    limits: EdgeLimits
    privileged: frozenset[int] = attrs.field(factory=default_uids)
    """Uids that may use RESERVED_CONNECTIONS."""
    connections: int = attrs.field(default=0, init=False)
    _turned_away: int = attrs.field(default=0, init=False)
    _known: dict[int, User] = attrs.field(factory=dict, init=False)

    def enter(self, caller: Caller, *, now: float) -> tuple[User, GRPCError | None]:
        """Counts a new connection until `leave`, or returns the reason to refuse it."""
        user = self._user(caller.uid, now=now)
        refusal = self._refusal(user, caller, now=now)
        if refusal is None:
            user.connections += 1
            self.connections += 1
        return user, refusal

    def leave(self, user: User) -> None:
        user.connections -= 1
        self.connections -= 1

    def begin_turning_away(self, user: User, *, now: float) -> bool:
        """Whether one more refused connection may get a reason; if so, it counts until `end_turning_away`."""
        if user.turned_away >= TURNED_AWAY_PER_USER or self._turned_away >= TURNED_AWAY_IN_ALL:
            return False
        if not user.courtesy.charge(1, now=now):
            return False
        user.turned_away += 1
        self._turned_away += 1
        return True

    def end_turning_away(self, user: User) -> None:
        user.turned_away -= 1
        self._turned_away -= 1

    def _refusal(self, user: User, caller: Caller, *, now: float) -> GRPCError | None:
        calm = user.budget.charge(CONNECT, now=now)
        if not self.access.permits(caller):
            return GRPCError(
                Status.PERMISSION_DENIED,
                f"uid {user.uid} may not use this service; ask its administrator to allow it in [access]",
            )
        if user.connections >= self.limits.connections_per_user:
            return _exhausted(
                f"uid {user.uid} has {user.connections} connections, the maximum for one user "
                "(limits.connections_per_user); close some, or share them: each takes 100 calls"
            )
        kept = 0 if user.uid in self.privileged else RESERVED_CONNECTIONS
        if self.connections >= self.limits.connections - kept:
            return _exhausted(
                f"the service has {self.connections} connections, the maximum for its limit on open files; try again "
                "later, or raise LimitNOFILE= in its unit"
            )
        if not calm:
            return _exhausted(
                f"uid {user.uid} opens or floods connections too fast; keep one open for many calls, and try again in "
                "a few seconds"
            )
        return None

    def _user(self, uid: int, *, now: float) -> User:
        user = self._known.get(uid)
        if user is None:
            if len(self._known) >= MAX_KNOWN_USERS:
                self._forget(now=now)
            user = self._known[uid] = User(uid=uid, limits=self.limits)
        return user

    def _forget(self, *, now: float) -> None:
        """Forgets users without connections and with a full budget."""
        for uid, user in tuple(self._known.items()):
            if user.has_nothing and user.budget.is_whole(now=now):
                del self._known[uid]


def _exhausted(message: str) -> GRPCError:
    return GRPCError(Status.RESOURCE_EXHAUSTED, message)
