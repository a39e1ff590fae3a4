"""Looks for a history in which a check notices a fault: what Hypothesis plays against a ledger that is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pool.ledger.book import Ledger
from tests.properties.ledger.histories import History
from tests.properties.ledger.invariants import ViolationError
from tests.properties.ledger.machine import LedgerMachine

FEW: Final = settings(
    max_examples=2000,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def machine_with(ledger: Callable[..., Ledger], *, only: str | None = None) -> type[LedgerMachine]:
    class BrokenLedgerMachine(LedgerMachine):
        make_ledger = ledger

    BrokenLedgerMachine.only = None if only is None else {only}
    return BrokenLedgerMachine


def search(ledger: Callable[..., Ledger], *, check: str) -> History:
    """The first history that this check, alone, objects to. Raises if there is none."""
    found: list[History] = []

    class Watched(machine_with(ledger, only=check)):  # type: ignore[misc]
        def teardown(self) -> None:
            try:
                super().teardown()
            except ViolationError as violation:
                self.violation = violation
                raise
            finally:
                if self.violation is not None:
                    found.append(self.history)

    with pytest.raises(ViolationError) as caught:
        run_state_machine_as_test(Watched, settings=FEW)
    assert caught.value.check == check
    return found[0]


def notices(ledger: Callable[..., Ledger], history: History, *, check: str) -> bool:
    """Whether this check, alone, objects."""
    try:
        machine_with(ledger, only=check).replay(history)
    except ViolationError as violation:
        return violation.check == check
    return False
