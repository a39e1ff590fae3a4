"""Back-off: grows with every failure, has a bound that holds, and jitter only shortens it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.words.backoff import Backoff

seconds = st.floats(min_value=0.001, max_value=10_000.0)
backoffs = st.builds(
    Backoff, initial_s=seconds, maximum_s=seconds, jitter=st.floats(min_value=0.0, max_value=0.99, allow_nan=False)
)
failures = st.one_of(st.integers(1, 20), st.integers(1, 10**9))
randomness = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)


@given(backoff=backoffs, count=failures, drawn=randomness)
def test_it_is_never_longer_than_its_maximum_nor_shorter_than_jitter_allows(
    backoff: Backoff, count: int, drawn: float
) -> None:
    delay = backoff.delay(count, randomness=drawn)
    undisturbed = backoff.delay(count)
    assert 0 < delay <= undisturbed <= backoff.maximum_s
    assert delay >= undisturbed * (1 - backoff.jitter)


@given(backoff=backoffs, count=failures)
def test_it_doubles_until_it_reaches_its_maximum(backoff: Backoff, count: int) -> None:
    now, then = backoff.delay(count), backoff.delay(count + 1)
    assert then == min(2 * now, backoff.maximum_s)


@given(backoff=backoffs)
def test_the_first_delay_is_the_initial_one(backoff: Backoff) -> None:
    assert backoff.delay(1) == min(backoff.initial_s, backoff.maximum_s)


@given(backoff=backoffs, count=st.integers(max_value=0))
def test_without_a_failure_there_is_nothing_to_wait_for(backoff: Backoff, count: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        backoff.delay(count)
