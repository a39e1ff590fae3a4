"""The whole service, in virtual time, against whatever a seed comes up with: every promise is kept, nothing is left."""

from __future__ import annotations

import pytest

from tests.examples import FACTOR
from tests.simulation.simulation import simulate

BATCH = 10
BATCHES = max(1, round(24 * FACTOR))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        violation = simulate(seed).violation
        if violation is not None:
            violation.add_note("\n".join(violation.tail))
            violation.add_note(f"replay it: scripts/simulate 1 {seed}")
            raise violation
