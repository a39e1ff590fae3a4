"""Accounts, by user, for the service's memory for unread output and stdin of commands.

A user with few commands gets the whole window for each of their streams, for full speed; the more commands a user runs,
the smaller the windows of the next one. A new command leaves room for all that the user may still start.
"""

from __future__ import annotations

from typing import Final

import attrs

from vmm.errors import NoRoomError
from vmm.guest.agent.wire import MAX_PAYLOAD
from vmm.words.commands import WINDOW

LEAST_WINDOW: Final = 16 * 1024

_WINDOWS: Final = (WINDOW, WINDOW // 2, WINDOW // 4, WINDOW // 8)
_STREAMS: Final = 3
_PIECES: Final = 2
"""On their way to a client that does not read: one as received, one as a message."""


def cost(window: int) -> int:
    """Bytes of the service's memory that a command with such windows may take."""
    return _STREAMS * window + _PIECES * min(window, MAX_PAYLOAD)


@attrs.define(eq=False, kw_only=True)
class OutputBudget:
    """The memory for all commands of one user together."""

    uid: int
    limit: int
    most_commands: int
    """Commands that the user may run at a time."""
    taken: int = 0
    commands: int = 0

    def begin(self, *, given: int) -> CommandRoom:
        """Room for one more command, until its `end`; `given` bytes of stdin come with its start. Raises NoRoomError
        if there is not enough for the smallest windows.
        """
        window = self._window()
        room = CommandRoom(budget=self, window=window)
        room.take(cost(window) + max(0, given - window))
        self.commands += 1
        return room

    def _window(self) -> int:
        least = cost(LEAST_WINDOW)
        spare = self.limit - self.taken - least * max(1, self.most_commands - self.commands)
        return next((window for window in _WINDOWS if 2 * (cost(window) - least) <= spare), LEAST_WINDOW)


@attrs.define(eq=False, kw_only=True)
class CommandRoom:
    """One command's share. Fulfils `vmm.words.commands.Room`."""

    budget: OutputBudget
    window: int
    _taken: int = attrs.field(default=0, init=False)

    def take(self, size: int) -> None:
        """Raises NoRoomError without taking anything if there is not enough."""
        budget = self.budget
        if budget.taken + size > budget.limit:
            raise NoRoomError(
                f"the command needs {size} bytes of memory for unread data; commands of uid {budget.uid} take "
                f"{budget.taken}, and the maximum is {budget.limit} (limits.output_mib_per_user); read the output of "
                "other commands, or wait until some have ended"
            )
        budget.taken += size
        self._taken += size

    def end(self) -> None:
        """Returns the memory to the budget; to be called once."""
        self.budget.commands -= 1
        self.budget.taken -= self._taken
        self._taken = 0
