"""The VMCache service: hands paused VMs to Kata's clients.

Unlike Kata's own server it loses no VM to a client that goes away, refuses waiting clients when it stops instead of
waiting for them, and answers clients of either generation.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import structlog
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError

from actors.errors import describe
from pool.kata.cache.client import WaitingVm
from pool.kata.cache.wire import Bridge, CachedVm, QemuGrpc, QemuState, Smp, config_to_grpc, vm_to_grpc, vsock_url
from pool.kata.records.config import VMConfig
from pool.observe.spans import NO_SPANS, Spans
from pool.rpc.calls import Calls, ServerStream, deliver, receive, send
from pool.rpc.errors import shorten
from pool.rpc.listening import GuardedServer, open_server
from pool.rpc.reflection import ReflectionService
from pool.rpc.server import FAREWELL_LIMIT_S
from pool.rpc.users import Users
from pool.settings.limits import MAX_MESSAGE_BYTES, EdgeLimits
from pool.settings.permissions import Permitted
from vmpool.wire.crossing import open_loop
from vmpool.wire.generated.cache import CacheServiceBase, GrpcStatus, GrpcVm, GrpcVmConfig, GrpcVmStatus
from vmpool.wire.generated.google.protobuf import Empty

_log = structlog.get_logger("vmpool.cache", subsystem="cache")

QUIT_DELAY_S: Final = 1.0
"""Time between the answer to Quit and the end."""


@attrs.frozen(kw_only=True)
class BaseVm:
    """A paused VM that can be given away. Its QMP socket, which accepts one client, is free."""

    id: str
    pid: int
    qmp_socket: Path
    vcpus: int
    max_vcpus: int
    memory_mib: int
    uuid: str = ""
    context_id: int = 0
    """Context ID of the guest's vsock, 0 if it has none."""
    katas_agent: bool = False
    """Whether Kata's own agent may be behind that vsock, rather than one that only vmpool can use."""
    bridges: tuple[Bridge, ...] = ()
    """PCI bridges for the client's hot-plugged devices."""


class BaseVmSource(Protocol):
    """Where the service's VMs come from."""

    def config(self) -> VMConfig:
        """The configuration of all its VMs, with Kata's defaults filled in."""

    async def take_base(self) -> BaseVm:
        """Waits for a VM; the caller must `discard` it or `give_away`.

        Cancelled, it takes none. Raises any Exception if no VM will come; the client gets its text.
        """

    def discard(self, vm: BaseVm) -> None:
        """Ends a VM that was taken and reached no client. Does not wait."""

    def give_away(self, vm: BaseVm) -> None:
        """Forgets a VM that a client has received: it belongs to the client alone. Does not wait."""

    def statuses(self) -> Sequence[WaitingVm]:
        """The ready VMs."""

    def request_quit(self) -> None:
        """A client wants the service to end. Does not wait; called once."""


def cached_vm(vm: BaseVm) -> CachedVm:
    """The VM in a form that clients of either generation can use.

    There is no proxy. A client of runtime 1.x checks that the proxy lives before it uses the agent, and may kill it in
    the end; QEMU's pid fits, since the agent lives and ends with QEMU.
    """
    return CachedVm(
        id=vm.id,
        qemu=QemuGrpc(
            id=vm.id,
            qmp_channel_path=str(vm.qmp_socket),
            state=QemuState(uuid=vm.uuid, hot_plug_vfio="no-port", cold_plug_vfio="no-port", bridges=vm.bridges),
            qemu_smp=Smp(cpus=vm.vcpus, cores=1, threads=1, sockets=vm.max_vcpus, max_cpus=vm.max_vcpus),
            context_id=vm.context_id,
        ),
        vcpus=vm.vcpus,
        memory_mib=vm.memory_mib,
        proxy_pid=vm.pid,
        # A client would wait in vain for another agent's answer; without an address it fails at once.
        agent_url=vsock_url(vm.context_id) if vm.context_id and vm.katas_agent else "",
    )


