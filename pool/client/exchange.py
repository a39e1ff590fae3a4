"""Messages over one call. Asyncio code; run it with `Connection.call`."""

from __future__ import annotations

from typing import Any

import h2.exceptions
from grpclib.client import Stream
from grpclib.exceptions import StreamTerminatedError

ClientStream = Stream[Any, Any]

_ENDED = (StreamTerminatedError, h2.exceptions.ProtocolError)
"""What grpclib raises when the call has ended, even if a status came along."""


async def ask(stream: ClientStream, request: Any) -> Any:
    """One request, one reply. Raises GRPCError for any status but OK."""
    try:
        await stream.send_message(request, end=True)
        reply = await stream.recv_message()
        await stream.recv_trailing_metadata()
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - grpclib knows the status, and tells it only at the end of its own block
        raise
    return reply


async def send(stream: ClientStream, request: Any) -> None:
    """One of several requests."""
    try:
        await stream.send_message(request)
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - as above
        raise


async def receive(stream: ClientStream) -> Any | None:
    """One of several replies; None after the last if all went well. Raises GRPCError if not."""
    try:
        reply = await stream.recv_message()
        if reply is None:
            await stream.end()
            await stream.recv_trailing_metadata()
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - as above
        raise
    return reply
