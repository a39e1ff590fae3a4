"""The service's calls as methods: what `open_client` gives, and what Pool has in common with it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vmpool.client import methods
from vmpool.client.admin import AdminCalls
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.client.convert import acquire_request, acquired_vm, change, service_status
from vmpool.client.endings import finish
from vmpool.client.errors import ClientError, service_fault
from vmpool.client.exchange import Call, ask_to_the_end
from vmpool.client.held import HeldLease
from vmpool.client.opening import Opening, Resource
from vmpool.client.records import AcquiredVm, Change, ServiceStatus, VmConfig
from vmpool.client.remote import RemoteCommand, execute
from vmpool.client.requests import OnEmpty, Wishes
from vmpool.wire.generated.vmpool import v1 as wire

DEFAULT_ACQUIRE_TIMEOUT_S: Final = 60.0

RECONNECT_S: Final = 30.0
"""How long a restarted service keeps the leases that clients of its predecessor held open."""

RELEASE_LIMIT_S: Final = 5.0
"""Bounds the release at the end of a block, which cancellation does not stop."""


class PoolWatch(Resource):
    """Changes in the pools, as an iterator."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> PoolWatch:
        return self

    async def __anext__(self) -> Change:
        while (reply := await self._call.receive()) is not None:
            if (known := change(reply)) is not None:
                return known
        raise StopAsyncIteration


class ServiceCalls(AdminCalls, Resource):
    """What can be asked of a service. Every method raises ClientError."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)

    async def console(self, vm_id: str) -> str:
        """The end of what a VM's guest wrote to its console, at most 64 KiB; not fit for a terminal as it is.

        CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if it is not up yet, or no longer up.
        """
        request = wire.ConsoleRequest(vm_id=vm_id)
        return str((await self._connection.ask(methods.CONSOLE, request, timeout_s=ANSWER_LIMIT_S)).text)

    async def status(self) -> ServiceStatus:
        """The service, its pools, and the caller's leases."""
        return service_status(
            await self._connection.ask(methods.STATUS, wire.StatusRequest(), timeout_s=ANSWER_LIMIT_S)
        )

    async def metrics(self) -> str:
        """What the service counts and measures, in Prometheus' text format."""
        reply = await self._connection.ask(methods.METRICS, wire.MetricsRequest(), timeout_s=ANSWER_LIMIT_S)
        return str(reply.text)

    def watch(self) -> Opening[PoolWatch]:
        """Changes in the pools, for the length of a block: a Snapshot, then every change.

        A slow reader gets a new Snapshot in place of the changes it missed. Iterating raises ClientError; CallError
        RESOURCE_EXHAUSTED if there are too many watches.
        """

        async def begin(ends: contextlib.AsyncExitStack) -> PoolWatch:
            call = await self._connection.open(methods.WATCH)
            ends.push_async_callback(call.aclose)
            await call.send_last(wire.WatchRequest())
            return PoolWatch(call)

        return Opening(begin)


