"""Simulated templates, shells and clones, with faults on demand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from vmm.contract import Shell, VmTemplate
from vmm.errors import BootError, SnapshotError, TemplateError, VmExitedError
from vmm.simulated.host import SimulatedHost, SimulatedVm
from vmm.spec import MachineSpec
from vmm.words.processes import BootStage, ExitReport


@attrs.define(eq=False, kw_only=True)
class SimulatedTemplate:
    """A template without files. `damaged` is for tests."""

    fingerprint: str
    damaged: bool = False

    def check(self) -> None:
        if self.damaged:
            raise TemplateError(reason="its files have changed since it was made")


@attrs.define(eq=False, kw_only=True)
class SimulatedShell:
    """A shell without a process. `crash` is for tests."""

    id: str
    generation: str
    spec: MachineSpec
    directory: Path
    host: SimulatedHost
    pid: int = 0
    _exit: ExitReport | None = None
    _exited: trio.Event = attrs.field(factory=trio.Event)

    async def wait_exited(self) -> ExitReport:
        await self._exited.wait()
        assert self._exit is not None
        return self._exit

    async def stop(self) -> ExitReport:
        self.crash(ExitReport(status=0))
        self.host.forget(self.id)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return await self.wait_exited()

    def crash(self, report: ExitReport) -> None:
        if self._exit is None:
            self._exit = report
            self._exited.set()

    @property
    def alive(self) -> bool:
        return self._exit is None


@attrs.define(eq=False, kw_only=True)
class SimulatedTemplates:
    """Implements `vmm.backend.TemplateBackend`. Tests set the faults from outside, at any time."""

    host: SimulatedHost
    build_s: float = 0.0
    shell_s: float = 0.0
    clone_s: float = 0.0
    builds_fail: bool = False
    clones_fail: bool = False
    owned_elsewhere: bool = False
    template: SimulatedTemplate | None = None
    """The existing template; it outlives the producer, as files do."""
    built: int = 0
    shells: dict[str, SimulatedShell] = attrs.field(factory=dict)

    def check_place(self, *, writes: bool) -> None:
        """See the protocol."""

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        if self.owned_elsewhere:
            raise TemplateError(reason="process 4711 uses it")
        yield

    async def open(self, *, fingerprint: str) -> SimulatedTemplate:
        await trio.lowlevel.checkpoint()
        if self.template is None:
            raise TemplateError(reason="it does not exist")
        if self.template.fingerprint != fingerprint:
            raise TemplateError(reason="it is another machine's")
        self.template.check()
        return self.template

    async def build(
        self,
        spec: MachineSpec,  # noqa: ARG002 - as for a real one
        *,
        fingerprint: str,
        vm_id: str,
        directory: Path,  # noqa: ARG002 - idem
    ) -> SimulatedTemplate:
        self.template = None
        self.host.remember(vm_id)
        try:
            await trio.sleep(self.build_s)
        finally:
            self.host.forget(vm_id)
        if self.builds_fail:
            raise SnapshotError(what="saving a template", reason="failed: simulated")
        self.built += 1
        self.template = SimulatedTemplate(fingerprint=fingerprint)
        return self.template

    async def discard(self) -> None:
        await trio.lowlevel.checkpoint()
        self.template = None

    async def start_shell(
        self,
        spec: MachineSpec,
        *,
        template: VmTemplate,
        generation: str,
        vm_id: str,
        directory: Path,
        nursery: trio.Nursery,  # noqa: ARG002 - idem
    ) -> SimulatedShell:
        template.check()
        self.host.remember(vm_id)
        try:
            await trio.sleep(self.shell_s)
        except BaseException:
            self.host.forget(vm_id)
            raise
        shell = SimulatedShell(id=vm_id, generation=generation, spec=spec, directory=directory, host=self.host)
        self.shells[vm_id] = shell
        return shell

    async def clone(self, shell: Shell, *, template: VmTemplate, nursery: trio.Nursery) -> SimulatedVm:
        assert isinstance(shell, SimulatedShell)
        self.host.forget(shell.id)
        template.check()
        if not shell.alive:
            raise VmExitedError(vm_id=shell.id, reason="it died as a shell")
        if self.clones_fail:
            raise BootError(stage=BootStage.GUEST, reason="simulated")
        vm = await self.host.launch(
            shell.spec, vm_id=shell.id, directory=shell.directory, nursery=nursery, boot_s=self.clone_s
        )
        vm.machine.is_clone = True
        return vm
