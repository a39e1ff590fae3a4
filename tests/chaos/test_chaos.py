"""A little chaos, and that the books see what they are for. `scripts/chaos` makes as much as you like."""

from __future__ import annotations

import itertools
import math

import pytest

from tests.chaos.books import FLOODED, UNKNOWN, Books, Holding, ViolationError
from tests.chaos.campaign import chaos_home, run_chaos
from tests.chaos.plan import Blow, Way, cycles, steps
from vmm.initramfs.image import GuestImage

SECONDS = 15
SEED = 1


@pytest.mark.qemu
@pytest.mark.timeout(300)
async def test_whatever_is_killed_nobodys_lease_is_lost_but_with_its_qemu(guest_image: GuestImage) -> None:
    with chaos_home(guest_image.kernel.parent) as home:
        report = await run_chaos(home, seconds=SECONDS, seed=SEED)
    assert report.books.starts
    assert report.books.done["cycles"]
    assert report.log["leases restored"]


def test_the_choices_follow_from_the_seed() -> None:
    def first(seed: int) -> list[object]:
        return [*itertools.islice(steps(seed), 50), *itertools.islice(cycles(seed, 1), 50)]

    assert first(1) == first(1) != first(2)
    assert list(itertools.islice(cycles(1, 1), 9)) != list(itertools.islice(cycles(1, 2), 9))
    assert {step.blow for step in itertools.islice(steps(1), 100)} == set(Blow)
    assert {cycle.way for cycle in itertools.islice(cycles(1, 1), 100)} == set(Way)


def holding(vm_id: str, lease_id: str, *, expires_at: float = math.inf) -> Holding:
    return Holding(lease_id=lease_id, vm_id=vm_id, expires_at=expires_at)


def test_a_vm_with_two_leases_is_a_violation() -> None:
    books = Books()
    books.granted(holding("vm-1", "lease-1"))
    books.granted(holding("vm-1", "lease-1"))
    with pytest.raises(ViolationError, match="vm-1 has lease lease-2, and had lease lease-1"):
        books.granted(holding("vm-1", "lease-2"))


async def test_a_lease_that_ends_for_no_reason_is_a_violation() -> None:
    books = Books(killed={"vm-1"})
    books.ended(holding("vm-1", "lease-1"), said="vm_lost")
    books.ended(holding("vm-2", "lease-2", expires_at=0.0), said="expired")
    given_back = holding("vm-3", "lease-3")
    given_back.given_back = True
    books.ended(given_back, said="no lease")
    assert sum(books.lost.values()) == len(books.lost) == 3
    flooding = Books(flooding={"vm-5"})
    flooding.ended(holding("vm-5", "lease-5"), said=f"vm_lost: the guest agent {FLOODED}")
    flooding.ended(holding("vm-5", "lease-5"), said=f"NOT_FOUND: lease_id: {UNKNOWN} 'lease-5'")
    for name, said in (
        ("vm-5", "vm_lost: its guest was reset"),
        ("vm-6", f"vm_lost: the guest agent {FLOODED}"),
        ("vm-6", f"NOT_FOUND: lease_id: {UNKNOWN} 'lease-6'"),
    ):
        with pytest.raises(ViolationError, match=f"of {name} ended"):
            flooding.ended(holding(name, "lease"), said=said)
    with pytest.raises(ViolationError, match="lease-4 of vm-4 ended"):
        books.ended(holding("vm-4", "lease-4"), said="vm_lost")
