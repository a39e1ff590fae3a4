"""Many seeds, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterator
from typing import Final

import attrs

from tests.simulation.simulation import simulate

CHUNK: Final = 10


@attrs.frozen(kw_only=True)
class Outcome:
    """Of one seed; `finding` is empty if nothing was found."""

    seed: int
    finding: str
    virtual_s: float = 0.0
    lines: int = 0
    leases: int = 0


def try_seed(seed: int) -> Outcome:
    try:
        report = simulate(seed)
    except BaseException:  # noqa: BLE001 - whatever it is, it is this seed that leads there
        return Outcome(seed=seed, finding=f"the simulation itself failed:\n{traceback.format_exc()}")
    finding = "" if report.violation is None else "\n".join((*report.violation.tail, str(report.violation)))
    return Outcome(seed=seed, finding=finding, virtual_s=report.virtual_s, lines=report.lines, leases=report.leases)


def outcomes(seeds: range) -> Iterator[Outcome]:
    """In the order in which they come."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        yield from pool.imap_unordered(try_seed, seeds, chunksize=CHUNK)
