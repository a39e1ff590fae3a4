"""Arguments of the SDK's calls, as its own records: a program that uses the SDK imports no class of the service."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence

import attrs


class OnEmpty(enum.Enum):
    """What to do when no VM is ready."""

    WAIT = "wait"
    """Wait until the deadline. Users take turns; the requests of one user are served in order."""
    FAIL = "fail"
    """Fail at once."""
    BOOT = "boot"
    """Produce a VM beyond the pool's size as soon as there is room; fail if its production fails."""


@attrs.frozen(kw_only=True)
class GuestFile:
    """A file for the guest, written before the VM is handed out."""

    path: str
    data: bytes = attrs.field(repr=False)
    mode: int = 0o644


@attrs.frozen(kw_only=True)
class Wishes:
    """What a caller wants in their VM beyond its profile; fields that are not set leave the profile's values.

    Applied at hand-out, so that no secret ever becomes part of a template.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    hostname: str = ""
    """Empty: the VM's id."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False, hash=False)
    """For every command that runs in the VM."""
    files: tuple[GuestFile, ...] = ()


@attrs.frozen(kw_only=True)
class Terminal:
    """A terminal for a command: its stdin, stdout and stderr at once."""

    rows: int = 24
    columns: int = 80
    term: str = ""
    """TERM in its environment; empty for "xterm-256color"."""


Limit = int | tuple[int, int] | None
"""Of a resource, as setrlimit(2) has it: one number, or soft and hard; None for no limit."""


Command = str | Sequence[str | os.PathLike[str]]
"""A str is a line for the guest's shell, a sequence is program and arguments."""


class WriteMode(enum.Enum):
    """What to do with a file that is there already."""

    REPLACE = "replace"
    """The file appears whole under its name, or not at all. A symbolic link's target is replaced."""
    CREATE = "create"
    """Fail if the path exists."""
    TRUNCATE = "truncate"
    """In place, truncated first: for files that are open or mounted elsewhere, and for those of /proc and /sys."""
    UPDATE = "update"
    """In place, at `offset`; the rest stays."""
    APPEND = "append"
    """In place, at the end."""
