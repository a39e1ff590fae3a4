"""The methods of vmpool.v1."""

from __future__ import annotations

from collections.abc import Callable
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


def _of(service: str) -> Callable[..., Method]:
    def method(
        name: str, request: type[Any], reply: type[Any], cardinality: Cardinality = Cardinality.UNARY_UNARY
    ) -> Method:
        return Method(path=f"/vmpool.v1.{service}/{name}", cardinality=cardinality, request=request, reply=reply)

    return method


_pool = _of("Pool")
_processes = _of("Processes")
_files = _of("Files")
_ports = _of("Ports")
_admin = _of("Admin")


ACQUIRE: Final = _pool("Acquire", wire.AcquireRequest, wire.AcquireReply)
HOLD: Final = _pool("Hold", wire.AcquireRequest, wire.HoldReply, Cardinality.UNARY_STREAM)
RENEW: Final = _pool("Renew", wire.RenewRequest, wire.RenewReply)
RELEASE: Final = _pool("Release", wire.ReleaseRequest, wire.ReleaseReply)
EXEC: Final = _pool("Exec", wire.ExecRequest, wire.ExecReply, Cardinality.STREAM_STREAM)
CONSOLE: Final = _pool("Console", wire.ConsoleRequest, wire.ConsoleReply)
STATUS: Final = _pool("Status", wire.StatusRequest, wire.StatusReply)
WATCH: Final = _pool("Watch", wire.WatchRequest, wire.WatchReply, Cardinality.UNARY_STREAM)
METRICS: Final = _pool("Metrics", wire.MetricsRequest, wire.MetricsReply)
GET_LEASE: Final = _pool("GetLease", wire.GetLeaseRequest, wire.GetLeaseReply)
LIST_LEASES: Final = _pool("ListLeases", wire.ListLeasesRequest, wire.ListLeasesReply)
VM_METRICS: Final = _pool("VmMetrics", wire.VmMetricsRequest, wire.VmMetricsReply)

START: Final = _processes("Start", wire.StartRequest, wire.StartReply)
LIST_PROCESSES: Final = _processes("List", wire.ListProcessesRequest, wire.ListProcessesReply)
ATTACH: Final = _processes("Attach", wire.AttachRequest, wire.AttachReply, Cardinality.STREAM_STREAM)
WAIT_PROCESS: Final = _processes("Wait", wire.WaitProcessRequest, wire.WaitProcessReply)
SEND_INPUT: Final = _processes("SendInput", wire.SendInputRequest, wire.SendInputReply)
SIGNAL: Final = _processes("Signal", wire.SignalRequest, wire.SignalReply)
RESIZE_TERMINAL: Final = _processes("Resize", wire.ResizeTerminalRequest, wire.ResizeTerminalReply)
FORGET: Final = _processes("Forget", wire.ForgetRequest, wire.ForgetReply)

STAT: Final = _files("Stat", wire.StatRequest, wire.StatReply)
LIST_FILES: Final = _files("List", wire.ListFilesRequest, wire.ListFilesReply, Cardinality.UNARY_STREAM)
READ: Final = _files("Read", wire.ReadRequest, wire.ReadReply, Cardinality.UNARY_STREAM)
WRITE: Final = _files("Write", wire.WriteRequest, wire.WriteReply, Cardinality.STREAM_UNARY)
MAKE_DIRECTORY: Final = _files("MakeDirectory", wire.MakeDirectoryRequest, wire.MakeDirectoryReply)
MOVE: Final = _files("Move", wire.MoveRequest, wire.MoveReply)
COPY: Final = _files("Copy", wire.CopyRequest, wire.CopyReply)
REMOVE: Final = _files("Remove", wire.RemoveRequest, wire.RemoveReply)
LINK: Final = _files("Link", wire.LinkRequest, wire.LinkReply)
SET_ATTRIBUTES: Final = _files("SetAttributes", wire.SetAttributesRequest, wire.SetAttributesReply)
WATCH_FILES: Final = _files("Watch", wire.WatchFilesRequest, wire.WatchFilesReply, Cardinality.UNARY_STREAM)
READ_TREE: Final = _files("ReadTree", wire.ReadTreeRequest, wire.ReadTreeReply, Cardinality.UNARY_STREAM)
WRITE_TREE: Final = _files("WriteTree", wire.WriteTreeRequest, wire.WriteTreeReply, Cardinality.STREAM_UNARY)

CONNECT_PORT: Final = _ports("Connect", wire.ConnectRequest, wire.ConnectReply, Cardinality.STREAM_STREAM)
LISTEN: Final = _ports("Listen", wire.ListenRequest, wire.ListenReply, Cardinality.UNARY_STREAM)
ACCEPT: Final = _ports("Accept", wire.AcceptRequest, wire.AcceptReply, Cardinality.STREAM_STREAM)
WAIT_PORT: Final = _ports("Wait", wire.WaitPortRequest, wire.WaitPortReply)

RESIZE: Final = _admin("Resize", wire.ResizeRequest, wire.ResizeReply)
DRAIN: Final = _admin("Drain", wire.DrainRequest, wire.DrainReply)
UNDRAIN: Final = _admin("Undrain", wire.UndrainRequest, wire.UndrainReply)
EVICT: Final = _admin("Evict", wire.EvictRequest, wire.EvictReply)
RESET: Final = _admin("Reset", wire.ResetRequest, wire.ResetReply)
HAND_OVER: Final = _admin("HandOver", wire.HandOverRequest, wire.HandOverReply)
