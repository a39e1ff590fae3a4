"""Directories of ours on the host: whether one is ours alone, and whether one can be made.

What is in them is believed: records of VMs to adopt, memory that VMs are cloned from.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Exposure:
    """Why a directory is not ours alone, in words for an error's message."""

    what: str
    remedy: str = ""
    """Empty: there is none but another place."""

    def told(self, *, otherwise: str) -> str:
        """In one sentence, with what else can be done."""
        return f"{self.what}; {self.remedy}, or {otherwise}" if self.remedy else f"{self.what}; {otherwise}"


def exposure(directory: Path) -> Exposure | None:
    """None if nobody else can have something in `directory`, or put another one in its place. Raises OSError.

    One that is not there yet is as safe as the place where it will be; one level above is looked at, no more.
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
    """Of what is ours in `parent`: whether others can put something else in its place."""
    for status in (parent.lstat(), parent.stat()):
        link = stat.S_ISLNK(status.st_mode)  # who owns one can have it lead elsewhere; its mode says nothing
        # In a sticky directory, as /tmp and /dev/shm are, nobody but its owner and we can replace what is ours.
        fixed = link or status.st_mode & stat.S_ISVTX or not status.st_mode & 0o022
        if status.st_uid not in (0, os.geteuid()):
            return Exposure(what=_opened(parent, status))
        if not fixed:
            return Exposure(what=_opened(parent, status), remedy=f"`chmod go-w {parent}`")
    return None


def _opened(place: Path, status: os.stat_result) -> str:
    return f"{place} is open to others (mode {stat.S_IMODE(status.st_mode):o}, uid {status.st_uid})"


def check_can_make(directory: Path) -> None:
    """Raises OSError, naming the place, if `directory` cannot be made, or is there and cannot be written to.

    Nothing but trying tells: root may write to /proc by its mode, and cannot. Nothing is left of the attempt.
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
    """Tells a directory from those that containers and chroots have under the same path; the same when it is made anew.

    Raises OSError.
    """
    return f"{directory.stat().st_dev}:{Path('/').stat().st_ino}"
