"""Calls as they are on the wire: Hold without the SDK coming back by itself, the counters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any, Final

from grpclib.const import Cardinality

from vmpool.client import AcquiredVm, Client, OnEmpty
from vmpool.client.convert import ON_EMPTY, acquired_vm
from vmpool.client.exchange import ask, receive, send_last
from vmpool.client.methods import Method
from vmpool.wire.generated.vmpool import v1 as wire

ANSWER_LIMIT_S: Final = 10.0

_HOLD: Final = Method(
    path="/vmpool.v1.Pool/Hold",
    cardinality=Cardinality.UNARY_STREAM,
    request=wire.AcquireRequest,
    reply=wire.HoldReply,
)
_STATUS: Final = Method(
    path="/vmpool.v1.Pool/Status",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.StatusRequest,
    reply=wire.StatusReply,
)


@contextlib.asynccontextmanager
async def hold(
    client: Client, *, key: str, profile: str = "default", on_empty: OnEmpty = OnEmpty.WAIT, wait_s: float = 60.0
) -> AsyncIterator[AcquiredVm]:
    """A lease that lives as long as the block, and is the same one for whoever holds it by the same key."""
    request = wire.AcquireRequest(
        profile=profile, idempotency_key=key, on_empty=ON_EMPTY[on_empty], wait_ms=math.ceil(wait_s * 1000)
    )
    async with client._connection.open(_HOLD, timeout_s=math.inf) as stream:
        await client._connection.call(send_last, stream, request)
        first = await client._connection.call(receive, stream)
        assert first is not None
        assert first.acquired is not None
        yield acquired_vm(first.acquired)


async def counters_of(client: Client) -> wire.PoolCounters:
    """Of the first profile."""
    profile, *_ = (await _ask(client, _STATUS, wire.StatusRequest())).profiles
    assert profile.counters is not None
    counters: wire.PoolCounters = profile.counters
    return counters


async def _ask(client: Client, method: Method, request: Any) -> Any:
    async with client._connection.open(method, timeout_s=ANSWER_LIMIT_S) as stream:
        return await client._connection.call(ask, stream, request)
