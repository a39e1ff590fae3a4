"""Every check of the simulation is worth its name: with it alone, the fault that it is there for is found."""

from __future__ import annotations

import pytest

from tests.simulation.broken import BROKEN
from tests.simulation.simulation import Parts, simulate

MOST = 300
"""Seeds that are tried. Most faults show in the first few; some need a service to be killed at the right moment."""

FAULTS = [(check, parts) for check, several in BROKEN.items() for parts in several]


@pytest.mark.parametrize(("check", "parts"), FAULTS, ids=[f"{check}-{parts.name}" for check, parts in FAULTS])
def test_the_check_notices_its_fault(check: str, parts: Parts) -> None:
    for seed in range(MOST):
        violation = simulate(seed, parts=parts, only={check}).violation
        if violation is not None:
            assert violation.check == check
            return
    pytest.fail(f"{check} did not notice {parts.name} in {MOST} seeds")


def test_every_check_has_a_fault_that_it_notices() -> None:
    made: set[str] = set()
    for seed in range(40):
        made |= simulate(seed).checked
    assert made == set(BROKEN)
