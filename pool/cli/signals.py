"""Signal handling of a command that talks to the service.

The first signal ends the command in good order, or is passed on to the guest's command. The second one ends the process
at once, and the service then takes back the leases that it held open. The handler itself exits, since the process may
be waiting for a guest that does not answer, or for the reader of its output.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
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
    _last: Callable[[], None] | None = None
    """What is to be done when the process ends at once."""

    @property
    def exit_code(self) -> int:
        """Of the signal that ended the block, as in a shell."""
        assert self._first is not None
        return 128 + self._first

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Handles signals during a block. The first one cancels the block, which raises SignalledError, unless signals
        are `forwarded`.

        Ignored signals stay ignored, as nohup and a shell's background jobs expect.
        """
        token = trio.lowlevel.current_trio_token()

        def take(number: int, _frame: FrameType | None) -> None:
            if self._first is not None:
                if self._last is not None:
                    self._last()
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
        """During a block, the first signal is sent to this channel instead."""
        self._taker, received = trio.open_memory_channel[int](1)
        with self._taker, received:
            try:
                yield received
            finally:
                self._taker = None

    @contextlib.contextmanager
    def before_exit(self, do: Callable[[], None]) -> Iterator[None]:
        """If a second signal ends the process during a block, this is done before."""
        self._last = do
        try:
            yield
        finally:
            self._last = None

    def _tell(self) -> None:
        assert self._first is not None
        if self._taker is None:
            self._scope.cancel(reason="a signal came")
        else:
            self._taker.send_nowait(self._first)