class Client(ServiceCalls):
    """A connection to a service; `open_client` makes it. Every method raises ClientError.

    The service's calls as they are; `Pool` and `Vm` are more convenient, and do more.
    """

    async def acquire(
        self,
        *,
        profile: str = "",
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        wishes: Wishes | None = None,
        config: VmConfig | None = None,
        ttl_s: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_ACQUIRE_TIMEOUT_S,
    ) -> AcquiredVm:
        """Leases a VM that is running, unique and has the right time. The caller must `release` it; see also `lease`.

        The profile is "default" unless named. A `config` replaces the profile: a pool with matching VMs serves it, or a
        VM is booted for it; `AcquiredVm.match` says which. `on_empty` None: the profile's setting, or BOOT for a
        config. The lease ends by itself after `ttl_s` (None: the profile's default) unless the caller `renew`s it.
        `labels` are the caller's own, shown by status and watch: at most 32, with keys of up to 63 characters of
        [A-Za-z0-9._/-] and values of up to 256 bytes.

        If cancelled, it leaves no lease. A `timeout_s` of `math.inf` leaves the service's own limit. CallError
        statuses: NOT_FOUND, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE, ALREADY_EXISTS,
        FAILED_PRECONDITION.
        """
        request = acquire_request(
            profile=profile,
            key=idempotency_key,
            on_empty=on_empty,
            wishes=wishes or Wishes(),
            config=config,
            ttl_s=ttl_s,
            labels=labels,
        )
        return await acquire(self._connection, request, timeout_s=timeout_s)

    async def renew(self, lease_id: str, *, ttl_s: float) -> float:
        """Sets the lease's time to live, from now on; returns it in seconds, as the service set it. Raises as
        `release`.
        """
        return await renew(self._connection, lease_id, ttl_s=ttl_s)

    async def release(self, lease_id: str) -> None:
        """Ends a lease and destroys its VM. CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION."""
        await release(self._connection, lease_id)

    def lease(
        self,
        *,
        profile: str = "",
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        wishes: Wishes | None = None,
        config: VmConfig | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_ACQUIRE_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> Opening[AcquiredVm]:
        """A VM for the length of a block. `timeout_s` bounds the wait for it; the other arguments are those of
        `acquire`.

        The lease is bound to an open call: it ends with the block, also if the block is cancelled or this process dies.
        That the lease ends earlier, because its VM died or the service was stopped, is not an error in itself; using it
        then is.

        If the connection breaks, because the service was killed, restarted or taken over, the call is retried for up to
        `reconnect_s` (0: not at all), and the next service returns the same lease. Commands that ran meanwhile have
        ended with ServiceUnavailableError or UNAVAILABLE, and new ones fail until then.
        """
        request = acquire_request(
            profile=profile,
            key=idempotency_key or f"hold-{secrets.token_hex(16)}",
            on_empty=on_empty,
            wishes=wishes or Wishes(),
            config=config,
            ttl_s=None,
            labels=labels,
            wait_s=timeout_s,
        )
        return hold(self._connection, request, reconnect_s=reconnect_s)

    def exec(
        self,
        lease_id: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        working_directory: str | None = None,
        time_limit_s: float | None = None,
        stdin: bytes | None = None,
    ) -> Opening[RemoteCommand]:
        """Runs a command in a leased VM. At the end of the block the command is killed if it still runs.

        The guest kills the command after `time_limit_s`; if it does not report that, the call is given up. `stdin` is
        all that the command can read, at most 256 KiB. None: `RemoteCommand.send_stdin` sends it, which guests with
        qemu-ga do not support. CallError statuses: those of `release`, INVALID_ARGUMENT if the command cannot be
        started, FAILED_PRECONDITION if the guest has no agent for it, ABORTED if the lease ends meanwhile,
        DEADLINE_EXCEEDED if the call is given up.
        """
        start = wire.ExecStart(
            lease_id=lease_id,
            argv=list(argv),
            environment=dict(environment or {}),
            working_directory=working_directory or "",
            time_limit_ms=math.ceil((time_limit_s or 0.0) * 1000),
            stdin=stdin or b"",
        )
        return execute(self._connection, start, time_limit_s=time_limit_s, stdin=stdin)


def open_client(socket_path: Path | str, *, wait_s: float = 0.0) -> Opening[Client]:
    """Connects to the service on `socket_path`. At the end, open calls are ended and the connection is closed.

    Leases from `Client.acquire` outlive the connection, those from `Client.lease` do not. Raises
    ServiceUnavailableError if no service listens after `wait_s`.
    """

    async def begin(ends: contextlib.AsyncExitStack) -> Client:
        connection = Connection(socket_path=Path(socket_path))
        ends.push_async_callback(connection.aclose)
        await connection.connect(wait_s=wait_s)
        return Client(connection)

    return Opening(begin)


async def acquire(connection: Connection, request: wire.AcquireRequest, *, timeout_s: float) -> AcquiredVm:
    """If it is cancelled when the service has granted a lease, the lease is released."""
    task = asyncio.current_task()
    assert task is not None
    cancellations = task.cancelling()
    vm = acquired_vm(await connection.ask(methods.ACQUIRE, request, timeout_s=timeout_s, by=ask_to_the_end))
    if task.cancelling() > cancellations:
        await finish(release_in_the_end(connection, vm.lease_id))
        raise asyncio.CancelledError
    return vm


def hold(connection: Connection, request: wire.AcquireRequest, *, reconnect_s: float) -> Opening[AcquiredVm]:
    """A lease that is bound to a call."""

    async def begin(ends: contextlib.AsyncExitStack) -> AcquiredVm:
        held = HeldLease(connection=connection, request=request, reconnect_s=reconnect_s)
        vm = await held.begin()
        ends.push_async_callback(held.end)
        ends.push_async_callback(release_in_the_end, connection, vm.lease_id)
        return vm

    return Opening(begin)


async def release(connection: Connection, lease_id: str) -> None:
    await connection.ask(methods.RELEASE, wire.ReleaseRequest(lease_id=lease_id), timeout_s=ANSWER_LIMIT_S)


async def renew(connection: Connection, lease_id: str, *, ttl_s: float) -> float:
    request = wire.RenewRequest(lease_id=lease_id, ttl_ms=math.ceil(ttl_s * 1000))
    reply = await connection.ask(methods.RENEW, request, timeout_s=ANSWER_LIMIT_S)
    if reply.lease is None:
        raise service_fault("sent no lease in its reply")
    return float(reply.lease.expires_in_ms / 1e3)


async def release_in_the_end(connection: Connection, lease_id: str) -> None:
    # The caller should see the error of the block. A service that has gone has released the lease.
    with contextlib.suppress(ClientError, TimeoutError):
        async with asyncio.timeout(RELEASE_LIMIT_S):
            await release(connection, lease_id)


def connection_of(calls: ServiceCalls) -> Connection:
    """For the faces."""
    return calls._connection  # noqa: SLF001 - one concept in two parts
