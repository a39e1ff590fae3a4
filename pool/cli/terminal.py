"""This process's terminal while a guest has it: raw, so that each key, Ctrl-C included, is the guest's."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import attrs
import trio

from pool.cli.signals import Signals
from pool.cli.streams import STDOUT
from vmpool import Terminal

_STDIN: Final = 0
_CHUNK: Final = 64 * 1024

FALLBACK: Final = os.terminal_size((80, 24))
"""For output that is no terminal, or one that does not know its size."""


def is_terminal() -> bool:
    """Whether somebody types here."""
    return os.isatty(_STDIN)


def terminal_like_ours() -> Terminal:
    """For a guest: of the size and kind of this process's, if it has one."""
    size = _size()
    return Terminal(rows=size.lines, columns=size.columns, term=os.environ.get("TERM", ""))


def _size() -> os.terminal_size:
    for descriptor in (_STDIN, STDOUT):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:  # no terminal
            continue
        if size.lines and size.columns:
            return size
    return FALLBACK


@attrs.define(eq=False)
class RawTerminal:
    """Made by `raw_terminal`."""

    _before: list[Any] = attrs.field(factory=lambda: termios.tcgetattr(_STDIN))
    _raw: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        size = _size()
        return size.lines, size.columns

    async def read(self) -> bytes:
        """The next keys; nothing once the terminal has hung up."""
        await trio.lowlevel.wait_readable(_STDIN)
        try:
            return os.read(_STDIN, _CHUNK)
        except OSError:  # EIO
            return b""

    def enter(self) -> None:
        """Makes it raw. As long as this process is in the background, the kernel stops it here."""
        if not self._raw:
            tty.setraw(_STDIN, termios.TCSANOW)
            self._raw = True

    def restore(self) -> None:
        """Back to how it was; nothing if it is another process's by now, or gone."""
        if self._raw:
            self._raw = False
            with contextlib.suppress(OSError, termios.error):
                if os.tcgetpgrp(_STDIN) == os.getpgrp():
                    termios.tcsetattr(_STDIN, termios.TCSANOW, self._before)

    def suspend(self) -> None:
        """Stops this job, as Ctrl-Z does, and returns when it goes on."""
        self.restore()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self.enter()

    async def follow(self, resize: Callable[[int, int], Awaitable[None]]) -> None:
        """Tells rows and columns whenever they may have changed: the window did, or this job goes on after a stop.
        Does not end.
        """
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT) as numbers:
            async for number in numbers:
                if number == signal.SIGTSTP:
                    self.suspend()
                elif number == signal.SIGCONT:
                    self._raw = False  # whoever had the terminal meanwhile has made it as they like it
                    self.enter()
                await resize(*self.size)


@contextlib.contextmanager
def raw_terminal(signals: Signals) -> Iterator[RawTerminal]:
    """The terminal of stdin, raw for a block, and restored however the block or, by a signal, the process ends."""
    terminal = RawTerminal()
    with signals.before_exit(terminal.restore):
        try:
            terminal.enter()
            yield terminal
        finally:
            terminal.restore()
