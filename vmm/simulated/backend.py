"""The backend of simulated VMs. Implements `vmm.backend.Backend`."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from vmm.backend import Decided, Remains
from vmm.simulated.host import SimulatedHost, SimulatedSurvivor, SimulatedVm
from vmm.simulated.templates import SimulatedTemplates
from vmm.spec import MachineSpec
from vmm.words.confinement import ConfinementLine, ConfinementReport
from vmm.words.kinds import BackendKind
from vmm.words.machines import Accelerator, AcceleratorSetting
from vmm.words.processes import ProcessIdentity


@attrs.frozen(kw_only=True, eq=False)
class SimulatedBackend:
    """Makes any machine, without confinement."""

    host: SimulatedHost = attrs.field(factory=SimulatedHost)
    _templates: dict[Path, SimulatedTemplates] = attrs.field(factory=dict, init=False)

    @property
    def kind(self) -> BackendKind:
        return BackendKind.SIMULATED

    def find_program(self, name: str) -> Path:
        return Path(name)

    def check(self, spec: MachineSpec) -> None:
        """Accepts any machine."""

    async def version(self, spec: MachineSpec) -> str:  # noqa: ARG002 - all are the same
        await trio.lowlevel.checkpoint()
        return self.kind.value

    async def decide(
        self,
        spec: MachineSpec,
        *,
        accelerator: AcceleratorSetting,
        trial_directory: Path,  # noqa: ARG002 - as for a real one
        cache_directory: Path,  # noqa: ARG002 - idem
    ) -> Decided:
        await trio.lowlevel.checkpoint()
        kvm = accelerator is AcceleratorSetting.KVM
        spec = attrs.evolve(spec, accelerator=Accelerator.KVM if kvm else Accelerator.TCG)
        return Decided(spec=spec, reason="it is simulated", fingerprint=hashlib.sha256(repr(spec).encode()).hexdigest())

    async def launch(self, spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> SimulatedVm:
        return await self.host.launch(spec, vm_id=vm_id, directory=directory, nursery=nursery)

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> SimulatedSurvivor:
        return await self.host.adopt(identity, vm_id=vm_id, directory=directory)

    def templates(self, directory: Path) -> SimulatedTemplates:
        return self._templates.setdefault(directory, SimulatedTemplates(host=self.host))

    def remains_in(self, vms_directory: Path) -> Sequence[Remains]:
        there = {path.name for path in vms_directory.iterdir()} if vms_directory.is_dir() else set()
        return [
            Remains(vm_id=name, directory=vms_directory / name, processes=())
            for name in sorted(there | self.host.alive)
        ]

    def owner_of(self, pids: Collection[int]) -> int | None:  # noqa: ARG002 - there are no processes
        return None

    async def end(self, remains: Remains) -> None:
        await trio.lowlevel.checkpoint()
        self.host.end(remains.vm_id)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(remains.directory)

    def limit_again(self, directory: Path) -> None:
        """There are no limits."""

    @contextlib.contextmanager
    def confined(
        self,
        specs: Mapping[str, MachineSpec],  # noqa: ARG002 - as for a real one
        *,
        changed: Callable[[ConfinementLine], None],  # noqa: ARG002 - idem
    ) -> Iterator[SimulatedBackend]:
        yield self

    def confinement_report(self) -> ConfinementReport:
        return ConfinementReport()
