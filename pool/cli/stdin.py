"""This process's stdin, for a command in a VM: sent with its start, or streamed.

A stdin that is closed or not open for reading counts as empty. It is read in a thread and stays blocking, since other
processes may share the file, pipe or terminal.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from typing import Final

import trio

from pool.cli.output import OutputError
from vmm.words.commands import MAX_GIVEN_STDIN

_STDIN: Final = 0
_CHUNK: Final = 64 * 1024


async def known_stdin(*, all_of_it: bool) -> bytes | None:
    """The content of stdin, if it can be sent with the command's start: with `all_of_it` always, after waiting for its
    end; otherwise only if it is a short file. None: stdin has to be streamed. Raises OutputError.
    """
    length = MAX_GIVEN_STDIN + 1 if all_of_it else _length_of_file()
    if length is None or (length > MAX_GIVEN_STDIN and not all_of_it):
        return None
    data = bytearray()
    while len(data) < length and (more := await _read(min(_CHUNK, length - len(data)))):
        data += more
    if len(data) > MAX_GIVEN_STDIN:
        raise OutputError(
            f"stdin: more than {MAX_GIVEN_STDIN} bytes, the maximum for --stdin-first; leave --stdin-first out, or "
            "have the command read a file"
        )
    return bytes(data)


async def stdin_pieces() -> AsyncIterator[bytes]:
    """Stdin as it comes, to its end. Raises OutputError."""
    while data := await _read(_CHUNK):
        yield data


def _length_of_file() -> int | None:
    """None if stdin is not a regular file."""
    try:
        about = os.fstat(_STDIN)
    except OSError:  # closed, as _read finds too
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


async def _read(count: int) -> bytes:
    try:
        return await trio.to_thread.run_sync(os.read, _STDIN, count, abandon_on_cancel=True)
    except OSError as error:
        if error.errno == errno.EBADF:
            return b""
        raise OutputError(f"cannot read stdin: {error.strerror}") from error
