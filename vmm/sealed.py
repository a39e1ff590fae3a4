"""Copies of files that any process that is given one may open, and none can change.

QEMU before 8.2 opens the file of its memory for writing even where it maps it privately. A file on disk would have to
be writable by every clone, and a clone whose guest has taken over QEMU could change what all later clones start with.
A sealed memfd may be opened for writing, but refuses writes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path
from typing import Final

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_CHUNK: Final = 2**21
_PAGE: Final = 4096
_ZEROS: Final = bytes(_CHUNK)


class SealedMemory:
    """A memfd, closed with the last reference to this object. Its memory lives as long as any process maps it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def copy_of(cls, path: Path) -> SealedMemory:
        """Copies a file, without its zero pages, which take no memory. Blocks. Raises OSError."""
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls.copy_of_open(source)
        finally:
            os.close(source)

    @classmethod
    def copy_of_open(cls, source: int) -> SealedMemory:
        """As `copy_of`, of an open file; the descriptor stays the caller's."""
        memory = cls(os.memfd_create("vmpool-sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(memory.fileno(), os.fstat(source).st_size)
        _copy(source, memory.fileno())
        fcntl.fcntl(memory.fileno(), fcntl.F_ADD_SEALS, _SEALS)
        return memory

    def fileno(self) -> int:
        return self._descriptor


def _copy(source: int, target: int) -> None:
    position = 0
    while (start := _next_data(source, position)) is not None:
        position = start - start % _PAGE
        chunk = os.pread(source, _CHUNK, position)
        if chunk != _ZEROS[: len(chunk)]:
            _copy_pages(chunk, target, position)
        position += len(chunk)


def _copy_pages(chunk: bytes, target: int, position: int) -> None:
    view, zeros = memoryview(chunk), memoryview(_ZEROS)
    for offset in range(0, len(chunk), _PAGE):
        page = view[offset : offset + _PAGE]
        if page != zeros[: len(page)]:
            os.pwrite(target, page, position + offset)


def _next_data(descriptor: int, position: int) -> int | None:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return None
        raise
