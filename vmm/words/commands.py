"""Commands in the guest: what is asked for, what comes of it, and how much of that may lie in the host's memory."""

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
        """Bytes of each of its streams that nobody has read; at most WINDOW."""

    def take(self, size: int) -> None:
        """So many bytes on top of that, until the command is closed. Raises NoRoomError, and takes nothing then."""


class _Whole:
    window: Final = WINDOW

    def take(self, size: int) -> None:
        """There is always enough."""


WHOLE: Final[Room] = _Whole()
"""Of a command that nobody counts."""


MAX_GOT_FILE = 64 * 2**20
"""Bytes of a guest's file that the host takes into its memory, unless somebody says otherwise."""


MAX_GIVEN_STDIN = 256 * 1024
"""What a command may be given with its start; it travels as one piece."""


@attrs.frozen(kw_only=True)
class CommandSpec:
    """A command to run in the guest."""

    argv: Sequence[str]
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Added to the guest's default environment, see `Preparation.environment`."""
    working_directory: str | None = None
    time_limit_s: float | None = None
    """The agent kills the command and all that it has started with SIGKILL after this, as far as it can: in a guest
    without cgroups it is the process group, over qemu-ga the process."""
    stdin: bytes | None = attrs.field(default=None, repr=False, validator=optional(max_len(MAX_GIVEN_STDIN)))
    """All that its stdin has, at most MAX_GIVEN_STDIN bytes. None: what `Command.send_stdin` sends."""
    room: Room = attrs.field(default=WHOLE, repr=False, eq=False)
    """For what nobody has read of its streams."""


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
    """The time limit ended it (signal is SIGKILL then)."""
    out_of_memory: bool = False
    """The guest's kernel killed it because memory was short, or, where its status is 137 as a shell's, something while
    it ran. qemu-ga does not tell."""
