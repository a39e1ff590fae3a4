"""Failures in a row of one kind, and when to try again."""

from __future__ import annotations

import attrs

from pool.ledger.views import CircuitState
from vmm.words.backoff import Backoff


@attrs.define(eq=False, kw_only=True)
class Failures:
    """Of a pool's productions, or of its shells."""

    in_a_row: int = 0
    retry_at: float = 0.0
    """End of the back-off; 0 when there is none. It stays when that time has come, until `may_try` was asked: no
    wake-up is lost if nobody looked in time."""

    def one_more(self, backoff: Backoff, *, after: int = 0, now: float, randomness: float) -> None:
        """`after` so many that were forgotten when what fails now came up."""
        self.in_a_row = max(self.in_a_row, after) + 1
        self.retry_at = now + backoff.delay(self.in_a_row, randomness=randomness)

    def none(self) -> None:
        """It worked, or the failures are forgotten."""
        self.in_a_row = 0
        self.retry_at = 0.0

    def may_try(self, *, now: float) -> bool:
        """Ends a back-off that is over."""
        if now < self.retry_at:
            return False
        self.retry_at = 0.0
        return True

    def circuit(self, *, threshold: int, now: float) -> CircuitState:
        if self.in_a_row < threshold:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.retry_at else CircuitState.HALF_OPEN
