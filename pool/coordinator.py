"""The one task that owns the ledger and performs its effects."""

from __future__ import annotations

import itertools
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, assert_never

import attrs
import structlog
import trio

from actors.handout import HandOutProcedure
from actors.journal import Journal
from actors.messages import HandOutOrder, LeaseTerms, VmGone, Wishes
from actors.producer import Producer, ShellProducer
from actors.vm import VmActor
from pool.ledger.book import Ledger
from pool.ledger.effects import (
    ConfirmRelease,
    ConfirmRenewal,
    Effect,
    FillShell,
    Grant,
    HandOutVm,
    LeaseEnded,
    Refusal,
    Refuse,
    StartVm,
    StopVm,
)
from pool.ledger.events import (
    AcquireRequested,
    DrainRequested,
    Event,
    GenerationChanged,
    GrantUndelivered,
    ReleaseRequested,
    RenewRequested,
    RequestAbandoned,
    Tick,
)
from pool.ledger.profile import ProfileView
from pool.ledger.records import Lease, OnEmpty, Owner, PoolPolicy
from vmm.contract import Vm

_log = structlog.get_logger("vmpool.coordinator")

_PLAIN: Final = HandOutProcedure()

_UNKNOWN_TERMS: Final = LeaseTerms(lease_id="", owner_uid=0)
"""What is recorded of leases for now; nobody reads it."""

MAX_OPEN_REQUESTS: Final = 1000
"""Requests that wait for an answer at a time; what comes on top is refused at once."""


