"""Every check of the simulation is worth its name: with it alone, the fault that it is there for is found."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.simulation.broken import BROKEN
from tests.simulation.simulation import Parts, simulate

MOST = 300
"""Seeds that are tried. Most faults show in the first few; some need a service to be killed at the right moment."""

KEPT: Final = {
    "requests_are_answered_in_time": 1,
    "no_vm_without_an_owner": 8,
    "nothing_is_left": 8,
    "no_lease_without_a_vm": 3,
    "leases_survive_the_service": 3,
    "no_vm_is_handed_out_twice": 3,
    "no_vm_is_leased_twice": 3,
    "leases_keep_their_time": 8,
    "no_lease_changes": 3,
    "no_lease_is_forgotten": 1,
}
"""By check, a seed that shows its fault if the first does not: it is tried before the others. A seed is as good as the
simulation draws the same, so the others are tried if it shows nothing any more. VMPOOL_SEARCH=1 tries them in order."""

FAULTS = [(check, parts) for check, several in BROKEN.items() for parts in several]


def seeds(check: str) -> Iterator[int]:
    kept = [KEPT[check]] if check in KEPT and "VMPOOL_SEARCH" not in os.environ else []
    return itertools.chain(kept, range(MOST))


@pytest.mark.parametrize(("check", "parts"), FAULTS, ids=[f"{check}-{parts.name}" for check, parts in FAULTS])
def test_the_check_notices_its_fault(check: str, parts: Parts) -> None:
    for seed in seeds(check):
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
