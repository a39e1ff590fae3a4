"""A ledger with one part that is not what it should be."""

from __future__ import annotations

from typing import Any

from pool.ledger.administration import Administration
from pool.ledger.admission import Admission
from pool.ledger.book import Ledger
from pool.ledger.callers import Callers
from pool.ledger.facts import Facts
from pool.ledger.fleet import Fleet
from pool.ledger.profile import ProfilePage
from pool.ledger.refill import Refill
from pool.ledger.succession import Succession
from pool.ledger.upkeep import Upkeep


def ledger_with(part: type[Any]) -> type[Ledger]:
    """`part` is a subclass of Ledger itself, or of the part of it whose place it takes."""
    if issubclass(part, Ledger):
        return part

    class BrokenLedger(Ledger):
        def __attrs_post_init__(self) -> None:
            super().__attrs_post_init__()
            _put(part, self)

    BrokenLedger.__name__ = part.__name__
    return BrokenLedger


def _put(part: type[Any], ledger: Ledger) -> None:
    moves = ledger._moves
    if issubclass(part, Callers):
        ledger._callers = part(moves=moves)
    elif issubclass(part, Facts):
        ledger._facts = ledger._upkeep.facts = part(moves=moves)
    elif issubclass(part, Refill):
        ledger._refill = part(moves=moves)
    elif issubclass(part, Upkeep):
        ledger._upkeep = part(moves=moves, facts=ledger._facts)
    elif issubclass(part, Administration):
        ledger._administration = part(moves=moves)
    elif issubclass(part, Succession):
        ledger._succession = part(moves=moves)
    elif issubclass(part, Admission):
        moves.admission = moves.fleet.admission = part(policy=ledger.service)
    elif issubclass(part, Fleet):
        moves.fleet = part(policies=ledger.policies, admission=moves.admission, tell=moves.tell)
    elif issubclass(part, ProfilePage):
        moves.fleet = Fleet(policies=ledger.policies, admission=moves.admission, tell=moves.tell, make_page=part)
    else:
        raise TypeError(f"{part} is no part of a ledger")
