"""The register of leases: who holds which VM, and what became of those who did."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from pool.ledger import refusals
from pool.ledger.effects import Refusal
from pool.ledger.records import EndedLease, EndReason, Lease, Owner
from pool.ledger.schedule import Schedule

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
    _expiries: Schedule[str] = attrs.field(factory=Schedule, init=False)
    _leases_of: Counter[int] = attrs.field(factory=Counter, init=False)
    """By uid."""
    _ended: OrderedDict[str, EndedLease] = attrs.field(factory=OrderedDict, init=False)
    _let_go: dict[str, Owner] = attrs.field(factory=dict, init=False)
    """Those that this run has handed over."""

    def open(self, lease: Lease, *, holders: int) -> None:
        self._live[lease.lease_id] = lease
        self._expiries.set(lease.lease_id, lease.expires_at)
        self._holders[lease.lease_id] = holders
        self._leases_of[lease.owner.uid] += 1
        if lease.request.key:
            self._of_key[lease.owner.uid, lease.request.key] = lease.lease_id

    def renew(self, lease: Lease, *, expires_at: float) -> Lease:
        renewed = attrs.evolve(lease, expires_at=expires_at)
        self._live[lease.lease_id] = renewed
        self._expiries.set(lease.lease_id, expires_at)
        return renewed

    def next_expiry(self) -> float:
        """When the next lease ends by itself; infinity if none does."""
        return self._expiries.next_at()

    def expired(self, *, now: float) -> Iterator[Lease]:
        """Leases whose time has come; whoever asks ends each before asking for the next."""
        for lease_id in self._expiries.take_due(now=now):
            yield self._live[lease_id]

    def join(self, lease: Lease) -> None:
        """One more request with the same idempotency key has it."""
        self._holders[lease.lease_id] += 1

    def undelivered(self, lease_id: str) -> Lease | None:
        """One request does not have it after all. Returns the lease if now nobody has, None if it lives on or ended."""
        lease = self._live.get(lease_id)
        if lease is None:
            return None
        self._holders[lease_id] -= 1
        return None if self._holders[lease_id] else lease

    def let_go(self, lease: Lease) -> None:
        """It lives on, elsewhere."""
        self._let_go[lease.lease_id] = lease.owner
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        del self._live[lease.lease_id]
        del self._holders[lease.lease_id]
        self._expiries.drop(lease.lease_id)
        self._leases_of[lease.owner.uid] -= 1
        if not self._leases_of[lease.owner.uid]:
            del self._leases_of[lease.owner.uid]
        if lease.request.key:
            del self._of_key[lease.owner.uid, lease.request.key]

    def end(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        self._forget(lease)
        self._ended[lease.lease_id] = EndedLease(
            lease_id=lease.lease_id, owner=lease.owner, reason=reason, detail=detail
        )
        while len(self._ended) > REMEMBERED_LEASES:
            self._ended.popitem(last=False)

    def __getitem__(self, lease_id: str) -> Lease:
        return self._live[lease_id]

    def get(self, lease_id: str) -> Lease | None:
        return self._live.get(lease_id)

    def all(self) -> tuple[Lease, ...]:
        """Those that live, oldest first."""
        return tuple(self._live.values())

    def leases_of(self, owner: Owner) -> int:
        return self._leases_of[owner.uid]

    def of_key(self, owner: Owner, key: str) -> Lease | None:
        lease_id = self._of_key.get((owner.uid, key))
        return None if lease_id is None else self._live[lease_id]

    def find(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may touch it, else why not."""
        lease = self._live.get(lease_id)
        if lease is not None:
            return lease if owner.may_touch(lease.owner) else refusals.foreign_lease(lease_id)
        let_go = self._let_go.get(lease_id)
        if let_go is not None:
            return refusals.shutting_down() if owner.may_touch(let_go) else refusals.foreign_lease(lease_id)
        ended = self._ended.get(lease_id)
        if ended is None:
            return refusals.unknown_lease(lease_id)
        return refusals.lease_ended(ended) if owner.may_touch(ended.owner) else refusals.foreign_lease(lease_id)
