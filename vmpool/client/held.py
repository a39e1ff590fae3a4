"""A lease that lives as long as a call, and outlives a restart of the service."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import attrs

from vmpool.client import methods
from vmpool.client.connection import ANSWER_LIMIT_S, Connection, pause_after
from vmpool.client.convert import acquired_vm
from vmpool.client.endings import finish
from vmpool.client.errors import CallError, ClientError, ServiceUnavailableError, service_fault
from vmpool.client.records import AcquiredVm
from vmpool.wire.generated.vmpool import v1 as wire

_log = logging.getLogger("vmpool.client")

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
"""Between attempts; no event reports when a service listens again."""


class LeaseLostError(ClientError):
    """The service does not, or no longer, have the held lease."""


@attrs.define(eq=False, kw_only=True)
class HeldLease:
    """The call that a lease is bound to; retried when it breaks off, for example because the service restarts.

    A restarted service restores its predecessor's leases, and finds this one by its idempotency key.
    """

    connection: Connection
    request: wire.AcquireRequest
    """Must have an idempotency key."""
    reconnect_s: float
    _vm: AcquiredVm | None = attrs.field(default=None, init=False)
    _task: asyncio.Task[None] | None = attrs.field(default=None, init=False)

    async def begin(self) -> AcquiredVm:
        """Returns when the lease is granted; a task of the connection holds it until `end`. Raises ClientError if none
        is granted. If cancelled, it leaves none.
        """
        granted: asyncio.Future[AcquiredVm] = asyncio.get_running_loop().create_future()
        self._task = self.connection.start(self._run(granted))
        try:
            waiting: list[asyncio.Future[Any]] = [granted, self._task]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not granted.done():
                granted.set_exception(ClientError("the connection was closed"))
            return granted.result()
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Ends the call; returns when it has ended."""
        if self._task is not None:
            self._task.cancel()
            await finish(_end_of(self._task))

    async def _run(self, granted: asyncio.Future[AcquiredVm]) -> None:
        """Holds the lease until it ends."""

        def begin(vm: AcquiredVm) -> None:
            self._vm = vm
            granted.set_result(vm)

        try:
            broken = await self._hold(begin)
        except Exception as error:
            if granted.done():
                raise
            granted.set_exception(error)
            return
        while broken is not None:
            _log.info("a lease's call broke off; looking for the service", extra={"error": str(broken)})
            broken = await self._hold_again(broken)

    async def _hold(self, begin: Callable[[AcquiredVm], None]) -> ClientError | None:
        """Makes one call, and waits for its end. Returns the error that broke it off; None if the lease has ended.

        Raises an error that occurs before the lease is granted, and errors of `begin`.
        """
        begun = False
        try:
            call = await self.connection.open(methods.HOLD)
            try:
                await call.send_last(self.request)
                first = await call.receive()
                if first is None or first.acquired is None:
                    raise service_fault("sent no VM in its reply")
                begin(acquired_vm(first.acquired))
                begun = True
                await call.receive()
            finally:
                await call.aclose()
        except ClientError as error:
            if not begun:
                raise
            return error
        return None

    async def _hold_again(self, broken: ClientError) -> ClientError | None:
        """Finds the lease in the restarted service, and returns as `_hold` does; None also if the lease is lost."""
        assert self._vm is not None
        lost: ClientError = broken
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.reconnect_s
        for attempt in itertools.count(1):
            if not _may_pass(lost) or loop.time() >= give_up_at:
                break
            pause_s = pause_after(attempt, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
            pause_s *= 1 - 0.1 * random.random()  # noqa: S311 - spreads attempts
            await asyncio.sleep(min(pause_s, give_up_at - loop.time()))
            try:
                if not await self._is_known():
                    lost = LeaseLostError("the service does not know the lease")
                    break
                return await self._hold(self._check)
            except ClientError as error:
                lost = error
        _log.warning("lease %s is lost: %s", self._vm.lease_id, lost)
        return None

    async def _is_known(self) -> bool:
        """Checked before the call, because a service that does not know the lease would grant another one."""
        assert self._vm is not None
        reply: Any = await self.connection.ask(methods.STATUS, wire.StatusRequest(), timeout_s=ANSWER_LIMIT_S)
        if reply.draining:  # it has detached its leases, perhaps for its successor
            raise CallError(status="UNAVAILABLE", message="the service is shutting down")
        return any(lease.lease_id == self._vm.lease_id for lease in reply.leases)

    def _check(self, vm: AcquiredVm) -> None:
        assert self._vm is not None
        if vm.lease_id != self._vm.lease_id:
            raise LeaseLostError(f"the service granted {vm.lease_id} in its place")


def _may_pass(error: ClientError) -> bool:
    """Whether a later attempt may succeed."""
    match error:
        case ServiceUnavailableError():
            return True
        case CallError(status=status):
            return status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        case _:
            return False


async def _end_of(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
