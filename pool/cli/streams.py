"""Standard streams that may be closed, full, without a reader, or of any encoding. Imports little."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, TextIO

STDOUT: Final = 1
STDERR: Final = 2


class NobodyReadsError(Exception):
    """The reader of the output has closed it. Not an OSError, which click turns into exit code 1."""


def reserve_standard_descriptors() -> None:
    """Reserves closed standard descriptors, or the next file opened, such as a socket, would become stdout."""
    for descriptor, useless_mode in ((0, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, useless_mode)  # gets the lowest free number, which is this descriptor


def prepare_output() -> None:
    """Makes stdout and stderr exist and accept any text; characters outside their encoding are escaped.

    For a descriptor that is closed at start-up Python creates no stream, and then print succeeds without output.
    """
    sys.stdout = _prepared(sys.stdout, STDOUT)
    sys.stderr = _prepared(sys.stderr, STDERR)


def _prepared(found: Any, descriptor: int) -> TextIO:
    stream: TextIO = found or open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it is never closed
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def flush_or_abandon_output() -> None:
    """Or the interpreter would flush again at exit, and change the exit code if that fails."""
    for stream, descriptor in ((sys.stdout, STDOUT), (sys.stderr, STDERR)):
        try:
            stream.flush()
        except OSError:
            abandon(descriptor)


def abandon(descriptor: int) -> None:
    """Drops the output that has not been written yet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
