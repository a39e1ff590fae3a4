"""Connections that programs in guests have made to Listen calls, until Accept calls take them."""

from __future__ import annotations

import secrets
from typing import Final

import attrs
import trio

from pool.ledger.records import Owner
from vmm.contract import PortListener

KEPT_S: Final = 30.0
"""How long a connection waits to be taken. Its guest closes it after the same time."""


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

    async def keep(self, connection_id: str, offer: Offer, room: trio.Semaphore) -> None:
        """Returns once the connection is taken, or cannot be taken any more; `room` is then released. If cancelled, it
        is not offered any more.
        """
        try:
            with trio.move_on_after(KEPT_S):
                await offer.taken.wait()
        finally:
            self._waiting.pop(connection_id, None)
            room.release()