class RefusedError(Exception):
    """The pool said no; `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class TooManyRequestsError(Exception):
    """More requests are open than the service keeps."""


def new_id(prefix: str) -> str:
    """An id that does not repeat; lease ids cannot be guessed, VM ids stay short for socket paths."""
    return f"{prefix}-{secrets.token_hex(16 if prefix == 'lease' else 6)}"


@attrs.define(eq=False)
class _Reply:
    """A one-shot answer. Set by the coordinator, awaited by one request; no await lies between test and set."""

    event: trio.Event = attrs.field(factory=trio.Event)
    value: Lease | Refusal | None = None

    def deliver(self, value: Lease | Refusal | None) -> None:
        self.value = value
        self.event.set()


@attrs.frozen(kw_only=True)
class CoordinatorStatistics:
    open_requests: int
    inbox_peak: int
    actors: int


@attrs.define(eq=False, kw_only=True)
class Coordinator:
    """Receives events one by one, asks the ledger, and does what it says. Never waits for a VM.

    Its death means that the pool's state is lost: `run` lets errors escape, and the service ends with them.
    """

    policies: Mapping[str, PoolPolicy]
    producers: Mapping[str, Producer]
    """By profile name."""
    journal: Journal
    shell_producers: Mapping[str, ShellProducer] = attrs.field(factory=dict)
    """By profile name, for the profiles whose policy has shells."""
    procedures: Mapping[str, HandOutProcedure] = attrs.field(factory=dict)
    """By profile name, where the plain one is not meant."""
    make_id: Callable[[str], str] = new_id
    rng: random.Random = attrs.field(factory=random.Random)
    clock_ns: Callable[[], int] = time.time_ns
    make_actor: Callable[..., VmActor] = VmActor
    _ledger: Ledger = attrs.field(init=False)
    _send: trio.MemorySendChannel[Event] = attrs.field(init=False, repr=False)
    _inbox: trio.MemoryReceiveChannel[Event] = attrs.field(init=False, repr=False)
    _actors: dict[str, VmActor] = attrs.field(factory=dict, init=False)
    _replies: dict[int, _Reply] = attrs.field(factory=dict, init=False)
    _request_ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)
    _lease_ends: dict[str, trio.Event] = attrs.field(factory=dict, init=False)
    """Leases whose end somebody waits for."""

    def __attrs_post_init__(self) -> None:
        # The wall clock outgrows the leases of earlier runs, at less than one per nanosecond.
        self._ledger = Ledger(
            policies=self.policies, new_id=self.make_id, rng=self.rng, first_fencing_token=self.clock_ns()
        )
        # Unbounded, because facts must never be dropped and actors must never wait here; what bounds it is the number
        # of VMs, each of which says at most four things, and MAX_OPEN_REQUESTS.
        self._send, self._inbox = trio.open_memory_channel[Event](math.inf)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. Cancelling it ends every VM that is left, with the bounded escalation of `Vm.stop`."""
        async with trio.open_nursery() as vms:
            self._apply(Tick(), vms)
            task_status.started()
            while True:
                event: Event = Tick()
                with trio.move_on_at(self._ledger.next_wakeup()):
                    event = await self._inbox.receive()
                self._apply(event, vms)

    def _apply(self, event: Event, vms: trio.Nursery) -> None:
        for effect in self._ledger.apply(event, now=trio.current_time()):
            self._perform(effect, vms)
        if isinstance(event, VmGone):
            # Not when the actor's task ends: until the ledger has read its last fact it may still order something.
            del self._actors[event.vm_id]
        if self._ledger.draining and self._ledger.empty:
            self._drained.set()

    def _perform(self, effect: Effect, vms: trio.Nursery) -> None:
        match effect:
            case StartVm(vm_id=vm_id, profile=profile, as_shell=as_shell):
                actor = self.make_actor(
                    vm_id=vm_id,
                    profile=profile,
                    producer=self.producers[profile],
                    report=self._send.send_nowait,
                    journal=self.journal,
                    procedure=self.procedures.get(profile, _PLAIN),
                    shells=self.shell_producers[profile] if as_shell else None,
                )
                self._actors[vm_id] = actor
                vms.start_soon(actor.run, name=vm_id)
            case FillShell(vm_id=vm_id):
                self._actors[vm_id].fill()
            case HandOutVm(vm_id=vm_id, wishes=wishes):
                self._actors[vm_id].hand_out(HandOutOrder(wishes=wishes, lease_terms=_UNKNOWN_TERMS))
            case StopVm(vm_id=vm_id, reason=reason):
                self._actors[vm_id].stop(reason)
            case Grant(request_id=request_id, lease=lease):
                if not self._answer(request_id, lease):
                    # Its caller went away while the grant was on its way: nobody knows of this lease.
                    self.give_back(lease)
            case Refuse(request_id=request_id, refusal=refusal):
                self._answer(request_id, refusal)
            case ConfirmRenewal(request_id=request_id, lease=lease):
                self._answer(request_id, lease)
            case ConfirmRelease(request_id=request_id):
                self._answer(request_id, None)
            case LeaseEnded(lease_id=lease_id):
                if lease_id in self._lease_ends:
                    self._lease_ends.pop(lease_id).set()
            case _:
                assert_never(effect)

    def _answer(self, request_id: int, value: Lease | Refusal | None) -> bool:
        """Whether there is still somebody to answer."""
        reply = self._replies.get(request_id)
        if reply is not None:
            reply.deliver(value)
        return reply is not None

    # -- what the edge calls -------------------------------------------------------------------------------------

    async def acquire(
        self,
        *,
        profile: str,
        owner: Owner,
        key: str = "",
        on_empty: OnEmpty = OnEmpty.WAIT,
        deadline: float = math.inf,
        wishes: Wishes | None = None,
        ttl_s: float = math.inf,
    ) -> Lease:
        """Waits for a VM. `deadline` is on trio's clock; the lease lives for `ttl_s`, and longer if it is renewed.

        Raises RefusedError, or TooManyRequestsError. If cancelled, the claim is dropped, and a lease that was granted
        in that same moment is given back.
        """
        request_id = self._open_request()
        reply = self._replies[request_id]
        try:
            self._send.send_nowait(
                AcquireRequested(
                    request_id=request_id,
                    profile=profile,
                    owner=owner,
                    key=key,
                    on_empty=on_empty,
                    deadline=deadline,
                    wishes=wishes or Wishes(),
                    ttl_s=ttl_s,
                )
            )
            await reply.event.wait()
        except BaseException:
            del self._replies[request_id]
            if isinstance(reply.value, Lease):
                self.give_back(reply.value)
            else:
                self._send.send_nowait(RequestAbandoned(request_id=request_id))
            raise
        del self._replies[request_id]
        assert reply.value is not None
        if isinstance(reply.value, Refusal):
            raise RefusedError(reply.value)
        return reply.value

    async def release(self, lease_id: str, *, owner: Owner) -> None:
        """Ends a lease. Its VM is stopped in the background. Raises RefusedError, or TooManyRequestsError.

        If cancelled, the lease ends all the same.
        """
        request_id = self._open_request()
        await self._ask(ReleaseRequested(request_id=request_id, lease_id=lease_id, owner=owner))

    async def renew(self, lease_id: str, *, owner: Owner, ttl_s: float) -> Lease:
        """The lease lives for `ttl_s` from now on; returns it as it is then. Raises as `release`.

        If cancelled, it is renewed all the same.
        """
        request_id = self._open_request()
        renewed = await self._ask(RenewRequested(request_id=request_id, lease_id=lease_id, owner=owner, ttl_s=ttl_s))
        assert renewed is not None
        return renewed

    async def _ask(self, event: ReleaseRequested | RenewRequested) -> Lease | None:
        reply = self._replies[event.request_id]
        try:
            self._send.send_nowait(event)
            await reply.event.wait()
        finally:
            del self._replies[event.request_id]
        if isinstance(reply.value, Refusal):
            raise RefusedError(reply.value)
        return reply.value

    def give_back(self, lease: Lease, *, detail: str = "its caller went away before it had it") -> None:
        """Says that a lease is in its caller's hand no more, or never was; does not wait.

        It ends, unless another request with the same idempotency key has it. Nothing happens if it has ended.
        """
        self._send.send_nowait(GrantUndelivered(lease_id=lease.lease_id, detail=detail))

    def vm_of(self, lease_id: str, *, owner: Owner) -> Vm:
        """The VM of a living lease, to talk to its agent. Raises RefusedError; VmExitedError while it is dying."""
        found = self._ledger.find_lease(lease_id, owner=owner)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        return self._actors[found.vm_id].vm

    async def wait_lease_ended(self, lease_id: str, *, owner: Owner) -> Refusal:
        """Returns once the lease has ended, at once if it has: what became of it, as a refusal to use it."""
        found = self._ledger.find_lease(lease_id, owner=owner)
        while not isinstance(found, Refusal):
            await self._lease_ends.setdefault(lease_id, trio.Event()).wait()
            found = self._ledger.find_lease(lease_id, owner=owner)
        return found

    @property
    def draining(self) -> bool:
        return self._ledger.draining

    def generation_changed(self, profile: str, generation: str) -> None:
        """A producer makes VMs of another generation from now on; does not wait."""
        self._send.send_nowait(GenerationChanged(profile=profile, generation=generation))

    async def drain(self) -> None:
        """Refuses who waits, ends every lease and every VM; returns when nothing is left of them."""
        self._send.send_nowait(DrainRequested())
        await self._drained.wait()

    def views(self) -> tuple[ProfileView, ...]:
        """The profiles as they are now."""
        return self._ledger.views(now=trio.current_time())

    def leases(self) -> tuple[Lease, ...]:
        return self._ledger.leases()

    def statistics(self) -> CoordinatorStatistics:
        return CoordinatorStatistics(
            open_requests=len(self._replies),
            inbox_peak=self._inbox.statistics().peak_buffer_used,
            actors=len(self._actors),
        )

    def _open_request(self) -> int:
        if len(self._replies) >= MAX_OPEN_REQUESTS:
            raise TooManyRequestsError(f"{MAX_OPEN_REQUESTS} requests are open already; try again later")
        request_id = next(self._request_ids)
        self._replies[request_id] = _Reply()
        return request_id
