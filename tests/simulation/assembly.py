"""What one run of the service is made of: the real parts, over a simulated host."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from actors.clock import HostClock
from actors.direct import DirectBootProducer
from actors.handout import HandOutProcedure
from actors.journal import Journal
from actors.machine import ResolvedMachine
from actors.producer import Producer
from actors.template import TemplateProducer
from actors.uniqueness import Witness
from pool.core.recovery import Recovered
from tests.simulation.host import VMS, Host, boottime_ns
from tests.simulation.observed import ObservedCoordinator, Observer
from tests.simulation.plan import BOOT_TIMEOUT_S, VIGIL, ProfilePlan
from tests.unit.actors.stage import SPEC
from vmm.contract import Vm
from vmm.fresh import FreshSources
from vmm.memory import MemoryReading
from vmm.simulated.backend import SimulatedBackend
from vmm.simulated.templates import SimulatedTemplates
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProductionCost
from vmm.words.preparation import PreparationReport
from vmm.words.wishes import Wishes

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

BOOT_ID: Final = "0d3f5c9a-simulated"


@attrs.frozen(kw_only=True)
class Changing(ResolvedMachine):
    """Current as long as the simulation's machine is the same."""

    machines: dict[str, int]
    profile: str
    number: int

    def is_current(self) -> bool:
        return self.machines[self.profile] == self.number


@attrs.frozen(kw_only=True)
class SeenProcedure(HandOutProcedure):
    """A hand-out that says when it touches a VM."""

    began: Callable[[str], None]

    async def run(self, vm: Vm, wishes: Wishes) -> tuple[PreparationReport, HandOutTimings]:
        self.began(vm.id)
        return await super().run(vm, wishes)


@attrs.define(eq=False, kw_only=True)
class Assembly:
    """Makes the parts of the n-th run."""

    simulation: Simulation
    number: int
    host: Host
    templates: dict[str, SimulatedTemplates] = attrs.field(factory=dict)
    """By profile."""
    building: set[str] = attrs.field(factory=set)
    """VMs of which templates are made."""
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    async def recover(self, journal: Journal) -> Recovered:
        parts = self.simulation.parts
        profiles = {profile.name for profile in self.simulation.plan.profiles}
        recovered: Recovered = await parts.recover(
            journal,
            profiles=profiles,
            backend=SimulatedBackend(host=self.host),
            sweep=partial(parts.sweep, self.host),
        )
        return recovered

    def journal(self) -> Journal:
        return self.simulation.parts.journal(
            directory=VMS,
            backend=BackendKind.SIMULATED,
            disk=self.host.disk,
            boot_id=BOOT_ID,
            now_ns=boottime_ns,
        )

    def coordinator(
        self,
        journal: Journal,
        recovered: Recovered,
        *,
        observer: Observer,
        announce: Callable[[str, str], None],
        hand_out_began: Callable[[str], None],
    ) -> ObservedCoordinator:
        simulation = self.simulation
        profiles = {profile.name: profile for profile in simulation.plan.profiles}
        producers = {name: self._producer(profile, partial(announce, name)) for name, profile in profiles.items()}
        coordinator = ObservedCoordinator(
            policies={name: profile.policy for name, profile in profiles.items()},
            producers=producers,
            journal=journal,
            service=simulation.plan.service,
            found=recovered.found,
            adoptions=recovered.adoptions,
            shell_producers={name: one for name, one in producers.items() if isinstance(one, TemplateProducer)},
            procedures=dict.fromkeys(profiles, self._procedure(hand_out_began)),
            vigils=dict.fromkeys(profiles, VIGIL),
            make_id=self._new_id,
            rng=self.random("ledger"),
            clock_ns=simulation.parts.token_clock or simulation.wall_clock,
            host_clock=HostClock(now_ns=simulation.wall_clock, monotonic_ns=boottime_ns),
            make_actor=simulation.parts.actor,
            observer=observer,
        )
        simulation.parts.break_coordinator(coordinator)
        coordinator.watchers.backlog = self.random("backlog").choice([4, 32, 1024])
        return coordinator

    def read_memory(self) -> MemoryReading:
        weather = self.simulation.weather
        return MemoryReading(
            available_mib=100 if weather.low_memory and not weather.quiet else 8000, host=None, own=None
        )

    def random(self, purpose: str) -> Random:
        return self.simulation.randomness.of(f"{purpose} {self.number}")

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}-{self.number}-{next(self._ids)}"

    def _procedure(self, began: Callable[[str], None]) -> HandOutProcedure:
        random = self.random("hand-outs")
        return SeenProcedure(
            began=began,
            witness=Witness(),
            fresh=FreshSources(
                clock_ns=self.simulation.wall_clock,
                entropy=random.randbytes,
                new_machine_id=lambda: random.randbytes(16).hex(),
            ),
        )

    def _producer(self, profile: ProfilePlan, announce: Callable[[str], None]) -> Producer:
        simulation = self.simulation

        async def resolve() -> ResolvedMachine:
            await trio.lowlevel.checkpoint()
            number = simulation.machine_numbers[profile.name]
            return Changing(
                spec=attrs.evolve(SPEC, max_memory_mib=4096, max_vcpus=4),
                reason="it is simulated",
                fingerprint=f"{profile.name}-{number}",
                machines=simulation.machine_numbers,
                profile=profile.name,
                number=number,
            )

        launch = partial(self.host.launch, boot_s=profile.boot_s)
        if profile.policy.cost is ProductionCost.BOOT:
            return DirectBootProducer(
                resolve=resolve,
                launch=launch,
                vms_directory=VMS,
                boot_timeout_s=BOOT_TIMEOUT_S,
                on_generation=announce,
            )
        self.templates[profile.name] = backend = SimulatedTemplates(
            host=self.host,
            build_s=profile.boot_s + 0.5,
            shell_s=0.05,
            clone_s=profile.clone_s,
            template=simulation.templates.get(profile.name),
        )
        return TemplateProducer(
            resolve=resolve,
            backend=backend,
            launch=launch,
            vms_directory=VMS,
            new_vm_id=self._new_template_vm,
            boot_timeout_s=BOOT_TIMEOUT_S,
            fallback=profile.fallback,
            on_generation=announce,
        )

    def _new_template_vm(self) -> str:
        vm_id = self._new_id("template")
        self.building.add(vm_id)
        return vm_id
