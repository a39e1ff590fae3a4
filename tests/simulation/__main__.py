"""python -m tests.simulation [SEEDS [FIRST]]: so many seeds on all cores; one seed alone is shown step by step."""

from __future__ import annotations

import sys
import time
from typing import Final

from tests.simulation.campaign import outcomes
from tests.simulation.simulation import simulate

PROGRESS_S: Final = 10.0


def show(seed: int) -> int:
    """One seed, with all that happens."""
    report = simulate(seed, listener=say)
    say(f"seed {seed}: {report.lines} lines, digest {report.digest}")
    say(str(report.violation) if report.violation else "nothing found")
    return 1 if report.violation else 0


def main(number: int = 10_000, first: int = 0) -> int:
    if number == 1:
        return show(first)
    began = told = time.monotonic()
    done = failed = lines = leases = 0
    virtual_s = 0.0
    for outcome in outcomes(range(first, first + number)):
        done, lines, leases = done + 1, lines + outcome.lines, leases + outcome.leases
        virtual_s += outcome.virtual_s
        if outcome.finding:
            failed += 1
            say(f"{outcome.finding}\nseed {outcome.seed} fails; replay it: scripts/simulate 1 {outcome.seed}\n")
        if time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            say(f"{done} seeds, {done / (told - began):.1f} a second, {failed} failed")
    took = time.monotonic() - began
    say(
        f"{done} seeds in {took:.0f} s, {done / took:.1f} a second: {virtual_s / 3600:.0f} hours of {leases} leases, "
        f"{lines} steps; {failed} failed"
    )
    return 1 if failed else 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
