"""A service that says what the test wants, and that can be killed and started anew: HTTP/2 by hand on trio sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import DataReceived, RequestReceived, StreamReset

from tests.unit.rpc.raw import framed
from vmpool.wire.generated.vmpool import v1 as wire

_HEADER: Final = 5
_NOT_FOUND: Final = 5
_REQUESTS: Final[dict[str, Any]] = {
    "Acquire": wire.AcquireRequest,
    "GetLease": wire.GetLeaseRequest,
    "Hold": wire.AcquireRequest,
    "Release": wire.ReleaseRequest,
    "Exec": wire.ExecRequest,
    "ListLeases": wire.ListLeasesRequest,
    "Status": wire.StatusRequest,
    "Watch": wire.WatchRequest,
}


@attrs.frozen
class Answer:
    """Replies, and the status that ends the call; None: it stays open."""

    replies: tuple[Any, ...] = ()
    status: int | None = 0
    then_hangs_up: bool = False
    """In the same packet."""


def lease(lease_id: str) -> wire.Lease:
    return wire.Lease(lease_id=lease_id, vm_id="vm-1", profile="default", guest=wire.Guest(hostname="vm-1"))


def acquired(lease_id: str = "lease-1", *, match: wire.Match | None = None) -> wire.AcquireReply:
    return wire.AcquireReply(lease=lease(lease_id), timings=wire.AcquireTimings(), match=match)


def held(lease_id: str = "lease-1") -> Answer:
    return Answer((wire.HoldReply(acquired=acquired(lease_id)),), None)


def found(request: wire.GetLeaseRequest) -> Answer:
    """By its id; nothing has a name."""
    if request.lease_id is None:
        return Answer(status=_NOT_FOUND)
    return Answer((wire.GetLeaseReply(lease=lease(request.lease_id)),))


def leases(*lease_ids: str) -> Answer:
    return Answer((wire.ListLeasesReply(leases=[wire.LeaseStatus(lease_id=lease_id) for lease_id in lease_ids]),))


def status(*lease_ids: str, draining: bool = False) -> Answer:
    leases = [wire.LeaseStatus(lease_id=lease_id) for lease_id in lease_ids]
    return Answer((wire.StatusReply(draining=draining, leases=leases),))


@attrs.define
class _Call:
    method: str
    begun: bool = False
    """Its first message has come."""
    _rest: bytes = b""

    def messages(self, data: bytes) -> Iterator[Any]:
        """Those that are all there by now."""
        self._rest += data
        while len(self._rest) >= (end := _HEADER + int.from_bytes(self._rest[1:_HEADER].ljust(_HEADER - 1, b"\xff"))):
            message, self._rest = self._rest[_HEADER:end], self._rest[end:]
            yield _REQUESTS[self.method].parse(message)


@attrs.define(eq=False)
class ScriptedService:
    """Every service that is started one after the other on the same socket. Made by `scripted_service`."""

    path: Path
    nursery: trio.Nursery
    answers: dict[str, Callable[[Any], Answer]] = attrs.field(factory=dict)
    """By method, for the first message of a call."""
    calls: list[tuple[str, Any]] = attrs.field(factory=list)
    """Method and first message of each, in the order of arrival."""
    more: list[tuple[str, Any]] = attrs.field(factory=list)
    """Methods and messages that follow the first of a call."""
    resets: list[str] = attrs.field(factory=list)
    """Methods of the calls that the client gave up."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _dead: trio.Event = attrs.field(factory=trio.Event)
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def start(self) -> None:
        """Whoever connects from now on is served."""
        self.path.unlink(missing_ok=True)
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(str(self.path))
        sock.listen()
        self._scope, self._dead = trio.CancelScope(), trio.Event()
        self.nursery.start_soon(self._run, trio.SocketListener(sock))

    async def kill(self) -> None:
        """As SIGKILL does: all connections are closed, the socket's file stays."""
        self._scope.cancel()
        await self._dead.wait()

    async def called(self, method: str, times: int = 1) -> list[Any]:
        """The first messages of that method's calls, once there are so many."""
        return await self._wait_for(lambda: [message for name, message in self.calls if name == method], times)

    async def later(self, method: str, times: int = 1) -> list[Any]:
        """What followed the first messages of that method's calls, once there is so much."""
        return await self._wait_for(lambda: [message for name, message in self.more if name == method], times)

    async def given_up(self, method: str) -> None:
        await self._wait_for(lambda: [name for name in self.resets if name == method], 1)

    async def _wait_for(self, found: Callable[[], list[Any]], times: int) -> list[Any]:
        with trio.fail_after(20):
            while len(found()) < times:
                self._news = trio.Event()
                await self._news.wait()
        return found()

    async def _run(self, listener: trio.SocketListener) -> None:
        with self._scope:
            await trio.serve_listeners(self._talk, [listener])
        self._dead.set()

    async def _talk(self, stream: trio.SocketStream) -> None:
        http2 = H2Connection(config=H2Configuration(client_side=False, header_encoding="utf-8"))
        http2.initiate_connection()
        calls: dict[int, _Call] = {}
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await stream.send_all(http2.data_to_send())
                async for data in stream:
                    for event in http2.receive_data(data):
                        match event:
                            case RequestReceived():
                                path = dict[str | bytes, str | bytes](event.headers or ())[":path"]
                                calls[event.stream_id] = _Call(str(path).rpartition("/")[2])
                            case DataReceived():
                                http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                                self._take(http2, event.stream_id, calls[event.stream_id], event.data)
                            case StreamReset():
                                self.resets.append(calls[event.stream_id].method)
                                self._news.set()
                    await stream.send_all(http2.data_to_send())
                    if http2.state_machine.state is ConnectionState.CLOSED:
                        break

    def _take(self, http2: H2Connection, number: int, call: _Call, data: bytes) -> None:
        for message in call.messages(data):
            if call.begun:
                self.more.append((call.method, message))
            else:
                call.begun = True
                self.calls.append((call.method, message))
                self._answer(http2, number, call.method, message)
            self._news.set()

    def _answer(self, http2: H2Connection, call: int, method: str, message: Any) -> None:
        answer = self.answers[method](message)
        http2.send_headers(call, [(":status", "200"), ("content-type", "application/grpc")])
        for reply in answer.replies:
            http2.send_data(call, framed(reply))
        if answer.status is not None:
            http2.send_headers(call, [("grpc-status", str(answer.status))], end_stream=True)
        if answer.then_hangs_up:
            http2.close_connection()


@contextlib.asynccontextmanager
async def scripted_service(path: Path) -> AsyncIterator[ScriptedService]:
    """One that is started, and killed at the end."""
    async with trio.open_nursery() as nursery:
        service = ScriptedService(path, nursery)
        await service.start()
        yield service
        nursery.cancel_scope.cancel()
