"""python -m tests.chaos [SECONDS [SEED]]"""

from __future__ import annotations

import functools
import os
import random
import sys
from pathlib import Path

import trio

from tests.chaos.books import ViolationError
from tests.chaos.campaign import Report, chaos_home, run_chaos
from tests.chaos.host import tail


def main(seconds: int = 180, seed: int | None = None) -> int:
    seed = random.randrange(10_000) if seed is None else seed
    say(f"{seconds} s of seed {seed}")
    image_directory = Path(os.environ.get("VMPOOL_IMAGE_DIR", "build/image")).absolute()
    with chaos_home(image_directory) as home:
        report: Report | None = None
        try:
            report = trio.run(functools.partial(run_chaos, home, seconds=seconds, seed=seed))
        except* ViolationError as violations:
            say(tail(home.log))
            for violation in leaves(violations):
                say(f"violation: {violation}")
            say(f"the same blows again: scripts/chaos {seconds} {seed}")
    if report is None:
        return 1
    for line in report.lines():
        say(line)
    return 0


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in leaves(member)]
    return [error]


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
