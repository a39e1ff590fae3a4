"""A directory that behaves like a mounted cgroup2, as far as making and removing groups goes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import attrs
import pytest

CONTROLLERS = "cpuset cpu io memory hugetlb pids"

_FILES = {"memory": ("memory.max", "memory.high"), "cpu": ("cpu.max",), "pids": ("pids.max",)}


@attrs.frozen
class CgroupFileSystem:
    """A new group has its files; one with members cannot be removed; one without goes with its files."""

    root: Path

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make, remove = Path.mkdir, Path.rmdir

        def mkdir(path: Path, *args: object, **kwargs: object) -> None:
            make(path, *args, **kwargs)  # type: ignore[arg-type]
            if path.is_relative_to(self.root):
                self._populate(path)

        def rmdir(path: Path) -> None:
            if not path.is_relative_to(self.root):
                remove(path)
            elif not path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            elif (path / "cgroup.procs").read_text().strip():
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            else:
                shutil.rmtree(path)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)

    def _populate(self, group: Path) -> None:
        handed_down = (group.parent / "cgroup.subtree_control").read_text().replace("+", " ").split()
        files = ["cgroup.procs", "cgroup.subtree_control", "cgroup.type"]
        files += [file for name in handed_down for file in _FILES.get(name, ())]
        for file in files:
            (group / file).touch()
        (group / "cgroup.controllers").write_text(" ".join(handed_down))


def delegated_group(root: Path, *, name: str = "vmpool.service") -> Path:
    """A group below `root` that has this process for its only member."""
    root.mkdir()
    for file, content in (("cgroup.controllers", CONTROLLERS), ("cgroup.subtree_control", CONTROLLERS)):
        (root / file).write_text(content)
    group = root / name
    group.mkdir()
    for file, content in (
        ("cgroup.controllers", CONTROLLERS),
        ("cgroup.subtree_control", ""),
        ("cgroup.type", "domain\n"),
        ("cgroup.procs", f"{os.getpid()}\n"),
    ):
        (group / file).write_text(content)
    return group
