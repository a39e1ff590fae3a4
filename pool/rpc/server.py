"""The server: serves calls from a listening socket until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
import structlog
import trio
from grpclib.events import RecvRequest, listen

from pool.core.coordinator import Coordinator
from pool.rpc.admin import AdminService
from pool.rpc.calls import Body, Calls
from pool.rpc.health import HealthBoard, HealthService
from pool.rpc.listening import GuardedServer, open_server
from pool.rpc.machine.files import FilesService
from pool.rpc.machine.guests import Guests
from pool.rpc.machine.ports import PortsService
from pool.rpc.machine.processes import ProcessesService
from pool.rpc.reflection import ReflectionService
from pool.rpc.service import PoolService, ServiceInfo
from pool.rpc.users import Users
from pool.settings.limits import MAX_MESSAGE_BYTES, EdgeLimits
from pool.settings.permissions import Permitted, default_uids
from vmpool.wire.crossing import open_loop

_log = structlog.get_logger("vmpool.rpc")

FAREWELL_LIMIT_S: Final = 1.0
"""Bounds each of the last two steps: ended calls send their statuses, connections send pending output."""


@attrs.frozen(kw_only=True)
class ServerSettings:
    allowed_uids: frozenset[int] = attrs.field(factory=default_uids)
    """Users that may call; by default root and the user the service runs as."""
    allowed_gids: frozenset[int] = frozenset()
    """Groups whose members may call too."""
    acquire_timeout_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """How long an Acquire without a deadline waits."""
    max_message_bytes: int = attrs.field(default=MAX_MESSAGE_BYTES, validator=attrs.validators.gt(0))
    limits: EdgeLimits = attrs.field(factory=EdgeLimits)


@attrs.frozen(kw_only=True)
class ServerStatistics:
    connections: int
    calls: int
    """Running now."""
    violations: int
    """Connections closed because of protocol violations, since the start."""
    floods: int
    """Connections closed because of too many useless frames, since the start."""
    loop_errors: int
    """Errors that only the event loop caught, since the start. Each is a bug."""


@attrs.define(eq=False, kw_only=True)
class RpcServer:
    """A running server; `serve` makes it."""

    _server: GuardedServer
    _calls: Calls
    _endless: tuple[Body, ...]
    """Calls that would not end by themselves, and whose end costs their callers nothing."""
    _health: HealthBoard
    _socks: list[socket.socket] = attrs.field(factory=list, init=False)
    _loop_errors: int = attrs.field(default=0, init=False)
    _stop_requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    _grace_s: float = attrs.field(default=0.0, init=False)

    def stop(self, *, grace_s: float = 0.0) -> None:
        """Begins the shutdown; `serve` returns when it is done. Does not wait. Only the first call counts.

        Health reports NOT_SERVING, and new calls get UNAVAILABLE, as do those that wait, watch, follow or listen, and
        would not end by themselves. Other calls have `grace_s` seconds to end by themselves before they get UNAVAILABLE
        too; then all connections are closed.
        """
        if not self._stop_requested.is_set():
            self._grace_s = grace_s
            self._stop_requested.set()

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(
            connections=len(self._server.connections),
            calls=self._calls.running,
            violations=self._server.violations,
            floods=self._server.floods,
            loop_errors=self._loop_errors,
        )

    def note_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002 - asyncio's
        """The loop's exception handler."""
        self._loop_errors += 1
        _log.error("error in the event loop", what=context.get("message"), exc_info=context.get("exception"))

    async def listen_also(self, sock: socket.socket) -> None:
        """Serves calls from one more socket. The socket is closed at the end, and if this fails."""
        try:
            await self._server.loop.run(self._server.open, sock)
        except BaseException:
            sock.close()
            raise
        self._socks.append(sock)

    async def run(self, sock: socket.socket, *, task_status: trio.TaskStatus[RpcServer]) -> None:
        await self._server.loop.run(self._server.open, sock)
        self._socks.append(sock)
        with self._health.kept():
            task_status.started(self)
            try:
                await self._stop_requested.wait()
            finally:
                # Clients get a status even if the server is cancelled; every step is bounded.
                with trio.CancelScope(shield=True):
                    await self._end()

    async def _end(self) -> None:
        self._health.close()
        self._calls.stop()
        self._calls.end(*self._endless)
        with trio.move_on_after(self._grace_s):
            await self._calls.wait_idle()
        self._calls.end()
        with trio.move_on_after(FAREWELL_LIMIT_S):
            await self._calls.wait_idle()
        # Closing this descriptor alone would leave clients waiting in the queue of a duplicate kept for a restart.
        shut_down = self._socks if self._stop_requested.is_set() else ()
        await self._server.loop.run(self._server.farewell, shut_down, limit_s=FAREWELL_LIMIT_S)


async def serve(
    *,
    coordinator: Coordinator,
    sock: socket.socket,
    info: ServiceInfo,
    hand_over: Callable[[], None] = lambda: None,
    settings: ServerSettings | None = None,
    task_status: trio.TaskStatus[RpcServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves the services of vmpool.v1, grpc.health.v1.Health and reflection on `sock`, a listening Unix stream socket.

    It closes the socket. `hand_over` is called when an administrator requests it, and must not wait.

    After `RpcServer.stop` the socket accepts no connections, not even through its duplicates.

    `task_status.started` gets the RpcServer once calls are served; its `stop` ends it in good order. If cancelled, it
    ends in the same way without grace, within 3 * FAREWELL_LIMIT_S.
    """
    settings = settings or ServerSettings()
    async with open_loop() as loop:
        calls = Calls(loop)
        health = HealthBoard(coordinator)
        guests = Guests(coordinator=coordinator)
        service = PoolService(
            coordinator=coordinator,
            info=info,
            calls=calls,
            guests=guests,
            acquire_timeout_s=settings.acquire_timeout_s,
        )
        processes = ProcessesService(guests=guests, calls=calls)
        files = FilesService(guests=guests, calls=calls)
        ports = PortsService(guests=guests, calls=calls)
        in_vms = (processes, files, ports)
        admin = AdminService(
            coordinator=coordinator, calls=calls, service_uid=info.service_uid, begin_hand_over=hand_over
        )
        whole = {each: [health.whole] for each in (service, *in_vms)}
        served = [service, admin, *in_vms, HealthService(whole, profiles=health.profiles)]
        reflection = ReflectionService.of(served, calls=calls)
        users = Users(access=Permitted(uids=settings.allowed_uids, gids=settings.allowed_gids), limits=settings.limits)
        server = await loop.run(
            open_server, [*served, reflection], loop=loop, max_message_bytes=settings.max_message_bytes, users=users
        )
        listen(server, RecvRequest, calls.refuse_while_stopping)
        endless = (
            service.acquire_call,
            service.watch_call,
            processes.attach_call,
            processes.wait_call,
            files.watch_call,
            ports.listen_call,
            ports.wait_call,
            reflection.info_call,
        )
        rpc = RpcServer(server=server, calls=calls, endless=endless, health=health)
        loop.set_exception_handler(rpc.note_loop_error)
        await rpc.run(sock, task_status=task_status)
