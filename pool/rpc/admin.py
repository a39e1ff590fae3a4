"""The methods of vmpool.v1.Admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from grpclib.const import Handler

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.rpc.calls import Calls, ServerStream, deliver, receive_only, reply
from pool.rpc.convert import profile_of
from pool.rpc.errors import InvalidRequestError, NotAdministratorError
from pool.rpc.peer import current_owner
from pool.settings.config import MAX_POOL_SIZE
from vmpool.wire.generated.vmpool import v1 as wire


@attrs.define(eq=False, kw_only=True)
class AdminService(wire.AdminBase):
    """The methods as trio code, for root and the service's own user."""

    coordinator: Coordinator
    calls: Calls
    service_uid: int
    begin_hand_over: Callable[[], None]
    """Starts the shutdown in which the service detaches its VMs for a successor. Does not wait."""

    def __mapping__(self) -> dict[str, Handler]:
        method = self.calls.method
        return {
            "/vmpool.v1.Admin/Resize": method(self.resize_call, wire.ResizeRequest, wire.ResizeReply),
            "/vmpool.v1.Admin/Drain": method(self.drain_call, wire.DrainRequest, wire.DrainReply),
            "/vmpool.v1.Admin/Undrain": method(self.undrain_call, wire.UndrainRequest, wire.UndrainReply),
            "/vmpool.v1.Admin/Evict": method(self.evict_call, wire.EvictRequest, wire.EvictReply),
            "/vmpool.v1.Admin/Reset": method(self.reset_call, wire.ResetRequest, wire.ResetReply),
            "/vmpool.v1.Admin/HandOver": method(self.hand_over_call, wire.HandOverRequest, wire.HandOverReply),
        }

    async def resize_call(self, stream: ServerStream) -> None:
        request = await self._request(stream)
        if request.size > MAX_POOL_SIZE:
            raise InvalidRequestError(
                field="size", reason=f"{request.size} is out of range; the maximum is {MAX_POOL_SIZE}"
            )
        await self.coordinator.resize(profile_of(request.profile), request.size)
        await reply(stream, wire.ResizeReply())

    async def drain_call(self, stream: ServerStream) -> None:
        await self.coordinator.drain(profile_of((await self._request(stream)).profile))
        await reply(stream, wire.DrainReply())

    async def undrain_call(self, stream: ServerStream) -> None:
        await self.coordinator.undrain(profile_of((await self._request(stream)).profile))
        await reply(stream, wire.UndrainReply())

    async def reset_call(self, stream: ServerStream) -> None:
        await self.coordinator.reset(profile_of((await self._request(stream)).profile))
        await reply(stream, wire.ResetReply())

    async def evict_call(self, stream: ServerStream) -> None:
        request = await self._request(stream)
        if request.vm_id:
            await self.coordinator.evict(vm_id=request.vm_id)
        elif request.profile is not None:
            await self.coordinator.evict(profile=profile_of(request.profile))
        else:
            raise InvalidRequestError(field="what", reason="is not set; set vm_id or profile")
        await reply(stream, wire.EvictReply())

    async def hand_over_call(self, stream: ServerStream) -> None:
        await self._request(stream)
        # The reply must be delivered before all calls are ended, this one included.
        await deliver(stream, wire.HandOverReply())
        self.begin_hand_over()

    async def _request(self, stream: ServerStream) -> Any:
        owner = current_owner()
        if not may_administer(owner, service_uid=self.service_uid):
            raise NotAdministratorError(uid=owner.uid, service_uid=self.service_uid)
        return await receive_only(stream)


def may_administer(owner: Owner, *, service_uid: int) -> bool:
    """Only root and the service's user: another user could starve the others, or see host paths and guests' output."""
    return owner.uid in (0, service_uid)


def asker(owner: Owner, *, service_uid: int) -> Owner:
    """Whose VMs and leases `owner` may ask for: an administrator, those of everybody, as root."""
    return Owner(uid=0) if may_administer(owner, service_uid=service_uid) else owner
