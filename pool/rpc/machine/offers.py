"""Connections that programs in guests have made to Listen calls, until Accept calls take them."""

from __future__ import annotations

import secrets
from typing import Final

import attrs
import trio

from pool.ledger.records import Owner
from vmm.contract import PortListener
from vmm.errors import AgentError

KEPT_S: Final = 30.0
"""How long a connection waits to be taken."""


@attrs.frozen(kw_only=True, eq=False)
class Offer:
    """One connection that waits."""

    lease_id: str
    owner: Owner
    listener: PortListener
    number: int
    """The listener's, of the connection."""
    taken: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Offers:
    """All connections that wait, by ids that cannot be guessed."""

    _waiting: dict[str, Offer] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._waiting)

    def make(self, offer: Offer) -> str:
        """The id by which it is taken. The caller must `keep` it."""
        connection_id = f"connection-{secrets.token_hex(16)}"
        self._waiting[connection_id] = offer
        return connection_id

    def take(self, connection_id: str, *, owner: Owner) -> Offer | None:
        """None if there is no such connection, or it was taken, or is another user's."""
        offer = self._waiting.get(connection_id)
        if offer is None or offer.owner != owner:
            return None
        del self._waiting[connection_id]
        offer.taken.set()
        return offer

    async def keep(self, connection_id: str, room: trio.Semaphore) -> None:
        """Returns once the connection is taken, and closes it if that is not in time. If cancelled, it is not offered
        any more, and its listener closes it. `room` is released in any case.
        """
        offer = self._waiting[connection_id]
        try:
            with trio.move_on_after(KEPT_S):
                await offer.taken.wait()
            if self._waiting.pop(connection_id, None) is not None:
                await _close(offer)
        finally:
            self._waiting.pop(connection_id, None)
            room.release()


async def _close(offer: Offer) -> None:
    try:
        connection = await offer.listener.take(offer.number)
    except AgentError:
        return  # it has gone, or the guest has, which its Listen call finds out
    await connection.aclose()
