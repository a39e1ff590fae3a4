"""The coordinator's interface for requests: each becomes an event in its inbox, and waits for the reply."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from actors.handout import HandOutProcedure
from actors.memory import HostMemory, MemoryState
from actors.producer import BaseVmMaker
from actors.vigil import Vigil
from pool.core.deliveries import Deliveries
from pool.core.requests import OpenRequests
from pool.ledger.effects import Refusal
from pool.ledger.events import (
    AcquireRequested,
    AdministrationRequest,
    DrainRequested,
    Event,
    EvictRequested,
    GenerationChanged,
    GrantUndelivered,
    HandoverRequested,
    HostMemoryLow,
    HostMemoryOk,
    ReleaseRequested,
    RenewRequested,
    RequestAbandoned,
    ResetRequested,
    ResizeRequested,
    ShutdownRequested,
    Tick,
    UndrainRequested,
)
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.records import Lease, Owner
from pool.observe.measures import ABANDONED, Measures
from vmm.words.leases import LeaseRequest

OWN: Final = "own-"
"""Prefix of the names of callers' own configurations."""


@attrs.frozen(kw_only=True)
class OwnConfiguration:
    """A caller's configuration that no profile has: the policy of its page in the ledger, and how to make its VMs."""

    name: str
    """Equal for equal configurations."""
    policy: PoolPolicy
    producer: BaseVmMaker
    procedure: HandOutProcedure = attrs.field(factory=HandOutProcedure)
    vigil: Vigil = attrs.field(factory=Vigil)


