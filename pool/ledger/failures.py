"""Failures in a row of one kind, and when to try again."""

from __future__ import annotations

import attrs

from pool.ledger.views import CircuitState
from vmm.words.backoff import Backoff


@attrs.define(eq=False, kw_only=True)
class Failures:
    """The failures of a pool's productions, or of its shells."""

    in_a_row: int = 0
    retry_at: float = 0.0
    """End of the back-off; 0 without one. It is kept after that time until `may_try` is called, so that no wake-up is
    lost."""

    def one_more(self, backoff: Backoff, *, after: int = 0, now: float, randomness: float) -> None:
        """Counts a failure. `after`: failures in a row before the VM that fails now became ready."""
        self.in_a_row = max(self.in_a_row, after) + 1
        self.retry_at = now + backoff.delay(self.in_a_row, randomness=randomness)

    def none(self) -> None:
        """Forgets all failures."""
        self.in_a_row = 0
        self.retry_at = 0.0

    def may_try(self, *, now: float) -> bool:
        """Whether no back-off is in force; ends one that is over."""
        if now < self.retry_at:
            return False
        self.retry_at = 0.0
        return True

    def circuit(self, *, threshold: int, now: float) -> CircuitState:
        if self.in_a_row < threshold:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.retry_at else CircuitState.HALF_OPEN
