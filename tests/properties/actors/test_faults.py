"""Whatever fails and whoever leaves: nobody gets another's VM, nothing leaks, and the pool fills up again."""

from __future__ import annotations

import contextlib
import math

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.core.requests import RefusedError
from pool.ledger.policy import OnEmpty
from tests.examples import examples
from tests.properties.actors.service import BOOT_TIMEOUT_S, Service, running_service
from tests.virtual_time import in_virtual_time
from vmm.simulated import (
    AgentBreaksProtocol,
    AgentGoesMute,
    BootFails,
    BootHangs,
    Exits,
    Fault,
    Moment,
    PrepareFails,
    PrepareIsSlow,
    StopIsSlow,
    scripted,
)

FAULTS: list[Fault] = [
    BootFails(),
    BootFails(after_s=2.0),
    BootHangs(),
    Exits(when=Moment.READY),
    Exits(when=Moment.READY, after_s=5.0),
    Exits(when=Moment.PAUSED, after_s=1.0),
    Exits(when=Moment.RESUMED),
    Exits(when=Moment.RESUMED, after_s=0.5),
    AgentGoesMute(when=Moment.READY),
    AgentGoesMute(when=Moment.PAUSED),
    AgentGoesMute(when=Moment.RESUMED),
    *(AgentBreaksProtocol(when=moment) for moment in Moment),
    PrepareFails(),
    PrepareIsSlow(delay_s=1.0),
    PrepareIsSlow(delay_s=BOOT_TIMEOUT_S / 2 + 5),
    StopIsSlow(delay_s=3.0),
]

fault_plans = st.lists(
    st.one_of(st.sampled_from(FAULTS).map(lambda fault: [fault]), st.lists(st.sampled_from(FAULTS), max_size=2)),
    min_size=3,
    max_size=12,
)
"""For the first VMs; those after them are well."""

moments = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 20.0])


@attrs.frozen(kw_only=True)
class Client:
    arrives_s: float
    on_empty: OnEmpty
    key: str
    patience_s: float
    leaves_after_s: float
    hold_s: float
    release: bool


clients = st.builds(
    Client,
    arrives_s=moments,
    on_empty=st.sampled_from(OnEmpty),
    key=st.sampled_from(["", "", "k"]),
    patience_s=st.one_of(st.just(math.inf), moments),
    leaves_after_s=st.one_of(st.just(math.inf), moments),
    hold_s=moments,
    release=st.booleans(),
)


async def serve(service: Service, client: Client) -> None:
    await trio.sleep(client.arrives_s)
    with trio.move_on_after(client.leaves_after_s):
        with contextlib.suppress(RefusedError):
            await service.hold(
                on_empty=client.on_empty,
                key=client.key,
                patience_s=client.patience_s,
                hold_s=client.hold_s,
                release=client.release,
            )
    service.check()


@examples(300)
@given(
    size=st.integers(0, 3),
    boot_s=st.sampled_from([0.0, 1.0]),
    plan=fault_plans,
    warm=st.booleans(),
    crowd=st.lists(clients, min_size=1, max_size=10),
    order=st.random_module(),
)
@in_virtual_time
async def test_any_faults_and_any_clients(
    size: int, boot_s: float, plan: list[list[Fault]], warm: bool, crowd: list[Client], order: object
) -> None:
    """Every client comes to an end, and at rest the pool is as if nothing had happened."""

    async with running_service(size=size, boot_s=boot_s, faults=scripted(dict(enumerate(plan)))) as service:
        if warm:
            await service.quiet()
        async with trio.open_nursery() as nursery:
            for client in crowd:
                nursery.start_soon(serve, service, client)
        await service.quiet()
        service.check_at_rest()


@examples(80)
@given(
    size=st.integers(0, 3),
    plan=fault_plans,
    crowd=st.lists(clients, max_size=6),
    drain_after_s=moments,
    order=st.random_module(),
)
@in_virtual_time
async def test_a_drain_at_any_time_leaves_nothing(
    size: int, plan: list[list[Fault]], crowd: list[Client], drain_after_s: float, order: object
) -> None:
    """Whoever waits is refused, and every VM ends, whatever it is doing."""

    async with (
        running_service(size=size, faults=scripted(dict(enumerate(plan)))) as service,
        trio.open_nursery() as nursery,
    ):
        for client in crowd:
            nursery.start_soon(serve, service, client)
        await trio.sleep(drain_after_s)
        await service.coordinator.shut_down()
        assert not service.host.alive
        assert service.coordinator.leases() == ()


@examples(80)
@given(size=st.integers(1, 3), plan=fault_plans, cancel_after_s=moments, order=st.random_module())
@in_virtual_time
async def test_a_cancelled_coordinator_ends_its_vms(
    size: int, plan: list[list[Fault]], cancel_after_s: float, order: object
) -> None:
    """Without a drain, as when another part of the service fails."""

    service: Service | None = None
    with trio.move_on_after(cancel_after_s):
        async with running_service(size=size, faults=scripted(dict(enumerate(plan)))) as service:
            await trio.sleep_forever()
    assert service is None or not service.host.alive
