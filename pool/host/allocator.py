"""Memory that is free, and that the C library keeps: given back to the host after somebody needed much of it.

glibc returns the end of its heap only. What many calls left behind lies below something that lives on, and stays with
the process, which looks as if it had leaked.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

GROWTH: Final = 8 * 2**20
"""Bytes that are worth the look at the heap, which takes some milliseconds."""

_PAGE: Final = resource.getpagesize()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def trim() -> None:
    """Does nothing where the C library has no such function."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


@attrs.define(eq=False, kw_only=True)
class Surplus:
    """What the process has grown by since it was smallest."""

    resident: Callable[[], int] = resident_bytes
    trim: Callable[[], None] = trim
    _least: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._least = self.resident()

    def give_back(self) -> bool:
        """Whether the process has grown by GROWTH, and gave back what it could. That blocks for some milliseconds, and
        may have been for nothing: not to be done again at once.
        """
        now = self.resident()
        self._least = min(self._least, now)
        if now < self._least + GROWTH:
            return False
        self.trim()
        return True
