"""Putting a file: what the guest's shell does before and after qemu-ga writes."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from vmm.guest.qga.files import _CREATE, _IS_DIRECTORY, _NO_DIRECTORY, _PLACE


def shell(script: str, *arguments: object) -> int:
    return subprocess.run(["/bin/sh", "-c", script, *map(str, arguments)], umask=0, check=False).returncode


@pytest.mark.parametrize("name", ["file", "with space", "-f", "$(false)"])
def test_a_file_is_nobody_else_s_until_it_is_in_its_place(tmp_path: Path, name: str) -> None:
    new, path = tmp_path / f"{name}.new", tmp_path / name
    path.write_text("old")
    assert shell(_CREATE, new, tmp_path, path) == 0
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert path.read_text() == "old"
    new.write_text("new")
    assert shell(_PLACE, new, path, "640") == 0
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_where_no_file_can_be_is_told_by_the_status(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert shell(_CREATE, absent / "x.new", absent, absent / "x") == _NO_DIRECTORY
    (tmp_path / "directory").mkdir()
    assert shell(_CREATE, tmp_path / "x.new", tmp_path, tmp_path / "directory") == _IS_DIRECTORY
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]
