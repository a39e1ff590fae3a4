"""One seed replays exactly: the same events, effects and times, in this process and in every other."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.simulation.simulation import simulate

SEEDS = range(7000, 7006)

PROGRAM = """
import sys
from tests.simulation.simulation import simulate
for seed in map(int, sys.argv[1:]):
    print(simulate(seed).digest)
"""


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return [simulate(seed).digest for seed in SEEDS]


def test_twice_in_one_process(digests: list[str]) -> None:
    random.seed(42)  # what others draw does not matter
    assert [simulate(seed).digest for seed in SEEDS] == digests


def test_in_a_fresh_interpreter_whose_hashes_are_others(digests: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, SEEDS)],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert process.stdout.split() == digests


def test_different_seeds_are_different(digests: list[str]) -> None:
    assert len(set(digests)) == len(SEEDS)
