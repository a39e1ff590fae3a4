"""Templates that tests share: to build one takes longer than most tests, and is the subject of few."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from vmm.qemu.template.clone import build_template, load_clone, start_shell
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.template.store import Template, TemplateStore
from vmm.qemu.version import detect_version
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec


@contextmanager
def place_for_template(kept: Path | None = None) -> Iterator[Path]:
    """In memory, as the service would choose it: a copy of the template that is kept there, or else not made yet.

    Nothing of it is left at the end.
    """
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as name:
        place = Path(name) / "template"
        if kept is not None:
            subprocess.run(["cp", "--archive", "--sparse=always", kept, place], check=True)
        yield place


@contextmanager
def template_store() -> Iterator[TemplateStore]:
    """Such a place, as its store."""
    with place_for_template() as place:
        yield TemplateStore(place)


async def build(spec: MachineSpec, store: TemplateStore, *, home: Path) -> Template:
    with trio.fail_after(120):
        return await build_template(
            spec,
            store=store,
            fingerprint=await fingerprint(spec, qemu_version=await detect_version(spec.qemu)),
            vm_id="template",
            directory=home / "template-vm",
        )


@contextmanager
def built_template(spec: MachineSpec) -> Iterator[Template]:
    """Outside of any trio run."""
    with template_store() as store:
        yield trio.run(functools.partial(build, spec, store, home=store.directory.parent))
        store.clear()


async def clone(spec: MachineSpec, template: Template, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> QemuVm:
    """Running, and not reseeded. The caller stops it."""
    shell = await start_shell(spec, template=template, vm_id=vm_id, directory=directory, nursery=nursery)
    return await load_clone(shell, template=template, nursery=nursery)
