"""Running calls: how trio code answers a call, and how all calls are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio
from grpclib.const import Cardinality, Handler
from grpclib.events import RecvRequest
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from pool.rpc.errors import DeadlineError, InvalidRequestError, StoppingError, is_of_the_wire, to_status
from pool.rpc.stream import RECEIPT_LIMIT_S, guarded
from vmpool.wire.crossing import GuestLoop

ServerStream = Stream[Any, Any]
Body = Callable[[ServerStream], Awaitable[None]]
"""Trio code that answers one call with the functions below, and raises vmpool's errors."""

ANSWERED_WHILE_STOPPING: Final = frozenset(
    {"/vmpool.v1.Pool/Status", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
)
"""Methods that report on a service that shuts down."""


@attrs.define(eq=False)
class Calls:
    """All running calls. `stop` refuses new ones, `end` ends the running ones."""

    _loop: GuestLoop
    _running: dict[trio.CancelScope, Body] = attrs.field(factory=dict)
    _stopping: bool = False
    _idle: trio.Event = attrs.field(factory=trio.Event)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def method(
        self, body: Body, request: type[Any], reply: type[Any], cardinality: Cardinality = Cardinality.UNARY_UNARY
    ) -> Handler:
        """A method of a service, for its mapping. In place of the generated ones, which get only messages; `body` gets
        the call.
        """
        return Handler(self.handler(body), cardinality, request, reply)

    def handler(self, body: Body) -> Callable[[ServerStream], Awaitable[None]]:
        """The asyncio function that grpclib calls, for a body of trio code.

        The body is cancelled if its client goes away. An error is returned from trio as a value and raised only here: a
        nursery would wrap it in a group, which grpclib does not handle.
        """

        async def handle(stream: ServerStream) -> None:
            status = await self._loop.in_trio(self._run, body, stream)
            if guarded(stream).abandoned:
                # The body ended by itself just as its client left. grpclib expects the cancellation that it requested,
                # and would log a traceback for each such client.
                raise asyncio.CancelledError
            if status is not None:
                raise status

        return handle

    async def _run(self, body: Body, stream: ServerStream) -> GRPCError | None:
        scope = trio.CancelScope(deadline=guarded(stream).deadline)
        self._running[scope] = body
        try:
            with scope:
                await body(stream)
        except Exception as error:  # noqa: BLE001 - the client gets a status for any error
            if guarded(stream).abandoned and is_of_the_wire(error):
                return None  # sending failed since the client has left
            return to_status(error)
        except BaseExceptionGroup as errors:
            # The client has left, and meanwhile something failed, such as its lease: nobody is there to be told.
            failed, cancelled = errors.split(Exception)
            if failed is not None and not is_of_the_wire(failed):
                to_status(failed)  # a bug is logged
            assert cancelled is not None
            raise cancelled from None
        finally:
            del self._running[scope]
            if not self._running:
                self._idle.set()
        if scope.cancelled_caught:
            return to_status(StoppingError() if self._stopping else DeadlineError())
        return None

    async def refuse_while_stopping(self, event: RecvRequest) -> None:
        """A listener for RecvRequest."""
        if self._stopping and event.method_name not in ANSWERED_WHILE_STOPPING:
            raise to_status(StoppingError())

    def stop(self) -> None:
        """Refuses new calls. Running calls go on."""
        self._stopping = True

    def end(self, *bodies: Body) -> None:
        """Ends the running calls of `bodies`, or all, with UNAVAILABLE. Does not wait."""
        for scope, body in tuple(self._running.items()):
            if not bodies or body in bodies:
                scope.cancel(reason="the service is shutting down")

    async def wait_idle(self) -> None:
        """Returns when no call runs."""
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()


async def receive(stream: ServerStream) -> Any | None:
    """The next request, None after the last. Raises GRPCError for an invalid message."""
    request = await guarded(stream).loop.run(stream.recv_message)
    await trio.lowlevel.checkpoint()  # a client that sends fast must not starve the others
    return request


async def receive_only(stream: ServerStream) -> Any:
    """The single request of a call. Raises GRPCError for an invalid message, InvalidRequestError if it is missing.

    Not a checkpoint if the request has arrived, as it usually has.
    """
    request = await guarded(stream).loop.run(stream.recv_message)
    if request is None:
        raise InvalidRequestError(field="request", reason="is missing; send one message")
    return request


async def send(stream: ServerStream, message: Any) -> None:
    """Sends one of several replies; returns when it is in the connection's buffer. Waits while the client does not
    read.
    """
    await guarded(stream).loop.run(stream.send_message, message)
    await trio.lowlevel.checkpoint()


async def reply(stream: ServerStream, message: Any) -> None:
    """Sends the one reply and the status OK, in one packet. Waits while the client does not read."""
    await guarded(stream).loop.run(_send_with_status, stream, message)


async def reply_long(stream: ServerStream, message: Any) -> None:
    """`reply`, for one that is long: unread, it takes memory as a request does, and counts as one.

    Raises GRPCError RESOURCE_EXHAUSTED.
    """
    guarded(stream).request_bytes.add(len(bytes(message)))
    await reply(stream, message)


async def deliver(stream: ServerStream, message: Any) -> None:
    """Sends a reply and waits until the client has read it. Cancelled if the client goes away first.

    The receipt is the answer to an HTTP/2 PING in the same packet. It is awaited before the call's status is sent, so
    that a client whose call succeeded is never mistaken for one that went away.
    """
    receipt = await guarded(stream).loop.run(_send_with_receipt, stream, message)
    with trio.move_on_after(RECEIPT_LIMIT_S):
        await receipt.wait()


async def end(stream: ServerStream) -> None:
    """Sends the status OK after the replies."""
    await guarded(stream).loop.run(stream.send_trailing_metadata)


async def _send_with_status(stream: ServerStream, message: Any) -> None:
    guarded(stream).status_follows = True
    await stream.send_message(message)
    await stream.send_trailing_metadata()


async def _send_with_receipt(stream: ServerStream, message: Any) -> trio.Event:
    await stream.send_initial_metadata()
    receipt = guarded(stream).request_receipt()
    await stream.send_message(message)
    return receipt
