"""The service's directories: whether others can change one, and whether one can be made.

Their content is trusted: records of VMs to adopt, memory that VMs are cloned from.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Exposure:
    """How others can change a directory, in words for an error's message."""

    what: str
    remedy: str = ""
    """Empty: only another place helps."""

    def told(self, *, otherwise: str) -> str:
        """In one sentence, with an alternative remedy."""
        return f"{self.what}; {self.remedy}, or {otherwise}" if self.remedy else f"{self.what}; {otherwise}"


def exposure(directory: Path) -> Exposure | None:
    """None if no other user can write to `directory` or replace it. Raises OSError.

    A directory that does not exist is as safe as its parent; only one level above is checked.
    """
    if not os.path.lexists(directory):
        return _exposure_in(directory.parent) if os.path.lexists(directory.parent) else None
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return Exposure(what=f"{directory} is not a directory", remedy="remove it")
    if status.st_uid != os.geteuid():
        return Exposure(what=_opened(directory, status), remedy="remove it")
    if status.st_mode & 0o077:
        return Exposure(what=_opened(directory, status), remedy=f"`chmod 0700 {directory}`")
    return _exposure_in(directory.parent)


def _exposure_in(parent: Path) -> Exposure | None:
    """How others can replace an entry of ours in `parent`."""
    for status in (parent.lstat(), parent.stat()):
        link = stat.S_ISLNK(status.st_mode)  # its owner can make it lead elsewhere; its mode means nothing
        # In a sticky directory, like /tmp and /dev/shm, only its owner and we can replace our entries.
        fixed = link or status.st_mode & stat.S_ISVTX or not status.st_mode & 0o022
        if status.st_uid not in (0, os.geteuid()):
            return Exposure(what=_opened(parent, status))
        if not fixed:
            return Exposure(what=_opened(parent, status), remedy=f"`chmod go-w {parent}`")
    return None


def _opened(place: Path, status: os.stat_result) -> str:
    return f"{place} is open to others (mode {stat.S_IMODE(status.st_mode):o}, uid {status.st_uid})"


def check_can_make(directory: Path) -> None:
    """Raises OSError, naming the place, if `directory` cannot be made, or exists and cannot be written to.

    Only an attempt shows: /proc's mode lets root write, and the kernel does not. The attempt leaves nothing.
    """
    place = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    if place == directory and place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".vmpool-", dir=place):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from error


def place_of(directory: Path) -> str:
    """Distinguishes a directory from those of containers and chroots with the same path; stays the same when the
    directory is made anew. Raises OSError.
    """
    return f"{directory.stat().st_dev}:{Path('/').stat().st_ino}"
