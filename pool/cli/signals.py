"""Signals of a command that talks to the service.

The first one ends it in good order, or is passed on to the guest's command that runs. The second one ends the process
wherever it stands: what it holds open, the service takes back. It does so in the handler itself, as the first one may
have been passed on to a guest that does not answer, or have come to a process that waits for whoever reads its output.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

import attrs
import trio

HEEDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class SignalledError(Exception):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")


@attrs.define(eq=False)
class Signals:
    """For one run of trio."""

    _first: int | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _taker: trio.MemorySendChannel[int] | None = None

    @property
    def exit_code(self) -> int:
        """As a shell says it, of the signal that ended the block."""
        assert self._first is not None
        return 128 + self._first

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """For the length of a block; the first signal cancels it unless it is `forwarded`. Raises SignalledError then.

        What is ignored stays so: nohup has it so, and a shell of its jobs in the background.
        """
        token = trio.lowlevel.current_trio_token()

        def take(number: int, _frame: FrameType | None) -> None:
            if self._first is not None:
                os._exit(128 + number)
            self._first = number
            token.run_sync_soon(self._tell)

        before = {number: signal.getsignal(number) for number in HEEDED}
        heeded = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        for number in heeded:
            signal.signal(number, take)
        try:
            with self._scope:
                yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])
        if self._scope.cancelled_caught:
            assert self._first is not None
            raise SignalledError(self._first)

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[trio.MemoryReceiveChannel[int]]:
        """For the length of a block the first signal comes here."""
        self._taker, received = trio.open_memory_channel[int](1)
        with self._taker, received:
            try:
                yield received
            finally:
                self._taker = None

    def _tell(self) -> None:
        assert self._first is not None
        if self._taker is None:
            self._scope.cancel(reason="a signal came")
        else:
            self._taker.send_nowait(self._first)
