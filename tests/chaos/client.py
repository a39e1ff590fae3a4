"""A client at full rate: it takes leases, uses them, gives them back, and sees whether each was its own all along."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

import vmpool
from pool.core.recovery import RECONNECT_S
from tests.chaos import guest
from tests.chaos.books import Books, Holding, ViolationError
from tests.chaos.plan import SHORT_TTL_S, Cycle, Way
from tests.integration.service.calls import hold
from tests.integration.service.flooding import FLOOD
from vmpool.client import (
    AcquiredVm,
    CallError,
    Client,
    CommandExit,
    GuestFile,
    ServiceUnavailableError,
    Wishes,
    open_client,
)

WAIT_S: Final = 20.0
"""For a VM."""

ANSWER_S: Final = 30.0
"""For any other answer, on a host that is busy."""

PATIENCE_S: Final = 90.0
"""For a service to be there, and for a lease to be usable again, while services are killed one after the other."""

LASTING_USES: Final = 4
"""Who uses a lease as often as this does more with it than run commands."""

FORWARD_S: Final = 1.0

SLACK_S: Final = 10.0
"""What the SDK may take on top of a deadline, on a host that is busy."""

AGAIN_S: Final = 0.1
"""Between attempts to reach a service that is being started."""

_ENDED: Final = frozenset({"NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"})
_NONE_TO_BE_HAD: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})

_USE: Final = "cat /tmp/owner 2>/dev/null; echo {lease_id} >/tmp/owner"


class CycleOverError(Exception):
    """Its lease ended, or there was none to be had, and that is accounted for."""


class BrokenError(Exception):
    """The service went away during a call."""


@attrs.define(eq=False, kw_only=True)
class ChaosClient:
    name: str
    socket_path: Path
    books: Books
    cycles: Iterator[Cycle]
    stop: trio.Event
    _number: int = 0

    async def run(self) -> None:
        """Until `stop` is set; ends what it began. Raises ViolationError."""
        while not self.stop.is_set():
            cycle = next(self.cycles)
            self._number += 1
            with contextlib.suppress(CycleOverError):
                match cycle.way:
                    case Way.HOLD:
                        await self._held(cycle)
                    case Way.MISTAKEN:
                        await self._mistaken(cycle)
                    case Way.FLOODING:
                        await self._flooding(attrs.evolve(cycle, ttl_s=SHORT_TTL_S))
                    case _:
                        await self._acquired(cycle)

    # -- leases that are acquired ----------------------------------------------------------------------------------

    async def _acquired(self, cycle: Cycle) -> None:
        holding = await self._acquire(cycle)
        if holding is None:
            return
        await self._use_all(holding, cycle)
        await self._release(holding)
        self.books.done["cycles"] += 1

    async def _acquire(self, cycle: Cycle) -> Holding | None:
        key = f"{self.name}-{self._number}" if cycle.way is Way.KEYED else ""
        while not self.stop.is_set():
            began = trio.current_time()
            try:
                async with self._connected() as client:
                    with _limit(WAIT_S, "acquire"):
                        vm = await client.acquire(
                            profile=cycle.profile,
                            on_empty=cycle.on_empty,
                            idempotency_key=key,
                            ttl_s=SHORT_TTL_S,  # until it is known to have come
                            timeout_s=WAIT_S,
                        )
            except BrokenError:
                if not key:
                    return None  # if there is a lease it ends by itself
                continue
            except CallError as error:
                self._refused("acquire", error)
                return None
            holding = self._granted(vm, expires_at=began + SHORT_TTL_S)
            if cycle.ttl_s > SHORT_TTL_S:
                await self._ask("renew", holding, partial(self._renew, holding, cycle.ttl_s))
            return holding
        return None

    async def _mistaken(self, cycle: Cycle) -> None:
        """Costs a VM, and nobody else anything."""
        try:
            async with self._connected() as client:
                with _limit(WAIT_S, "acquire"):
                    await client.acquire(
                        profile=cycle.profile,
                        on_empty=cycle.on_empty,
                        wishes=Wishes(files=(GuestFile(path="/no/such/directory/file", data=b""),)),
                        timeout_s=WAIT_S,
                    )
        except BrokenError:
            return
        except CallError as error:
            if error.status != "INVALID_ARGUMENT":
                self._refused("acquire", error)
                return
            self.books.done["wishes refused"] += 1
            return
        raise ViolationError("a file was written where there is no directory")

    async def _flooding(self, cycle: Cycle) -> None:
        """Costs its own lease, and nobody else anything. One that is adopted in mid-flood lasts as long as its time."""
        holding = await self._acquire(cycle)
        if holding is None:
            return
        self.books.flooding.add(holding.vm_id)
        await self._ask("flood", holding, partial(self._flood, holding))
        raise ViolationError(f"{holding.vm_id} floods the service, and nobody minds")

    async def _flood(self, holding: Holding, client: Client) -> None:
        async with client.exec(holding.lease_id, ["python3", "-c", FLOOD]) as command:
            done = await command.collect()
        raise ViolationError(f"the flood of {holding.vm_id} ended with {done.exit}: {done.stderr!r}")

    def _refused(self, what: str, error: CallError) -> None:
        if error.status not in _NONE_TO_BE_HAD:
            raise ViolationError(f"{what}: {error.status}: {error}") from error
        self.books.done[f"{what}: {error.status}"] += 1

    def _granted(self, vm: AcquiredVm, *, expires_at: float) -> Holding:
        holding = Holding(lease_id=vm.lease_id, vm_id=vm.vm_id, expires_at=expires_at)
        self.books.granted(holding)
        return holding

    # -- leases that are held --------------------------------------------------------------------------------------

    async def _held(self, cycle: Cycle) -> None:
        """Holds on over restarts of the service, until the lease was used as often as it was to be."""
        key = f"{self.name}-{self._number}"
        holding: Holding | None = None
        while True:
            try:
                async with self._connected() as client, self._holding(client, cycle, key) as vm:
                    if holding is None:
                        holding = self._granted(vm, expires_at=math.inf)
                    elif vm.lease_id != holding.lease_id:
                        self.books.ended(holding, said=f"held by the same key came {vm.lease_id}")
                        holding = self._granted(vm, expires_at=math.inf)
                    else:
                        self.books.done["held again"] += 1
                    holding.expires_at = math.inf
                    await self._use_all(holding, cycle, on=client)
                    holding.given_back = True
                    self.books.done["cycles"] += 1
                    return
            except BrokenError:
                if holding is not None:
                    # The service's own waiting begins when it is there again, which is not before this.
                    holding.expires_at = trio.current_time() + RECONNECT_S
                if self.stop.is_set() and holding is None:
                    return

    @contextlib.asynccontextmanager
    async def _holding(self, client: Client, cycle: Cycle, key: str) -> AsyncIterator[AcquiredVm]:
        with trio.CancelScope(deadline=trio.current_time() + WAIT_S + SLACK_S) as scope:
            try:
                async with hold(client, key=key, profile=cycle.profile, on_empty=cycle.on_empty, wait_s=WAIT_S) as vm:
                    scope.deadline = math.inf
                    yield vm
            except CallError as error:  # of the call itself: those that it is held for see to their own
                self._refused("hold", error)
                raise CycleOverError from error
        if scope.cancelled_caught:
            raise _late("hold", WAIT_S)

    # -- what is done with a lease ---------------------------------------------------------------------------------

    async def _use_all(self, holding: Holding, cycle: Cycle, *, on: Client | None = None) -> None:
        """`on` is the connection by which it is held."""
        for use in range(1 + cycle.uses):
            if use:
                await trio.sleep(cycle.pause_s)
            await self._ask("exec", holding, partial(self._use, holding), on=on)
            if cycle.uses >= LASTING_USES:
                await self._reach_into(holding, use)
            if cycle.renews and on is None:
                await self._ask("renew", holding, partial(self._renew, holding, cycle.ttl_s))

    async def _use(self, holding: Holding, client: Client) -> None:
        """Finds its own mark in the guest, or none if it did not come to make one, and makes one."""
        async with client.exec(holding.lease_id, ["sh", "-c", _USE.format(lease_id=holding.lease_id)]) as command:
            done = await command.collect()
        found = done.stdout.decode().strip()
        if done.exit != CommandExit(status=0):
            raise ViolationError(f"a command in {holding.vm_id} ended with {done.exit}: {done.stderr!r}")
        if found != holding.lease_id and (found or holding.marked):
            raise ViolationError(f"{holding.vm_id} of lease {holding.lease_id} has the mark {found!r}")
        holding.marked = True
        self.books.done["commands"] += 1

    async def _reach_into(self, holding: Holding, use: int) -> None:
        """By connections of their own, as other programs of the same user would."""

        async def reach(_client: Client) -> None:
            async with vmpool.connect(self.socket_path) as pool:
                vm = await pool.get(holding.lease_id)
                await guest.follow(vm, holding, self.books)
                if use == 1:
                    await guest.carry_tree(vm, self.books)
                elif use > 1:
                    await guest.hold_forward(vm, self.books, seconds=FORWARD_S)

        await self._ask("processes, files and ports", holding, reach)

    async def _renew(self, holding: Holding, ttl_s: float, client: Client) -> None:
        began = trio.current_time()
        # Until the answer is there it may end at the sooner of both times.
        holding.expires_at = min(holding.expires_at, began + ttl_s)
        await client.renew(holding.lease_id, ttl_s=ttl_s)
        holding.expires_at = began + ttl_s
        self.books.done["renewals"] += 1

    async def _release(self, holding: Holding) -> None:
        async def release(client: Client) -> None:
            try:
                await client.release(holding.lease_id)
            finally:
                holding.given_back = True  # perhaps, if the answer is lost

        await self._ask("release", holding, release)

    async def _ask(
        self, what: str, holding: Holding, call: Callable[[Client], Awaitable[None]], *, on: Client | None = None
    ) -> None:
        """Asks until there is an answer. Raises CycleOverError; BrokenError if the connection `on` breaks."""
        patience = trio.current_time() + PATIENCE_S
        while True:
            try:
                async with contextlib.AsyncExitStack() as connection:
                    client = on if on is not None else await connection.enter_async_context(self._connected())
                    with _breaking(), _limit(ANSWER_S, what):
                        await call(client)
                    return
            except BrokenError:
                if on is not None:
                    raise
            except CallError as error:
                if error.status in _ENDED:
                    self.books.ended(holding, said=f"{what}: {error.status}: {error}")
                    raise CycleOverError from error
                if error.status != "UNAVAILABLE":
                    raise ViolationError(f"{what} of {holding.lease_id}: {error.status}: {error}") from error
                if trio.current_time() > patience and holding.vm_id not in self.books.killed:
                    raise ViolationError(f"{what} of {holding.lease_id}: not in {PATIENCE_S} s: {error}") from error
                await trio.sleep(AGAIN_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        """As soon as there is a service. Raises BrokenError out of the block when it goes away."""
        patience = trio.current_time() + PATIENCE_S
        async with contextlib.AsyncExitStack() as connection:
            client: Client | None = None
            while client is None:
                try:
                    client = await connection.enter_async_context(open_client(self.socket_path))
                except ServiceUnavailableError as error:
                    if trio.current_time() > patience:
                        raise ViolationError(f"no service for {PATIENCE_S} s: {error}") from error
                    await trio.sleep(AGAIN_S)
            with _breaking():
                yield client


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except (ServiceUnavailableError, guest.CutOffError) as error:
        raise BrokenError from error


@contextlib.contextmanager
def _limit(seconds: float, what: str) -> Iterator[None]:
    with trio.move_on_after(seconds + SLACK_S) as scope:
        yield
    if scope.cancelled_caught:
        raise _late(what, seconds)


def _late(what: str, seconds: float) -> ViolationError:
    return ViolationError(f"{what} had no answer {SLACK_S:g} s after its deadline of {seconds:g} s")
