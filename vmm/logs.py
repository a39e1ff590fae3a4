"""A VM's logs, which its guest can write to: created, read as evidence, and kept from filling the host's disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from vmm.files import open_regular

MAX_LOG_BYTES = 1024 * 1024
CHECK_INTERVAL_S = 30.0
"""An emulated UART passes some 100 kB/s, so that a hostile guest writes at most a few MB between two checks."""

TAIL_BYTES = 4096


@contextlib.contextmanager
def new_log(path: Path) -> Iterator[int]:
    """A new file, mode 0600, open for appending within the block. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_tail(path: Path, *, limit: int = TAIL_BYTES) -> str:
    """The last `limit` bytes of a log, as evidence; empty if the file does not exist.

    Never raises OSError, so that gathering evidence does not disturb the handling of the failure.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - limit))
            return log.read(limit).decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"


class LogLimiter:
    """Truncates logs that have grown too long. Their writers append, and go on at the beginning."""

    def __init__(self, paths: Sequence[Path], *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._paths = tuple(paths)
        self._max_bytes = max_bytes
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Limits the logs until `aclose`; a background task, which never raises."""
        with self._scope:
            while True:
                await trio.sleep(CHECK_INTERVAL_S)
                self._check()

    async def aclose(self) -> None:
        """Ends `run`. Not a checkpoint."""
        self._scope.cancel(reason="the logs' VM has ended")

    def _check(self) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):  # gone with its VM, or retried next time
                if path.stat().st_size > self._max_bytes:
                    os.truncate(path, 0)
