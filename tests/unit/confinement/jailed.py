"""Programs in the place of QEMU, started as that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.jailer.client import open_jailer
from vmm.qemu.process import QemuProcess
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

SPEC = MachineSpec(
    qemu=Path("/qemu"), kernel=Path("/kernel"), initrd=Path("/initrd"), accelerator=Accelerator.TCG, memory_mib=256
)


@contextmanager
def jailer_alone() -> Iterator[Confinement]:
    """With nothing else."""
    with open_jailer(b"") as jailer:
        yield Confinement(jailer=jailer)


def start(confinement: Confinement, *argv: str, log: Path, group: VmGroup | None = None) -> QemuProcess:
    return confinement.spawn(list(argv), spec=SPEC, group=group or VmGroup(), log=log, readable=())
