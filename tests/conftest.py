"""Fixtures for all tests."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import structlog
import trio
from hypothesis import settings

from pool.observe.tracebacks import write_traceback
from tests.contract.subjects import qemu_spec
from tests.leaks import nothing_left
from tests.logged_errors import pytest_runtest_call  # noqa: F401 - a hook
from tests.templates import built_template
from vmm.devices.usual import usual_devices
from vmm.initramfs.image import GuestImage, build_image
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmm.words.machines import AgentKind

REPOSITORY: Final = Path(__file__).parents[1]

os.environ.setdefault("MPLCONFIGDIR", str(REPOSITORY / "build/matplotlib"))
"""Where matplotlib keeps its cache of fonts; it would be in the home of whoever runs the tests."""


if importlib.util.find_spec("inspect_ai") is None:
    collect_ignore = ["frameworks"]  # their environment is another one: scripts/test-frameworks

settings.register_profile("no deadline: machines differ, and are busy", settings.default, deadline=None)
settings.load_profile("no deadline: machines differ, and are busy")


structlog.configure(
    # Not the default, which shows what all variables have: that takes seconds, and the service under test waits.
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=write_traceback),
    ]
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Lanes, however tests are to be distributed."""
    from tests.lanes import Lanes  # noqa: PLC0415 - where there are none, pytest-xdist may be missing

    return Lanes(config, log)


def pytest_collection_finish() -> None:
    """What was collected stays. The garbage collector need not look through it after each test that looks for leaks."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def vm_home() -> Iterator[Path]:
    """A directory for VM directories, short enough for sockets; pytest's `tmp_path` may be too long."""
    home = Path(tempfile.mkdtemp(prefix="vmpool-"))
    yield home
    shutil.rmtree(home)


@pytest.fixture
def leak_check(vm_home: Path) -> Iterator[None]:
    """The test leaves no child process, no descriptor, and nothing in `vm_home`."""
    with nothing_left(vm_home):
        yield


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """The default guest, brought up to date on first use. VMPOOL_IMAGE_DIR says where, `build/image` otherwise."""
    directory = Path(os.environ.get("VMPOOL_IMAGE_DIR", REPOSITORY / "build/image"))
    return trio.run(functools.partial(build_image, directory, progress=lambda _: None))


@pytest.fixture(scope="session")
def qga_image(guest_image: GuestImage) -> GuestImage:
    """A guest with qemu-ga, built beside the default one."""
    directory = guest_image.kernel.parent.with_name("image-qga")
    return trio.run(functools.partial(build_image, directory, progress=lambda _: None, agent=AgentKind.QGA))


@pytest.fixture(scope="session")
def qga_spec(qga_image: GuestImage) -> MachineSpec:
    return attrs.evolve(qemu_spec(qga_image.kernel, qga_image.initrd), devices=usual_devices(agent=AgentKind.QGA))


@pytest.fixture(scope="session")
def template_spec(guest_image: GuestImage) -> MachineSpec:
    return qemu_spec(guest_image.kernel, guest_image.initrd)


@pytest.fixture(scope="session")
def template(template_spec: MachineSpec) -> Iterator[Template]:
    """Of the default guest, built once."""
    with built_template(template_spec) as template:
        yield template


@pytest.fixture(scope="session")
def qga_template(qga_spec: MachineSpec) -> Iterator[Template]:
    """Of the guest with qemu-ga, built once."""
    with built_template(qga_spec) as template:
        yield template
