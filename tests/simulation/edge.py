"""The edge of one run of the service, without its wire: the real handlers of calls into VMs, over calls in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.rpc.calls import Body, Calls
from pool.rpc.finding import answer_get_lease, answer_list_leases
from pool.rpc.machine.exec import ExecCall
from pool.rpc.machine.files import FilesService
from pool.rpc.machine.guests import Guests
from pool.rpc.machine.ports import PortsService
from pool.rpc.machine.processes import ProcessesService
from pool.rpc.machine.usage import UsageCalls
from pool.rpc.peer import current_caller, current_owner
from pool.rpc.stream import GuardedStream
from pool.rpc.users import User
from pool.settings.limits import EdgeLimits
from pool.settings.permissions import Caller

LIMITS: Final = EdgeLimits(calls_per_user=24, execs_per_user=8, output_bytes_per_user=2 * 2**20)
"""Small, so that they are met."""

UNREAD: Final = 2
"""Replies that a call in memory has, as connections have buffers."""

SERVICE_UID: Final = 0


class CallEndedError(Exception):
    """The status of a call, other than OK."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


class EdgeGoneError(Exception):
    """The service ended before it answered."""


@attrs.define(eq=False, kw_only=True)
class Call:
    """One call, as its client has it."""

    method: str
    lease_id: str
    began_at: float = attrs.field(factory=trio.current_time)
    _requests: trio.MemorySendChannel[Any]
    _replies: trio.MemoryReceiveChannel[Any]
    _ended: list[GRPCError | None] = attrs.field(factory=list)
    """Its status, once it has one; None is OK."""

    async def send(self, request: Any) -> None:
        """Lost if the call has ended: the next `receive` says how."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._requests.send(request)

    def send_end(self) -> None:
        self._requests.close()

    async def receive(self) -> Any | None:
        """The next reply; None after the last of a call that succeeded. Raises CallEndedError, EdgeGoneError."""
        try:
            return await self._replies.receive()
        except trio.EndOfChannel:
            pass
        if not self._ended:
            raise EdgeGoneError
        if (status := self._ended[0]) is not None:
            raise CallEndedError(status.status, status.message or "")
        return None


class _Wire(GuardedStream):
    """What a handler has of the wire below its stream."""

    def __init__(self, user: User, *, deadline: float) -> None:
        self._user = user
        self.deadline = deadline
        self.arrived_at = trio.current_time()
        self.request_bytes = _Unweighed()  # type: ignore[assignment]

    @property
    def user(self) -> User:
        return self._user

    @property
    def loop(self) -> Any:
        return _Here

    @property
    def abandoned(self) -> bool:
        return False


class _Unweighed:
    """Messages in memory have no size."""

    def add(self, size: int) -> None:
        pass


class _Here:
    """In place of asyncio's loop: there is none."""

    @staticmethod
    async def run(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return await function(*arguments)


@attrs.define(eq=False)
class _Stream:
    """In place of grpclib's stream."""

    _stream: _Wire
    _requests: trio.MemoryReceiveChannel[Any]
    _replies: trio.MemorySendChannel[Any]

    async def recv_message(self) -> Any | None:
        try:
            return await self._requests.receive()
        except trio.EndOfChannel:
            return None

    async def send_message(self, message: Any) -> None:
        await self._replies.send(message)

    async def send_trailing_metadata(self) -> None:
        pass


class _Bodies(Calls):
    """Has the trio code of the methods where grpclib would have what it calls."""

    def method(
        self, body: Body, request: type[Any], reply: type[Any], cardinality: Cardinality = Cardinality.UNARY_UNARY
    ) -> Handler:
        return Handler(body, cardinality, request, reply)


@attrs.define(eq=False, kw_only=True)
class Edge:
    coordinator: Coordinator
    guests: Guests = attrs.field(init=False)
    calls: Calls = attrs.field(init=False)
    users: dict[int, User] = attrs.field(factory=dict)
    running: set[Call] = attrs.field(factory=set)
    make_user: Callable[..., User] = User
    gone: bool = False
    methods: dict[str, Body] = attrs.field(factory=dict, init=False)
    _scopes: dict[trio.CancelScope, None] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.calls = _Bodies(None)  # type: ignore[arg-type]  # there is no loop
        self.use(Guests(coordinator=self.coordinator))

    def use(self, guests: Guests) -> None:
        self.guests = guests
        self.methods = {
            path.removeprefix("/vmpool.v1."): handler.func
            for service in (
                ProcessesService(guests=guests, calls=self.calls),
                FilesService(guests=guests, calls=self.calls),
                PortsService(guests=guests, calls=self.calls),
            )
            for path, handler in service.__mapping__().items()
        }
        self.methods["Pool/Exec"] = self._exec
        self.methods["Pool/VmMetrics"] = UsageCalls(guests=guests).answer
        self.methods["Pool/GetLease"] = lambda stream: answer_get_lease(
            stream, coordinator=self.coordinator, owner=current_owner(), service_uid=SERVICE_UID
        )
        self.methods["Pool/ListLeases"] = lambda stream: answer_list_leases(
            stream, coordinator=self.coordinator, owner=current_owner()
        )

    async def _exec(self, stream: Any) -> None:
        await ExecCall(stream=stream, guests=self.guests, owner=current_owner()).run()

    @contextlib.asynccontextmanager
    async def call(
        self, method: str, *, owner: Owner, lease_id: str = "", limit_s: float = math.inf
    ) -> AsyncIterator[Call]:
        """A call for the length of the block, as "Processes/Attach"; whoever leaves the block goes away from it."""
        if self.gone:
            raise EdgeGoneError
        user = self.users.setdefault(owner.uid, self.make_user(uid=owner.uid, limits=LIMITS))
        if (refusal := user.begin_call(f"/vmpool.v1.{method}")) is not None:
            raise CallEndedError(refusal.status, refusal.message or "")
        requests, incoming = trio.open_memory_channel[Any](UNREAD)
        replies, outgoing = trio.open_memory_channel[Any](UNREAD)
        call = Call(method=method, lease_id=lease_id, requests=requests, replies=outgoing)
        wire = _Wire(user, deadline=trio.current_time() + limit_s)
        stream = _Stream(wire, incoming, replies)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, self.methods[method], stream, call, owner)
                try:
                    yield call
                finally:
                    nursery.cancel_scope.cancel(reason="the client has left its call")
        finally:
            requests.close()
            outgoing.close()
            user.end_call()

    async def ask(self, method: str, request: Any, *, owner: Owner, lease_id: str = "") -> Any:
        """A call with one request and one reply. Raises CallEndedError, EdgeGoneError."""
        try:
            async with self.call(method, owner=owner, lease_id=lease_id) as call:
                await call.send(request)
                call.send_end()
                return await call.receive()
        except* (CallEndedError, EdgeGoneError) as group:
            raise group.exceptions[0] from None

    async def _serve(self, body: Body, stream: _Stream, call: Call, owner: Owner) -> None:
        current_caller.set(Caller(uid=owner.uid, gid=owner.uid))
        with stream._requests, stream._replies, trio.CancelScope() as scope:
            self._scopes[scope] = None
            self.running.add(call)
            try:
                status = await self.calls._run(body, stream)  # type: ignore[arg-type]
                if not self.gone:
                    call._ended.append(status)
            finally:
                del self._scopes[scope]
                self.running.discard(call)

    def break_off(self) -> None:
        """The service is gone, and its calls with it."""
        self.gone = True
        for scope in self._scopes:
            scope.cancel(reason="the service is gone")

    def counted(self) -> str:
        """What is counted as open or taken; empty if nothing is."""
        left = {
            uid: (user.calls, user.request_bytes, user.output.streams, user.output.taken)
            for uid, user in self.users.items()
            if user.calls or user.request_bytes or user.output.streams or user.output.taken
        }
        return f"{self.calls.running} calls, by user: {left}" if left or self.calls.running else ""
