"""Keeps the files that a guest can write to from filling the host's disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import trio

MAX_LOG_BYTES = 1024 * 1024
CHECK_INTERVAL_S = 30.0
"""An emulated UART passes some 100 kB/s, so that a hostile guest gets to a few MB in between."""


class LogLimiter:
    """Empties logs that have grown too long. Their writers append, so they go on at the beginning."""

    def __init__(self, paths: Sequence[Path], *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._paths = tuple(paths)
        self._max_bytes = max_bytes
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Looks after the logs until `aclose`; a background task, which never raises."""
        with self._scope:
            while True:
                await trio.sleep(CHECK_INTERVAL_S)
                self._check()

    async def aclose(self) -> None:
        """Ends `run`. Not a checkpoint."""
        self._scope.cancel(reason="the logs' VM has ended")

    def _check(self) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):  # gone with its VM, or next time
                if path.stat().st_size > self._max_bytes:
                    os.truncate(path, 0)
