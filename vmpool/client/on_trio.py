"""The service's calls, and a running command, for trio programs.

Made by scripts/faces of the asyncio face, which is where to look, and what to change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from vmpool.client.admin import AdminCalls as AioAdminCalls
from vmpool.client.from_trio import Opening, Resource, TrioConnection, connecting
from vmpool.client.records import AcquiredVm, Change, CommandExit, CompletedCommand, Output, ServiceStatus, VmConfig
from vmpool.client.remote import RemoteCommand as AioRemoteCommand
from vmpool.client.requests import OnEmpty, Wishes
from vmpool.client.sdk import DEFAULT_ACQUIRE_TIMEOUT_S, RECONNECT_S, connection_of
from vmpool.client.sdk import Client as AioClient
from vmpool.client.sdk import PoolWatch as AioPoolWatch
from vmpool.client.sdk import ServiceCalls as AioServiceCalls
from vmpool.client.sdk import open_client as aio_open_client


class AdminCalls:
    """Every method raises ClientError; CallError NOT_FOUND for an unknown profile or VM."""

    _core: AioAdminCalls

    def __init__(self, connection: TrioConnection, core: AioAdminCalls) -> None:
        self._connection = connection
        self._core = core

    async def resize(self, profile: str, size: int) -> None:
        """Changes the pool's size until the service restarts."""
        await self._connection.run(self._core.resize, profile, size)

    async def drain(self, profile: str) -> None:
        """Refuses requests for the profile and stops its idle VMs, until `undrain`. Leases continue."""
        await self._connection.run(self._core.drain, profile)

    async def undrain(self, profile: str) -> None:
        """Ends a `drain`."""
        await self._connection.run(self._core.undrain, profile)

    async def evict(self, vm_id: str) -> None:
        """Stops one idle VM; the pool replaces it. CallError FAILED_PRECONDITION if it is not idle."""
        await self._connection.run(self._core.evict, vm_id)

    async def evict_all(self, profile: str) -> None:
        """Replaces all idle VMs of a profile, a few at a time."""
        await self._connection.run(self._core.evict_all, profile)

    async def reset(self, profile: str) -> None:
        """Forgets a profile's failed productions: ends the back-off and closes the circuit."""
        await self._connection.run(self._core.reset, profile)

    async def hand_over(self) -> None:
        """Makes the service leave its idle and leased VMs to its successor, and end. Does not wait for its end."""
        await self._connection.run(self._core.hand_over)


