"""The standard health service: grpclib's, hardened against hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import attrs
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.health.v1.health_pb2 import HealthCheckResponse

from pool.core.coordinator import Coordinator
from pool.ledger.news import LeaseNews, News
from pool.rpc.calls import ServerStream

POOL: Final = "vmpool.v1.Pool"


class HealthBoard:
    """The health of the whole service, and of each configured profile."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.whole = ServiceStatus()
        self.profiles = {profile: ServiceStatus() for profile in coordinator.policies}
        self._coordinator = coordinator
        self._serving = False

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps the statuses up to date within the block, until `close`."""
        self._serving = True
        self.whole.set(True)
        with self._coordinator.watchers.heard_by(self._hear):
            for profile in self.profiles:
                self._look_at(profile)
            yield

    def close(self) -> None:
        """Sets all statuses to NOT_SERVING, for good."""
        self._serving = False
        self.whole.set(False)
        for status in self.profiles.values():
            status.set(False)

    def _hear(self, news: News) -> None:
        profile = news.lease.profile if isinstance(news, LeaseNews) else news.profile
        if profile in self.profiles:
            self._look_at(profile)

    def _look_at(self, profile: str) -> None:
        self.profiles[profile].set(self._serving and self._coordinator.can_hand_out(profile))


class HealthService(Health):
    """Answers Check and Watch, for the whole service, for vmpool.v1.Pool, and for vmpool.v1.Pool/PROFILE."""

    def __init__(self, checks: Any, *, profiles: Mapping[str, ServiceStatus]) -> None:
        super().__init__(checks)
        # Not among grpclib's own checks, which determine the status of the whole service.
        self._checks |= {f"{POOL}/{profile}": {status} for profile, status in profiles.items()}

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
    """The request. Raises GRPCError if it is missing, for which grpclib would log a traceback."""
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
