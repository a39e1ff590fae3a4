"""Accounts, by user, for the service's memory for what guests and callers have not read yet: output and stdin of
commands, content of files, data of connections.

A user with few streams gets the whole window for each of their directions, for full speed; the more streams a user has,
the smaller the windows of the next one. A new stream leaves room for all that the user may still open.
"""

from __future__ import annotations

from typing import Final

import attrs

from vmm.errors import NoRoomError
from vmm.guest.agent.wire import MAX_PAYLOAD
from vmm.words.commands import WINDOW

LEAST_WINDOW: Final = 16 * 1024

_WINDOWS: Final = (WINDOW, WINDOW // 2, WINDOW // 4, WINDOW // 8)
_DIRECTIONS: Final = 3
"""Of a command: stdin, stdout, stderr. Other streams have fewer."""
_PIECES: Final = 2
"""On their way to a client that does not read: one as received, one as a message."""


def cost(window: int) -> int:
    """Bytes of the service's memory that a stream with such windows may take."""
    return _DIRECTIONS * window + _PIECES * min(window, MAX_PAYLOAD)


@attrs.define(eq=False, kw_only=True)
class OutputBudget:
    """The memory for all streams of one user together."""

    uid: int
    limit: int
    most_streams: int
    """Streams that the user may have at a time."""
    taken: int = 0
    streams: int = 0

    def begin(self, *, given: int) -> GuestRoom:
        """Room for one more stream, until its `end`; `given` bytes of stdin come with a command's start. Raises
        NoRoomError if there is not enough for the smallest windows.
        """
        window = self._window()
        room = GuestRoom(budget=self, window=window)
        room.take(cost(window) + max(0, given - window))
        self.streams += 1
        return room

    def _window(self) -> int:
        least = cost(LEAST_WINDOW)
        spare = self.limit - self.taken - least * max(1, self.most_streams - self.streams)
        return next((window for window in _WINDOWS if 2 * (cost(window) - least) <= spare), LEAST_WINDOW)


@attrs.define(eq=False, kw_only=True)
class GuestRoom:
    """The share of one command, file or connection. Fulfils `vmm.words.commands.Room`."""

    budget: OutputBudget
    window: int
    _taken: int = attrs.field(default=0, init=False)

    def take(self, size: int) -> None:
        """Raises NoRoomError without taking anything if there is not enough."""
        budget = self.budget
        if budget.taken + size > budget.limit:
            raise NoRoomError(
                f"{size} bytes of memory are needed for unread data; commands, files and ports of uid {budget.uid} "
                f"take {budget.taken}, and the maximum is {budget.limit} (limits.output_mib_per_user); read what the "
                "others have, or wait until some have ended"
            )
        budget.taken += size
        self._taken += size

    def end(self) -> None:
        """Returns the memory to the budget; to be called once."""
        self.budget.streams -= 1
        self.budget.taken -= self._taken
        self._taken = 0
