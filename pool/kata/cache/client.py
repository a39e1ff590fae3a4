"""The client of a VMCache server, Kata's or ours; Kata's grpccache.

Errors have Kata's texts, spelled as by Go's gRPC. An error is final: everything received so far is dropped, and the
connection closes with its block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import betterproto2
from grpclib.const import Cardinality, Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError

from pool.kata.cache.wire import CachedVm, config_from_grpc, vm_from_grpc
from pool.kata.errors import CacheError, KataError
from pool.kata.records.config import VMConfig
from vmpool.client.errors import CallError, ClientError, ServiceUnavailableError
from vmpool.client.exchange import ClientStream, Exchange, ask, ask_to_the_end
from vmpool.client.from_trio import TrioConnection, open_connection
from vmpool.client.methods import Method
from vmpool.wire.generated.cache import GrpcStatus, GrpcVm, GrpcVmConfig
from vmpool.wire.generated.google.protobuf import Empty
from vmpool.wire.wellformed import check_wellformed


def _method(name: str, reply: type[Any]) -> Method:
    return Method(path=f"/cache.CacheService/{name}", cardinality=Cardinality.UNARY_UNARY, request=Empty, reply=reply)


_CONFIG: Final = _method("Config", GrpcVmConfig)
_GET_BASE_VM: Final = _method("GetBaseVM", GrpcVm)
_STATUS: Final = _method("Status", GrpcStatus)
_QUIT: Final = _method("Quit", Empty)

_FAILED: Final = {
    _CONFIG.path: "failed to Config",
    _GET_BASE_VM.path: "failed to GetBaseVM",
    _STATUS.path: "failed to call gRPC Status",
    _QUIT.path: "failed to call gRPC Quit",
}

_REMEDY: Final = "start the VMCache server, or correct vm_cache_endpoint"


@attrs.frozen(kw_only=True)
class WaitingVm:
    """A VM that a server keeps ready, from its Status."""

    pid: int
    vcpus: int
    memory_mib: int


@attrs.frozen(kw_only=True)
class CacheStatus:
    """`pid` is the server process."""

    pid: int
    vms: tuple[WaitingVm, ...]


class CacheClient:
    """One connection, good for one VM; made by `open_cache_client`."""

    def __init__(self, connection: TrioConnection, config: VMConfig) -> None:
        self._connection = connection
        self._closed = False
        self.config = config
        """The configuration of the server's VMs. `pool.kata.records.matching` decides whether it matches a request."""

    async def take_base_vm(self, *, timeout_s: float) -> CachedVm:
        """Takes a paused VM, waiting for one, and closes the connection. Raises CacheError.

        From the reply on the VM belongs to the caller alone, who must end it. So if this is cancelled once the reply
        has begun to arrive, it still returns the VM. Kata's own server ignores a client that goes away earlier: the VM
        of that request is lost to both.
        """
        if self._closed:
            raise CacheError(
                "failed to GetBaseVM: rpc error: code = Canceled desc = the connection was closed after it delivered a "
                "VM; open another one",
                call="GetBaseVM",
                code="Canceled",
            )
        self._closed = True
        try:
            reply = await _call(self._connection, _GET_BASE_VM, timeout_s=timeout_s, exchange=ask_to_the_end)
        finally:
            self._connection.disconnect()
        try:
            return vm_from_grpc(reply, hypervisor_type=self.config.hypervisor_type)
        except KataError as error:
            raise CacheError(f"failed to convert JSON to VM {reply.id!r}: {error}", call="GetBaseVM") from error


@contextlib.asynccontextmanager
async def open_cache_client(endpoint: Path, *, timeout_s: float) -> AsyncIterator[CacheClient]:
    """Connects and requests the server's configuration. Closes the connection at the end. Raises CacheError.

    Here and below, `timeout_s` is for the answer: a silent server is given up LATE_ANSWER_S later, a server that does
    not accept the connection after CONNECT_LIMIT_S.
    """
    async with _connected(endpoint, _CONFIG) as connection:
        reply = await _call(connection, _CONFIG, timeout_s=timeout_s)
        try:
            config = config_from_grpc(reply)
        except KataError as error:
            raise CacheError(f"failed to convert JSON to VMConfig: {error}", call="Config") from error
        yield CacheClient(connection, config)


async def cache_status(endpoint: Path, *, timeout_s: float) -> CacheStatus:
    """Queries a server's status. Raises CacheError."""
    async with _connected(endpoint, _STATUS) as connection:
        reply = await _call(connection, _STATUS, timeout_s=timeout_s)
        return CacheStatus(
            pid=reply.pid,
            vms=tuple(WaitingVm(pid=vm.pid, vcpus=vm.cpu, memory_mib=vm.memory) for vm in reply.vmstatus),
        )


async def quit_cache(endpoint: Path, *, timeout_s: float) -> None:
    """Tells a server to end, which it does a second after its answer. Raises CacheError."""
    async with _connected(endpoint, _QUIT) as connection:
        await _call(connection, _QUIT, timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def _connected(endpoint: Path, method: Method) -> AsyncIterator[TrioConnection]:
    """A connection for `method`, which errors name."""
    if "\0" in os.fspath(endpoint):
        raise CacheError(f"failed to connect {str(endpoint)!r}: a path cannot contain a NUL", call=_name(method))
    async with contextlib.AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(open_connection(endpoint, codec=_StrictCodec()))
        except ServiceUnavailableError as error:
            raise _failed(method, error) from error
        yield connection


async def _call(connection: TrioConnection, method: Method, *, timeout_s: float, exchange: Exchange = ask) -> Any:
    try:
        return await connection.ask(method, Empty(), timeout_s=timeout_s, by=partial(_exchange, exchange))
    except ClientError as error:
        raise _failed(method, error) from error


async def _exchange(exchange: Exchange, stream: ClientStream, request: Any) -> Any:
    try:
        return await exchange(stream, request)
    except (AssertionError, NotImplementedError) as error:  # grpclib's, for a truncated or compressed body
        raise GRPCError(Status.INTERNAL, f"the answer is not a gRPC message: {error}") from error


def _name(method: Method) -> str:
    return method.path.rpartition("/")[2]


def _failed(method: Method, error: ClientError) -> CacheError:
    what = _FAILED[method.path]
    match error:
        case CallError():
            code, description = error.status.title().replace("_", ""), error.message
        case ServiceUnavailableError():
            code, description = "Unavailable", f"{error.socket_path}: {error.reason}; {_REMEDY}"
        case _:
            code, description = "Unknown", str(error)
    return CacheError(f"{what}: rpc error: code = {code} desc = {description}", call=_name(method), code=code)


class _StrictCodec(ProtoCodec):
    """Refuses bytes that are not a valid message of the expected type."""

    def decode(self, data: bytes, message_type: type[Any]) -> Any:
        try:
            if issubclass(message_type, betterproto2.Message):
                check_wellformed(memoryview(data), message_type)
            return super().decode(data, message_type)
        except Exception as error:
            # Every parser raises its own errors for this, down to IndexError and UnicodeDecodeError.
            raise GRPCError(
                Status.INTERNAL, f"the answer, {len(data)} bytes, is not a {message_type.__name__}: {error}"
            ) from error
