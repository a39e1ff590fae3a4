"""A client may go away at any step of the scheduler: no lease is without a holder then, and no VM is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.ledger.policy import OnEmpty
from tests.examples import examples
from tests.properties.actors.service import OWNER, PROFILE, Service, running_service
from tests.virtual_time import in_virtual_time
from vmm.words.leases import LeaseRequest

steps = st.integers(0, 60)
"""Rounds of the scheduler. A hand-out from the pool is through after about 20, one that boots after about 40."""


async def cancel_after(rounds: int, scope: trio.CancelScope) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()
    scope.cancel(reason="the client went away")


@pytest.mark.parametrize("size", [0, 1, 2], ids=lambda size: f"pool of {size}")
@examples(60)
@given(rounds=steps, order=st.random_module())
@in_virtual_time
async def test_acquire_cancelled_at_any_step(size: int, rounds: int, order: object) -> None:
    async with running_service(size=size, boot_s=0.0) as service:
        await service.quiet()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, rounds, scope)
                await service.hold(on_empty=OnEmpty.BOOT, hold_s=1.0)
        await service.quiet()
        service.check_at_rest()


@examples(60)
@given(rounds=steps, order=st.random_module())
@in_virtual_time
async def test_release_cancelled_at_any_step_is_done_all_the_same(rounds: int, order: object) -> None:
    async with running_service(size=1, boot_s=0.0) as service:
        lease = await service.coordinator.acquire(profile=PROFILE, owner=OWNER)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, rounds, scope)
                await service.coordinator.release(lease.lease_id, owner=OWNER)
        await service.quiet()
        service.check_at_rest()


@examples(60)
@given(rounds=steps, later=st.integers(0, 30), order=st.random_module())
@in_virtual_time
async def test_one_of_two_callers_with_one_key_goes_away(rounds: int, later: int, order: object) -> None:
    """The other one has its VM, and only that one."""

    async def stay(service: Service, seen: Callable[[str], None]) -> None:
        for _ in range(later):
            await trio.lowlevel.checkpoint()
        lease = await service.coordinator.acquire(profile=PROFILE, owner=OWNER, request=LeaseRequest(key="k"))
        await trio.sleep(1.0)
        service.check()
        assert [lease] == list(service.coordinator.leases())
        assert lease.vm_id in service.host.alive
        seen(lease.lease_id)
        await service.coordinator.release(lease.lease_id, owner=OWNER)

    leases: list[str] = []
    async with running_service(size=1, boot_s=0.0) as service:
        await service.quiet()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay, service, leases.append)
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, rounds, scope)
                lease = None
                try:
                    lease = await service.coordinator.acquire(
                        profile=PROFILE, owner=OWNER, request=LeaseRequest(key="k")
                    )
                    await trio.sleep_forever()
                finally:
                    if lease is not None:
                        service.coordinator.give_back(lease)
        assert len(leases) == 1
        await service.quiet()
        service.check_at_rest()
