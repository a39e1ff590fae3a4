"""Fixtures for all tests."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.leaks import nothing_left
from tests.logged_errors import pytest_runtest_call  # noqa: F401 - a hook
from vmm.guest.image import GuestImage, build_image
from vmm.spec import AgentKind


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
    directory = Path(os.environ.get("VMPOOL_IMAGE_DIR", Path(__file__).parents[1] / "build/image"))
    return trio.run(functools.partial(build_image, directory, progress=lambda _: None))


@pytest.fixture(scope="session")
def qga_image(guest_image: GuestImage) -> GuestImage:
    """A guest with qemu-ga, built beside the default one."""
    directory = guest_image.kernel.parent.with_name("image-qga")
    return trio.run(functools.partial(build_image, directory, progress=lambda _: None, agent=AgentKind.QGA))
