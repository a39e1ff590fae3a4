"""Fixtures of the tests of Kata compatibility."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With the files that a configuration names."""
    for name in ("qemu", "vmlinuz", "initrd", "image"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path
