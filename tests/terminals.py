"""A program at a terminal of its own, as somebody sits there: types, reads, changes the window's size."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import attrs
import trio

LIMIT_S: Final = 30


@attrs.define(eq=False)
class AtTerminal:
    """Made by `at_terminal`. What is shown is read as it comes, so the program never waits for its reader."""

    process: trio.Process
    _master: int
    shown: bytearray = attrs.field(factory=bytearray)
    """All of it, and no more than `until` has left of it."""
    _news: trio.Event = attrs.field(factory=trio.Event)
    _closed: bool = False

    async def type(self, text: str | bytes) -> None:
        await trio.lowlevel.wait_writable(self._master)
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    async def until(self, pattern: str) -> re.Match[bytes]:
        """Waits until a regular expression matches what is shown; what is up to there will not match again."""
        wanted = re.compile(pattern.encode(), re.DOTALL)
        with trio.move_on_after(LIMIT_S):
            while True:
                if found := wanted.search(bytes(self.shown)):
                    del self.shown[: found.end()]
                    return found
                if self._closed:
                    break
                self._news = trio.Event()
                await self._news.wait()
        raise AssertionError(f"{pattern!r} is not shown, but:\n{self.shown.decode(errors='backslashreplace')}")

    def resize(self, *, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def is_raw(self) -> bool:
        """Whether each key is the program's, Ctrl-C included."""
        flags: int = termios.tcgetattr(self._master)[3]
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    async def ended(self) -> int:
        """The exit code, once the program has ended and all that it has shown is read."""
        with trio.fail_after(LIMIT_S):
            code = await self.process.wait()
            while not self._closed:
                self._news = trio.Event()
                await self._news.wait()
        return code

    def hang_up(self) -> None:
        """As if the window were closed."""
        os.close(self._master)
        self._master = -1

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._master)
            try:
                data = os.read(self._master, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                data = b""  # nobody has the terminal any more
            self.shown += data
            self._closed = not data
            self._news.set()
            if not data:
                return


@contextlib.asynccontextmanager
async def at_terminal(
    argv: Sequence[str], *, environment: Mapping[str, str], rows: int = 24, columns: int = 80
) -> AsyncIterator[AtTerminal]:
    """Runs a program as the leader of a session with a terminal, and kills it at the end of the block."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    try:
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", "env", "--default-signal=INT,QUIT,TSTP", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
        )
    finally:
        os.close(slave)
    terminal = AtTerminal(process, master)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal._read)
            yield terminal
            nursery.cancel_scope.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
        if terminal._master >= 0:
            os.close(terminal._master)
