"""Rate limits log lines that clients can cause: the first at once, then one with a count from time to time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import attrs
import structlog

_log = structlog.get_logger("vmpool.rpc")

QUIET_S: Final = 10.0
"""Seconds after a line without another for the same event and uid."""

MAX_REMEMBERED: Final = 1000
"""Pairs of event and uid."""


@attrs.define
class _Said:
    at: float
    kept_back: int = 0


@attrs.define(eq=False)
class Repeats:
    """Recent log lines. There is no background task: suppressed lines are counted in the next line."""

    _said: dict[Hashable, _Said] = attrs.field(factory=dict, init=False)

    def count(self, key: Hashable, *, now: float) -> int | None:
        """How many lines were suppressed since the last one with this key; None: this one is suppressed too."""
        said = self._said.get(key)
        if said is not None and now - said.at < QUIET_S:
            said.kept_back += 1
            return None
        if said is None and len(self._said) >= MAX_REMEMBERED:
            self._said = {other: said for other, said in self._said.items() if now - said.at < QUIET_S}
            if len(self._said) >= MAX_REMEMBERED:
                return None
        self._said[key] = _Said(at=now)
        return said.kept_back if said is not None else 0

    def warn(self, event: str, *, uid: int, now: float, **fields: Any) -> None:
        """Logs an event that a client of this uid caused, unless it is suppressed."""
        kept_back = self.count((event, uid), now=now)
        if kept_back is not None:
            _log.warning(event, uid=uid, **fields, **({"and_before_it": kept_back} if kept_back else {}))
