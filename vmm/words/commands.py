"""Commands in the guest: the request, the output and exit, and the limits on the host's memory."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import attrs
from attrs.validators import max_len, optional

WINDOW: Final = 256 * 1024
"""Most unread bytes of one stream of a command: `vmm.guest.agent.wire`, which runs in the guest and imports nothing of
ours, has the same number."""


class Room(Protocol):
    """One command's share of the host's memory."""

    @property
    def window(self) -> int:
        """The most unread bytes of each of its streams; at most WINDOW."""

    def take(self, size: int) -> None:
        """Takes more bytes, until the command is closed. On NoRoomError nothing is taken."""


class _Whole:
    window: Final = WINDOW

    def take(self, size: int) -> None:
        """Never raises."""


WHOLE: Final[Room] = _Whole()
"""The room of a command that is not limited."""


MAX_GOT_FILE = 64 * 2**20
"""Bytes of a guest's file that the host reads into memory, unless the caller sets another limit."""


MAX_GIVEN_STDIN = 256 * 1024
"""Bytes of stdin that a command may be given with its start, in one piece."""


@attrs.frozen(kw_only=True)
class TerminalSize:
    rows: int = 24
    columns: int = 80


@attrs.frozen(kw_only=True)
class Terminal:
    """A terminal of its own, as stdin, stdout and stderr; all output is stdout."""

    size: TerminalSize = TerminalSize()
    term: str = "xterm-256color"
    """TERM in the environment."""


@attrs.frozen(kw_only=True)
class ResourceLimit:
    """As setrlimit(2) has it; None for no limit."""

    name: str
    """One of LIMIT_NAMES."""
    soft: int | None
    hard: int | None


LIMIT_NAMES: Final = frozenset({"nofile", "cpu", "as", "core", "data", "fsize", "memlock", "nproc", "rss", "stack"})


@attrs.frozen(kw_only=True)
class CommandSpec:
    """A command to run in the guest."""

    argv: Sequence[str]
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Added to the guest's default environment, see `Preparation.environment`."""
    working_directory: str | None = None
    time_limit_s: float | None = None
    """After this the agent kills the command and all its descendants with SIGKILL; in a guest without cgroups only its
    process group, over qemu-ga only the process."""
    stdin: bytes | None = attrs.field(default=None, repr=False, validator=optional(max_len(MAX_GIVEN_STDIN)))
    """The whole of its stdin, at most MAX_GIVEN_STDIN bytes. None: `Command.send_stdin` sends it."""
    room: Room = attrs.field(default=WHOLE, repr=False, eq=False)
    """For its unread output."""
    user: str = ""
    """Name or number in the guest; empty for root. HOME, USER and LOGNAME match it, and so do its groups."""
    groups: tuple[str, ...] = ()
    """In place of the user's own; the first is the primary one."""
    limits: tuple[ResourceLimit, ...] = ()
    terminal: Terminal | None = None
    leave_children: bool = False
    """What it has started is left running when it ends, and not killed. Over qemu-ga, and without cgroups, it always
    is."""


class OutputStream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@attrs.frozen(kw_only=True)
class Output:
    stream: OutputStream
    data: bytes


@attrs.frozen(kw_only=True)
class CommandExit:
    """How a command ended: exactly one of `status` and `signal` is set."""

    status: int | None = None
    signal: int | None = None
    timed_out: bool = False
    """The time limit ended the command; signal is then SIGKILL."""
    out_of_memory: bool = False
    """The guest's kernel killed the command because memory was short or, if the status is 137 as a shell's, some
    process while it ran. qemu-ga does not report it."""
