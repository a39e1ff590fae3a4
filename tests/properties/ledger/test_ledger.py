"""Whatever happens in whatever order, the ledger keeps its invariants: see `invariants`, `conduct` and `machine`."""

from __future__ import annotations

from tests.examples import examples
from tests.properties.ledger.machine import LedgerMachine

TestLedger = LedgerMachine.TestCase
TestLedger.settings = examples(200, stateful_step_count=60)
