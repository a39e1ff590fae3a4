"""The methods of vmpool.v1.Pool."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from typing import Final

import attrs
import trio
from grpclib.const import Cardinality, Handler

from pool.core.coordinator import Coordinator
from pool.core.matching import Match, Matcher
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Lease, Owner
from pool.ledger.views import ProfileView
from pool.observe.metrics import Metrics
from pool.observe.spans import NO_SPANS, Spans
from pool.rpc.admin import may_administer
from pool.rpc.calls import Calls, ServerStream, deliver, end, receive_only, reply, reply_long, send
from pool.rpc.console import answer_console
from pool.rpc.convert import (
    ProfileShape,
    profile_status,
    status_reply,
)
from pool.rpc.errors import CustomMachineError, InvalidRequestError
from pool.rpc.finding import answer_get_lease, answer_list_leases
from pool.rpc.leases import (
    AcquireArguments,
    acquire_arguments,
    acquire_reply,
    lease_id_of,
    lease_message,
    lease_status,
    lease_ttl,
)
from pool.rpc.machine.exec import ExecCall
from pool.rpc.machine.guests import Guests
from pool.rpc.machine.usage import UsageCalls
from pool.rpc.peer import current_caller, current_owner
from pool.rpc.stream import guarded
from pool.rpc.tracing import record_hand_out
from pool.rpc.watching import WatchMessages
from pool.rpc.wishes import for_silent_guest
from pool.settings.permissions import Permitted
from vmm.words.confinement import LayerState
from vmm.words.machines import AgentKind
from vmm.words.wishes import Wishes
from vmpool.wire.generated.vmpool import v1 as wire

MAX_DEADLINE_MARGIN_S: Final = 0.1
"""Taken off a caller's deadline, at most a tenth of it, so that the refusal still reaches the caller in time."""


@attrs.frozen(kw_only=True)
class ServiceInfo:
    """The service's own data, for replies."""

    version: str
    shapes: Mapping[str, ProfileShape]
    """By profile; every profile of the coordinator must be there."""
    matcher: Matcher | None = None
    """For requests that describe a machine; None: such requests are refused."""
    may_describe_machines: Permitted = attrs.field(factory=Permitted)
    service_uid: int = attrs.field(factory=os.geteuid)
    """The user who may see evidence, besides root."""
    confinement: tuple[LayerState, ...] = ()
    """Of each QEMU."""
    spans: Spans = NO_SPANS
    metrics: Metrics | None = None
    """None: the reply is empty."""
    started_at: float = attrs.field(factory=trio.current_time)
    """On trio's clock."""


