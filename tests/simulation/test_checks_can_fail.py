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
    "AnswersNobodyTooLate": 2,
    "sweep_nothing": 12,
    "sweep_all": 6,
    "RecordsNothing": 6,
    "SaysThatItHasRecordedRenewals": 26,
    "recover_without_keys": 6,
    "counts from one": 6,
    "GivesUpSilentGuests": 9,
    "ForgetsLeasesThatAreRenewed": 2,
    "forget_processes": 69,
    "forget_output": 69,
    "forget_files": 10,
    "AsksNotWhoItIs": 8,
}
"""By fault, a seed that shows it if the first does not: it is tried before the others. A seed is as good as the
simulation draws the same, so the others are tried if it shows nothing any more. VMPOOL_SEARCH=1 tries them in order."""

FAULTS = [(check, parts) for check, several in BROKEN.items() for parts in several]


def seeds(fault: str) -> Iterator[int]:
    kept = [KEPT[fault]] if fault in KEPT and "VMPOOL_SEARCH" not in os.environ else []
    return itertools.chain(kept, range(MOST))


@pytest.mark.parametrize(("check", "parts"), FAULTS, ids=[f"{check}-{parts.name}" for check, parts in FAULTS])
def test_the_check_notices_its_fault(check: str, parts: Parts) -> None:
    for seed in seeds(parts.name):
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
