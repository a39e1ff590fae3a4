"""What is in a root that was not there before: files, processes, mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("etc", "run/mount", "usr", "var/cache", "var/lib", "var/log")
"""Debian packages and apt write there; `mount` of util-linux, in `run/mount`. What of it has vmpool's name is not
theirs."""
AFTER_DPKG: Final = "var/lib/dpkg/files-after-dpkg"
"""What packages made elsewhere, by their scripts and by systemd: the files that were there when dpkg had ended."""
APT_HOOK: Final = (
    f'DPkg::Post-Invoke {{ "find /dev/shm /home /root /run /tmp /var/tmp -xdev >> /{AFTER_DPKG} || true"; }};'
)
"""A line of apt.conf that writes them down."""
MOUNTED: Final = ("dev", "proc", "sys")
"""The host's."""


@dataclass(frozen=True)
class Contents:
    """Of a root, at one moment."""

    files: frozenset[str]
    """Relative to the root; directories too."""
    packages: frozenset[str]
    """Those of them that Debian packages brought."""
    mounts: frozenset[str]


def look(root: Path, *, checkout: Path) -> Contents:
    """The checkout's inside is left out."""
    places = {root: {root / name for name in MOUNTED} | {checkout}, root / "dev/shm": set[Path]()}
    paths = (path for top, skipped in places.items() for path in _files(top, skipped=skipped))
    files = frozenset(str(path.relative_to(root)) for path in paths)
    after_dpkg = root / AFTER_DPKG
    listed = after_dpkg.read_text(encoding="utf-8", errors="surrogateescape") if after_dpkg.exists() else ""
    brought = {line[1:] for line in listed.splitlines()}
    mountinfo = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return Contents(
        files=files,
        packages=frozenset(name for name in files if name in brought or _is_a_packages(name)),
        mounts=frozenset(line.split(" ")[4] for line in mountinfo.splitlines()),
    )


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
    new = after.files - before.files - after.packages
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
