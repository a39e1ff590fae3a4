"""The calls for root and the service's own user; to others they are PERMISSION_DENIED."""

from __future__ import annotations

from vmpool.client import methods
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.wire.generated.vmpool import v1 as wire


class AdminCalls:
    """Every method raises ClientError; CallError NOT_FOUND for an unknown profile or VM."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def resize(self, profile: str, size: int) -> None:
        """Another pool size, until the service is started anew."""
        request = wire.ResizeRequest(profile=profile, size=size)
        await self._connection.ask(methods.RESIZE, request, timeout_s=ANSWER_LIMIT_S)

    async def drain(self, profile: str) -> None:
        """Refuses who waits for the profile, and has its idle VMs stopped; leases go on. Until `undrain`."""
        request = wire.DrainRequest(profile=profile)
        await self._connection.ask(methods.DRAIN, request, timeout_s=ANSWER_LIMIT_S)

    async def undrain(self, profile: str) -> None:
        """Ends a `drain`."""
        request = wire.UndrainRequest(profile=profile)
        await self._connection.ask(methods.UNDRAIN, request, timeout_s=ANSWER_LIMIT_S)

    async def evict(self, vm_id: str) -> None:
        """Has one idle VM stopped; the pool replaces it. CallError FAILED_PRECONDITION if it is not idle."""
        request = wire.EvictRequest(vm_id=vm_id)
        await self._connection.ask(methods.EVICT, request, timeout_s=ANSWER_LIMIT_S)

    async def evict_all(self, profile: str) -> None:
        """Has all idle VMs of a profile replaced, few at a time."""
        request = wire.EvictRequest(profile=profile)
        await self._connection.ask(methods.EVICT, request, timeout_s=ANSWER_LIMIT_S)

    async def reset(self, profile: str) -> None:
        """Forgets the failures of a profile's production: back-off and circuit begin anew."""
        request = wire.ResetRequest(profile=profile)
        await self._connection.ask(methods.RESET, request, timeout_s=ANSWER_LIMIT_S)

    async def hand_over(self) -> None:
        """Has the service leave its idle and leased VMs to its successor, and end. Does not wait for its end."""
        await self._connection.ask(methods.HAND_OVER, wire.HandOverRequest(), timeout_s=ANSWER_LIMIT_S)
