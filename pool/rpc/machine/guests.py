"""What all calls into leased VMs have in common: the lease is found, and its end ends the call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.rpc.errors import LeaseLostError
from pool.rpc.machine.statuses import GuestStatuses
from vmm.contract import Agent
from vmm.errors import AgentProtocolError, AgentRequestError, AgentUnreachableError, VmExitedError

FATE_LIMIT_S: Final = 2.0
"""How long to wait for the end of the lease of a VM that went silent. A dead VM's ends within two task switches."""

REACH_LIMIT_S: Final = 5.0
"""How long to wait for the guest of a restored lease to answer."""


@attrs.frozen(kw_only=True)
class Guest:
    """The guest of a lease, while a call uses it."""

    agent: Agent
    nursery: trio.Nursery
    """For tasks of the call; they are cancelled when it ends."""


@attrs.frozen(kw_only=True)
class Guests:
    """The guests of all leases."""

    coordinator: Coordinator

    @contextlib.asynccontextmanager
    async def of(
        self, lease_id: str, *, owner: Owner, statuses: GuestStatuses, path: bytes = b""
    ) -> AsyncIterator[Guest]:
        """The guest of a lease, for the block that uses it.

        An AgentRequestError that ends the block becomes a GRPCError, with a status of `statuses`, and details that name
        the `path`, if one is given. Raises RefusedError if `owner` may not use the lease, or it has ended;
        LeaseLostError if it ends meanwhile; other AgentErrors if the guest does not answer.
        """
        vm = await self.coordinator.wait_vm_of(lease_id, owner=owner, limit_s=REACH_LIMIT_S)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_lease, lease_id, owner)
                yield Guest(agent=vm.agent, nursery=nursery)
                nursery.cancel_scope.cancel(reason="the call is done")
        except* (AgentProtocolError, AgentUnreachableError, VmExitedError) as silence:
            # Usually the VM has died or is lost, and its lease is about to end, which is the better error.
            with trio.move_on_after(FATE_LIMIT_S):
                raise LeaseLostError(await self.coordinator.wait_lease_ended(lease_id, owner=owner)) from silence
            raise
        except* AgentRequestError as refused:
            raise statuses.error(_first(refused), path=path) from refused

    async def _watch_lease(self, lease_id: str, owner: Owner) -> None:
        raise LeaseLostError(await self.coordinator.wait_lease_ended(lease_id, owner=owner))


def _first(group: BaseExceptionGroup[AgentRequestError]) -> AgentRequestError:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, AgentRequestError)
    return leaf
