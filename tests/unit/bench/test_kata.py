"""The model of Kata's cache does what its description says."""

from __future__ import annotations

import itertools
import threading

from bench.baselines.kata import vm_cache


def test_it_makes_one_vm_for_each_slot_and_one_more_for_each_that_is_taken() -> None:
    made: list[int] = []
    numbers = itertools.count()
    all_made = threading.Semaphore(0)

    def produce() -> int:
        made.append(next(numbers))
        all_made.release()
        return made[-1]

    with vm_cache(slots=3, produce=produce) as cache:
        for _ in range(3):
            assert all_made.acquire(timeout=30)
        taken = {cache.get_base_vm() for _ in range(2)}
        assert len(taken) == 2
        for _ in range(2):
            assert all_made.acquire(timeout=30)
    assert sorted(made) == list(range(5))


def test_who_comes_when_there_is_none_waits() -> None:
    go = threading.Event()

    def produce() -> str:
        assert go.wait(30)
        return "vm"

    got: list[str] = []
    with vm_cache(slots=1, produce=produce) as cache:
        caller = threading.Thread(target=lambda: got.append(cache.get_base_vm()))
        caller.start()
        assert got == []
        go.set()
        caller.join(30)
    assert got == ["vm"]
