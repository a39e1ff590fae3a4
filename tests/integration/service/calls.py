"""Calls and answers that the SDK does not have: keys for Hold, handing over, what was adopted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator

from grpclib.const import Cardinality

from actors.messages import Wishes
from pool.client import AcquiredVm, Client
from pool.client.connection import Method
from pool.client.convert import acquire_request, acquired_vm
from pool.client.exchange import receive, send_last
from pool.client.sdk import _HOLD, _STATUS, ANSWER_LIMIT_S
from pool.ledger.policy import OnEmpty
from pool.rpc.generated.vmpool import v1 as wire

_HAND_OVER = Method(
    path="/vmpool.v1.Admin/HandOver",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.HandOverRequest,
    reply=wire.HandOverReply,
)


@contextlib.asynccontextmanager
async def hold(
    client: Client, *, key: str, profile: str = "default", on_empty: OnEmpty = OnEmpty.WAIT, wait_s: float = 60.0
) -> AsyncIterator[AcquiredVm]:
    """A lease that lives as long as the block, and is the same one for whoever holds it by the same key."""
    request = acquire_request(profile=profile, key=key, on_empty=on_empty, wishes=Wishes(), ttl_s=None, wait_s=wait_s)
    async with client._connection.open(_HOLD, timeout_s=math.inf) as stream:
        await client._connection.call(send_last, stream, request)
        first = await client._connection.call(receive, stream)
        assert first is not None
        assert first.acquired is not None
        yield acquired_vm(first.acquired)


async def hand_over(client: Client) -> None:
    """The service lets go of its VMs and ends."""
    await client._ask(_HAND_OVER, wire.HandOverRequest(), timeout_s=ANSWER_LIMIT_S)


async def counters_of(client: Client) -> wire.PoolCounters:
    """Of the first profile, with what was adopted."""
    profile, *_ = (await client._ask(_STATUS, wire.StatusRequest(), timeout_s=ANSWER_LIMIT_S)).profiles
    assert profile.counters is not None
    counters: wire.PoolCounters = profile.counters
    return counters
