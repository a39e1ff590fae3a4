"""The soak judges: a sound service does not grow, and one that keeps something of each lease is noticed."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import attrs
import pytest

from pool.core.coordinator import Coordinator
from tests.simulation.soak import NEW_TABLE_KIB, Sample, SoakReport, soak, trace_interned_strings


def report(*sizes: float) -> SoakReport:
    samples = tuple(
        Sample(cycles=number, traced_kib=size, objects=1000, rss_kib=1000.0, descriptors=7)
        for number, size in enumerate(sizes)
    )
    return SoakReport(cycles=len(sizes), took_s=1.0, samples=samples)


def test_what_goes_up_and_down_is_sound() -> None:
    assert report(*[1000.0, 1010.0] * 20).sound


def test_what_fills_up_first_and_stays_so_is_sound() -> None:
    assert report(*range(100, 1000, 100), *[1000.0] * 30).sound


def test_what_goes_on_growing_is_not_sound() -> None:
    assert not report(*range(1000, 2000, 25)).sound


def test_descriptors_must_not_change() -> None:
    sound = report(*[1000.0] * 40)
    more = attrs.evolve(sound.samples[-1], descriptors=8)
    assert not attrs.evolve(sound, samples=(*sound.samples, more)).sound


def test_strings_that_come_and_go_are_no_growth() -> None:
    """As many as the paths of a soak have."""
    tracemalloc.start()
    try:
        trace_interned_strings()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            sys.intern(f"vm-{number:012}")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert abs(after - before) < NEW_TABLE_KIB * 1024


@attrs.define(eq=False, kw_only=True)
class KeepsLeases(Coordinator):
    kept: list[Any] = attrs.field(factory=list)

    async def release(self, lease_id: str, **options: Any) -> None:
        self.kept.append([lease_id] * 100)
        await super().release(lease_id, **options)


@pytest.mark.parametrize(("coordinator", "grows"), [(Coordinator, False), (KeepsLeases, True)])
def test_a_short_soak(coordinator: type[Coordinator], grows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, so fewer leases that have ended are remembered; and what varies by itself is more of the whole."""
    monkeypatch.setattr("pool.ledger.leases.REMEMBERED_LEASES", 50)
    measured = soak(600, make_coordinator=coordinator)
    assert (measured.drift("traced_kib") > 0.1) is grows, str(measured)
    assert measured.descriptors_constant
