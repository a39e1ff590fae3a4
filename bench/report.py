"""docs/performance.md from a run's results:

    python -m bench.report build/bench/results.json > docs/performance.md

The fixed text is in `performance.md` beside this module; `{...}` stands for a run's figures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bench import plots, table
from bench.results import Results, read
from bench.targets import Verdict, judge

TEXT: Final = Path(__file__).with_name("performance.md")
PLOTS: Final = Path(__file__).parents[1] / "docs" / "performance"


def report(results: Results, *, plots_in: Path) -> str:
    """The page. Links the existing plots, as files of `performance/` beside the page."""
    host = results.host
    judgements = judge(results)
    met = sum(judgement.verdict is Verdict.MET for judgement in judgements)
    values = {
        "revision": results.revision[:12] + ("-dirty" if results.revision.endswith("-dirty") else ""),
        "began_at": results.began_at,
        "host": f"{host.cpu}, {host.cores} cores, {host.memory_mib / 1024:.0f} GiB, Linux {host.kernel}",
        "software": f"Python {host.python}; {host.qemu}",
        "accelerator": host.accelerator,
        "load": f"{host.load:.2f}",
        "quick": " This was a quick run: its figures show that it works, and little else." if results.quick else "",
        "met": f"{met} of {len(judgements)}",
        "targets": _table(table.TARGET_COLUMNS, map(table.target_row, judgements)),
        "figures": _figures(results),
        "plots": "\n\n".join(f"![{name}](performance/{name}.svg)" for name in plots.drawn(plots_in)) or "None drawn.",
        "troubles": _list(
            [
                *(f"skipped: {skipped.case}: {skipped.reason}" for skipped in results.skipped),
                *(f"failed: {error}" for error in results.errors()),
                *(f"left behind: {leftover}" for leftover in results.leftovers()),
            ]
        ),
    }
    return TEXT.read_text(encoding="utf-8").format(**values)


def _figures(results: Results) -> str:
    parts = []
    for ended in results.ended:
        series = [each for each in table.shown(results) if each.experiment == ended.experiment]
        if series:
            parts.append(f"### {ended.experiment} ({ended.rounds} rounds)")
            parts.append(_table(table.COLUMNS, map(table.row, series)))
            about = {each.name.partition(":")[0]: each.what for each in series}
            parts.append(_list([f"`{name}`: {what}" for name, what in about.items()]))
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(item.split())}" for item in items) or "- nothing"


def main() -> None:
    results = read(Path(sys.argv[1]))
    if reason := plots.draw(results, PLOTS):
        print(f"plots not drawn anew: {reason}", file=sys.stderr)
    print(report(results, plots_in=PLOTS), end="")


if __name__ == "__main__":
    main()
