"""python -m tests.fuzz [NUMBER [SEED [FIRST]]]"""

from __future__ import annotations

import faulthandler
import functools
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Final

import trio

from tests.fuzz.campaign import BATCH, BatchError, Report, command, narrow, run_campaign
from tests.fuzz.client import FindingError
from tests.fuzz.memory import MemorySample

HANG_S: Final = 300.0
"""A batch that takes longer hangs, and everything with it: service and clients share one thread."""


def main(number: int = 100_000, seed: int = 1, first: int = 0) -> int:
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    warnings.simplefilter("error")
    make_directory = functools.partial(tempfile.TemporaryDirectory, prefix="vmpool-")
    reached = first

    def progress(sample: MemorySample) -> None:
        nonlocal reached
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        reached = first + sample.inputs
        if sample.inputs % (20 * BATCH) == 0:
            say(f"{sample.inputs} inputs, {sample.objects} objects, {sample.rss_mib:.1f} MiB")

    try:
        with make_directory() as directory:
            report: Report = trio.run(
                functools.partial(
                    run_campaign, Path(directory), inputs=number, seed=seed, first=first, progress=progress
                )
            )
    except FindingError as finding:
        say(f"{finding}\nreplay it: {command(inputs=1, seed=seed, first=finding.index)}")
        return 1
    except BatchError as error:
        batch = range(reached, min(reached + BATCH, first + number))
        say(f"{error}\nreplay the batch: {command(inputs=len(batch), seed=seed, first=batch.start)}")
        if len(batch) > 1 and (culprit := narrow(make_directory, seed, batch)) >= 0:
            say(f"or one that does it alone: {command(inputs=1, seed=seed, first=culprit)}")
        return 1
    say(f"{report.inputs} inputs of seed {seed} in {report.duration_s:.0f} s, nothing found")
    for outcome, times in sorted(report.outcomes.items()):
        say(f"{times:8} {outcome}")
    growth = report.growth
    if growth is not None:
        say(f"memory: {growth}")
        if growth.lasting:
            say(f"memory grows lastingly; replay: {command(inputs=number, seed=seed, first=first)}")
            return 1
    return 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
