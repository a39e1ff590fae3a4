"""How much a client may send that serves nothing."""

from __future__ import annotations

import pytest

from pool.rpc.flood import CAPACITY, REFILL_PER_S, RESET, TokenBucket, cost, earned_by
from pool.rpc.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameHead,
)


def spent(budget: TokenBucket, units: int, *, now: float = 0.0) -> int:
    """How many charges of so many units go well, of more than enough."""
    return sum(budget.charge(units, now=now) for _ in range(2 * CAPACITY))


def test_a_budget_is_spent_once_and_refills_with_time() -> None:
    budget = TokenBucket()
    assert spent(budget, 1) == CAPACITY
    assert not budget.charge(1, now=CAPACITY / REFILL_PER_S)  # it was overdrawn
    assert spent(budget, 1, now=1000.0) == CAPACITY


def test_no_more_than_the_capacity_is_kept() -> None:
    budget = TokenBucket()
    budget.charge(1, now=0.0)
    budget.earn(10**9)
    assert spent(budget, 1, now=10.0**9) == CAPACITY


def test_work_that_is_done_earns_back_what_goes_with_it() -> None:
    budget = TokenBucket()
    for _ in range(100 * CAPACITY):  # in no time at all
        budget.earn(earned_by(100))
        assert budget.charge(cost(head(WINDOW_UPDATE, size=4)) * 2 + cost(head(PING, size=8)), now=0.0)


@pytest.mark.parametrize(
    ("per_s", "units"),
    [(100, 1), (100, RESET)],
    ids=["pings while output comes", "calls given up by ten threads after a tenth of a second"],
)
def test_an_honest_client_may_go_on_for_ever(per_s: int, units: int) -> None:
    budget = TokenBucket()
    assert all(budget.charge(units, now=number / per_s) for number in range(100_000))


def test_all_calls_of_a_connection_may_be_given_up_at_once_several_times() -> None:
    assert spent(TokenBucket(), RESET) >= 5 * 100


def head(kind: int, *, flags: int = 0, size: int = 0) -> FrameHead:
    return FrameHead(kind, flags, 1, size)


@pytest.mark.parametrize(
    ("frame", "units"),
    [
        (head(DATA, size=16384), 0),
        (head(DATA, size=5), 0),
        (head(DATA, size=1), 1),
        (head(DATA), 1),
        (head(DATA, flags=END_STREAM), 0),
        (head(HEADERS, size=100), 0),
        (head(CONTINUATION, size=100), 1),
        (head(SETTINGS), 1),
        (head(SETTINGS, size=600), 101),
        (head(PING, size=8), 1),
        (head(PRIORITY, size=5), 1),
        (head(RST_STREAM, size=4), 1),
        (head(WINDOW_UPDATE, size=4), 1),
        (head(0x77, size=100), 1),
    ],
)
def test_what_carries_a_request_costs_nothing(frame: FrameHead, units: int) -> None:
    assert cost(frame) == units
