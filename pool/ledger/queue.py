"""A profile's queue, in which users take turns: one claim of each user in a round, in order of arrival."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from typing import Final

import attrs

from pool.ledger.records import Claim, Owner, Place

NOBODY: Final[Place] = (math.inf, math.inf)
"""Behind all claims."""


@attrs.define(eq=False)
class ClaimQueue:
    """Claims by id, in the order in which they are to be served.

    A user's first claim is in the round that is being served, each further one in the round after their last; so a new
    user waits for at most one claim of each other user, however many claims those have.
    """

    _claims: dict[int, Claim] = attrs.field(factory=dict, init=False)
    _of: dict[int, list[Claim]] = attrs.field(factory=dict, init=False)
    """By uid, in order."""
    _order: list[Claim] | None = attrs.field(factory=list, init=False)
    """None: must be rebuilt."""

    def next_round(self, owner: Owner, *, served: int) -> int:
        """The round of this user's next claim. In an empty queue, the round `served` last in any queue."""
        if owner.uid in self._of:
            return self._of[owner.uid][-1].round + 1
        first = self.first()
        return served if first is None else first.round

    def add(self, claim: Claim) -> None:
        """Inserts a claim at its place, which it keeps if it comes back."""
        self._claims[claim.claim_id] = claim
        bisect.insort(self._of.setdefault(claim.owner.uid, []), claim, key=_place)
        if self._order is not None:
            bisect.insort(self._order, claim, key=_place)

    def remove(self, claim: Claim) -> None:
        del self._claims[claim.claim_id]
        _take(self._of[claim.owner.uid], claim)
        if not self._of[claim.owner.uid]:
            del self._of[claim.owner.uid]
        if self._order is not None:
            _take(self._order, claim)

    def close_ranks(self, claim: Claim) -> None:
        """Moves a user's later claims one round forward, after `claim` was removed without being served.

        Otherwise a user who replaces a request that they gave up would lose turns.
        """
        own = self._of.get(claim.owner.uid, [])
        round_ = claim.round
        for other in own[bisect.bisect(own, claim.place, key=_place) :]:
            other.round, round_ = round_, other.round
        self.reorder()

    def reorder(self) -> None:
        """Call this after rounds have changed."""
        self._order = None

    def first(self) -> Claim | None:
        return self.at(0)

    def first_place(self) -> Place:
        first = self.first()
        return NOBODY if first is None else first.place

    def at(self, position: int) -> Claim | None:
        order = self._in_order()
        return order[position] if position < len(order) else None

    def _in_order(self) -> list[Claim]:
        if self._order is None:
            self._order = sorted(self._claims.values(), key=_place)
        return self._order

    def __getitem__(self, claim_id: int) -> Claim:
        return self._claims[claim_id]

    def __contains__(self, claim: Claim) -> bool:
        return claim.claim_id in self._claims

    def __iter__(self) -> Iterator[Claim]:
        return iter(tuple(self._in_order()))

    def __len__(self) -> int:
        return len(self._claims)


def _place(claim: Claim) -> Place:
    return claim.place


def _take(claims: list[Claim], claim: Claim) -> None:
    del claims[bisect.bisect_left(claims, claim.place, key=_place)]
