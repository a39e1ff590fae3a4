"""The calls of the service."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio
from grpclib.const import Cardinality

from actors.messages import Wishes
from pool.client.connection import Connection, Method, open_connection
from pool.client.convert import acquire_request, acquired_vm, service_status
from pool.client.errors import CallError, ClientError
from pool.client.exchange import ask, ask_to_the_end, receive, send, send_last
from pool.client.records import AcquiredVm, ServiceStatus
from pool.client.remote import RemoteCommand
from pool.ledger.records import OnEmpty
from pool.rpc.generated.vmpool import v1 as wire

DEFAULT_ACQUIRE_TIMEOUT_S: Final = 60.0

ANSWER_LIMIT_S: Final = 10.0
"""For calls that the service answers without waiting for anything."""

RELEASE_LIMIT_S: Final = 5.0
"""For the release at the end of a block, which cancellation does not stop."""

_ACQUIRE: Final = Method(
    path="/vmpool.v1.Pool/Acquire",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.AcquireRequest,
    reply=wire.AcquireReply,
)
_HOLD: Final = Method(
    path="/vmpool.v1.Pool/Hold",
    cardinality=Cardinality.UNARY_STREAM,
    request=wire.AcquireRequest,
    reply=wire.HoldReply,
)
_RENEW: Final = Method(
    path="/vmpool.v1.Pool/Renew",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.RenewRequest,
    reply=wire.RenewReply,
)
_RELEASE: Final = Method(
    path="/vmpool.v1.Pool/Release",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.ReleaseRequest,
    reply=wire.ReleaseReply,
)
_EXEC: Final = Method(
    path="/vmpool.v1.Pool/Exec", cardinality=Cardinality.STREAM_STREAM, request=wire.ExecRequest, reply=wire.ExecReply
)
_STATUS: Final = Method(
    path="/vmpool.v1.Pool/Status",
    cardinality=Cardinality.UNARY_UNARY,
    request=wire.StatusRequest,
    reply=wire.StatusReply,
)


class Client:
    """A connection to a service; `open_client` makes it. Every method raises ClientError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def acquire(
        self,
        *,
        profile: str = "default",
        on_empty: OnEmpty = OnEmpty.WAIT,
        idempotency_key: str = "",
        wishes: Wishes | None = None,
        ttl_s: float | None = None,
        timeout_s: float = DEFAULT_ACQUIRE_TIMEOUT_S,
    ) -> AcquiredVm:
        """Leases a VM that is running, unique and has the right time. You must `release` it; see also `lease`.

        The lease ends by itself after `ttl_s` (None: the profile's default) unless you `renew` it.

        Cancelled, it takes no VM. With `math.inf` the service's own limit holds. CallError statuses: NOT_FOUND,
        INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE, ALREADY_EXISTS.
        """
        request = acquire_request(
            profile=profile, key=idempotency_key, on_empty=on_empty, wishes=wishes or Wishes(), ttl_s=ttl_s
        )
        async with self._connection.open(_ACQUIRE, timeout_s=timeout_s) as stream:
            vm = acquired_vm(await self._connection.call(ask_to_the_end, stream, request))
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            await self._release_in_the_end(vm)
            raise
        return vm

    async def renew(self, lease_id: str, *, ttl_s: float) -> float:
        """The lease lives for `ttl_s` from now on; returns that, as the service has it. Errors as `release`."""
        reply = await self._ask(
            _RENEW, wire.RenewRequest(lease_id=lease_id, ttl_ms=math.ceil(ttl_s * 1000)), timeout_s=ANSWER_LIMIT_S
        )
        if reply.lease is None:
            raise CallError(status="INTERNAL", message="the service did not say what it renewed; see its log")
        return float(reply.lease.expires_in_ms / 1e3)

    async def release(self, lease_id: str) -> None:
        """Ends a lease; its VM is destroyed. CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION."""
        await self._ask(_RELEASE, wire.ReleaseRequest(lease_id=lease_id), timeout_s=ANSWER_LIMIT_S)

    @contextlib.asynccontextmanager
    async def lease(
        self,
        *,
        profile: str = "default",
        on_empty: OnEmpty = OnEmpty.WAIT,
        wishes: Wishes | None = None,
        timeout_s: float = DEFAULT_ACQUIRE_TIMEOUT_S,
    ) -> AsyncIterator[AcquiredVm]:
        """A VM for the length of a block. `timeout_s` bounds the wait for it.

        The lease is bound to a call that stays open: it ends with the block, also when that is cancelled, and if this
        process dies in whatever manner. A lease that has ended by then, because its VM died or the service stopped, is
        no error.
        """
        request = acquire_request(
            profile=profile, key="", on_empty=on_empty, wishes=wishes or Wishes(), ttl_s=None, wait_s=timeout_s
        )
        async with self._connection.open(_HOLD, timeout_s=math.inf) as stream:
            await self._connection.call(send_last, stream, request)
            first = await self._connection.call(receive, stream)
            if first is None or first.acquired is None:
                raise CallError(status="INTERNAL", message="the service gave no VM; see its log")
            vm = acquired_vm(first.acquired)
            try:
                yield vm
            finally:
                await self._release_in_the_end(vm)

    async def _release_in_the_end(self, vm: AcquiredVm) -> None:
        # The error on its way is the one to see; and a service that is gone has released everything.
        with trio.move_on_after(RELEASE_LIMIT_S, shield=True), contextlib.suppress(ClientError):
            await self.release(vm.lease_id)

    @contextlib.asynccontextmanager
    async def exec(
        self,
        lease_id: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        working_directory: str | None = None,
        time_limit_s: float | None = None,
    ) -> AsyncIterator[RemoteCommand]:
        """Runs a command in a leased VM. At the end of the block it is killed if it still runs.

        The guest kills it after `time_limit_s`. CallError statuses: those of `release`, INVALID_ARGUMENT if it cannot
        be started, ABORTED if the lease ends meanwhile.
        """
        start = wire.ExecStart(
            lease_id=lease_id,
            argv=list(argv),
            environment=dict(environment or {}),
            working_directory=working_directory or "",
            time_limit_ms=math.ceil((time_limit_s or 0.0) * 1000),
        )
        async with self._connection.open(_EXEC, timeout_s=math.inf) as stream:
            await self._connection.call(send, stream, wire.ExecRequest(start=start))
            first = await self._connection.call(receive, stream)
            if first is None or first.started is None:
                raise CallError(status="INTERNAL", message="the service did not start the command; see its log")
            yield RemoteCommand(self._connection, stream)

    async def status(self) -> ServiceStatus:
        """The service, its pools, and your leases as they are now."""
        return service_status(await self._ask(_STATUS, wire.StatusRequest(), timeout_s=ANSWER_LIMIT_S))

    async def _ask(self, method: Method, request: Any, *, timeout_s: float) -> Any:
        async with self._connection.open(method, timeout_s=timeout_s) as stream:
            return await self._connection.call(ask, stream, request)


@contextlib.asynccontextmanager
async def open_client(socket_path: Path | str) -> AsyncIterator[Client]:
    """Connects to the service on `socket_path`; at the end, the connection is closed and calls still open are ended.

    Leases from `Client.acquire` outlive the connection, those from `Client.lease` do not. Raises
    ServiceUnavailableError, at once if nobody listens.
    """
    async with open_connection(socket_path) as connection:
        yield Client(connection)
