"""The tables at the end of a run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench import compare, targets
from bench.case import Unit
from bench.compare import Change
from bench.results import YARDSTICK, Results, Series
from bench.statistics import pooled, summarize
from bench.targets import Judgement

_SCALES = {
    Unit.SECONDS: ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    Unit.PER_SECOND: ((1.0, "/s"),),
    Unit.BYTES: ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    Unit.BYTES_PER_SECOND: ((2.0**20, "MiB/s"), (2.0**10, "KiB/s"), (1.0, "B/s")),
    Unit.CORES: ((1.0, "cores"), (1e-3, "mcores")),
}


def in_words(value: float, unit: Unit) -> str:
    """With three digits, in the largest unit that leaves one before the point."""
    scales = _SCALES[unit]
    scale, name = next((each for each in scales if abs(value) >= each[0]), scales[-1])
    number = value / scale
    return f"{number:.0f} {name}" if abs(number) >= 100 else f"{number:.3g} {name}"


def shown(results: Results) -> list[Series]:
    """The series with samples, yardsticks left out."""
    return [series for series in results.series if not series.name.endswith(YARDSTICK) and any(series.rounds)]


def row(series: Series) -> tuple[str, ...]:
    found = summarize(pooled(series.rounds))
    unit = series.unit
    return (
        series.name,
        in_words(found.median, unit),
        f"{in_words(found.q25, unit)} .. {in_words(found.q75, unit)}",
        in_words(found.p99, unit),
        in_words(found.maximum, unit),
        str(found.n),
    )


COLUMNS = ("case", "median", "middle half", "p99", "largest", "n")
TARGET_COLUMNS = ("", "target", "limit", "figure", "95 % interval", "")


def target_row(judgement: Judgement) -> tuple[str, ...]:
    target, estimate, limit = judgement.target, judgement.estimate, judgement.limit
    sign = ">=" if target.at_least is not None else "<="
    if estimate is None:
        figure, interval = "-", ""
    else:
        figure = f"{estimate.value:.3g} {target.unit}"
        interval = "" if estimate.low == estimate.high else f"{estimate.low:.3g} .. {estimate.high:.3g}"
    verdict = judgement.verdict.value
    if interval and not judgement.sure:
        verdict += ", within noise"
    return (target.number, target.what, "-" if limit is None else f"{sign} {limit:.3g}", figure, interval, verdict)


def show(results: Results, console: Console) -> None:
    table = Table(title="measured", box=None, title_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for series in shown(results):
        table.add_row(*row(series))
    console.print(table)
    judgements = targets.judge(results)
    if any(judgement.estimate is not None for judgement in judgements):
        table = Table(title="\ntargets", box=None, title_justify="left")
        for column in TARGET_COLUMNS:
            table.add_column(column)
        for judgement in judgements:
            if judgement.estimate is not None:
                table.add_row(*target_row(judgement))
        console.print(table)
    for skipped in results.skipped:
        console.print(f"skipped {skipped.case}: {skipped.reason}", style="yellow", highlight=False)
    for error in results.errors():
        console.print(f"failed: {error}", style="red", highlight=False, markup=False)
    for leftover in results.leftovers():
        console.print(f"left behind: {leftover}", style="red", highlight=False, markup=False)


def show_changes(changes: list[Change], console: Console) -> None:
    """Shows the changes, and the numbers of the other series."""
    table = Table(title="\nchanged beyond noise", box=None, title_justify="left")
    for column in ("case", "before", "now", "factor", "noise", "p", ""):
        table.add_column(column)
    moved = [change for change in changes if change.verdict in (compare.Verdict.BETTER, compare.Verdict.WORSE)]
    for change in moved:
        table.add_row(
            change.series,
            in_words(change.before, change.unit),
            in_words(change.after, change.unit),
            f"{change.factor:.3g}",
            f"{change.noise:.0%}",
            f"{change.p:.1g}",
            change.verdict.value,
        )
    if moved:
        console.print(table)
    counts = {verdict: sum(change.verdict is verdict for change in changes) for verdict in compare.Verdict}
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    console.print(f"\ncompared {len(changes)} series: {told or 'none is in both'}", highlight=False)
