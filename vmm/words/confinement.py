"""What VMs are confined to: as the user asks for it, and as it is told to people."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

DEFAULT_FIRST: Final = 1_900_000_000
DEFAULT_COUNT: Final = 65_536
"""Systemd's list of uids has the range from 1,879,048,192 up to 2,147,352,575 as unused (systemd's UIDS-GIDS.md)."""

MAX_UID: Final = 2**32 - 2
"""The number above it is no one."""

_RANGE: Final = re.compile(r"(\d{1,10})-(\d{1,10})")


class Requirement(enum.Enum):
    """How much of what the host may offer the user asks for."""

    AUTO = "auto"
    """What the host offers; what it does not is reported."""
    OFF = "off"
    REQUIRED = "required"
    """All of it, or the service does not start."""


class Layer(enum.Enum):
    """In the order in which they are tried: what the first gives, others may need."""

    USER_NAMESPACE = "user-namespace"
    """Gives the privileges that the other namespaces take, to whom the host gives none."""
    PID_NAMESPACE = "pid-namespace"
    """No process but its own can be named."""
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    NETWORK_NAMESPACE = "net-namespace"
    """An empty one."""
    MOUNT_NAMESPACE = "mount-namespace"
    """Its root directory has QEMU and what that reads, read-only."""
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


@attrs.frozen(kw_only=True)
class LayerState:
    """As it is told to people."""

    name: str
    applied: bool
    detail: str = ""
    """Why not, or how."""


@attrs.frozen(kw_only=True)
class UidRange:
    """Numbers for users and, the same, for their groups."""

    first: int = DEFAULT_FIRST
    last: int = DEFAULT_FIRST + DEFAULT_COUNT - 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


def structure_range(value: Any, _: Any) -> UidRange:
    """For cattrs: "FIRST-LAST". Raises TypeError, ValueError."""
    if not isinstance(value, str):
        raise TypeError(f'must be a range like "{UidRange()}", not {value!r}')
    found = _RANGE.fullmatch(value)
    if found is None:
        raise ValueError(f'must be a range like "{UidRange()}", not {value!r}')
    first, last = map(int, found.groups())
    if not 1 <= first <= last <= MAX_UID:
        raise ValueError(f"must go upwards, between 1 and {MAX_UID}, not {value!r}")
    return UidRange(first=first, last=last)


AUTO_USER: Final = "auto"
"""The setting's default: an unprivileged user where the service is root."""


@attrs.frozen(kw_only=True)
class ConfinementWish:
    """What the user asks for, for all VMs of a service."""

    user: str | int = AUTO_USER
    """Whom QEMU runs as."""
    uids: UidRange | None = None
    """Each VM's QEMU has one of its own, where the service is root and `user` is "auto". None: a default range, if that
    can be had."""
    layers: Requirement = Requirement.AUTO
    without: tuple[Layer, ...] = ()
    """Layers that are left out."""
    cgroups: Requirement = Requirement.AUTO


@attrs.frozen(kw_only=True)
class ConfinementLine:
    """One line for the log."""

    event: str
    warns: bool
    figures: Mapping[str, object]


@attrs.frozen(kw_only=True)
class ConfinementReport:
    """What VMs are confined to, and why not more."""

    states: tuple[LayerState, ...] = ()
    """All that there may be, and whether it is."""
    lines: tuple[ConfinementLine, ...] = ()
