"""What each user has of the service's edge, and how much one may have, so that nobody takes it from the others.

All of it is counted for a uid, over all its connections. Nothing here waits, or does I/O.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import attrs
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.rpc.flood import CONNECT, USER_CAPACITY, USER_REFILL_PER_S, TokenBucket
from pool.rpc.output import CommandRoom, OutputBudget
from pool.settings.limits import EdgeLimits
from pool.settings.permissions import Caller, Permitted, default_uids

RESERVED_CONNECTIONS: Final = 16
"""Of all, for root and the service's user."""

RESERVED_CALLS: Final = 64
"""Of each user, on top of what it may have open, for methods that end at once or give something back."""

BRIEF_METHODS: Final = frozenset(
    {"/vmpool.v1.Pool/Status", "/vmpool.v1.Pool/Release", "/vmpool.v1.Pool/Renew", "/grpc.health.v1.Health/Check"}
)
"""These, and all of ADMIN, do not count against a user's calls, but against RESERVED_CALLS besides."""

ADMIN: Final = "/vmpool.v1.Admin/"

TURNED_AWAY_PER_USER: Final = 8
TURNED_AWAY_IN_ALL: Final = 64
"""Connections that are being told that they may not be there. Those on top are closed without a word."""

COURTESY: Final = 20
COURTESY_PER_S: Final = 10
"""Of one user: connections that are told so at once, and later. To close one costs a tenth of that."""

MAX_KNOWN_USERS: Final = 1024
"""Of whom something is remembered though they have no connection."""


@attrs.define(eq=False, kw_only=True)
class User:
    """What one uid has now."""

    uid: int
    limits: EdgeLimits
    connections: int = 0
    turned_away: int = 0
    calls: int = 0
    """That are open, of all methods."""
    request_bytes: int = 0
    output: OutputBudget = attrs.field(
        default=attrs.Factory(
            lambda user: OutputBudget(
                uid=user.uid, limit=user.limits.output_bytes_per_user, most_commands=user.limits.execs_per_user
            ),
            takes_self=True,
        )
    )
    courtesy: TokenBucket = attrs.field(factory=lambda: TokenBucket(capacity=COURTESY, refill_per_s=COURTESY_PER_S))
    budget: TokenBucket = attrs.field(
        factory=lambda: TokenBucket(capacity=USER_CAPACITY, refill_per_s=USER_REFILL_PER_S)
    )

    def begin_call(self, method: str) -> GRPCError | None:
        """Why there is to be no further call of this method. None: it counts until `end_call`."""
        limit = self.limits.calls_per_user
        if method in BRIEF_METHODS or method.startswith(ADMIN):
            limit += RESERVED_CALLS
        if self.calls >= limit:
            return _exhausted(
                f"uid {self.uid} has {self.calls} calls open, as many as one user may have "
                "(limits.calls_per_user); wait until some have ended"
            )
        self.calls += 1
        return None

    def end_call(self) -> None:
        self.calls -= 1

    @contextlib.contextmanager
    def exec(self, *, given: int) -> Iterator[CommandRoom]:
        """Counts one command for as long as it lasts; `given` bytes of stdin come with it. Raises GRPCError
        RESOURCE_EXHAUSTED, NoRoomError.
        """
        running = self.output.commands
        if running >= self.limits.execs_per_user:
            raise _exhausted(
                f"uid {self.uid} has {running} commands running, as many as one user may have "
                "(limits.execs_per_user); wait until one has ended"
            )
        room = self.output.begin(given=given)
        try:
            yield room
        finally:
            room.end()

    def take_request_bytes(self, size: int) -> None:
        """Raises GRPCError RESOURCE_EXHAUSTED, and takes nothing then. They are to be given back."""
        limit = self.limits.request_bytes_per_user
        if self.request_bytes + size > limit:
            raise _exhausted(
                f"a request that takes {size} bytes, while uid {self.uid} has requests of {self.request_bytes} open, "
                f"and one user may have {limit} (limits.request_mib_per_user); wait until some have ended, or send less"
            )
        self.request_bytes += size

    @property
    def has_nothing(self) -> bool:
        return not (self.connections or self.turned_away or self.calls)


@attrs.define(eq=False, kw_only=True)
class RequestBytes:
    """What the requests of one call take of their user's share."""

    user: User
    _held: int = attrs.field(default=0, init=False)

    def begin(self, size: int) -> None:
        """The next message, of so many bytes; the one before was dealt with. Raises GRPCError RESOURCE_EXHAUSTED."""
        self.end()
        self.add(size)

    def add(self, size: int) -> None:
        """More for the same message. Raises GRPCError RESOURCE_EXHAUSTED."""
        self.user.take_request_bytes(size)
        self._held += size

    def end(self) -> None:
        """Gives all of it back."""
        self.user.request_bytes -= self._held
        self._held = 0


@attrs.define(eq=False, kw_only=True)
class Users:
    """Everybody who has connections, or had some of late."""

    access: Permitted
    limits: EdgeLimits
    privileged: frozenset[int] = attrs.field(factory=default_uids)
    """For whom RESERVED_CONNECTIONS are."""
    connections: int = attrs.field(default=0, init=False)
    _turned_away: int = attrs.field(default=0, init=False)
    _known: dict[int, User] = attrs.field(factory=dict, init=False)

    def enter(self, caller: Caller, *, now: float) -> tuple[User, GRPCError | None]:
        """Counts a new connection until `leave`, unless there is a reason against it."""
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
        """Whether one more connection may be told why it is refused; then it counts until `end_turning_away`."""
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
                f"uid {user.uid} has {user.connections} connections, as many as one user may have "
                "(limits.connections_per_user); close some, or share them: each takes 100 calls"
            )
        kept = 0 if user.uid in self.privileged else RESERVED_CONNECTIONS
        if self.connections >= self.limits.connections - kept:
            return _exhausted(
                f"the service has {self.connections} connections, as many as its limit on files leaves room for; "
                "try again later, or raise LimitNOFILE= in its unit"
            )
        if not calm:
            return _exhausted(
                f"uid {user.uid} opens connections too fast, or floods them; keep one open for many calls, and try "
                "again in some seconds"
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
        """Those of whom nothing is lost by it."""
        for uid, user in tuple(self._known.items()):
            if user.has_nothing and user.budget.is_whole(now=now):
                del self._known[uid]


def _exhausted(message: str) -> GRPCError:
    return GRPCError(Status.RESOURCE_EXHAUSTED, message)
