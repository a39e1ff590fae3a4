"""The server below the calls: its listening sockets, its connections, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import trio
from grpclib.config import Configuration
from grpclib.server import Server

from pool.host.allocator import Surplus
from pool.rpc import turned_away
from pool.rpc.connection import GOODBYE, GuardedProtocol
from pool.rpc.door import Door
from pool.rpc.framing import Codec
from pool.rpc.patience import Patience
from pool.rpc.repeats import Repeats
from pool.rpc.tasks import GuardedHandler
from pool.rpc.turned_away import TurnedAway
from pool.rpc.turns import Turns
from pool.rpc.users import User, Users
from pool.settings.permissions import Caller
from vmpool.wire.crossing import GuestLoop

HEALTH: Final = "/grpc.health.v1.Health/"
"""The prefix of health methods, whose Watch does not end by itself."""

FIRST_CALL_LIMIT_S: Final = 30.0
"""For a new connection to begin a call. Clients reconnect by themselves for a later call, as the SDK and grpcio do.
After its first call, a connection may stay open without a limit."""


TIDY_AFTER_S: Final = 1.0
"""From the end of a connection until its memory is returned to the host: its calls have ended by then."""

TIDY_PAUSE_S: Final = 2.0
"""Until the next look at memory after some was returned."""


class GuardedServer(Server):
    """grpclib's server with the guarded classes, and an orderly end."""

    def __init__(self, handlers: list[Any], *, loop: GuestLoop, max_message_bytes: int, users: Users) -> None:
        super().__init__(
            handlers,
            codec=Codec(),
            # The kernel reports a local peer that goes away.
            config=Configuration(_keepalive_time=None),
        )
        self._h2_config.validate_inbound_headers = True
        self.loop = loop
        self.max_message_bytes = max_message_bytes
        self.users = users
        self.repeats = Repeats()
        self.connections: set[GuardedProtocol] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.violations = 0
        """Connections that were closed because of protocol violations."""
        self.floods = 0
        """Connections that were closed because of too many useless frames."""
        self.hanging_up = False
        self.silent: Patience[GuardedProtocol] = Patience(
            limit_s=FIRST_CALL_LIMIT_S, give_up=lambda protocol: protocol.hang_up("no call was begun")
        )
        self._turned_away: Patience[TurnedAway] = Patience(limit_s=turned_away.LIMIT_S, give_up=TurnedAway.close)
        self._fewer_connections = asyncio.Event()
        self._doors: list[Door] = []
        self._behind: Turns[GuardedProtocol] = Turns()
        self._has_behind = trio.Event()
        self._connection_ended = trio.Event()
        self._upkeep: asyncio.Task[None] | None = None

    @property
    def mapping(self) -> dict[str, Any]:
        return self._mapping

    @property
    def configuration(self) -> Configuration:
        return self._config

    @property
    def http2_configuration(self) -> Any:
        return self._h2_config

    async def open(self, sock: socket.socket) -> None:
        """Accepts connections from a listening socket, and closes it in the end. May be called for several sockets."""
        if self._upkeep is None:
            self._upkeep = self.loop.create_task(self.loop.in_trio(self._look_after))
            self._upkeep.add_done_callback(self._note_end)
        self._doors.append(
            Door(
                sock,
                loop=self.loop,
                admit=self._admit,
                privileged=self.users.privileged,
                repeats=self.repeats,
            )
        )

    def _admit(self, caller: Caller) -> Callable[[], asyncio.Protocol] | None:
        now = trio.current_time()
        user, refusal = self.users.enter(caller, now=now)
        if refusal is None:
            return partial(self._make_protocol, user, caller)
        self.repeats.warn("connection refused", uid=caller.uid, now=now, detail=refusal.message)
        if not self.users.begin_turning_away(user, now=now):
            return None

        def make() -> TurnedAway:
            protocol = TurnedAway(refusal, on_lost=partial(self._has_gone, user))
            self._turned_away.expect(protocol)
            return protocol

        return make

    def _make_protocol(self, user: User, caller: Caller) -> GuardedProtocol:
        self.__gc_step__()
        handler = GuardedHandler(self, caller)
        self._handlers.add(handler)
        return GuardedProtocol(self, handler, user)

    def _has_gone(self, user: User, protocol: TurnedAway) -> None:
        self._turned_away.satisfied(protocol)
        self.users.end_turning_away(user)

    def on_connection_lost(self, protocol: GuardedProtocol) -> None:
        self.connections.discard(protocol)
        self.silent.satisfied(protocol)
        self.users.leave(protocol.user)
        self._fewer_connections.set()
        self._connection_ended.set()

    def go_on_later(self, protocol: GuardedProtocol) -> None:
        """Schedules `go_on` of a connection that has more work than it may do at once."""
        self._behind.add(protocol.user, protocol)
        self._has_behind.set()

    async def _look_after(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.silent.run)
            nursery.start_soon(self._turned_away.run)
            nursery.start_soon(self._serve_those_behind)
            nursery.start_soon(self._give_memory_back)

    async def _give_memory_back(self) -> None:
        surplus = Surplus()
        while True:
            await self._connection_ended.wait()
            await trio.sleep(TIDY_AFTER_S)
            self._connection_ended = trio.Event()
            if surplus.give_back():
                await trio.sleep(TIDY_PAUSE_S)

    async def _serve_those_behind(self) -> None:
        """Handles one portion at a time, with a turn for trio's other tasks in between."""
        while True:
            while not self._behind:
                self._has_behind = trio.Event()
                await self._has_behind.wait()
            self.loop.call_soon(self._behind.next().go_on)
            await trio.lowlevel.checkpoint()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler({"message": "the upkeep of connections failed", "exception": error})

    async def farewell(self, shut_down: Sequence[socket.socket], *, limit_s: float) -> None:
        """Ends the server: sends pending statuses, then closes the connections, then aborts those that are left.

        The `shut_down` sockets accept no more connections. Takes at most twice `limit_s`.
        """
        for sock in shut_down:
            sock.shutdown(socket.SHUT_RDWR)
        for door in self._doors:
            await door.close()
        ending = {task for task in self.tasks if not task.get_name().startswith(HEALTH)}
        if ending:
            await asyncio.wait(ending, timeout=limit_s)
        self.hanging_up = True
        for protocol in tuple(self.connections):
            protocol.hang_up(GOODBYE)
        self._turned_away.give_up_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.connections or len(self._turned_away):
                    self._fewer_connections.clear()
                    await self._fewer_connections.wait()
        for protocol in tuple(self.connections):
            protocol.transport.abort()
        for handler in tuple(self._handlers):
            handler.close()
            await handler.wait_closed()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait({self._upkeep})


async def open_server(handlers: list[Any], *, loop: GuestLoop, max_message_bytes: int, users: Users) -> GuardedServer:
    """A coroutine, because grpclib needs a running loop."""
    return GuardedServer(handlers, loop=loop, max_message_bytes=max_message_bytes, users=users)