class RemoteCommand(Resource):
    """A running command, which is killed at the end of its block if it still runs. `Process` is another name for it.

    One task may send while another one receives. Errors are raised by `events` and the methods built on it; once the
    call is over, the sending methods do nothing.
    """

    _core: AioRemoteCommand

    def __init__(self, connection: TrioConnection, core: AioRemoteCommand) -> None:
        self._connection = connection
        self._core = core

    @property
    def process_id(self) -> int:
        """Of the VM; 0 if the guest's agent does not tell."""
        return self._core.process_id

    @property
    def pid(self) -> int:
        """In the guest; 0 if its agent does not tell."""
        return self._core.pid

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read."""
        await self._connection.run(self._core.send_stdin, data)

    async def close_stdin(self) -> None:
        """No more stdin."""
        await self._connection.run(self._core.close_stdin)

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group."""
        await self._connection.run(self._core.send_signal, number)

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the command's terminal; nothing if it has none."""
        await self._connection.run(self._core.resize, rows, columns)

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream, then the CommandExit. Unread output keeps the guest process waiting.

        May be iterated once. Raises ClientError; CallError ABORTED if the lease ended, DEADLINE_EXCEEDED if the service
        reports no end within LATE_END_S of the command's time limit.
        """
        return self._connection.iterator(self._core.events())

    async def wait(self) -> CommandExit:
        """Drops the output; returns how the command ended."""
        return await self._connection.run(self._core.wait)

    async def collect(self) -> CompletedCommand[bytes]:
        """Receives all output, in memory and without a limit, and returns it with the exit."""
        return await self._connection.run(self._core.collect)


class PoolWatch(Resource):
    """Changes in the pools, as an iterator."""

    _core: AioPoolWatch

    def __init__(self, connection: TrioConnection, core: AioPoolWatch) -> None:
        self._connection = connection
        self._core = core

    def __aiter__(self) -> PoolWatch:
        return self

    async def __anext__(self) -> Change:
        return await self._connection.step(self._core)


class ServiceCalls(AdminCalls, Resource):
    """What can be asked of a service. Every method raises ClientError."""

    _core: AioServiceCalls

    def __init__(self, connection: TrioConnection, core: AioServiceCalls) -> None:
        self._connection = connection
        self._core = core

    async def console(self, vm_id: str) -> str:
        """The end of what a VM's guest wrote to its console, at most 64 KiB; not fit for a terminal as it is.

        CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if it is not up yet, or no longer up.
        """
        return await self._connection.run(self._core.console, vm_id)

    async def status(self) -> ServiceStatus:
        """The service, its pools, and the caller's leases."""
        return await self._connection.run(self._core.status)

    async def metrics(self) -> str:
        """What the service counts and measures, in Prometheus' text format."""
        return await self._connection.run(self._core.metrics)

    def watch(self) -> Opening[PoolWatch]:
        """Changes in the pools, for the length of a block: a Snapshot, then every change.

        A slow reader gets a new Snapshot in place of the changes it missed. Iterating raises ClientError; CallError
        RESOURCE_EXHAUSTED if there are too many watches.
        """
        return self._connection.opening(self._core.watch(), lambda opened: PoolWatch(self._connection, opened))


class Client(ServiceCalls):
    """A connection to a service; `open_client` makes it. Every method raises ClientError.

    The service's calls as they are; `Pool` and `Vm` are more convenient, and do more.
    """

    _core: AioClient

    def __init__(self, connection: TrioConnection, core: AioClient) -> None:
        self._connection = connection
        self._core = core

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
        return await self._connection.run(
            self._core.acquire,
            profile=profile,
            on_empty=on_empty,
            idempotency_key=idempotency_key,
            wishes=wishes,
            config=config,
            ttl_s=ttl_s,
            labels=labels,
            timeout_s=timeout_s,
        )

    async def renew(self, lease_id: str, *, ttl_s: float) -> float:
        """Sets the lease's time to live, from now on; returns it in seconds, as the service set it. Raises as
        `release`.
        """
        return await self._connection.run(self._core.renew, lease_id, ttl_s=ttl_s)

    async def release(self, lease_id: str) -> None:
        """Ends a lease and destroys its VM. CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION."""
        await self._connection.run(self._core.release, lease_id)

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
        return self._connection.opening(
            self._core.lease(
                profile=profile,
                on_empty=on_empty,
                idempotency_key=idempotency_key,
                wishes=wishes,
                config=config,
                labels=labels,
                timeout_s=timeout_s,
                reconnect_s=reconnect_s,
            ),
            lambda opened: opened,
        )

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
        return self._connection.opening(
            self._core.exec(
                lease_id,
                argv,
                environment=environment,
                working_directory=working_directory,
                time_limit_s=time_limit_s,
                stdin=stdin,
            ),
            lambda opened: RemoteCommand(self._connection, opened),
        )


def open_client(socket_path: Path | str, *, wait_s: float = 0.0) -> Opening[Client]:
    """Connects to the service on `socket_path`. At the end, open calls are ended and the connection is closed.

    Leases from `Client.acquire` outlive the connection, those from `Client.lease` do not. Raises
    ServiceUnavailableError if no service listens after `wait_s`.
    """
    return connecting(aio_open_client(socket_path, wait_s=wait_s), connection_of, Client)


Process = RemoteCommand
