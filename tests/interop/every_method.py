"""A client of Google's grpcio: STUBS SOCKET LEASE-ID. Prints what it was told, as `scenario.EXPECTED` has it."""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

STUBS, SOCKET, LEASE = sys.argv[1:]
sys.path.insert(0, STUBS)

import grpc  # noqa: E402 - the stubs come first
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from vmpool.v1 import files_pb2 as fs  # noqa: E402
from vmpool.v1 import files_pb2_grpc, pool_pb2_grpc, ports_pb2_grpc, processes_pb2_grpc  # noqa: E402
from vmpool.v1 import pool_pb2 as pb  # noqa: E402
from vmpool.v1 import ports_pb2 as net  # noqa: E402
from vmpool.v1 import processes_pb2 as ps  # noqa: E402

LIMIT_S = 20
channel = grpc.insecure_channel(f"unix:{SOCKET}")
pool, processes = pool_pb2_grpc.PoolStub(channel), processes_pb2_grpc.ProcessesStub(channel)
files, ports = files_pb2_grpc.FilesStub(channel), ports_pb2_grpc.PortsStub(channel)


def refused(method: Any, request: Any) -> list[str]:
    call = method.future(request, timeout=LIMIT_S)
    error = call.exception()
    status = status_pb2.Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return [error.code().name, info.reason, info.domain]


def done(method: Any, request: Any) -> str:
    method(request, timeout=LIMIT_S)
    return "OK"


def edited(method: Any, request: Any) -> int:
    return int(method(request, timeout=LIMIT_S).file.size)


def echoed(method: Any, request_type: Any, start: Any) -> str:
    requests: queue.Queue[Any] = queue.Queue()
    requests.put(request_type(start=start))
    replies = method(iter(requests.get, None), timeout=LIMIT_S)
    assert next(replies).WhichOneof("kind") == "connected"
    requests.put(request_type(data=b"echo"))
    data = next(replies).data
    requests.put(request_type(end=net.EndOfStream()))
    assert next(replies).WhichOneof("kind") == "end"
    requests.put(None)
    assert list(replies) == []
    return str(data.decode())


def accepted() -> str:
    listening = ports.Listen(net.ListenRequest(lease_id=LEASE, address=net.PortAddress(tcp_port=0)), timeout=LIMIT_S)
    assert next(listening).listening.tcp_port == 4242
    connection_id = next(listening).incoming.connection_id
    data = echoed(ports.Accept, net.AcceptRequest, net.AcceptStart(connection_id=connection_id))
    listening.cancel()
    return data


job = ps.ProcessRef(lease_id=LEASE, tag="job")
start = ps.ExecStart(lease_id=LEASE, argv=["echo", "hello"])
at = {"lease_id": LEASE, "path": b"/app/\xff"}
usage = pool.VmMetrics(pb.VmMetricsRequest(lease_id=LEASE), timeout=LIMIT_S)
changes = files.Watch(fs.WatchFilesRequest(**at), timeout=LIMIT_S)
write = [fs.WriteRequest(start=fs.WriteStart(**at, mode=0)), fs.WriteRequest(data=b"x")]
tree = [fs.WriteTreeRequest(start=fs.WriteTreeStart(**at)), fs.WriteTreeRequest(data=b"tar")]
told = {
    "GetLease": pool.GetLease(pb.GetLeaseRequest(name="builder"), timeout=LIMIT_S).lease.name,
    "ListLeases": [
        lease.name for lease in pool.ListLeases(pb.ListLeasesRequest(labels={"job": "7"}), timeout=LIMIT_S).leases
    ],
    "ListLeases of others": list(pool.ListLeases(pb.ListLeasesRequest(labels={"job": "8"}), timeout=LIMIT_S).leases),
    "VmMetrics": [usage.processes, usage.cpu_share],
    "Exec": b"".join(
        reply.stdout for reply in pool.Exec(iter([ps.ExecRequest(start=start)]), timeout=LIMIT_S)
    ).decode(),
    "Start": processes.Start(ps.StartRequest(process=start, tag="job"), timeout=LIMIT_S).process.process_id,
    "List": [
        process.tag for process in processes.List(ps.ListProcessesRequest(lease_id=LEASE), timeout=LIMIT_S).processes
    ],
    "Attach": [
        reply.WhichOneof("kind")
        for reply in processes.Attach(iter([ps.AttachRequest(start=ps.AttachStart(process=job))]), timeout=LIMIT_S)
    ],
    "Wait": processes.Wait(ps.WaitProcessRequest(process=job), timeout=LIMIT_S).exit.status,
    "SendInput": done(processes.SendInput, ps.SendInputRequest(process=job, data=b"in", close=True)),
    "Signal": done(processes.Signal, ps.SignalRequest(process=job, signal=15)),
    "Resize": done(processes.Resize, ps.ResizeTerminalRequest(process=job, terminal=ps.Terminal(rows=50))),
    "Forget": done(processes.Forget, ps.ForgetRequest(process=job)),
    "Stat": [(info := files.Stat(fs.StatRequest(**at), timeout=LIMIT_S).file).kind, info.size],
    "Files.List": [len(reply.files) for reply in files.List(fs.ListFilesRequest(**at), timeout=LIMIT_S)],
    "Read": b"".join(reply.data for reply in files.Read(fs.ReadRequest(**at), timeout=LIMIT_S)).decode(),
    "Write": files.Write(iter(write), timeout=LIMIT_S).file.size,
    "MakeDirectory": edited(files.MakeDirectory, fs.MakeDirectoryRequest(**at)),
    "Move": edited(files.Move, fs.MoveRequest(**at, target=b"/b")),
    "Copy": edited(files.Copy, fs.CopyRequest(**at, target=b"/b")),
    "Remove": done(files.Remove, fs.RemoveRequest(**at)),
    "Link": edited(files.Link, fs.LinkRequest(**at, target=b"b")),
    "SetAttributes": edited(files.SetAttributes, fs.SetAttributesRequest(**at, mode=0)),
    "Watch": [len(reply.changes) for reply in changes],
    "ReadTree": b"".join(reply.data for reply in files.ReadTree(fs.ReadTreeRequest(**at), timeout=LIMIT_S)).decode(),
    "WriteTree": files.WriteTree(iter(tree), timeout=LIMIT_S).members,
    "Ports.Wait": done(ports.Wait, net.WaitPortRequest(lease_id=LEASE, address=net.PortAddress(tcp_port=80))),
    "Connect": echoed(
        ports.Connect,
        net.ConnectRequest,
        net.ConnectStart(lease_id=LEASE, address=net.PortAddress(unix_path=b"/run/a")),
    ),
    "Accept": accepted(),
    "no such tag": refused(processes.Wait, ps.WaitProcessRequest(process=ps.ProcessRef(lease_id=LEASE, tag="none"))),
    "relative path": refused(files.Stat, fs.StatRequest(lease_id=LEASE, path=b"a")),
}
print(json.dumps(told))
channel.close()
