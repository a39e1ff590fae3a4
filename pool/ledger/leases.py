"""The register of leases: who holds which VM, and what became of those who did."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from pool.ledger import refusals
from pool.ledger.effects import Refusal
from pool.ledger.records import EndedLease, EndReason, Lease, Owner

REMEMBERED_LEASES: Final = 4096
"""Ended leases that are remembered, to tell their owners what became of them."""


@attrs.define(eq=False, kw_only=True)
class LeaseRegister:
    """Leases by id and by idempotency key, and how many callers each was granted to."""

    _live: dict[str, Lease] = attrs.field(factory=dict, init=False)
    _holders: dict[str, int] = attrs.field(factory=dict, init=False)
    """Per lease: requests that it was granted to and that have not come back as undelivered."""
    _of_key: dict[tuple[int, str], str] = attrs.field(factory=dict, init=False)
    """(uid, idempotency key) to lease id."""
    _expiries: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    """Heap of (expiry, lease id). What was renewed or has ended stays until it comes up."""
    _ended: OrderedDict[str, EndedLease] = attrs.field(factory=OrderedDict, init=False)

    def open(self, lease: Lease, *, holders: int) -> None:
        self._keep(lease)
        self._holders[lease.lease_id] = holders
        if lease.key:
            self._of_key[lease.owner.uid, lease.key] = lease.lease_id

    def renew(self, lease: Lease, *, expires_at: float) -> Lease:
        renewed = attrs.evolve(lease, expires_at=expires_at)
        self._keep(renewed)
        return renewed

    def next_expiry(self) -> float:
        """When the next lease ends by itself; infinity if none does."""
        while self._expiries and not self._is_current(*self._expiries[0]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else math.inf

    def expired(self, *, now: float) -> Iterator[Lease]:
        """Leases whose time has come; whoever asks ends each before asking for the next."""
        while self.next_expiry() <= now:
            yield self._live[heapq.heappop(self._expiries)[1]]

    def _keep(self, lease: Lease) -> None:
        self._live[lease.lease_id] = lease
        if lease.expires_at != math.inf:
            heapq.heappush(self._expiries, (lease.expires_at, lease.lease_id))

    def _is_current(self, expires_at: float, lease_id: str) -> bool:
        lease = self._live.get(lease_id)
        return lease is not None and lease.expires_at == expires_at

    def grant_again(self, lease: Lease) -> None:
        """One more request with the same idempotency key has it."""
        self._holders[lease.lease_id] += 1

    def undelivered(self, lease_id: str) -> Lease | None:
        """One request does not have it after all. Returns the lease if now nobody has, None if it lives on or ended."""
        lease = self._live.get(lease_id)
        if lease is None:
            return None
        self._holders[lease_id] -= 1
        return None if self._holders[lease_id] else lease

    def end(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        del self._live[lease.lease_id]
        del self._holders[lease.lease_id]
        if lease.key:
            del self._of_key[lease.owner.uid, lease.key]
        self._ended[lease.lease_id] = EndedLease(
            lease_id=lease.lease_id, owner=lease.owner, reason=reason, detail=detail
        )
        while len(self._ended) > REMEMBERED_LEASES:
            self._ended.popitem(last=False)

    def __getitem__(self, lease_id: str) -> Lease:
        return self._live[lease_id]

    def all(self) -> tuple[Lease, ...]:
        """Those that live, oldest first."""
        return tuple(self._live.values())

    def of_key(self, owner: Owner, key: str) -> Lease | None:
        lease_id = self._of_key.get((owner.uid, key))
        return None if lease_id is None else self._live[lease_id]

    def find(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may touch it, else why not."""
        lease = self._live.get(lease_id)
        if lease is not None:
            return lease if owner.may_touch(lease.owner) else refusals.foreign_lease(lease_id)
        ended = self._ended.get(lease_id)
        if ended is None:
            return refusals.unknown_lease(lease_id)
        return refusals.lease_ended(ended) if owner.may_touch(ended.owner) else refusals.foreign_lease(lease_id)