@attrs.define(eq=False, kw_only=True)
class Reception:
    """The coordinator's public methods. The ledger decides the requests."""

    measures: Measures = attrs.field(init=False)
    _requests: OpenRequests = attrs.field(factory=OpenRequests, init=False)
    _send: trio.MemorySendChannel[Event] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[Event] = attrs.field(init=False, repr=False)
    _own: dict[int, OwnConfiguration] = attrs.field(factory=dict, init=False)
    """By request id, until the ledger has read the request."""
    _proofs: list[trio.Event] = attrs.field(factory=list, init=False)
    """Set when the next Tick is read."""
    _deliveries: Deliveries = attrs.field(factory=Deliveries, init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)
    _keeping_held: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        # Unbounded, because facts must never be dropped and actors must never wait here. Its length is bounded by the
        # number of VMs, each of which reports a few facts in its life, and by the edge's limit on open calls.
        self._send, self._inbox = trio.open_memory_channel[Event](math.inf)

    # -- callers' requests ------------------------------------------------------------------------------------

    async def acquire(
        self,
        *,
        profile: str,
        owner: Owner,
        request: LeaseRequest | None = None,
        on_empty: OnEmpty | None = OnEmpty.WAIT,
        deadline: float = math.inf,
        own: OwnConfiguration | None = None,
    ) -> Lease:
        """Waits for a VM. `deadline` is on trio's clock.

        With `own`, `profile` is ignored. A bound lease is given back by its caller when the call ends. A bare lease is
        of a paused base VM without connections: its caller must `relinquish` it or give it back. Raises RefusedError.
        If cancelled, the claim is dropped, and a lease that was granted at the same time is given back.
        """
        came_at = trio.current_time()
        request_id, reply = self._requests.open()
        if own is not None:
            self._own[request_id] = own
        try:
            self._send.send_nowait(
                AcquireRequested(
                    request_id=request_id,
                    profile=profile if own is None else own.name,
                    owner=owner,
                    request=request or LeaseRequest(),
                    on_empty=on_empty,
                    deadline=deadline,
                    opens=None if own is None else own.policy,
                )
            )
            await reply.event.wait()
        except BaseException:
            self._requests.close(request_id)
            if isinstance(reply.value, Lease):
                self.give_back(reply.value)
            else:
                self._send.send_nowait(RequestAbandoned(request_id=request_id))
            self.measures.not_acquired(profile if own is None else own.name, ABANDONED)
            raise
        self._requests.close(request_id)
        if isinstance(reply.value, Refusal):
            self.measures.not_acquired(profile if own is None else own.name, reply.value.code.value)
        lease = reply.result()
        assert lease is not None
        lasted_s = trio.current_time() - came_at
        self.measures.acquired(lease, lasted_s=lasted_s, joined=lease.granted_at < came_at)
        return lease

    async def release(self, lease_id: str, *, owner: Owner) -> None:
        """Ends a lease. Its VM is stopped in the background. Raises RefusedError.

        If cancelled, the lease ends all the same.
        """
        await self._ask(lambda request_id: ReleaseRequested(request_id=request_id, lease_id=lease_id, owner=owner))

    async def renew(self, lease_id: str, *, owner: Owner, ttl_s: float) -> Lease:
        """Sets the lease's remaining time to `ttl_s`; returns the renewed lease. Raises RefusedError.

        If cancelled, the lease is renewed all the same.
        """
        renewed = await self._ask(
            lambda request_id: RenewRequested(request_id=request_id, lease_id=lease_id, owner=owner, ttl_s=ttl_s)
        )
        assert renewed is not None
        return renewed

    async def _ask(
        self, event: Callable[[int], ReleaseRequested | RenewRequested | AdministrationRequest]
    ) -> Lease | None:
        request_id, reply = self._requests.open()
        try:
            self._send.send_nowait(event(request_id))
            await reply.event.wait()
        finally:
            self._requests.close(request_id)
        return reply.result()

    def delivered(self, lease: Lease) -> None:
        """Reports that the lease's reply was sent, so that other work may go on; does not wait.

        Without this call, other VMs start a moment later.
        """
        self._deliveries.end(lease.lease_id)

    def give_back(self, lease: Lease, *, detail: str = "its caller went away before it had the lease") -> None:
        """Reports that a lease did not reach its caller, or was given back; does not wait.

        The lease ends, unless another request with the same idempotency key has it. Does nothing if it has ended.
        """
        self._deliveries.end(lease.lease_id)
        if lease.request.bound and self._keeping_held:
            return
        self._send.send_nowait(GrantUndelivered(lease_id=lease.lease_id, detail=detail))

    # -- administrators' requests: all raise RefusedError ----------------------------------------------------------

    async def resize(self, profile: str, size: int) -> None:
        """Sets the pool's size, until the service restarts."""
        await self._ask(lambda request_id: ResizeRequested(request_id=request_id, profile=profile, size=size))

    async def drain(self, profile: str) -> None:
        """Refuses the profile's waiting requests, and stops its idle VMs; leases go on."""
        await self._ask(lambda request_id: DrainRequested(request_id=request_id, profile=profile))

    async def undrain(self, profile: str) -> None:
        await self._ask(lambda request_id: UndrainRequested(request_id=request_id, profile=profile))

    async def reset(self, profile: str) -> None:
        """Forgets the failures of the profile's production."""
        await self._ask(lambda request_id: ResetRequested(request_id=request_id, profile=profile))

    async def evict(self, *, vm_id: str = "", profile: str = "") -> None:
        """Stops one idle VM, or replaces all idle VMs of a profile, a few at a time."""
        await self._ask(lambda request_id: EvictRequested(request_id=request_id, profile=profile, vm_id=vm_id))

    # -- the service's reports -----------------------------------------------------------------------------------

    def generation_changed(self, profile: str, generation: str) -> None:
        """A producer makes VMs of another generation from now on; does not wait."""
        self._send.send_nowait(GenerationChanged(profile=profile, generation=generation))

    def host_memory(self, memory: HostMemory) -> None:
        """Reports the state of the host's memory; does not wait."""
        low = memory.state is MemoryState.LOW
        self._send.send_nowait(HostMemoryLow(detail=memory.reason) if low else HostMemoryOk())

    async def prove_alive(self) -> None:
        """Returns when the coordinator has read an event."""
        alive = trio.Event()
        self._proofs.append(alive)
        self._send.send_nowait(Tick())
        await alive.wait()

    async def shut_down(self) -> None:
        """Refuses waiting requests, ends every lease and every VM; returns when all VMs are gone."""
        self._send.send_nowait(ShutdownRequested())
        await self._drained.wait()

    async def hand_over(self) -> None:
        """Refuses waiting requests, detaches all idle and leased VMs, and ends the rest; returns when this is done."""
        self._send.send_nowait(HandoverRequested())
        await self._drained.wait()

    def keep_held_leases(self) -> None:
        """From now on bound leases outlive their calls: calls end before `hand_over`, and the next run of the service
        waits for the leases' holders.
        """
        self._keeping_held = True