@attrs.define(eq=False, kw_only=True)
class CacheService(CacheServiceBase):
    """The four methods as trio code. `quit_requested` is set by the first Quit."""

    source: BaseVmSource
    calls: Calls
    spans: Spans = NO_SPANS
    quit_requested: trio.Event = attrs.field(factory=trio.Event)

    def __mapping__(self) -> dict[str, Handler]:
        """Replaces the generated one, whose handlers see only messages; these see the call."""
        return {
            f"/cache.CacheService/{name}": Handler(self.calls.handler(body), Cardinality.UNARY_UNARY, Empty, reply)
            for name, body, reply in (
                ("Config", self.config_call, GrpcVmConfig),
                ("GetBaseVM", self.get_base_vm_call, GrpcVm),
                ("Status", self.status_call, GrpcStatus),
                ("Quit", self.quit_call, Empty),
            )
        }

    async def config_call(self, stream: ServerStream) -> None:
        """Answers both generations in one message."""
        await _take_request(stream)
        await send(stream, config_to_grpc(self.source.config()))

    async def get_base_vm_call(self, stream: ServerStream) -> None:
        """A client that goes away before it has read the reply does not take a VM with it."""
        await _take_request(stream)
        try:
            with self.spans.span("GetBaseVM", source="vmpool", package="factory", subsystem="cache"):
                vm = await self.source.take_base()
        except Exception as error:  # any error: Kata's clients expect this text
            _log.warning("no VM for a client", reason=describe(error))
            raise GRPCError(Status.UNKNOWN, shorten(f"failed to GetBaseVM: {describe(error)}")) from error
        try:
            await deliver(stream, vm_to_grpc(cached_vm(vm)))
        except BaseException:
            # Without a status the call has failed, also for the client, whatever it has read.
            self.source.discard(vm)
            raise
        self.source.give_away(vm)
        _log.info("VM handed out", vm=vm.id, pid=vm.pid)

    async def status_call(self, stream: ServerStream) -> None:
        """This process, and the waiting VMs."""
        await _take_request(stream)
        waiting = self.source.statuses()
        await send(
            stream,
            GrpcStatus(
                pid=os.getpid(),
                vmstatus=[GrpcVmStatus(pid=vm.pid, cpu=vm.vcpus, memory=vm.memory_mib) for vm in waiting],
            ),
        )

    async def quit_call(self, stream: ServerStream) -> None:
        """Answers at once; the end follows later."""
        await _take_request(stream)
        _log.info("VM cache server will stop after 1 second")
        self.quit_requested.set()
        await send(stream, Empty())


async def _take_request(stream: ServerStream) -> None:
    if await receive(stream) is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the request has no message; send an empty one")


@attrs.define(eq=False, kw_only=True)
class CacheServer:
    """A running server, made by `serve_cache`."""

    _server: GuardedServer
    _service: CacheService
    _calls: Calls
    _stop_requested: trio.Event = attrs.field(factory=trio.Event, init=False)

    def stop(self) -> None:
        """Begins the shutdown; `serve_cache` returns when it is done. Does not wait."""
        self._stop_requested.set()

    async def run(self, sock: socket.socket, *, task_status: trio.TaskStatus[CacheServer]) -> None:
        await self._server.loop.run(self._server.open, sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._quit_in_time)
            task_status.started(self)
            try:
                await self._stop_requested.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await self._end()
            nursery.cancel_scope.cancel(reason="the server has ended")

    async def _quit_in_time(self) -> None:
        await self._service.quit_requested.wait()
        await trio.sleep(QUIT_DELAY_S)
        self._service.source.request_quit()

    async def _end(self) -> None:
        self._calls.stop()
        self._calls.end()
        with trio.move_on_after(FAREWELL_LIMIT_S):
            await self._calls.wait_idle()
        await self._server.loop.run(self._server.farewell, (), limit_s=FAREWELL_LIMIT_S)


async def serve_cache(
    *,
    source: BaseVmSource,
    sock: socket.socket,
    spans: Spans = NO_SPANS,
    task_status: trio.TaskStatus[CacheServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves cache.CacheService, and reflection, on `sock`, a listening Unix stream socket, which it closes.

    Root and the service's own user may call. `task_status.started` gets the CacheServer once calls are accepted. A
    client's Quit calls `source.request_quit` a second later; the caller then stops the server. Cancellation ends it
    like `stop`: waiting clients get UNAVAILABLE; within 3 * FAREWELL_LIMIT_S.
    """
    async with open_loop() as loop:
        calls = Calls(loop)
        service = CacheService(source=source, calls=calls, spans=spans)
        users = Users(access=Permitted(), limits=EdgeLimits())
        services = [service, ReflectionService.of([service], calls=calls)]
        server = await loop.run(open_server, services, loop=loop, max_message_bytes=MAX_MESSAGE_BYTES, users=users)
        listen(server, RecvRequest, calls.refuse_while_stopping)
        loop.set_exception_handler(_note_loop_error)
        await CacheServer(server=server, service=service, calls=calls).run(sock, task_status=task_status)


def _note_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler."""
    _log.error("error in the event loop", what=context.get("message"), exc_info=context.get("exception"))
