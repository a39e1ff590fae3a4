"""Bytes from one descriptor to another, in workers, which may wait."""

from __future__ import annotations

import errno
import os


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def carry(target: int, source: int, size: int) -> int | None:
    """Lets the kernel copy some bytes of a file, at most `size`, from where it is; how many, 0 at its end.

    None if the kernel cannot for such files, of which most of /proc are: they are to be read and written. Raises
    OSError.
    """
    try:
        return os.sendfile(target, source, None, size)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise
        return None
