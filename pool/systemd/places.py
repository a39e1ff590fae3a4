"""The files that make up the unit's command, and what root may do with them after giving up its capabilities."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

import pool


def places_of(command: Path) -> frozenset[Path]:
    """The command, our interpreter, and the directories of their modules; as named, and with links resolved."""
    named = {command, Path(sys.executable), Path(pool.__file__).parent}
    named |= {Path(entry) for entry in sys.path if entry and Path(entry).exists()}
    named = {Path(os.path.abspath(place)) for place in named}  # noqa: PTH100 - resolve() would follow links
    return frozenset(named | {place.resolve() for place in named})


@attrs.frozen(kw_only=True)
class Place:
    """A file or directory, with its owner and permissions."""

    path: Path
    mode: int
    uid: int
    gid: int

    @classmethod
    def at(cls, path: Path) -> Place:
        status = path.stat()
        return cls(path=path, mode=status.st_mode, uid=status.st_uid, gid=status.st_gid)

    def allows_root(self, *, read: bool) -> bool:
        """Whether root may enter and, with `read`, read it without CAP_DAC_OVERRIDE, which the unit drops."""
        shift = 6 if self.uid == 0 else 3 if self.gid == 0 else 0
        wanted = (0o4 if read else 0) | (0o1 if stat.S_ISDIR(self.mode) else 0)
        return (self.mode >> shift) & wanted == wanted

    @property
    def others_may_change_it(self) -> bool:
        sticky_directory = stat.S_ISDIR(self.mode) and self.mode & stat.S_ISVTX
        return self.uid != 0 or bool(self.mode & stat.S_IWOTH and not sticky_directory)


Look = Callable[[Path], Place]


def first_closed(places: Iterable[Path], *, look: Look = Place.at) -> Place | None:
    """The first place that the unit's service could not enter or read."""
    for path in sorted(places):
        for above in reversed(path.parents):
            if not (directory := look(above)).allows_root(read=False):
                return directory
        if not (place := look(path)).allows_root(read=True):
            return place
    return None


def first_of_others(places: Iterable[Path], *, look: Look = Place.at) -> Place | None:
    """The first place that another user than root could replace, and so have root execute."""
    everything = {above for path in places for above in (path, *path.parents)}
    return next((place for place in map(look, sorted(everything)) if place.others_may_change_it), None)
