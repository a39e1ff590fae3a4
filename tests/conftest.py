"""Fixtures for all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import nothing_left


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
