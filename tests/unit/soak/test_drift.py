"""Growth is seen, and noise is not taken for it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.soak.drift import Drift, Sample, drift


def run(change: Callable[[int], dict[str, int]]) -> Drift:
    """25 measurements of a service that varies by half a percent, with what `change` adds to each."""
    rng = random.Random(1)
    flat = {"pss_kib": 60_000, "rss_kib": 70_000, "descriptors": 40, "threads": 3}
    samples = []
    for number in range(25):
        noise = rng.randrange(300)
        added = change(number)
        values = {name: value + added.get(name, 0) for name, value in flat.items()}
        values["pss_kib"] += noise
        values["rss_kib"] += noise
        samples.append(Sample(cycles=number, **values))
    return drift(samples)


def test_a_service_that_only_warms_up_does_not_drift() -> None:
    assert run(lambda number: {"pss_kib": min(number, 5) * 4000, "rss_kib": min(number, 5) * 4000}).faults == []


@pytest.mark.parametrize(
    ("grows", "said"),
    [
        ({"pss_kib": 150}, "PSS grew by"),
        ({"rss_kib": 170}, "RSS grew by"),
        ({"descriptors": 1}, "10 descriptors more"),
        ({"threads": 1}, "10 threads more"),
    ],
)
def test_what_grows_with_each_round_is_told(grows: dict[str, int], said: str) -> None:
    (fault,) = run(lambda number: {name: step * number for name, step in grows.items()}).faults
    assert fault.startswith(said)


def test_a_process_of_this_host_can_be_measured() -> None:
    sample = Sample.of(os.getpid(), cycles=0)
    assert 0 < sample.pss_kib <= sample.rss_kib
    assert sample.threads >= 1
    assert sample.descriptors >= 3