@attrs.define(eq=False, kw_only=True)
class PoolService(wire.PoolBase):
    """The methods as trio code. They raise vmpool's errors, which `calls` converts to statuses."""

    coordinator: Coordinator
    info: ServiceInfo
    calls: Calls
    acquire_timeout_s: float
    """For callers without a deadline."""
    guests: Guests
    _usage: UsageCalls = attrs.field(
        default=attrs.Factory(lambda service: UsageCalls(guests=service.guests), takes_self=True), init=False
    )

    def __mapping__(self) -> dict[str, Handler]:
        method = self.calls.method
        return {
            "/vmpool.v1.Pool/Acquire": method(self.acquire_call, wire.AcquireRequest, wire.AcquireReply),
            "/vmpool.v1.Pool/Hold": method(
                self.hold_call, wire.AcquireRequest, wire.HoldReply, Cardinality.UNARY_STREAM
            ),
            "/vmpool.v1.Pool/Renew": method(self.renew_call, wire.RenewRequest, wire.RenewReply),
            "/vmpool.v1.Pool/Release": method(self.release_call, wire.ReleaseRequest, wire.ReleaseReply),
            "/vmpool.v1.Pool/GetLease": method(self.get_lease_call, wire.GetLeaseRequest, wire.GetLeaseReply),
            "/vmpool.v1.Pool/ListLeases": method(self.list_leases_call, wire.ListLeasesRequest, wire.ListLeasesReply),
            "/vmpool.v1.Pool/Exec": method(self.exec_call, wire.ExecRequest, wire.ExecReply, Cardinality.STREAM_STREAM),
            "/vmpool.v1.Pool/Console": method(self.console_call, wire.ConsoleRequest, wire.ConsoleReply),
            "/vmpool.v1.Pool/VmMetrics": method(self.vm_metrics_call, wire.VmMetricsRequest, wire.VmMetricsReply),
            "/vmpool.v1.Pool/Status": method(self.status_call, wire.StatusRequest, wire.StatusReply),
            "/vmpool.v1.Pool/Watch": method(
                self.watch_call, wire.WatchRequest, wire.WatchReply, Cardinality.UNARY_STREAM
            ),
            "/vmpool.v1.Pool/Metrics": method(self.metrics_call, wire.MetricsRequest, wire.MetricsReply),
        }

    async def acquire_call(self, stream: ServerStream) -> None:
        """If the caller goes away before it has read the reply, the VM is taken back."""
        match, lease = await self._acquire(stream, acquire_arguments(await receive_only(stream)))
        try:
            await deliver(stream, self._reply_to(stream, lease, match))
        except BaseException:
            self.coordinator.give_back(lease)
            raise
        await end(stream)
        self.coordinator.delivered(lease)

    async def hold_call(self, stream: ServerStream) -> None:
        """The lease ends with the call, however the call ends."""
        match, lease = await self._acquire(stream, acquire_arguments(await receive_only(stream)), bound=True)
        try:
            await deliver(stream, wire.HoldReply(acquired=self._reply_to(stream, lease, match)))
            self.coordinator.delivered(lease)
            ended = await self.coordinator.wait_lease_ended(lease.lease_id, owner=lease.owner)
            await send(stream, wire.HoldReply(ended=wire.LeaseEnd(detail=ended.message)))
        finally:
            self.coordinator.give_back(lease, detail="its caller ended the call that held the lease, or went away")

    async def _acquire(
        self, stream: ServerStream, arguments: AcquireArguments, *, bound: bool = False
    ) -> tuple[Match | None, Lease]:
        call = guarded(stream)
        match = await self._match(arguments)
        own = None if match is None else match.own
        on_empty = arguments.on_empty
        if own is not None and on_empty is OnEmpty.WAIT:
            on_empty = OnEmpty.BOOT  # no pool makes such VMs
        lease = await self.coordinator.acquire(
            profile=arguments.profile if match is None else match.profile,
            own=own,
            owner=current_owner(),
            request=attrs.evolve(
                arguments.request,
                wishes=self._wishes(arguments, match),
                ttl_s=self._ttl_s(arguments, match, bound=bound),
                bound=bound,
            ),
            on_empty=on_empty,
            deadline=self._acquire_deadline(call.arrived_at, call.deadline, wait_s=arguments.wait_s),
        )
        record_hand_out(stream, lease, spans=self.info.spans, method="Hold" if bound else "Acquire")
        return None if match is None else match.fulfilled(), lease

    def _wishes(self, arguments: AcquireArguments, match: Match | None) -> Wishes:
        wishes = arguments.request.wishes if match is None else match.wishes
        shape = self.info.shapes.get(arguments.profile if match is None else match.settings_of)
        if shape is None or shape.agent is not AgentKind.NOOP:
            return wishes
        return for_silent_guest(wishes, vcpus=shape.vcpus, memory_mib=shape.memory_mib)

    async def _match(self, arguments: AcquireArguments) -> Match | None:
        if arguments.machine is None:
            return None
        if self.info.matcher is None:
            raise InvalidRequestError(field="config", reason="is not supported by this service; name a profile")
        caller = current_caller.get()
        if not self.info.may_describe_machines.permits(caller):
            raise CustomMachineError(uid=caller.uid)
        administers = may_administer(current_owner(), service_uid=self.info.service_uid)
        return await self.info.matcher.match(arguments.machine, arguments.request.wishes, administers=administers)

    def _reply_to(self, stream: ServerStream, lease: Lease, match: Match | None) -> wire.AcquireReply:
        now = trio.current_time()
        return acquire_reply(lease, match=match, now=now, total_s=now - guarded(stream).arrived_at)

    def _acquire_deadline(self, arrived_at: float, deadline: float, *, wait_s: float) -> float:
        if wait_s == deadline == math.inf:
            return arrived_at + self.acquire_timeout_s
        margin_s = 0.0 if deadline == math.inf else min(MAX_DEADLINE_MARGIN_S, (deadline - arrived_at) / 10)
        return min(arrived_at + wait_s, deadline - margin_s)

    def _ttl_s(self, arguments: AcquireArguments, match: Match | None, *, bound: bool) -> float:
        if arguments.ttl_s is not None:
            return arguments.ttl_s
        if bound:
            return math.inf
        shape = self.info.shapes.get(arguments.profile if match is None else match.settings_of)
        return math.inf if shape is None else shape.lease_ttl_s  # an unknown profile is refused later

    async def renew_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        renewed = await self.coordinator.renew(
            lease_id_of(request.lease_id), owner=current_owner(), ttl_s=lease_ttl("ttl_ms", request.ttl_ms)
        )
        await reply(stream, wire.RenewReply(lease=lease_message(renewed, now=trio.current_time())))

    async def release_call(self, stream: ServerStream) -> None:
        lease_id = lease_id_of((await receive_only(stream)).lease_id)
        await self.coordinator.release(lease_id, owner=current_owner())
        await reply(stream, wire.ReleaseReply())

    async def get_lease_call(self, stream: ServerStream) -> None:
        await answer_get_lease(
            stream, coordinator=self.coordinator, owner=current_owner(), service_uid=self.info.service_uid
        )

    async def list_leases_call(self, stream: ServerStream) -> None:
        await answer_list_leases(stream, coordinator=self.coordinator, owner=current_owner())

    async def exec_call(self, stream: ServerStream) -> None:
        await ExecCall(stream=stream, guests=self.guests, owner=current_owner()).run()

    async def console_call(self, stream: ServerStream) -> None:
        await answer_console(
            stream, coordinator=self.coordinator, owner=current_owner(), service_uid=self.info.service_uid
        )

    async def vm_metrics_call(self, stream: ServerStream) -> None:
        await self._usage.answer(stream)

    async def status_call(self, stream: ServerStream) -> None:
        await receive_only(stream)
        owner = current_owner()
        now = trio.current_time()
        status = status_reply(
            version=self.info.version,
            uptime_s=now - self.info.started_at,
            draining=self.calls.stopping or self.coordinator.draining,
            profiles=(self._profile_status(view, owner=owner) for view in self.coordinator.views()),
            fallbacks=0 if self.info.matcher is None else self.info.matcher.fallbacks,
            confinement=self.info.confinement,
            leases=(
                lease_status(lease, now=now) for lease in self.coordinator.leases() if owner.may_touch(lease.owner)
            ),
        )
        await reply(stream, status)

    async def watch_call(self, stream: ServerStream) -> None:
        """Waits for the caller to read; the watcher may fall behind meanwhile."""
        await receive_only(stream)
        owner = current_owner()
        messages = WatchMessages(owner=owner, profile_status=partial(self._profile_status, owner=owner))
        with self.coordinator.watchers.watch(uid=owner.uid) as watcher:
            while True:
                await send(stream, messages.reply(await watcher.next(), now=trio.current_time()))

    async def metrics_call(self, stream: ServerStream) -> None:
        await receive_only(stream)
        text = "" if self.info.metrics is None else (await self.info.metrics.text()).decode()
        await reply_long(stream, wire.MetricsReply(text=text))

    def _profile_status(self, view: ProfileView, *, owner: Owner) -> wire.ProfileStatus:
        return profile_status(
            view,
            shape=self.info.shapes[view.name],
            producer=self.coordinator.producers[view.name].statistics(),
            with_evidence=may_administer(owner, service_uid=self.info.service_uid),
        )
