"""Factories over simulated VMs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs
import trio

from actors.machine import ResolvedMachine, ResolveMachine
from pool.kata.factory.factory import Factory, open_factory
from pool.kata.factory.host import FactoryHost
from pool.kata.records.config import FactoryConfig, VMConfig
from pool.kata.records.gokinds import Generation
from pool.observe.spans import NO_SPANS, Spans
from pool.settings.config import ProfileSettings
from tests.unit.actors.stage import NOWHERE, simulated_journal
from tests.unit.kata.configs import vm_config
from vmm.contract import Vm
from vmm.simulated import FaultPlan, SimulatedHost, no_faults
from vmm.simulated.machine import Machine, Power
from vmm.simulated.templates import SimulatedTemplates
from vmm.words.machines import Accelerator, AgentKind

SMALL = {"memory_size": 512, "num_vcpus_f": 1.0, "default_max_vcpus": 4, "default_max_memory_size": 4096}


def small(**fields: object) -> VMConfig:
    """One CPU and 512 MiB, which can become 4 CPUs and 4 GiB."""
    return vm_config(**(SMALL | fields))


@attrs.define(eq=False)
class Stage:
    """A simulated host, its templates, and what was made on it."""

    faults: FaultPlan = no_faults
    boot_s: float = 1.0
    vms: SimulatedHost = attrs.field(init=False)
    templates: SimulatedTemplates = attrs.field(init=False)
    host: FactoryHost = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.vms = SimulatedHost(boot_s=self.boot_s, faults=self.faults)
        self.templates = SimulatedTemplates(host=self.vms, build_s=2.0, clone_s=0.1)
        self.host = FactoryHost(
            launch=self.vms.launch,
            attach=self.vms.attach,
            resolver=resolver,
            templates=lambda _directory: self.templates,
            journal=simulated_journal(),
        )

    def open(
        self,
        vm_config: VMConfig | None = None,
        *,
        fetch_only: bool = False,
        generation: Generation = Generation.CURRENT,
        spans: Spans = NO_SPANS,
        **config: object,
    ) -> contextlib.AbstractAsyncContextManager[Factory]:
        """With guests that can be asked, unless `agent` says otherwise."""
        asked = {"agent": AgentKind.BUILTIN} | config
        made = FactoryConfig(vm_config=vm_config or small(), **asked)  # type: ignore[arg-type]
        return open_factory(made, host=self.host, fetch_only=fetch_only, generation=generation, spans=spans)

    def machine(self, vm: Vm) -> Machine:
        return self.vms.machine(vm.id)

    def running(self, vm: Vm) -> bool:
        return self.machine(vm).state.value.power is Power.RUNNING


def resolver(profile: ProfileSettings) -> ResolveMachine:
    async def resolve() -> ResolvedMachine:
        await trio.lowlevel.checkpoint()
        spec = profile.machine(qemu=NOWHERE, kernel=NOWHERE, initrd=NOWHERE, accelerator=Accelerator.TCG)
        return ResolvedMachine(spec=spec, reason="it is simulated", fingerprint=f"{spec.vcpus}/{spec.memory_mib}")

    return resolve


@contextlib.asynccontextmanager
async def taken(stage: Stage, vm: Vm) -> AsyncIterator[Machine]:
    """A VM that the test stops; nothing of it is left then."""
    machine = stage.machine(vm)
    yield machine
    await vm.stop()
    assert vm.id not in stage.vms.alive
