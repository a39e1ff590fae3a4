"""The register of claims: waiting callers, their requests and deadlines."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import attrs

from pool.ledger.events import AcquireRequested
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Claim, Owner
from pool.ledger.schedule import Schedule


@attrs.define(eq=False, kw_only=True)
class ClaimRegister:
    """Claims by id, by open request and by idempotency key."""

    _claims: dict[int, Claim] = attrs.field(factory=dict, init=False)
    _of_request: dict[int, int] = attrs.field(factory=dict, init=False)
    _of_key: dict[tuple[int, str], int] = attrs.field(factory=dict, init=False)
    """(uid, idempotency key) to claim id."""
    _names: set[tuple[int, str]] = attrs.field(factory=set, init=False)
    """(uid, name) of the claims that have one."""
    _deadlines: Schedule[int] = attrs.field(factory=Schedule, init=False)
    """Of open requests."""
    _claims_of: Counter[int] = attrs.field(factory=Counter, init=False)
    """By uid."""
    _waiting_of: Counter[int] = attrs.field(factory=Counter, init=False)
    """Requests of claims for which no VM was chosen yet, by uid."""
    round_served: int = attrs.field(default=0, init=False)
    """The latest round of which a claim got a VM; see `pool.ledger.queue`."""
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def open(self, event: AcquireRequested, *, round_: int, on_empty: OnEmpty, found_ready: bool, now: float) -> Claim:
        """A new claim with its first request. Ids ascend with arrival."""
        claim = Claim(
            claim_id=next(self._ids),
            profile=event.profile,
            owner=event.owner,
            request=event.request,
            on_empty=on_empty,
            arrived_at=now,
            round=round_,
            found_ready=found_ready,
        )
        self._claims[claim.claim_id] = claim
        _count(self._claims_of, claim.owner.uid, 1)
        if claim.request.key:
            self._of_key[claim.owner.uid, claim.request.key] = claim.claim_id
        if claim.request.name:
            self._names.add((claim.owner.uid, claim.request.name))
        self.join(claim, event)
        return claim

    def join(self, claim: Claim, event: AcquireRequested) -> None:
        """Adds a request to the claim."""
        claim.requests[event.request_id] = event.deadline
        self._of_request[event.request_id] = claim.claim_id
        self._deadlines.set(event.request_id, event.deadline)
        self._count_waiting(claim, 1)

    def leave(self, request_id: int) -> Claim | None:
        """Removes a request. Returns its claim, None if the request was answered already."""
        claim_id = self._of_request.pop(request_id, None)
        if claim_id is None:
            return None
        claim = self._claims[claim_id]
        del claim.requests[request_id]
        self._deadlines.drop(request_id)
        self._count_waiting(claim, -1)
        return claim

    def found_vm(self, claim: Claim, vm_id: str, *, now: float) -> None:
        """A VM was chosen for the claim."""
        self._count_waiting(claim, -len(claim.requests))
        claim.vm_id = vm_id
        claim.chosen_at = now
        self.round_served = max(self.round_served, claim.round)

    def lost_vm(self, claim: Claim) -> None:
        """The claim waits again."""
        claim.vm_id = None
        self._count_waiting(claim, len(claim.requests))

    def close(self, claim: Claim) -> None:
        """Forgets a claim and all of its requests."""
        del self._claims[claim.claim_id]
        if claim.request.key:
            del self._of_key[claim.owner.uid, claim.request.key]
        if claim.request.name:
            self._names.remove((claim.owner.uid, claim.request.name))
        for request_id in claim.requests:
            del self._of_request[request_id]
            self._deadlines.drop(request_id)
        self._count_waiting(claim, -len(claim.requests))
        _count(self._claims_of, claim.owner.uid, -1)

    def _count_waiting(self, claim: Claim, change: int) -> None:
        if claim.vm_id is None:
            _count(self._waiting_of, claim.owner.uid, change)

    def __getitem__(self, claim_id: int) -> Claim:
        return self._claims[claim_id]

    def all(self) -> tuple[Claim, ...]:
        return tuple(self._claims.values())

    def of_key(self, owner: Owner, key: str) -> Claim | None:
        claim_id = self._of_key.get((owner.uid, key))
        return None if claim_id is None else self._claims[claim_id]

    def has_name(self, owner: Owner, name: str) -> bool:
        return (owner.uid, name) in self._names

    def claims_of(self, owner: Owner) -> int:
        return self._claims_of[owner.uid]

    def waiting_of(self, owner: Owner) -> int:
        """The owner's requests that wait for a VM to be chosen."""
        return self._waiting_of[owner.uid]

    def waiting(self) -> int:
        """The waiting requests of all users."""
        return self._waiting_of.total()

    def next_deadline(self) -> float:
        """The earliest deadline of an open request; infinity if no request is open."""
        return self._deadlines.next_at()

    def overdue(self, *, now: float) -> Iterator[tuple[int, Claim]]:
        """Open requests whose deadline has passed, each once, with their claims."""
        for request_id in self._deadlines.take_due(now=now):
            yield request_id, self._claims[self._of_request[request_id]]


def _count(counter: Counter[int], uid: int, change: int) -> None:
    """Changes a count, and removes the entry at zero."""
    counter[uid] += change
    if not counter[uid]:
        del counter[uid]
