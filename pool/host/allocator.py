"""Returns freed memory that the C library keeps to the host after peaks.

glibc returns only the end of its heap. Memory that many calls have freed lies below a live allocation and stays with
the process, which then looks as if it leaked.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

GROWTH: Final = 8 * 2**20
"""Bytes of growth from which trimming the heap is worth its few milliseconds."""

_PAGE: Final = resource.getpagesize()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def trim() -> None:
    """Returns free memory to the host; does nothing where the C library lacks malloc_trim."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


@attrs.define(eq=False, kw_only=True)
class Surplus:
    """The growth of the process since it was smallest."""

    resident: Callable[[], int] = resident_bytes
    trim: Callable[[], None] = trim
    _least: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._least = self.resident()

    def give_back(self) -> bool:
        """Trims the heap if the process has grown by GROWTH; returns whether it did. Trimming blocks for some
        milliseconds and may free nothing, so the caller should not repeat it at once.
        """
        now = self.resident()
        self._least = min(self._least, now)
        if now < self._least + GROWTH:
            return False
        self.trim()
        return True
