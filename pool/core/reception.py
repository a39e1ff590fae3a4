"""What is asked of the coordinator: each request becomes an event in its inbox, and waits for the reply."""

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
"""What the names of callers' own configurations begin with."""


@attrs.frozen(kw_only=True)
class OwnConfiguration:
    """What a caller asks for that no profile has: a page of the ledger, and how to make what is on it."""

    name: str
    """The same for the same configuration."""
    policy: PoolPolicy
    producer: BaseVmMaker
    procedure: HandOutProcedure = attrs.field(factory=HandOutProcedure)
    vigil: Vigil = attrs.field(factory=Vigil)


@attrs.define(eq=False, kw_only=True)
class Reception:
    """The public face of the coordinator, which reads the inbox and answers. Nothing is decided here."""

    measures: Measures = attrs.field(init=False)
    _requests: OpenRequests = attrs.field(factory=OpenRequests, init=False)
    _send: trio.MemorySendChannel[Event] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[Event] = attrs.field(init=False, repr=False)
    _own: dict[int, OwnConfiguration] = attrs.field(factory=dict, init=False)
    """By request, until the ledger has read it."""
    _proofs: list[trio.Event] = attrs.field(factory=list, init=False)
    """Who waits to see that a Tick is read."""
    _deliveries: Deliveries = attrs.field(factory=Deliveries, init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)
    _keeping_held: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        # Unbounded, because facts must never be dropped and actors must never wait here; what bounds it is the number
        # of VMs, each of which says a few things in its life, and the edge's limit on open calls.
        self._send, self._inbox = trio.open_memory_channel[Event](math.inf)

    # -- what callers ask for ------------------------------------------------------------------------------------

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

        With a configuration of one's own `profile` is not looked at. A bound lease is one that its caller gives back
        when the call ends. A bare one is of a base VM, paused, to which nothing is connected: its caller has to
        `relinquish` it or give it back. Raises RefusedError. If cancelled, the claim is dropped, and a lease that was
        granted in that same moment is given back.
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
        """The lease lives for `ttl_s` from now on; returns it as it is then. Raises as `release`.

        If cancelled, it is renewed all the same.
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
        """Says that the caller has been told of the lease; does not wait. What would hold up the reply may go on.

        Who does not say so has other VMs begin a moment later, no more.
        """
        self._deliveries.end(lease.lease_id)

    def give_back(self, lease: Lease, *, detail: str = "its caller went away before it had the lease") -> None:
        """Says that a lease is in its caller's hand no more, or never was; does not wait.

        It ends, unless another request with the same idempotency key has it. Nothing happens if it has ended.
        """
        self._deliveries.end(lease.lease_id)
        if lease.request.bound and self._keeping_held:
            return
        self._send.send_nowait(GrantUndelivered(lease_id=lease.lease_id, detail=detail))

    # -- what administrators ask for: all raise RefusedError -------------------------------------------------------

    async def resize(self, profile: str, size: int) -> None:
        """Until the service is started anew."""
        await self._ask(lambda request_id: ResizeRequested(request_id=request_id, profile=profile, size=size))

    async def drain(self, profile: str) -> None:
        """Refuses who waits for the profile, and stops its idle VMs; leases go on."""
        await self._ask(lambda request_id: DrainRequested(request_id=request_id, profile=profile))

    async def undrain(self, profile: str) -> None:
        await self._ask(lambda request_id: UndrainRequested(request_id=request_id, profile=profile))

    async def reset(self, profile: str) -> None:
        """Forgets the failures of its production."""
        await self._ask(lambda request_id: ResetRequested(request_id=request_id, profile=profile))

    async def evict(self, *, vm_id: str = "", profile: str = "") -> None:
        """Stops one idle VM, or has all idle VMs of a profile replaced, few at a time."""
        await self._ask(lambda request_id: EvictRequested(request_id=request_id, profile=profile, vm_id=vm_id))

    # -- what the service says -----------------------------------------------------------------------------------

    def generation_changed(self, profile: str, generation: str) -> None:
        """A producer makes VMs of another generation from now on; does not wait."""
        self._send.send_nowait(GenerationChanged(profile=profile, generation=generation))

    def host_memory(self, memory: HostMemory) -> None:
        """Takes note of how the host is off; does not wait."""
        low = memory.state is MemoryState.LOW
        self._send.send_nowait(HostMemoryLow(detail=memory.reason) if low else HostMemoryOk())

    async def prove_alive(self) -> None:
        """Returns when events are being read."""
        alive = trio.Event()
        self._proofs.append(alive)
        self._send.send_nowait(Tick())
        await alive.wait()

    async def shut_down(self) -> None:
        """Refuses who waits, ends every lease and every VM; returns when nothing is left of them."""
        self._send.send_nowait(ShutdownRequested())
        await self._drained.wait()

    async def hand_over(self) -> None:
        """Refuses who waits and lets go of all idle and leased VMs; returns when all are, and the rest have ended."""
        self._send.send_nowait(HandoverRequested())
        await self._drained.wait()

    def keep_held_leases(self) -> None:
        """From now on a held lease outlives the call that holds it: calls end before `hand_over`, and the next run of
        the service waits for their holders.
        """
        self._keeping_held = True
