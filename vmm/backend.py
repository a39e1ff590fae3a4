"""The interface of a VM backend to the pool. Implemented by `vmm.qemu.backend` and `vmm.simulated.backend`.

The pool knows no hypervisor: `pool.assembly.backends` chooses one, and everything else uses this interface.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from vmm.contract import Shell, Survivor, Vm, VmTemplate
from vmm.spec import MachineSpec
from vmm.words.confinement import ConfinementLine, ConfinementReport
from vmm.words.findings import Finding
from vmm.words.kinds import BackendKind
from vmm.words.machines import AcceleratorSetting
from vmm.words.processes import ProcessIdentity


@attrs.frozen(kw_only=True)
class Decided:
    """A machine whose accelerator is chosen."""

    spec: MachineSpec
    reason: str
    """In a sentence, with the hypervisor's version."""
    fingerprint: str
    """Equal for machines whose base VMs are interchangeable."""


@attrs.frozen(kw_only=True)
class Remains:
    """The remains of a VM of an earlier run of the service."""

    vm_id: str
    directory: Path
    processes: tuple[ProcessIdentity, ...]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]


class TemplateBackend(Protocol):
    """One template in its directory, and the shells and clones that are made of it."""

    def check_place(self, *, writes: bool) -> None:
        """Raises TemplateError if the directory can never hold a template or, for a writer, is read-only. Changes
        nothing.
        """

    def own(self) -> AbstractContextManager[None]:
        """Keeps other processes from building or discarding. Raises TemplateError if another process holds the lock."""

    async def open(self, *, fingerprint: str) -> VmTemplate:
        """The existing template, verified. Raises TemplateError if none exists, or it is another machine's."""

    async def build(self, spec: MachineSpec, *, fingerprint: str, vm_id: str, directory: Path) -> VmTemplate:
        """Replaces the template. Leaves no process; and no template on error and cancellation. Raises VmmError."""

    async def discard(self) -> None:
        """Removes the template, so that `open` does not find it again."""

    async def start_shell(
        self,
        spec: MachineSpec,
        *,
        template: VmTemplate,
        generation: str,
        vm_id: str,
        directory: Path,
        nursery: trio.Nursery,
    ) -> Shell:
        """Leaves nothing on error and cancellation. Raises VmmError."""

    async def clone(self, shell: Shell, *, template: VmTemplate, nursery: trio.Nursery) -> Vm:
        """A running VM whose agent has answered. Takes over the shell. Raises VmmError."""


class Backend(Protocol):
    @property
    def kind(self) -> BackendKind:
        """The kind in the records of its VMs."""

    # -- machines ----------------------------------------------------------------------------------------------------

    def find_program(self, name: str) -> Path:
        """The hypervisor's program, by its name in PATH or its path. Raises MissingFileError."""

    def check(self, spec: MachineSpec) -> None:
        """Checks that VMs of the spec can be started here, as far as possible without starting one.

        Blocks for some 10 ms, and for copying a file that VMs may not read. Raises MissingFileError, SpecError.
        """

    async def version(self, spec: MachineSpec) -> str:
        """The hypervisor's version. Raises MissingFileError, SpecError."""

    async def decide(
        self,
        spec: MachineSpec,
        *,
        accelerator: AcceleratorSetting,
        trial_directory: Path,
        cache_directory: Path,
    ) -> Decided:
        """Chooses the accelerator, whatever the spec says; under "auto" that may boot a guest below `trial_directory`.

        The result is cached below `cache_directory`. Raises VmmError, OSError.
        """

    # -- VMs ---------------------------------------------------------------------------------------------------------

    async def launch(self, spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> Vm:
        """Starts a VM and returns it running, its agent having answered. Leaves nothing on error or cancellation."""

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> Survivor:
        """Finds a VM that an earlier run of the service made.

        Not a checkpoint when it succeeds. Raises VmExitedError if the VM has ended; then nothing of it is left.
        """

    def templates(self, directory: Path) -> TemplateBackend:
        """The backend of the template in that directory, which need not exist."""

    # -- what an earlier run left --------------------------------------------------------------------------------------

    def remains_in(self, vms_directory: Path) -> Sequence[Remains]:
        """The remains of all VMs in that directory. Blocks while it looks at all processes. The caller holds the lock
        that keeps other services out of the directory. Raises OSError.
        """

    def owner_of(self, pids: Collection[int]) -> int | None:
        """The pid of another service that owns one of these VMs' processes; None if none does. Blocks, as above."""

    async def end(self, remains: Remains) -> None:
        """Ends the processes and removes the rest. Raises StopError, with the directory left in place; OSError."""

    def limit_again(self, directory: Path) -> None:
        """Restores the limits of an adopted VM with that directory. Raises OSError."""

    # -- confinement ---------------------------------------------------------------------------------------------------

    def confined(
        self, specs: Mapping[str, MachineSpec], *, changed: Callable[[ConfinementLine], None]
    ) -> AbstractContextManager[Backend]:
        """A backend whose VMs are confined as wished; the block holds the processes and directories for it.

        `specs` are those of the profiles; `changed` is called with every later change. Raises ConfinementError,
        JailError, OSError.
        """

    def confinement_report(self) -> ConfinementReport:
        """How its VMs are confined."""


Check = Callable[[], Awaitable[Finding]]
"""One check of the host. Raises VmmError, OSError where the service would fail."""


class HostChecks(Protocol):
    """A backend's checks for `vmpool doctor`: `before`, then the profiles with `backend`, then `after`."""

    @property
    def backend(self) -> Backend:
        """Confined as far as `before` could."""

    @property
    def may_try(self) -> bool:
        """Whether `backend` may start VMs for trials."""

    def before(self) -> Mapping[str, Check]:
        """By subject."""

    def after(self, specs: Mapping[str, MachineSpec]) -> Mapping[str, Check]:
        """`specs` are those of the profiles whose machines can be made."""
