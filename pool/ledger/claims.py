"""The register of claims: who waits for a VM, through which requests, and until when."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

import attrs

from pool.ledger.events import AcquireRequested
from pool.ledger.records import Claim, Owner


@attrs.define(eq=False, kw_only=True)
class ClaimRegister:
    """Claims by id, by open request and by idempotency key. Which VM they get is decided elsewhere."""

    _claims: dict[int, Claim] = attrs.field(factory=dict, init=False)
    _of_request: dict[int, int] = attrs.field(factory=dict, init=False)
    _of_key: dict[tuple[int, str], int] = attrs.field(factory=dict, init=False)
    """(uid, idempotency key) to claim id."""
    _deadlines: list[tuple[float, int]] = attrs.field(factory=list, init=False)
    """Heap of (deadline, request id); answered requests stay until they come up."""
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def open(self, event: AcquireRequested, *, found_ready: bool, now: float) -> Claim:
        """A new claim with its first request. Ids ascend with arrival."""
        claim = Claim(
            claim_id=next(self._ids),
            profile=event.profile,
            owner=event.owner,
            key=event.key,
            on_empty=event.on_empty,
            arrived_at=now,
            wishes=event.wishes,
            ttl_s=event.ttl_s,
            found_ready=found_ready,
        )
        self._claims[claim.claim_id] = claim
        if claim.key:
            self._of_key[claim.owner.uid, claim.key] = claim.claim_id
        self.join(claim, event)
        return claim

    def join(self, claim: Claim, event: AcquireRequested) -> None:
        """One more request waits for the claim's answer."""
        claim.requests[event.request_id] = event.deadline
        self._of_request[event.request_id] = claim.claim_id
        if event.deadline != math.inf:
            heapq.heappush(self._deadlines, (event.deadline, event.request_id))

    def leave(self, request_id: int) -> Claim | None:
        """A request waits no longer. Returns its claim, None if it was answered already."""
        claim_id = self._of_request.pop(request_id, None)
        if claim_id is None:
            return None
        claim = self._claims[claim_id]
        del claim.requests[request_id]
        return claim

    def close(self, claim: Claim) -> None:
        """Forgets a claim and all of its requests."""
        del self._claims[claim.claim_id]
        if claim.key:
            del self._of_key[claim.owner.uid, claim.key]
        for request_id in claim.requests:
            del self._of_request[request_id]

    def __getitem__(self, claim_id: int) -> Claim:
        return self._claims[claim_id]

    def all(self) -> tuple[Claim, ...]:
        return tuple(self._claims.values())

    def of_key(self, owner: Owner, key: str) -> Claim | None:
        claim_id = self._of_key.get((owner.uid, key))
        return None if claim_id is None else self._claims[claim_id]

    def next_deadline(self) -> float:
        """The earliest deadline of an open request; infinity if there is none."""
        while self._deadlines and self._deadlines[0][1] not in self._of_request:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def overdue(self, *, now: float) -> Iterator[tuple[int, Claim]]:
        """Open requests whose deadline has come, each once, with their claims."""
        while self.next_deadline() <= now:
            _, request_id = heapq.heappop(self._deadlines)
            yield request_id, self._claims[self._of_request[request_id]]
