"""`vmpool bench`: measures; from a checkout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

import pool
from pool.cli.options import EXIT_USAGE, failure
from pool.cli.words import TEXT, HostPath


@click.command()
@click.option(
    "--only", multiple=True, type=TEXT, metavar="PATTERN", help="Cases, experiments or kinds (micro, system); * and ?."
)
@click.option("--rounds", type=click.IntRange(min=1), help="How often each case has its turn.")
@click.option("--quick", is_flag=True, help="Few rounds: to see that it works.")
@click.option("--list", "list_only", is_flag=True, help="Show the cases, measure nothing.")
@click.option(
    "--output",
    type=HostPath(file_okay=False),
    help="For results.json and plots; default: build/bench of the checkout.",
)
@click.option(
    "--compare",
    "compare_with",
    type=HostPath(dir_okay=False, exists=True),
    metavar="OLD.json",
    help="Say what changed since these results, beyond noise.",
)
def bench(
    *,
    only: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    list_only: bool,
    output: Path | None,
    compare_with: Path | None,
) -> None:
    """Measure this host and this revision: hand-outs, clones, boots, memory, beside baselines in the same run.

    Exit code 1: something could not be measured, or left something behind.
    """
    checkout = Path(pool.__file__).parents[1]
    if not (checkout / "bench" / "command.py").is_file():
        raise failure(
            "benchmarks are not part of the installed package; in a checkout of vmpool's repository run scripts/bench",
            code=EXIT_USAGE,
        )
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))  # an editable install shows the packages, not the directory that holds them
    command = importlib.import_module("bench.command")
    if list_only:
        command.list_cases()
        return
    options = command.Options(
        checkout=checkout,
        only=only,
        rounds=rounds,
        quick=quick,
        output=output or checkout / "build" / "bench",
        compare_with=compare_with,
    )
    try:
        code = command.run(options)
    except command.BenchError as error:
        raise failure(str(error), code=EXIT_USAGE) from error
    raise SystemExit(code)
