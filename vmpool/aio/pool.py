"""A connection to a service, and the VMs that it leases."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vmpool.aio.vm import Vm
from vmpool.client import methods
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.client.convert import acquire_request, lease_status, leased_vm
from vmpool.client.convert_guest import guest_files
from vmpool.client.errors import CallError, service_fault
from vmpool.client.opening import Opening
from vmpool.client.places import LocalPath, service_socket
from vmpool.client.records import LeaseStatus, VmConfig
from vmpool.client.requests import GuestFile, OnEmpty, Wishes
from vmpool.client.sdk import RECONNECT_S, ServiceCalls, acquire, hold
from vmpool.wire.generated.vmpool import v1 as wire

ACQUIRE_TIMEOUT_S: Final = 60.0


class Pool(ServiceCalls):
    """A connection to a service; `connect` makes it. Every method raises ClientError."""

    @property
    def socket_path(self) -> Path:
        """The service's socket, for others who connect to the same one."""
        return self._connection.socket_path

    def vm(
        self,
        profile: str = "",
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | Sequence[GuestFile] | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        config: VmConfig | None = None,
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        timeout: float = ACQUIRE_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> Opening[Vm]:
        """A VM for the length of a block: running, unique, and with the right time.

        `environment` is for every command that runs in it; `files`, by path, are there before it is handed out. Neither
        becomes part of a template. `vcpus` and `memory_mib` are added up to the profile's maximum. `labels` are the
        caller's own marks, shown with the lease; by its `name` it is found again by the same user. `config` describes a
        machine in place of a profile. `on_empty` says what to do when no VM is ready: the profile's setting unless
        given. `timeout` bounds the wait, in seconds.

        The lease is bound to an open call: it ends with the block, also if the block is cancelled or this process dies.
        If the connection breaks because the service restarts, it is found again for up to `reconnect_s` seconds (0: not
        at all). That it ends earlier, because its VM died or the service was stopped, is not an error in itself; using
        it then is.

        CallError statuses: NOT_FOUND, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE,
        ALREADY_EXISTS, FAILED_PRECONDITION, PERMISSION_DENIED.
        """
        request = acquire_request(
            profile=profile,
            key=idempotency_key or f"hold-{secrets.token_hex(16)}",
            on_empty=on_empty,
            wishes=_wishes(environment, files, vcpus, memory_mib, hostname),
            config=config,
            ttl_s=None,
            labels=labels,
            wait_s=timeout,
            name=name,
        )
        holding = hold(self._connection, request, reconnect_s=reconnect_s)

        async def begin(ends: contextlib.AsyncExitStack) -> Vm:
            return Vm(self._connection, await ends.enter_async_context(holding), reconnect_s=reconnect_s)

        return Opening(begin)

    async def acquire(
        self,
        profile: str = "",
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | Sequence[GuestFile] | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        config: VmConfig | None = None,
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        ttl: float | None = None,
        timeout: float = ACQUIRE_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> Vm:
        """A VM that outlives this connection; the caller must `release` it, or `renew` its lease before it expires,
        `ttl` seconds from now (None: the profile's default). Arguments otherwise as for `vm`. If cancelled, it leaves
        no lease.
        """
        request = acquire_request(
            profile=profile,
            key=idempotency_key,
            on_empty=on_empty,
            wishes=_wishes(environment, files, vcpus, memory_mib, hostname),
            config=config,
            ttl_s=ttl,
            labels=labels,
            name=name,
        )
        lease = await acquire(self._connection, request, timeout_s=timeout)
        return Vm(self._connection, lease, reconnect_s=reconnect_s)

    async def get(self, lease_id_or_name: str, *, reconnect_s: float = RECONNECT_S) -> Vm:
        """A VM that this user has leased, also in another program, by the name of its lease or by its id.

        CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if the lease has ended.
        """
        requests = [
            wire.GetLeaseRequest(name=lease_id_or_name),
            wire.GetLeaseRequest(lease_id=lease_id_or_name),
        ]
        if lease_id_or_name.startswith(LEASE_ID_PREFIX):
            requests.reverse()
        for request in requests:
            try:
                reply = await self._connection.ask(methods.GET_LEASE, request, timeout_s=ANSWER_LIMIT_S)
            except CallError as error:
                if error.status != "NOT_FOUND" and not (error.status == "INVALID_ARGUMENT" and request.name):
                    raise
            else:
                if reply.lease is None:
                    raise service_fault("sent no lease in its reply")
                return Vm(self._connection, leased_vm(reply.lease), reconnect_s=reconnect_s)
        raise CallError(status="NOT_FOUND", message=f"lease: there is none with the id or name {lease_id_or_name!r}")

    async def leases(self, labels: Mapping[str, str] | None = None) -> list[LeaseStatus]:
        """This user's leases, the oldest first; root sees all. With `labels`: those that have all of these."""
        request = wire.ListLeasesRequest(labels=dict(labels or {}))
        reply = await self._connection.ask(methods.LIST_LEASES, request, timeout_s=ANSWER_LIMIT_S)
        return [lease_status(lease) for lease in reply.leases]


LEASE_ID_PREFIX: Final = "lease-"
"""Of the service's ids; names may begin so, too."""


def connect(socket_path: LocalPath | None = None, *, wait_s: float = 0.0) -> Opening[Pool]:
    """Connects to a service: the one on `socket_path`, or on `VMPOOL_SOCKET`, or on the first of the default places
    where a socket is: the user's own, then the host's.

    At the end, open calls are ended and the connection is closed. Raises ServiceUnavailableError if no service listens
    after `wait_s` seconds.
    """

    async def begin(ends: contextlib.AsyncExitStack) -> Pool:
        connection = Connection(socket_path=service_socket() if socket_path is None else Path(socket_path))
        ends.push_async_callback(connection.aclose)
        await connection.connect(wait_s=wait_s)
        return Pool(connection)

    return Opening(begin)


def _wishes(
    environment: Mapping[str, str] | None,
    files: Mapping[str, str | bytes] | Sequence[GuestFile] | None,
    vcpus: int | None,
    memory_mib: int | None,
    hostname: str,
) -> Wishes:
    return Wishes(
        vcpus=vcpus,
        memory_mib=memory_mib,
        hostname=hostname,
        environment=environment or {},
        files=guest_files(files),
    )
