"""How much memory of a process is in use, at the most, while something is done."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final, Self

MOST_GROWTH_MIB: Final = 32
"""Of the service and of its client, each, while a file of any size is carried."""

_PERIOD_S: Final = 0.02


class Peak:
    """Of the block, beside what was in use at its beginning."""

    def __init__(self, pid: int | None = None) -> None:
        """This process unless `pid` is given."""
        self._statm = Path(f"/proc/{pid or os.getpid()}/statm")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._before = self._most = 0

    @property
    def growth_mib(self) -> float:
        return (self._most - self._before) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def __enter__(self) -> Self:
        self._before = self._most = self._resident()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self._most = max(self._most, self._resident())

    def _resident(self) -> int:
        return int(self._statm.read_text().split()[1])
