"""VMs that are given away, whoever goes away when: in the end each is its taker's or gone, never both or neither."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from actors.journal import GivenAway
from tests.examples import examples
from tests.properties.actors.service import OWNER, PROFILE, Service, running_service
from tests.virtual_time import in_virtual_time
from vmm.words.leases import LeaseRequest
from vmm.words.processes import ExitReport

MOMENTS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 5.0])


@attrs.frozen(kw_only=True)
class Taker:
    comes_at: float
    patience_s: float
    """Then it goes away, if it has no VM yet."""
    delivery_s: float
    """From the grant to the reply's receipt."""
    receives: bool
    """If not it goes away before."""


takers = st.builds(
    Taker,
    comes_at=MOMENTS,
    patience_s=MOMENTS,
    delivery_s=st.sampled_from([0.0, 0.0, 0.5, 5.0]),
    receives=st.sampled_from([True, True, False]),
)


async def take(service: Service, taker: Taker, taken: set[str]) -> None:
    """As the VMCache server does it for a client."""
    await trio.sleep(taker.comes_at)
    with trio.move_on_after(taker.patience_s):
        lease = await service.coordinator.acquire(profile=PROFILE, owner=OWNER, request=LeaseRequest(bare=True))
        try:
            await trio.sleep(taker.delivery_s)
            if not taker.receives:
                raise trio.BrokenResourceError  # noqa: TRY301 - as the connection does
        except BaseException as error:
            service.coordinator.give_back(lease)
            if not isinstance(error, trio.BrokenResourceError):
                raise
        else:
            assert lease.vm_id not in taken, "given twice"
            taken.add(lease.vm_id)
            service.coordinator.relinquish(lease)


@given(crowd=st.lists(takers, min_size=1, max_size=6), size=st.integers(1, 3), ends_early=st.booleans())
@examples(150)
@in_virtual_time
async def test_each_vm_is_its_takers_or_gone(crowd: list[Taker], size: int, ends_early: bool) -> None:
    taken: set[str] = set()
    async with running_service(size=size) as service:
        async with trio.open_nursery() as nursery:
            for taker in crowd:
                nursery.start_soon(take, service, taker, taken)
        if not ends_early:
            await service.quiet()
            view = service.coordinator.views()[0]
            assert (view.ready, view.leased, view.stopping) == (size, 0, 0)
            assert len(service.host.alive) == size + len(taken)
        await service.coordinator.shut_down()
        assert service.host.alive == taken
        marked = {one.vm_id for one in service.coordinator.journal.read_all() if isinstance(one, GivenAway)}
        assert taken <= marked
        event(f"{len(taken)} taken by {len(crowd)}")
        for vm_id in taken:  # their takers end them, and the service clears up
            service.host.machine(vm_id).exit(ExitReport(signal=9))
        await trio.testing.wait_all_tasks_blocked()
