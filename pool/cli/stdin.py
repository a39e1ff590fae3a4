"""Our own stdin, for a command in a VM: given with its start, or passed on as it comes.

One that is closed, or not open for reading, has nothing to pass on. It is read in a thread: it may be a file, a pipe or
a terminal that others share, so it stays blocking.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

import trio

from pool.cli.output import OutputError
from vmm.words.commands import MAX_GIVEN_STDIN
from vmpool.client import RemoteCommand

_STDIN: Final = 0
_CHUNK: Final = 64 * 1024


async def known_stdin(*, all_of_it: bool) -> bytes | None:
    """What it has, if that is known before the command starts: always with `all_of_it`, which waits for its end; else
    only if it is a short file. None: it has to be passed on. Raises OutputError.
    """
    length = MAX_GIVEN_STDIN + 1 if all_of_it else _length_of_file()
    if length is None or (length > MAX_GIVEN_STDIN and not all_of_it):
        return None
    data = bytearray()
    while len(data) < length and (more := await _read(min(_CHUNK, length - len(data)))):
        data += more
    if len(data) > MAX_GIVEN_STDIN:
        raise OutputError(
            f"stdin has more than the {MAX_GIVEN_STDIN} bytes that can be given with the start; leave --stdin-first "
            "out, or have the command read a file"
        )
    return bytes(data)


async def forward_stdin(command: RemoteCommand) -> None:
    """Passes it on to its end. Raises OutputError."""
    while data := await _read(_CHUNK):
        await command.send_stdin(data)
    await command.close_stdin()


def _length_of_file() -> int | None:
    """None if it is no file, so that nobody knows."""
    try:
        about = os.fstat(_STDIN)
    except OSError:  # closed: _read will say the same
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


async def _read(count: int) -> bytes:
    try:
        return await trio.to_thread.run_sync(os.read, _STDIN, count, abandon_on_cancel=True)
    except OSError as error:
        if error.errno == errno.EBADF:
            return b""
        raise OutputError(f"stdin cannot be read: {error.strerror}") from error
