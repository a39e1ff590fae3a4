"""`python -m bench`, in a checkout: the command `bench`, beside those of `vmpool`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from bench import command
from bench.case import BenchError
from pool.cli.main import main
from pool.cli.options import EXIT_USAGE, failure
from pool.cli.words import TEXT, HostPath

CHECKOUT: Final = Path(__file__).parents[1]


@click.command()
@click.option(
    "--only", multiple=True, type=TEXT, metavar="PATTERN", help="Cases, experiments or kinds (micro, system); * and ?."
)
@click.option("--rounds", type=click.IntRange(min=1), help="How often each case is measured.")
@click.option("--quick", is_flag=True, help="Few rounds, as a check that everything works.")
@click.option("--list", "list_only", is_flag=True, help="List the cases without measuring.")
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
    help="Compare with these results, and report changes beyond noise.",
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

    Exit code 1: an experiment failed, or left something behind.
    """
    if list_only:
        command.list_cases()
        return
    options = command.Options(
        checkout=CHECKOUT,
        only=only,
        rounds=rounds,
        quick=quick,
        output=output or CHECKOUT / "build" / "bench",
        compare_with=compare_with,
    )
    try:
        code = command.run(options)
    except BenchError as error:
        raise failure(str(error), code=EXIT_USAGE) from error
    raise SystemExit(code)


main.add_command(bench)

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]], prog_name="python -m")
