"""One template, built once from the default guest, and clones of it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.contract.subjects import qemu_spec
from vmm.guest.image import GuestImage
from vmm.qemu.version import detect_version
from vmm.spec import MachineSpec
from vmm.template.clone import build_template
from vmm.template.fingerprint import fingerprint
from vmm.template.store import Template, TemplateStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="session")
def template_spec(guest_image: GuestImage) -> MachineSpec:
    return qemu_spec(guest_image.kernel, guest_image.initrd)


async def build(spec: MachineSpec, store: TemplateStore, *, home: Path) -> Template:
    with trio.fail_after(120):
        return await build_template(
            spec,
            store=store,
            fingerprint=await fingerprint(spec, qemu_version=await detect_version(spec.qemu)),
            vm_id="template",
            directory=home / "template-vm",
        )


@pytest.fixture(scope="session")
def template(template_spec: MachineSpec) -> Iterator[Template]:
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as home_name:
        home = Path(home_name)
        store = TemplateStore(home / "template")
        yield trio.run(functools.partial(build, template_spec, store, home=home))
        store.clear()
