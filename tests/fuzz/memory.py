"""Whether memory goes on growing, or only varies."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import attrs
from trio._core._run import GLOBAL_RUN_CONTEXT

WARM_UP: Final = 0.2
"""The part of a run in which tables and caches fill up: the service remembers thousands of ended leases, no more."""

MAX_OBJECTS_PER_INPUT: Final = 0.02
"""A leak that needs fifty inputs to leak one object is let pass; so is noise."""

MAX_RSS_MIB: Final = 4.0
"""Between the halves of a long run. An allocator's arenas vary by less."""

MIN_SAMPLES: Final = 20


@attrs.frozen(kw_only=True)
class MemorySample:
    inputs: int
    """So many were taken before."""
    objects: int
    """Known to the garbage collector, after a collection."""
    rss_mib: float

    @classmethod
    def take(cls, *, inputs: int) -> Self:
        # A cancel scope that has ended stays there until there are thousands of them; noise, which would hide a leak.
        GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(inputs=inputs, objects=len(gc.get_objects()), rss_mib=pages * 4096 / 2**20)


@attrs.frozen(kw_only=True)
class Growth:
    """From the first half, without the warm-up, to the second."""

    objects_per_input: float
    rss_mib: float

    @property
    def lasting(self) -> bool:
        return self.objects_per_input > MAX_OBJECTS_PER_INPUT or self.rss_mib > MAX_RSS_MIB

    def __str__(self) -> str:
        return f"{self.objects_per_input:+.4f} objects per input and {self.rss_mib:+.2f} MiB of RSS between the halves"


def growth(samples: Sequence[MemorySample]) -> Growth | None:
    """None for too short a run. Medians, so that one large table or one busy moment does not decide."""
    warm = samples[round(len(samples) * WARM_UP) :]
    if len(warm) < MIN_SAMPLES:
        return None
    first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]

    def middle(half: Sequence[MemorySample], name: str) -> float:
        return statistics.median(float(getattr(sample, name)) for sample in half)

    inputs = middle(second, "inputs") - middle(first, "inputs")
    return Growth(
        objects_per_input=(middle(second, "objects") - middle(first, "objects")) / inputs,
        rss_mib=middle(second, "rss_mib") - middle(first, "rss_mib"),
    )
