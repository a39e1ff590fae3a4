"""Exponential back-off as a pure function; shared by the supervisor and the pool's refill."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Backoff:
    """Delay before the n-th retry: `initial_s * 2**(n-1)`, at most `maximum_s`, less up to `jitter` of itself.

    Jitter shortens only, so `maximum_s` holds.
    """

    initial_s: float = attrs.field(default=0.25, validator=attrs.validators.gt(0))
    maximum_s: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    jitter: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.lt(1)])

    def delay(self, failures: int, *, randomness: float = 0.0) -> float:
        """Seconds to wait after `failures` failures in a row (>= 1); `randomness` is drawn from [0, 1)."""
        if failures < 1:
            raise ValueError(f"failures = {failures}: must be 1 or more")
        # 2**63 s is beyond any maximum; the bound keeps the power a small number after months of failures.
        grown = self.initial_s * 2.0 ** min(failures - 1, 63)
        return min(grown, self.maximum_s) * (1.0 - self.jitter * randomness)
