"""The confinement of VMs: as the user asks for it, and as it is reported."""

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
"""The number above it means "no user"."""

_RANGE: Final = re.compile(r"(\d{1,10})-(\d{1,10})")


class Requirement(enum.Enum):
    """How much of the possible confinement the user asks for."""

    AUTO = "auto"
    """Whatever the host supports; missing layers are reported."""
    OFF = "off"
    REQUIRED = "required"
    """All layers, or the service does not start."""


class Layer(enum.Enum):
    """In the order in which they are tried: later ones may need earlier ones."""

    USER_NAMESPACE = "user-namespace"
    """Gives an unprivileged service the privileges that the other namespaces need."""
    PID_NAMESPACE = "pid-namespace"
    """QEMU cannot name any process but its own."""
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    NETWORK_NAMESPACE = "net-namespace"
    """An empty network namespace."""
    MOUNT_NAMESPACE = "mount-namespace"
    """Its root directory has QEMU and the files that it reads, read-only."""
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


@attrs.frozen(kw_only=True)
class LayerState:
    """A layer's state for reports."""

    name: str
    applied: bool
    detail: str = ""
    """The reason if it is not active, otherwise the details."""


@attrs.frozen(kw_only=True)
class UidRange:
    """A range of uids, which are the gids, too."""

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
        raise ValueError(f"must be ascending, between 1 and {MAX_UID}, not {value!r}")
    return UidRange(first=first, last=last)


AUTO_USER: Final = "auto"
"""The setting's default: an unprivileged user where the service is root."""


@attrs.frozen(kw_only=True)
class ConfinementWish:
    """The confinement that the user asks for, of all VMs of a service."""

    user: str | int = AUTO_USER
    """The user that QEMU runs as."""
    uids: UidRange | None = None
    """Each VM's QEMU has a uid of its own from this range if the service is root and `user` is "auto". None: a default
    range, if one is available."""
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
    """How VMs are confined, and the reasons for missing layers."""

    states: tuple[LayerState, ...] = ()
    """Every possible layer, with its state."""
    lines: tuple[ConfinementLine, ...] = ()
