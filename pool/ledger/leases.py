"""The register of leases, live and ended."""

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
"""Ended leases that are remembered, so that their owners can learn how they ended."""


@attrs.define(eq=False, kw_only=True)
class LeaseRegister:
    """Leases by id, idempotency key and name, with the number of their holders."""

    _live: dict[str, Lease] = attrs.field(factory=dict, init=False)
    _holders: dict[str, int] = attrs.field(factory=dict, init=False)
    """Lease id to the number of requests that got the lease, without undelivered ones."""
    _of_key: dict[tuple[int, str], str] = attrs.field(factory=dict, init=False)
    """(uid, idempotency key) to lease id."""
    _of_name: dict[tuple[int, str], str] = attrs.field(factory=dict, init=False)
    """(uid, name) to lease id."""
    _expiries: Schedule[str] = attrs.field(factory=Schedule, init=False)
    _leases_of: Counter[int] = attrs.field(factory=Counter, init=False)
    """By uid."""
    _ended: OrderedDict[str, EndedLease] = attrs.field(factory=OrderedDict, init=False)
    _let_go: dict[str, Owner] = attrs.field(factory=dict, init=False)
    """Owners of the leases that this run has handed over."""

    def open(self, lease: Lease, *, holders: int) -> None:
        self._live[lease.lease_id] = lease
        self._expiries.set(lease.lease_id, lease.expires_at)
        self._holders[lease.lease_id] = holders
        self._leases_of[lease.owner.uid] += 1
        if lease.request.key:
            self._of_key[lease.owner.uid, lease.request.key] = lease.lease_id
        if lease.request.name:
            self._of_name[lease.owner.uid, lease.request.name] = lease.lease_id

    def renew(self, lease: Lease, *, expires_at: float) -> Lease:
        renewed = attrs.evolve(lease, expires_at=expires_at)
        self._live[lease.lease_id] = renewed
        self._expiries.set(lease.lease_id, expires_at)
        return renewed

    def next_expiry(self) -> float:
        """When the next lease expires; infinity if none does."""
        return self._expiries.next_at()

    def expired(self, *, now: float) -> Iterator[Lease]:
        """Expired leases. The caller ends each before it takes the next."""
        for lease_id in self._expiries.take_due(now=now):
            yield self._live[lease_id]

    def join(self, lease: Lease) -> None:
        """Adds a holder: another request with the same idempotency key."""
        self._holders[lease.lease_id] += 1

    def undelivered(self, lease_id: str) -> Lease | None:
        """Removes a holder. Returns the lease if it has none left, None if it lives on or has ended."""
        lease = self._live.get(lease_id)
        if lease is None:
            return None
        self._holders[lease_id] -= 1
        return None if self._holders[lease_id] else lease

    def let_go(self, lease: Lease) -> None:
        """Forgets a lease that was handed over."""
        self._let_go[lease.lease_id] = lease.owner
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        del self._live[lease.lease_id]
        del self._holders[lease.lease_id]
        self._expiries.drop(lease.lease_id)
        self._leases_of[lease.owner.uid] -= 1
        if not self._leases_of[lease.owner.uid]:
            del self._leases_of[lease.owner.uid]
        # Two adopted leases may share one, if the disk failed when the record of the first was to be erased.
        self._of_key.pop((lease.owner.uid, lease.request.key), None)
        self._of_name.pop((lease.owner.uid, lease.request.name), None)

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
        """The live leases, oldest first."""
        return tuple(self._live.values())

    def leases_of(self, owner: Owner) -> int:
        return self._leases_of[owner.uid]

    def of_key(self, owner: Owner, key: str) -> Lease | None:
        lease_id = self._of_key.get((owner.uid, key))
        return None if lease_id is None else self._live[lease_id]

    def of_name(self, owner: Owner, name: str) -> Lease | None:
        lease_id = self._of_name.get((owner.uid, name))
        return None if lease_id is None else self._live[lease_id]

    def find(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may use it, else the refusal."""
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
