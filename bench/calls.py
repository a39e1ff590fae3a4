"""Calls to a service, timed as its client sees them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import attrs
from grpclib.const import Cardinality
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from vmpool.client import Client, open_client
from vmpool.client.from_trio import TrioConnection
from vmpool.client.methods import Method
from vmpool.wire.generated.vmpool import v1 as wire

EMPTY: Final = Method(
    path="/grpc.health.v1.Health/Check",
    cardinality=Cardinality.UNARY_UNARY,
    request=HealthCheckRequest,
    reply=HealthCheckResponse,
)
"""The smallest call of this server: an empty request, an answer of two bytes, and no trio task, ledger or VM between
them. A release of an unknown lease would pass the RPC layer and the coordinator."""

_RESIZE: Final = Method(
    path="/vmpool.v1.Admin/Resize",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.ResizeRequest,
    reply=wire.ResizeReply,
)
_STATUS: Final = Method(
    path="/vmpool.v1.Pool/Status",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.StatusRequest,
    reply=wire.StatusReply,
)
_LIMIT_S: Final = 10.0


@attrs.frozen(kw_only=True)
class Caller:
    """The SDK's client, and calls that it does not make, on the same connection."""

    client: Client
    _connection: TrioConnection

    async def empty(self) -> float:
        """Seconds of an empty unary call."""
        began = time.perf_counter()
        await self._ask(EMPTY, HealthCheckRequest())
        return time.perf_counter() - began

    async def resize(self, size: int, *, profile: str = "default") -> None:
        await self._ask(_RESIZE, wire.ResizeRequest(profile=profile, size=size))

    async def adopted(self) -> int:
        """VMs that the service adopted, of all profiles."""
        status = await self._ask(_STATUS, wire.StatusRequest())
        return sum(profile.counters.adopted for profile in status.profiles)

    async def _ask(self, method: Method, request: Any) -> Any:
        return await self._connection.ask(method, request, timeout_s=_LIMIT_S)


@contextlib.asynccontextmanager
async def open_caller(socket_path: Path) -> AsyncIterator[Caller]:
    async with open_client(socket_path) as client:
        yield Caller(client=client, connection=client._connection)  # noqa: SLF001 - calls that the SDK does not have
