"""What the C library keeps goes back to the host, if it is much."""

from __future__ import annotations

from pool.host.allocator import GROWTH, Surplus, resident_bytes, trim


class Process:
    """Its memory is what the test says."""

    def __init__(self) -> None:
        self.size = 100 * GROWTH
        self.kept = 0
        self.trimmed = 0

    def resident(self) -> int:
        return self.size + self.kept

    def trim(self) -> None:
        self.kept = 0
        self.trimmed += 1


def test_only_what_is_much_is_given_back() -> None:
    process = Process()
    surplus = Surplus(resident=process.resident, trim=process.trim)
    process.kept = GROWTH - 1
    assert not surplus.give_back()
    assert process.trimmed == 0
    process.kept = GROWTH
    assert surplus.give_back()
    assert (process.trimmed, process.kept) == (1, 0)


def test_what_was_in_use_the_last_time_is_given_back_the_next() -> None:
    process = Process()
    surplus = Surplus(resident=process.resident, trim=process.trim)
    process.size += 2 * GROWTH
    assert surplus.give_back()
    process.size -= 2 * GROWTH
    process.kept += 2 * GROWTH
    assert surplus.give_back()
    assert process.kept == 0
    assert not surplus.give_back()


def test_who_has_shrunk_is_measured_by_that() -> None:
    process = Process()
    surplus = Surplus(resident=process.resident, trim=process.trim)
    process.size -= 2 * GROWTH
    surplus.give_back()
    process.kept = GROWTH
    surplus.give_back()
    assert process.trimmed == 1


def test_the_c_library_takes_the_call() -> None:
    trim()
    assert resident_bytes() > 2**20
