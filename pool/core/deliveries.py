"""Granted leases whose replies are being sent, which other work waits for."""

from __future__ import annotations

from typing import Final

import attrs
import trio

PATIENCE_S: Final = 0.02
"""A reply is sent within a few milliseconds; other work does not wait longer than this."""


@attrs.define(eq=False)
class Deliveries:
    """The leases that were granted and have not reached their callers."""

    _under_way: set[str] = attrs.field(factory=set, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)

    def begin(self, lease_id: str) -> None:
        self._under_way.add(lease_id)

    def end(self, lease_id: str) -> None:
        """The lease was delivered, or never will be. Does nothing if the delivery is not under way."""
        self._under_way.discard(lease_id)
        self._wake()

    async def wait_none(self) -> None:
        """Returns when no delivery is under way, at the latest after PATIENCE_S. A checkpoint only if it waits."""
        if not self._under_way:
            return
        with trio.move_on_after(PATIENCE_S):
            while self._under_way:
                await self._over.wait()
            return
        self._under_way.clear()
        self._wake()

    def _wake(self) -> None:
        if not self._under_way:
            self._over.set()
            self._over = trio.Event()
