"""The methods of vmpool.v1."""

from __future__ import annotations

from typing import Any, Final

import attrs
from grpclib.const import Cardinality

from vmpool.wire.generated.vmpool import v1 as wire


@attrs.frozen(kw_only=True)
class Method:
    path: str
    cardinality: Cardinality
    request: type[Any]
    reply: type[Any]


def _pool(
    name: str, request: type[Any], reply: type[Any], cardinality: Cardinality = Cardinality.UNARY_UNARY
) -> Method:
    return Method(path=f"/vmpool.v1.Pool/{name}", cardinality=cardinality, request=request, reply=reply)


def _admin(name: str, request: type[Any], reply: type[Any]) -> Method:
    return Method(path=f"/vmpool.v1.Admin/{name}", cardinality=Cardinality.UNARY_UNARY, request=request, reply=reply)


ACQUIRE: Final = _pool("Acquire", wire.AcquireRequest, wire.AcquireReply)
HOLD: Final = _pool("Hold", wire.AcquireRequest, wire.HoldReply, Cardinality.UNARY_STREAM)
RENEW: Final = _pool("Renew", wire.RenewRequest, wire.RenewReply)
RELEASE: Final = _pool("Release", wire.ReleaseRequest, wire.ReleaseReply)
EXEC: Final = _pool("Exec", wire.ExecRequest, wire.ExecReply, Cardinality.STREAM_STREAM)
CONSOLE: Final = _pool("Console", wire.ConsoleRequest, wire.ConsoleReply)
STATUS: Final = _pool("Status", wire.StatusRequest, wire.StatusReply)
WATCH: Final = _pool("Watch", wire.WatchRequest, wire.WatchReply, Cardinality.UNARY_STREAM)
METRICS: Final = _pool("Metrics", wire.MetricsRequest, wire.MetricsReply)

RESIZE: Final = _admin("Resize", wire.ResizeRequest, wire.ResizeReply)
DRAIN: Final = _admin("Drain", wire.DrainRequest, wire.DrainReply)
UNDRAIN: Final = _admin("Undrain", wire.UndrainRequest, wire.UndrainReply)
EVICT: Final = _admin("Evict", wire.EvictRequest, wire.EvictReply)
RESET: Final = _admin("Reset", wire.ResetRequest, wire.ResetReply)
HAND_OVER: Final = _admin("HandOver", wire.HandOverRequest, wire.HandOverReply)
