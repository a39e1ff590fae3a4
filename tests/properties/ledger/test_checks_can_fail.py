"""Every check of the ledger is worth its name: with it alone, the fault that it is there for is noticed.

In a history that the state machine has come to, and that is kept; with VMPOOL_SEARCH=1 the machine looks for one, which
takes minutes.
"""

from __future__ import annotations

import os

import pytest

from tests.properties.ledger.broken_ledgers import BROKEN, faults
from tests.properties.ledger.conduct import CONDUCT_CHECKS, STEP_CHECKS
from tests.properties.ledger.drawing import details_of, drawable
from tests.properties.ledger.invariants import STATE_CHECKS, ViolationError
from tests.properties.ledger.kept import KEPT
from tests.properties.ledger.machine import LedgerMachine
from tests.properties.ledger.search import machine_with, search

SEARCH = "VMPOOL_SEARCH" in os.environ

RENEW = "`python -m tests.properties.ledger` looks for another history"

FAULTS = faults()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices_its_fault(fault: str) -> None:
    check, ledger = FAULTS[fault]
    history = search(ledger, check=check) if SEARCH else KEPT[fault]
    with pytest.raises(ViolationError) as caught:
        machine_with(ledger, only=check).replay(history)
    assert caught.value.check == check


@pytest.mark.parametrize("fault", FAULTS)
def test_a_ledger_without_the_fault_stands_the_same(fault: str) -> None:
    LedgerMachine.replay(KEPT[fault])


def test_the_machine_may_come_to_what_is_kept() -> None:
    possible = drawable(LedgerMachine)
    for fault, history in KEPT.items():
        assert set(details_of(history)) <= possible, f"{fault}: {RENEW}"


def test_a_history_is_kept_for_every_fault() -> None:
    assert KEPT.keys() == FAULTS.keys(), RENEW


def test_every_check_has_a_fault_that_it_notices() -> None:
    assert {check.__name__ for check in (*STATE_CHECKS, *CONDUCT_CHECKS, *STEP_CHECKS)} <= set(BROKEN)
