"""How much of what a command reads and writes may lie in the host's memory."""

from __future__ import annotations

from typing import Final, Protocol

from vmm.guest.agent.wire import WINDOW


class Room(Protocol):
    """One command's share of the host's memory."""

    @property
    def window(self) -> int:
        """Bytes of each of its streams that nobody has read; at most `vmm.guest.agent.wire.WINDOW`."""

    def take(self, size: int) -> None:
        """So many bytes on top of that, until the command is closed. Raises NoRoomError, and takes nothing then."""


class _Whole:
    window: Final = WINDOW

    def take(self, size: int) -> None:
        """There is always enough."""


WHOLE: Final[Room] = _Whole()
"""Of a command that nobody counts."""
