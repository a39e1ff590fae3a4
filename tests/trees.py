"""Trees with one of everything, and what is seen of a tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_KINDS: Final = 10
"""Entries of each directory that `make_tree` fills."""

_OWNERS: Final = ((0, 0), (1000, 1000), (65534, 5))


def make_tree(root: Path, entries: int) -> None:
    """`entries` in directories of some; owners differ if this is root."""
    root.mkdir()
    made = 0
    for number in range((entries + _KINDS - 1) // _KINDS):
        directory = root / f"d{number % 7}" / f"ü{number}"
        for path in _filled(directory, number):
            made += 1
            if os.geteuid() == 0:
                os.chown(path, *_OWNERS[made % len(_OWNERS)], follow_symlinks=False)
            if not path.is_symlink():
                path.chmod((0o700, 0o644, 0o4755, 0o2751, 0o600)[made % 5])
            when = 1_600_000_000_123_456_789 + made * 1_000_000_007
            os.utime(path, ns=(when, when), follow_symlinks=False)
            if made == entries:
                return


def _filled(directory: Path, number: int) -> Iterator[Path]:
    """A directory comes last: what is made in it changes its time."""
    directory.mkdir(parents=True)
    file = directory / "file"
    file.write_bytes(b"%d\n" % number * 100)
    os.link(file, directory / "hard")
    yield file
    yield directory / "hard"
    (directory / "link").symlink_to("file")
    yield directory / "link"
    (directory / "nowhere").symlink_to(os.fsdecode(b"no-\xff"))
    yield directory / "nowhere"
    odd = directory / os.fsdecode(b"odd-\xff\n%")
    odd.write_bytes(os.urandom(1000))
    yield odd
    (directory / "empty").touch()
    yield directory / "empty"
    with (directory / "holes").open("wb") as sparse:
        sparse.truncate(1 << 20)
        sparse.seek(1 << 19)
        sparse.write(b"here")
    yield directory / "holes"
    os.mkfifo(directory / "fifo")
    yield directory / "fifo"
    (directory / ("long" * 50)).write_bytes(b"x")
    yield directory / ("long" * 50)
    yield directory


def seen(tree: Path) -> dict[str, Any]:
    """All that matters of what is below `tree`, by relative path. A file is known by the first of its names."""
    found: dict[str, Any] = {}
    first_names: dict[int, str] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(tree))
        what: Any = None
        if path.is_symlink():
            what = path.readlink()
        elif path.is_file():
            what = (path.read_bytes(), first_names.setdefault(status.st_ino, name), status.st_blocks < 2048)
        found[name] = (
            *(oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns),
            None if path.is_dir() else (status.st_size, status.st_nlink),
            what,
        )
    return found
