"""Our standard streams, as we found them: closed, full, without a reader, of any encoding. Imports little."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, TextIO

STDOUT: Final = 1
STDERR: Final = 2


class NobodyReadsError(Exception):
    """Whoever read our output has closed it. Not an OSError: click would make exit code 1 of that."""


def reserve_standard_descriptors() -> None:
    """Closed ones stay of no use, but are taken: else the next thing opened, a socket say, would pass for stdout."""
    for descriptor, useless_mode in ((0, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, useless_mode)  # the lowest free number: this one


def prepare_output() -> None:
    """Sees to it that both are there, and take any text: what an encoding has not is written out, as Python does.

    Of those that were closed when we were started Python makes none, and prints nothing, with success.
    """
    sys.stdout = _prepared(sys.stdout, STDOUT)
    sys.stderr = _prepared(sys.stderr, STDERR)


def _prepared(found: Any, descriptor: int) -> TextIO:
    stream: TextIO = found or open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it is never closed
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def flush_or_abandon_output() -> None:
    """Else the interpreter would try once more at its end, and make the exit code its own."""
    for stream, descriptor in ((sys.stdout, STDOUT), (sys.stderr, STDERR)):
        try:
            stream.flush()
        except OSError:
            abandon(descriptor)


def abandon(descriptor: int) -> None:
    """Nobody waits for what has not been written by now."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
