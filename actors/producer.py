"""The producer protocol: making base VMs.

A producer is an actor (`run`, supervised, permanent) that keeps the inputs of production, and a service (`produce`)
that VM actors call in their own task, so that a cancelled VM actor cancels its own production and no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import trio

from vmm.contract import Shell, Survivor, Vm
from vmm.spec import MachineSpec
from vmm.words.kinds import ProducerKind
from vmm.words.processes import ProcessIdentity


@attrs.frozen(kw_only=True)
class ProducerStatistics:
    kind: ProducerKind
    ready: bool
    """Able to produce; false while preparing or after a crash."""
    accelerator: str | None
    """None until decided."""
    detail: str
    """The reason for the accelerator, or what the producer waits for, in a sentence."""
    produced: int
    failed: int
    fallbacks: int = 0
    """How many of the produced VMs were booted directly for lack of a template."""


class Launch(Protocol):
    """Starts a VM and returns it running, its agent having answered. Leaves nothing on error or cancellation."""

    async def __call__(self, spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> Vm: ...


class Adopt(Protocol):
    """Finds a VM that an earlier run of the service made.

    Not a checkpoint when it succeeds. Raises VmExitedError if the VM has ended; then nothing of it is left.
    """

    async def __call__(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> Survivor: ...


@attrs.frozen(kw_only=True)
class BaseVm:
    """A producer's product: a paused VM whose agent has answered."""

    vm: Vm
    generation: str
    """The fingerprint of the VM's inputs; it changes, too, when a template turns out to be damaged.

    When its producer makes another generation, the VM is stale."""
    made_by: ProducerKind
    """DIRECT, too, if a template producer fell back to booting."""


class BaseVmMaker(Protocol):
    """Makes base VMs: paused, agent-checked, owned by the caller."""

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        """Makes one VM. Waits while the producer is not ready. The caller stops the VM.

        The VM's background tasks run in `nursery` and never raise into it. Raises VmmError. Under cancellation and
        on error nothing of the VM is left.
        """


class Producer(BaseVmMaker, Protocol):
    """An actor that keeps the inputs of production."""

    @property
    def kind(self) -> ProducerKind: ...

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The actor's body. Raises when it cannot work; its supervisor starts it again."""

    def statistics(self) -> ProducerStatistics: ...


@runtime_checkable
class ShellProducer(Producer, Protocol):
    """A producer that can do the first half of a production ahead of time."""

    async def start_shell(self, *, vm_id: str, nursery: trio.Nursery) -> Shell:
        """Starts a process that waits to run its guest. Otherwise as `produce`; the caller ends the shell."""

    async def fill_shell(self, shell: Shell, *, nursery: trio.Nursery) -> BaseVm:
        """Turns a shell into a VM, and takes over the shell: on error and cancellation nothing of it is left."""
