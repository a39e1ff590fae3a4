"""Memory of the service for what commands read and write and nobody has read yet, by user. Counting only.

Who runs few commands gets the whole window for each of their streams, which is as fast as it goes; the more commands
one user runs, the smaller the windows of the next. A command that begins leaves enough for all that may still follow.
"""

from __future__ import annotations

from typing import Final

import attrs

from vmm.errors import NoRoomError
from vmm.guest.agent.wire import MAX_PAYLOAD, WINDOW

LEAST_WINDOW: Final = 16 * 1024

_WINDOWS: Final = (WINDOW, WINDOW // 2, WINDOW // 4, WINDOW // 8)
_STREAMS: Final = 3
_PIECES: Final = 2
"""On their way to a client that does not read: one as it came, one as a message."""


def cost(window: int) -> int:
    """Bytes that a command with such windows may take in the service."""
    return _STREAMS * window + _PIECES * min(window, MAX_PAYLOAD)


@attrs.define(eq=False, kw_only=True)
class OutputBudget:
    """What all commands of one user may take together."""

    uid: int
    limit: int
    most_commands: int
    """That the user may run at a time."""
    taken: int = 0
    commands: int = 0

    def begin(self, *, given: int) -> CommandRoom:
        """Room for one more command, until its `end`; `given` bytes of stdin come with its start. Raises NoRoomError
        if there is not even enough for the smallest windows.
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
    """One command's part. Fulfils `vmm.room.Room`."""

    budget: OutputBudget
    window: int
    _taken: int = attrs.field(default=0, init=False)

    def take(self, size: int) -> None:
        """Raises NoRoomError, and takes nothing then."""
        budget = self.budget
        if budget.taken + size > budget.limit:
            raise NoRoomError(
                f"a command that takes {size} bytes of the service's memory for what nobody has read, while those of "
                f"uid {budget.uid} take {budget.taken}, and may take {budget.limit} (limits.output_mib_per_user); read "
                "what others have written, or wait until some have ended"
            )
        budget.taken += size
        self._taken += size

    def end(self) -> None:
        """Gives all of it back; once, for what `OutputBudget.begin` returned."""
        self.budget.commands -= 1
        self.budget.taken -= self._taken
        self._taken = 0
