"""What a view makes of what it is told."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest

from pool.cli.top import rows
from pool.cli.top.board import Board, percentile
from pool.cli.top.plain import text_of
from tests.unit.cli.test_status import COUNTERS, HEALTHY
from vmpool.client import LeaseChange, LeaseChangeKind, LeaseStatus, Snapshot, VmChange, VmState

NOON = dt.datetime(2026, 5, 1, 12, 0, 0, tzinfo=dt.UTC)
ESCAPE = "\x1b]0;owned\x07"


def vm(state: str, *, age_s: float = 0.0, vm_id: str = "vm-1") -> VmChange:
    return VmChange(vm_id=vm_id, profile="default", state=VmState(state), reason=None, detail="", age_s=age_s)


def granted(took_s: float) -> LeaseChange:
    return LeaseChange(
        lease_id="l",
        vm_id="vm-1",
        profile="default",
        change=LeaseChangeKind.GRANTED,
        reason=None,
        detail="",
        labels={},
        took_s=took_s,
    )


def board_with(*vms: VmChange) -> Board:
    board = Board()
    board.change(Snapshot(profiles=(HEALTHY,), vms=vms, leases=()), now=100.0, at=NOON)
    return board


def test_a_vm_is_as_old_as_the_snapshot_says_and_grows_older() -> None:
    board = board_with(vm("ready", age_s=5.0))
    board.change(vm("leased"), now=110.0, at=NOON)
    (row,) = rows.vm_rows(board, now=120.0)
    assert row.cells == ("vm-1", "default", "leased", "25 s", "-")


def test_a_vm_that_becomes_ready_before_our_eyes_begins_to_age_then() -> None:
    board = board_with()
    board.change(vm("producing"), now=110.0, at=NOON)
    assert rows.vm_rows(board, now=115.0)[0].cells[3] == "-"
    board.change(vm("ready"), now=120.0, at=NOON)
    assert rows.vm_rows(board, now=127.0)[0].cells[3] == "7 s"


def test_a_vm_that_is_gone_is_not_shown() -> None:
    board = board_with(vm("ready"), vm("ready", vm_id="vm-2"))
    board.change(vm("gone"), now=110.0, at=NOON)
    assert list(board.vms) == ["vm-2"]


def test_a_snapshot_replaces_all_that_was_known() -> None:
    board = board_with(vm("ready"))
    board.change(Snapshot(profiles=(), vms=(vm("ready", vm_id="vm-2"),), leases=()), now=110.0, at=NOON)
    assert (list(board.vms), board.profiles) == (["vm-2"], ())


def test_latencies_are_of_the_hand_outs_that_were_seen() -> None:
    board = board_with()
    assert rows.latency_line(board) == "hand-outs: none seen yet"
    for number in range(1, 101):
        board.change(granted(number / 1000), now=100.0, at=NOON)
    assert rows.latency_line(board) == "last 100 hand-outs: p50 50.0 ms, p99 99.0 ms"


@pytest.mark.parametrize(("percent", "expected"), [(50, 2.0), (99, 3.0), (1, 1.0)])
def test_percentiles_are_values_that_there_were(percent: int, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0], percent) == expected


def test_a_service_that_is_lost_takes_with_it_what_was_known_but_not_what_has_happened() -> None:
    board = board_with(vm("ready"))
    board.change(granted(0.5), now=100.0, at=NOON)
    board.lose(f"the connection broke {ESCAPE}", at=NOON)
    board.lose("there is no such socket", at=NOON)
    assert (board.vms, board.profiles, board.leases) == ({}, (), ())
    assert list(board.events)[1:] == [r"12:00:00  the connection broke \x1b]0;owned\x07"]
    assert rows.headline(board) == "no connection to the service, trying again: there is no such socket"


def test_the_hit_rate_is_of_those_who_asked() -> None:
    counters = attrs.evolve(COUNTERS, hits=3, misses=1)
    board = Board(profiles=(HEALTHY, attrs.evolve(HEALTHY, counters=counters, drained=True)))
    assert [row.cells[6:] for row in rows.pool_rows(board)] == [("-", "closed", "ok"), ("75 %", "closed", "drained")]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h"), (-3, "0 s")],
)
def test_durations_are_short(seconds: float, told: str) -> None:
    assert rows.duration(seconds) == told


def test_no_text_of_others_is_an_order_to_the_terminal_or_markup() -> None:
    lease = LeaseStatus(
        lease_id=f"l{ESCAPE}",
        vm_id=f"v{ESCAPE}",
        profile=ESCAPE,
        owner_uid=7,
        age_s=1.0,
        expires_in_s=None,
        labels={"job": ESCAPE},
    )
    board = Board(missing=ESCAPE, profiles=(attrs.evolve(HEALTHY, name="[red]", held_back=ESCAPE),), leases=(lease,))
    odd = VmChange(vm_id=ESCAPE, profile=ESCAPE, state=VmState.READY, reason=None, detail=ESCAPE, age_s=0.0)
    board.change(odd, now=0.0, at=NOON)
    board.missing = ESCAPE
    text = "\n".join([text_of(board, now=0.0), *board.events])
    assert "\x1b" not in text
    assert "[red]" in text
    assert "job=" in text
