"""Every check of the ledger is worth its name: with it alone, the state machine finds the fault it is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pool.ledger import Ledger
from tests.properties.ledger.broken_ledgers import BROKEN
from tests.properties.ledger.conduct import CONDUCT_CHECKS, STEP_CHECKS
from tests.properties.ledger.invariants import STATE_CHECKS, ViolationError
from tests.properties.ledger.machine import LedgerMachine

FEW = settings(
    max_examples=2000,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def machine_with(ledger: Callable[..., Ledger], *, only: str) -> type[LedgerMachine]:
    class BrokenLedgerMachine(LedgerMachine):
        make_ledger = ledger

    BrokenLedgerMachine.only = {only}
    return BrokenLedgerMachine


FAULTS = [(check, ledger) for check, ledgers in BROKEN.items() for ledger in ledgers]


@pytest.mark.parametrize(("check", "ledger"), FAULTS, ids=[f"{check}-{ledger.__name__}" for check, ledger in FAULTS])
def test_the_check_notices_its_fault(check: str, ledger: type[Ledger]) -> None:
    with pytest.raises(ViolationError) as caught:
        run_state_machine_as_test(machine_with(ledger, only=check), settings=FEW)
    assert caught.value.check == check


def test_every_check_has_a_fault_that_it_notices() -> None:
    assert {check.__name__ for check in (*STATE_CHECKS, *CONDUCT_CHECKS, *STEP_CHECKS)} <= set(BROKEN)
