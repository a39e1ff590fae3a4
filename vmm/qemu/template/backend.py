"""Templates, shells and clones on QEMU, for the template producer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import attrs
import trio

from vmm.contract import Shell, VmTemplate
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.instance import Instance
from vmm.qemu.template.clone import build_template, load_clone, start_shell
from vmm.qemu.template.store import Template, TemplateStore
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.processes import ExitReport


@attrs.frozen(kw_only=True)
class QemuShell:
    """A QEMU that has loaded a template and waits to run it. Implements `vmm.contract.Shell`."""

    instance: Instance
    generation: str

    @property
    def id(self) -> str:
        return self.instance.vm_id

    @property
    def pid(self) -> int:
        return self.instance.process.pid

    async def wait_exited(self) -> ExitReport:
        return await self.instance.wait_exited()

    async def stop(self) -> ExitReport:
        return await self.instance.stop()


@attrs.frozen(kw_only=True)
class QemuTemplates:
    """One profile's template in its store. Blocking work on files goes to threads."""

    store: TemplateStore
    confinement: Confinement = UNCONFINED

    def check_place(self, *, writes: bool) -> None:
        self.store.check_place(writes=writes)

    def own(self) -> AbstractContextManager[None]:
        return self.store.own()

    async def open(self, *, fingerprint: str) -> Template:
        """Reads the whole template: 0.5 s for 256 MiB. Raises TemplateError."""
        return await trio.to_thread.run_sync(partial(self.store.open, fingerprint=fingerprint))

    async def build(self, spec: MachineSpec, *, fingerprint: str, vm_id: str, directory: Path) -> Template:
        return await build_template(
            spec,
            store=self.store,
            fingerprint=fingerprint,
            vm_id=vm_id,
            directory=directory,
            confinement=self.confinement,
        )

    async def discard(self) -> None:
        await trio.to_thread.run_sync(self.store.clear)

    async def start_shell(
        self,
        spec: MachineSpec,
        *,
        template: VmTemplate,
        generation: str,
        vm_id: str,
        directory: Path,
        nursery: trio.Nursery,
    ) -> QemuShell:
        assert isinstance(template, Template)
        instance = await start_shell(
            spec,
            template=template,
            vm_id=vm_id,
            directory=directory,
            nursery=nursery,
            confinement=self.confinement,
        )
        return QemuShell(instance=instance, generation=generation)

    async def clone(self, shell: Shell, *, template: VmTemplate, nursery: trio.Nursery) -> QemuVm:
        assert isinstance(shell, QemuShell)
        assert isinstance(template, Template)
        return await load_clone(shell.instance, template=template, nursery=nursery)
