"""Whose turn it is."""

from __future__ import annotations

import pytest

from pool.rpc.turns import Turns


def order(*waiting: tuple[str, str]) -> str:
    turns: Turns[str] = Turns()
    for user, who in waiting:
        turns.add(user, who)
    taken = ""
    while turns:
        taken += turns.next()
    return taken


def test_who_comes_first_is_served_first() -> None:
    assert order(("alice", "1"), ("bob", "2"), ("carol", "3")) == "123"
    assert order(("alice", "1"), ("alice", "2")) == "12"


def test_a_user_with_many_waits_for_the_others() -> None:
    assert order(*(("alice", who) for who in "1234"), ("bob", "a"), ("carol", "x"), ("bob", "b")) == "1ax2b34"


def test_nobody_is_next_where_nobody_waits() -> None:
    with pytest.raises(KeyError):
        Turns[str]().next()
