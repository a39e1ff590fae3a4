"""A real server on a real socket, over simulated VMs."""

from __future__ import annotations

import contextlib
import math
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing

from actors.direct import DirectBootProducer
from actors.machine import ResolvedMachine
from actors.vm import VmActor
from pool.core.coordinator import Coordinator, new_id
from pool.core.matching import Matcher
from pool.ledger.policy import PoolPolicy, ServicePolicy
from pool.ledger.records import Owner
from pool.ledger.views import ProfileView
from pool.observe.metrics import Metrics
from pool.observe.spans import NO_SPANS, Spans
from pool.rpc.convert import ProfileShape
from pool.rpc.server import RpcServer, ServerSettings, serve
from pool.rpc.service import ServiceInfo
from pool.settings.permissions import Permitted
from tests.unit.actors.stage import simulated_journal
from vmm.devices.usual import usual_devices
from vmm.simulated import FaultPlan, SimulatedHost, SimulatedVm, no_faults
from vmm.simulated.disk import SimulatedDisk
from vmm.simulated.machine import Machine
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator, AgentKind
from vmpool.client import Client, open_client

SPEC = MachineSpec(qemu=Path("qemu"), kernel=Path("vmlinuz"), initrd=Path("initrd"), accelerator=Accelerator.TCG)


class _TidyDisk(SimulatedDisk):
    """Directories go with their last file, as with their VMs: a service that runs for long must not grow by it."""

    def sync_directory(self, directory: Path) -> None:
        super().sync_directory(directory)
        if not self._directories[directory].names:
            self.remove_directory(directory)


EVIDENCE: Final = "argv: /usr/bin/qemu-system-x86_64"


class CoordinatorWithEvidence(Coordinator):
    """As if a production had failed and left evidence."""

    def views(self) -> tuple[ProfileView, ...]:
        return tuple(attrs.evolve(view, last_evidence=EVIDENCE) for view in super().views())


@attrs.define(eq=False, kw_only=True)
class Served:
    """The service under test, with its insides."""

    path: Path
    host: SimulatedHost
    coordinator: Coordinator
    server: RpcServer
    listener: socket.socket
    nursery: trio.Nursery

    def lost(self) -> bool:
        """Nobody waits, nobody holds a lease."""
        view = self.coordinator.views()[0]
        return not (self.coordinator.leases() or view.waiting or view.handing_out or view.leased)

    def machine(self, lease_id: str) -> Machine:
        vm = self.coordinator.vm_of(lease_id, owner=Owner(uid=0))
        assert isinstance(vm, SimulatedVm)
        return vm.machine

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with open_client(self.path) as client:
            yield client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a state of the service; fails rather than hang."""
        with trio.fail_after(20):
            while not condition():
                await trio.testing.wait_all_tasks_blocked(0.001)


def metrics_of(coordinator: Coordinator) -> Metrics:
    return Metrics(
        version="1.2.3", pool=coordinator, available_mib=lambda: 1000, restarts=lambda: {"rpc": 0, "pressure": 2}
    )


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    *,
    size: int = 2,
    boot_s: float = 0.0,
    faults: FaultPlan = no_faults,
    settings: ServerSettings | None = None,
    make_actor: Callable[..., VmActor] = VmActor,
    coordinator_type: type[Coordinator] = Coordinator,
    policy: dict[str, Any] | None = None,
    service: ServicePolicy | None = None,
    make_matcher: Callable[[SimulatedHost], Matcher] | None = None,
    may_describe_machines: Permitted | None = None,
    hand_over: Callable[[], None] = lambda: None,
    profile: str = "default",
    lease_ttl_s: float = math.inf,
    agent: AgentKind = AgentKind.BUILTIN,
    spans: Spans = NO_SPANS,
) -> AsyncIterator[Served]:
    """Serves one profile; everything is ended at the end, and must end well.

    `policy` has what is different from a plain one.
    """
    host = SimulatedHost(boot_s=boot_s, faults=faults)

    async def resolve() -> ResolvedMachine:
        return ResolvedMachine(
            spec=attrs.evolve(SPEC, devices=usual_devices(agent=agent)), reason="simulated", fingerprint="f1"
        )

    producer = DirectBootProducer(
        resolve=resolve, launch=host.launch, vms_directory=directory / "vms", boot_timeout_s=30.0
    )
    coordinator = coordinator_type(
        policies={profile: PoolPolicy(size=size, max_vcpus=4, max_memory_mib=1024, **(policy or {}))},
        producers={profile: producer},
        journal=simulated_journal(_TidyDisk()),
        service=service or ServicePolicy(),
        make_id=new_id,
        rng=random.Random(1),
        make_actor=make_actor,
    )
    path = directory / "pool.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(str(path))
    listener.listen(128)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        await nursery.start(coordinator.run)
        async with trio.open_nursery() as inner:
            server = await inner.start(
                lambda task_status: serve(
                    coordinator=coordinator,
                    sock=listener,
                    info=ServiceInfo(
                        version="1.2.3",
                        shapes={
                            profile: ProfileShape(
                                vcpus=1,
                                memory_mib=256,
                                max_vcpus=4,
                                max_memory_mib=1024,
                                lease_ttl_s=lease_ttl_s,
                                agent=agent,
                            )
                        },
                        spans=spans,
                        metrics=metrics_of(coordinator),
                        may_describe_machines=may_describe_machines or Permitted(),
                        matcher=None if make_matcher is None else make_matcher(host),
                    ),
                    hand_over=hand_over,
                    settings=settings,
                    task_status=task_status,
                )
            )
            yield Served(path=path, host=host, coordinator=coordinator, server=server, listener=listener, nursery=inner)
            server.stop()
        assert server.statistics().loop_errors == 0
        await coordinator.shut_down()
        assert host.alive == frozenset()
        nursery.cancel_scope.cancel()
