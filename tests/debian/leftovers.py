"""What is in a root that was not there before: files, processes, mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("etc", "run/adduser", "usr", "var/cache", "var/lib", "var/log")
"""Debian packages and their scripts write there. What of it has vmpool's name is not theirs."""
MOUNTED: Final = ("dev", "proc", "sys")
"""The host's."""


@dataclass(frozen=True)
class Contents:
    """Of a root, at one moment."""

    files: frozenset[str]
    """Relative to the root; directories too."""
    mounts: frozenset[str]
    announced: frozenset[str] = frozenset()
    """Files that packages have systemd-tmpfiles make, by tmpfiles.d(5)."""


def look(root: Path, *, checkout: Path) -> Contents:
    """The checkout's inside is left out."""
    files = frozenset(_files(root, skipped={root / name for name in MOUNTED} | {checkout}))
    shared_memory = frozenset(_files(root / "dev/shm", skipped=set()))
    mountinfo = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return Contents(
        files=frozenset(str(path.relative_to(root)) for path in files | shared_memory),
        mounts=frozenset(line.split(" ")[4] for line in mountinfo.splitlines()),
        announced=frozenset(_announced(root / "usr/lib/tmpfiles.d")),
    )


def _announced(settings: Path) -> Iterator[str]:
    for file in settings.glob("*.conf"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[1].startswith("/"):
                yield words[1].strip("/")


def _files(top: Path, *, skipped: set[Path]) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        here = Path(directory)
        names[:] = [name for name in names if not _is_pytests(here / name)]
        yield from (here / name for name in (*names, *files))
        names[:] = [name for name in names if here / name not in skipped]


def _is_pytests(directory: Path) -> bool:
    """A run that passes empties it, but does not remove it."""
    return directory.name.startswith("pytest-of-") and not any(directory.iterdir())


def new_files(before: Contents, after: Contents) -> list[str]:
    """Of a new directory, itself only."""
    new = {
        name
        for name in after.files - before.files
        if not _is_a_packages(name) and after.announced.isdisjoint((name, *map(str, Path(name).parents)))
    }
    return sorted(name for name in new if str(Path(name).parent) not in new)


def _is_a_packages(name: str) -> bool:
    return "vmpool" not in name and any(Path(name).is_relative_to(place) for place in PACKAGES)


def new_mounts(before: Contents, after: Contents) -> list[str]:
    return sorted(after.mounts - before.mounts)


def processes(proc: Path, *, ours: frozenset[int]) -> list[str]:
    """The command lines of all but ours; not of zombies, which are about to be reaped."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdecimal() or int(entry.name) in ours:
            continue
        try:
            state = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][:1]
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if state != "Z":
            found.append(f"{entry.name}: {' '.join(arguments).strip()}")
    return sorted(found)
