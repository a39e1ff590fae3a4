"""What makes VMs, as the pool knows it. Fulfilled by `vmm.qemu.backend` and `vmm.simulated.backend`.

The pool knows no hypervisor: `pool.assembly.backends` chooses one, and everything else asks for what is here.
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
    """A machine whose accelerator is decided."""

    spec: MachineSpec
    reason: str
    """In a sentence, with the hypervisor's version."""
    fingerprint: str
    """Equal for machines whose base VMs are interchangeable."""


@attrs.frozen(kw_only=True)
class Remains:
    """What an earlier run of the service left of a VM."""

    vm_id: str
    directory: Path
    processes: tuple[ProcessIdentity, ...]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]


class TemplateBackend(Protocol):
    """One template in its place, and the shells and clones that are made of it."""

    def check_place(self, *, writes: bool) -> None:
        """Raises TemplateError if the place can never hold a template, or not be written to. Changes nothing."""

    def own(self) -> AbstractContextManager[None]:
        """Within the block no other process builds or discards there. Raises TemplateError if one has it already."""

    async def open(self, *, fingerprint: str) -> VmTemplate:
        """The template that is there, verified. Raises TemplateError if there is none, or another machine's."""

    async def build(self, spec: MachineSpec, *, fingerprint: str, vm_id: str, directory: Path) -> VmTemplate:
        """Replaces whatever is there. Leaves no process; and no template on error and cancellation. Raises VmmError."""

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
        """By which a VM's record says who made it."""

    # -- machines ----------------------------------------------------------------------------------------------------

    def find_program(self, name: str) -> Path:
        """The hypervisor's program, by its name in PATH or its path. Raises MissingFileError."""

    def check(self, spec: MachineSpec) -> None:
        """Whether VMs of it can be started here, as far as that can be told without starting anything.

        Blocks for some 10 ms, and for copying a file that VMs may not read. Raises MissingFileError, SpecError.
        """

    async def version(self, spec: MachineSpec) -> str:
        """Of the machine's hypervisor. Raises MissingFileError, SpecError."""

    async def decide(
        self,
        spec: MachineSpec,
        *,
        accelerator: AcceleratorSetting,
        trial_directory: Path,
        cache_directory: Path,
    ) -> Decided:
        """Decides the accelerator, whatever the spec says; under "auto" that may boot a guest, below `trial_directory`.

        What was found out is remembered below `cache_directory`. Raises VmmError, OSError.
        """

    # -- VMs ---------------------------------------------------------------------------------------------------------

    async def launch(self, spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> Vm:
        """Starts a VM and returns it running, its agent having answered. Leaves nothing on error or cancellation."""

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> Survivor:
        """Finds a VM again that an earlier run of the service made.

        Not a checkpoint when it succeeds. Raises VmExitedError if it is not there any more; then nothing of it is left.
        """

    def templates(self, directory: Path) -> TemplateBackend:
        """What keeps one template in that directory, which need not be there."""

    # -- what an earlier run left --------------------------------------------------------------------------------------

    def remains_in(self, vms_directory: Path) -> Sequence[Remains]:
        """All that is there of VMs. Blocks for looking at all processes. Whoever calls this holds the lock that says
        that nobody else has VMs there. Raises OSError.
        """

    def owner_of(self, pids: Collection[int]) -> int | None:
        """The pid of another service that has one of these VMs' processes; None if there is none. Blocks, as above."""

    async def end(self, remains: Remains) -> None:
        """Ends the processes and removes the rest. Raises StopError, with the directory left in place; OSError."""

    def limit_again(self, directory: Path) -> None:
        """Sets the limits of an adopted VM with that directory as they were. Raises OSError."""

    # -- confinement ---------------------------------------------------------------------------------------------------

    def confined(
        self, specs: Mapping[str, MachineSpec], *, changed: Callable[[ConfinementLine], None]
    ) -> AbstractContextManager[Backend]:
        """Within the block, one whose VMs are confined as was wished, and all processes and places for that are there.

        `specs` are those of the profiles; `changed` is told what is not as it was at the start. Raises
        ConfinementError, JailError, OSError.
        """

    def confinement_report(self) -> ConfinementReport:
        """What its VMs are confined to."""


Check = Callable[[], Awaitable[Finding]]
"""One look at the host. Raises VmmError, OSError where the service would fail."""


class HostChecks(Protocol):
    """What `vmpool doctor` looks at of a backend, in turn: `before`, what `backend` makes of profiles, `after`."""

    @property
    def backend(self) -> Backend:
        """As far as it could be confined by `before`."""

    @property
    def may_try(self) -> bool:
        """Whether VMs may be started by it for trials."""

    def before(self) -> Mapping[str, Check]:
        """By subject."""

    def after(self, specs: Mapping[str, MachineSpec]) -> Mapping[str, Check]:
        """`specs` are those of the profiles whose machines can be made."""
