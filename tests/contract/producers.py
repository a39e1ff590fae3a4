"""The producers, each with its hands on what it makes, and how tests look at them from outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import psutil
import trio

from actors.direct import DirectBootProducer
from actors.machine import ResolvedMachine
from actors.producer import Producer
from actors.template import TemplateProducer
from tests.contract.subjects import BOOT_LIMIT_S
from tests.waiting import until
from vmm.qemu.launch import launch
from vmm.qemu.template.backend import QemuTemplates
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.template.store import TemplateStore
from vmm.qemu.version import detect_version
from vmm.simulated import BootFails, Fault, SimulatedHost
from vmm.simulated.templates import SimulatedTemplates
from vmm.spec import MachineSpec
from vmm.words.kinds import ProducerKind


class ProducerSubject(Protocol):
    """One producer, not running yet, on a host of its own."""

    producer: Producer
    generations: list[str]
    """What it announced, in order."""

    def left(self) -> set[str]:
        """The ids of all VMs of which there is anything: a process, a directory."""

    async def sabotage(self, vm_id: str) -> None:
        """Makes the production of this VM fail, which is under way or about to be."""


@attrs.define(eq=False, kw_only=True)
class SimulatedProducer:
    """Over simulated VMs, each way of making them."""

    kind: ProducerKind
    spec: MachineSpec
    generations: list[str] = attrs.field(factory=list)
    producer: Producer = attrs.field(init=False)
    _host: SimulatedHost = attrs.field(init=False)
    _faults: list[Fault] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._host = SimulatedHost(boot_s=0.05, faults=self._next_faults)
        self.producer = make_producer(
            self.kind,
            spec=self.spec,
            home=Path("/nowhere"),
            host=self._host,
            on_generation=self.generations.append,
        )

    def left(self) -> set[str]:
        return set(self._host.alive)

    async def sabotage(self, vm_id: str) -> None:
        self._faults.append(BootFails())
        await trio.lowlevel.checkpoint()

    def _next_faults(self, _number: int) -> Sequence[Fault]:
        faults, self._faults = self._faults, []
        return faults


@attrs.define(eq=False, kw_only=True)
class QemuProducer:
    """Over real VMs in `home`, each way of making them. `store` has the template that all tests share."""

    kind: ProducerKind
    spec: MachineSpec
    home: Path
    store: TemplateStore
    generations: list[str] = attrs.field(factory=list)
    producer: Producer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.producer = make_producer(
            self.kind, spec=self.spec, home=self.home, store=self.store, on_generation=self.generations.append
        )

    def left(self) -> set[str]:
        return {entry.name for entry in self.home.iterdir()} | set(self._processes())

    async def sabotage(self, vm_id: str) -> None:
        async def started() -> bool:
            return vm_id in self._processes()

        await until(started)
        self._processes()[vm_id].kill()

    def _processes(self) -> dict[str, psutil.Process]:
        found = {}
        for process in psutil.Process().children():
            argv = process.cmdline()
            if any(f"{self.home}/" in argument for argument in argv):
                found[argv[argv.index("-name") + 1].removeprefix("guest=").partition(",")[0]] = process
        return found


def make_producer(
    kind: ProducerKind,
    *,
    spec: MachineSpec,
    home: Path,
    on_generation: Callable[[str], None],
    host: SimulatedHost | None = None,
    store: TemplateStore | None = None,
) -> Producer:
    """Over a simulated host, or else over real QEMU with that store."""

    async def resolve() -> ResolvedMachine:
        machine = "simulated" if host else await fingerprint(spec, qemu_version=await detect_version(spec.qemu))
        return ResolvedMachine(spec=spec, reason="it is a test", fingerprint=machine)

    launch_vm = host.launch if host else launch
    if kind is ProducerKind.DIRECT:
        return DirectBootProducer(
            resolve=resolve,
            launch=launch_vm,
            vms_directory=home,
            boot_timeout_s=BOOT_LIMIT_S,
            on_generation=on_generation,
        )
    numbers = itertools.count()
    if host is not None:
        backend: SimulatedTemplates | QemuTemplates = SimulatedTemplates(host=host, shell_s=0.01, clone_s=0.01)
    else:
        assert store is not None
        backend = QemuTemplates(store=store)
    return TemplateProducer(
        resolve=resolve,
        backend=backend,
        launch=launch_vm,
        vms_directory=home,
        new_vm_id=lambda: f"template-{next(numbers)}",
        boot_timeout_s=BOOT_LIMIT_S,
        on_generation=on_generation,
    )
