"""The calls for root and the service's own user; other users get PERMISSION_DENIED."""

from __future__ import annotations

from vmpool.client import methods
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.wire.generated.vmpool import v1 as wire


class AdminCalls:
    """Every method raises ClientError; CallError NOT_FOUND for an unknown profile or VM."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def resize(self, profile: str, size: int) -> None:
        """Changes the pool's size until the service restarts."""
        request = wire.ResizeRequest(profile=profile, size=size)
        await self._connection.ask(methods.RESIZE, request, timeout_s=ANSWER_LIMIT_S)

    async def drain(self, profile: str) -> None:
        """Refuses requests for the profile and stops its idle VMs, until `undrain`. Leases continue."""
        request = wire.DrainRequest(profile=profile)
        await self._connection.ask(methods.DRAIN, request, timeout_s=ANSWER_LIMIT_S)

    async def undrain(self, profile: str) -> None:
        """Ends a `drain`."""
        request = wire.UndrainRequest(profile=profile)
        await self._connection.ask(methods.UNDRAIN, request, timeout_s=ANSWER_LIMIT_S)

    async def evict(self, vm_id: str) -> None:
        """Stops one idle VM; the pool replaces it. CallError FAILED_PRECONDITION if it is not idle."""
        request = wire.EvictRequest(vm_id=vm_id)
        await self._connection.ask(methods.EVICT, request, timeout_s=ANSWER_LIMIT_S)

    async def evict_all(self, profile: str) -> None:
        """Replaces all idle VMs of a profile, a few at a time."""
        request = wire.EvictRequest(profile=profile)
        await self._connection.ask(methods.EVICT, request, timeout_s=ANSWER_LIMIT_S)

    async def reset(self, profile: str) -> None:
        """Forgets a profile's failed productions: ends the back-off and closes the circuit."""
        request = wire.ResetRequest(profile=profile)
        await self._connection.ask(methods.RESET, request, timeout_s=ANSWER_LIMIT_S)

    async def hand_over(self) -> None:
        """Makes the service leave its idle and leased VMs to its successor, and end. Does not wait for its end."""
        await self._connection.ask(methods.HAND_OVER, wire.HandOverRequest(), timeout_s=ANSWER_LIMIT_S)
