"""The stdin of a process, or its terminal: written as the process reads."""

from __future__ import annotations

import os

from .loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

_END_OF_FILE = b"\x04"
"""The character that a terminal in its usual mode takes for the end of its input."""


class Stdin:
    """Takes data from any number of senders, in the order of `send`. The senders bound how much is waiting."""

    def __init__(self, loop: Loop, fd: int, *, terminal: bool) -> None:
        self._loop = loop
        self._fd = fd
        self._terminal = terminal
        self._waiting: list[tuple[bytearray, Callable[[int], None]]] = []
        self._ending = False

    @property
    def fd(self) -> int:
        """-1 once closed."""
        return self._fd

    @property
    def open(self) -> bool:
        """Data that is sent now will be written, unless the process ends before."""
        return self._fd >= 0 and not self._ending

    def send(self, data: bytes, taken: Callable[[int], None]) -> None:
        """`taken` is called with counts that add up to the length, as bytes are written, or discarded: without a reader
        they are, like those sent after the end.
        """
        if self.open:
            self._waiting.append((bytearray(data), taken))
            self._write()
        else:
            taken(len(data))

    def end(self) -> None:
        """Closes it, after what was sent. A terminal stays open: its program gets an end of file."""
        if not self.open:
            return
        if self._terminal:
            self._waiting.append((bytearray(_END_OF_FILE), _nobody))
        else:
            self._ending = True
        self._write()

    def withdraw(self, taken: Callable[[int], None]) -> None:
        """Discards what this sender has waiting, without telling it."""
        self._waiting = [entry for entry in self._waiting if entry[1] != taken]
        if self._fd >= 0:
            self._watch()

    def close(self) -> None:
        """Discards what is waiting, and tells the senders. Idempotent."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
        waiting, self._waiting = self._waiting, []
        for data, taken in waiting:
            taken(len(data))

    def _write(self) -> None:
        while self._fd >= 0 and self._waiting:
            data, taken = self._waiting[0]
            try:
                with memoryview(data) as view:
                    written = os.write(self._fd, view)
            except BlockingIOError:
                break
            except OSError:
                # A pipe without a reader, or a terminal that nobody has open.
                self.close()
                return
            if written == len(data):
                self._waiting.pop(0)
            else:
                del data[:written]
            taken(written)
        if self._fd >= 0:
            self._watch()

    def _watch(self) -> None:
        if self._waiting:
            if not self._loop.watching(self._fd):
                self._loop.watch(self._fd, WRITE, lambda _events: self._write())
        elif self._ending:
            self.close()
        else:
            self._loop.unwatch(self._fd)


def _nobody(_count: int) -> None:
    pass
