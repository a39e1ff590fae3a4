"""What one process takes, and whether that grows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import attrs

WARM_UP: Final = 0.2
"""The part of a run in which tables and caches fill up."""

MAX_DRIFT: Final = 0.02
"""Of memory, between the halves. The service remembers some thousand ended leases: that is in it."""


@attrs.frozen(kw_only=True)
class Sample:
    """Of a service at rest."""

    cycles: int
    """So many were done before."""
    pss_kib: int
    rss_kib: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, *, cycles: int) -> Self:
        process = Path(f"/proc/{pid}")
        rollup, status = (process / "smaps_rollup").read_text(), (process / "status").read_text()
        return cls(
            cycles=cycles,
            pss_kib=_number("Pss", rollup),
            rss_kib=_number("Rss", rollup),
            descriptors=len(list((process / "fd").iterdir())),
            threads=_number("Threads", status),
        )


def _number(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found is not None, f"no {name} in {text!r}"
    return int(found[1])


@attrs.frozen(kw_only=True)
class Drift:
    """From the first half, without the warm-up, to the second. Memory as a part of what it was."""

    pss: float
    rss: float
    descriptors: int
    threads: int

    @property
    def faults(self) -> list[str]:
        faults = [
            f"{name} grew by {part:.1%}" for name, part in (("PSS", self.pss), ("RSS", self.rss)) if part > MAX_DRIFT
        ]
        return faults + [
            f"{number} {name} more"
            for name, number in (("descriptors", self.descriptors), ("threads", self.threads))
            if number > 0
        ]


def drift(samples: Sequence[Sample]) -> Drift:
    """Medians, so that one busy moment does not decide; of descriptors the most that there was."""
    warm = samples[round(len(samples) * WARM_UP) :]
    first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]

    def middle(half: Sequence[Sample], name: str) -> float:
        return statistics.median(float(getattr(sample, name)) for sample in half)

    def most(half: Sequence[Sample], name: str) -> int:
        return max(int(getattr(sample, name)) for sample in half)

    return Drift(
        pss=middle(second, "pss_kib") / middle(first, "pss_kib") - 1,
        rss=middle(second, "rss_kib") / middle(first, "rss_kib") - 1,
        descriptors=most(second, "descriptors") - most(first, "descriptors"),
        threads=round(middle(second, "threads") - middle(first, "threads")),
    )
