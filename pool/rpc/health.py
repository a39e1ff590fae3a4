"""The standard health service: grpclib's, hardened against hostile clients."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import attrs
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.service import Health
from grpclib.health.v1.health_pb2 import HealthCheckResponse

from pool.rpc.calls import ServerStream


class HealthService(Health):
    """Answers Check and Watch, for the whole service and for vmpool.v1.Pool."""

    async def Check(self, stream: ServerStream) -> None:  # noqa: N802 - the wire's name
        request = await _request(stream)
        await super().Check(cast("ServerStream", _Asked(stream=stream, request=request)))

    async def Watch(self, stream: ServerStream) -> None:  # noqa: N802 - the wire's name
        """Does not end by itself."""
        request = await _request(stream)
        if request.service not in self._checks:
            await stream.send_message(HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN))
            # grpclib sleeps for an hour at a time here, and asyncio keeps a cancelled timer until it is due, or until
            # a hundred are cancelled: such calls would stay in memory for that hour.
            await asyncio.Event().wait()
        await super().Watch(cast("ServerStream", _Asked(stream=stream, request=request)))


async def _request(stream: ServerStream) -> Any:
    """Raises GRPCError if there is no request, for which grpclib would log a traceback."""
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "request: is missing; send one message")
    return request


@attrs.frozen(kw_only=True)
class _Asked:
    """The part of a stream that grpclib's health service uses, with its request already read."""

    stream: ServerStream
    request: Any

    async def recv_message(self) -> Any:
        return self.request

    async def send_message(self, message: Any) -> None:
        await self.stream.send_message(message)

    async def send_trailing_metadata(self, *, status: Status) -> None:
        await self.stream.send_trailing_metadata(status=status)
