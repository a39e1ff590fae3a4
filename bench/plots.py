"""Plots of a run, as PNG and SVG: latency distributions, latency by pool size and by clients, memory by VMs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from bench.case import Unit
from bench.results import Results, Series
from bench.statistics import median, p99, pooled

WITHOUT: Final = "matplotlib is not installed; `pip install vmpool[bench]`, or scripts/setup --dev in a checkout"


@attrs.frozen(kw_only=True)
class Distribution:
    """Empirical distributions of several series in one picture."""

    file: str
    title: str
    series: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Scaling:
    """Median and p99 of series along an axis."""

    file: str
    title: str
    axis: str
    series: tuple[str, ...]
    """The name before the @, with the part after a colon if any: `rpc/acquire`, `idle/clones:pss`."""
    label: str = "ms"
    scale: float = 1e3


DISTRIBUTIONS: Final = (
    Distribution(
        file="handout",
        title="Hand-out of a ready VM: whole Acquire, its stages, and an empty call",
        series=("handout/empty", "handout/ready", "handout/ready:queue", "handout/ready:resume", "handout/ready:agent"),
    ),
    Distribution(
        file="miss",
        title="Misses, and what QEMU takes to start",
        series=("miss/qemu-start", "miss/shell", "miss/clone", "miss/wait", "miss/direct"),
    ),
    Distribution(
        file="start",
        title="Until there is a base VM",
        series=("start/qemu", "start/restore", "start/shell", "start/clone", "start/bare-boot", "start/direct"),
    ),
    Distribution(
        file="others",
        title="Beside others; libvirt with the same guest and QEMU, quick-sandbox with its own guest",
        series=(
            "others/vmpool-hand-out", "others/vmpool-clone", "others/libvirt-resume", "others/libvirt-restore",
            "others/libvirt-start", "others/quick-sandbox:revert", "others/quick-sandbox",
        ),
    ),
)  # fmt: skip

SCALINGS: Final = (
    Scaling(file="decision-by-vms", title="A hand-out's decision in the ledger", axis="vms",
            series=("ledger/hand-out",), label="us", scale=1e6),
    Scaling(file="latency-by-vms", title="Calls by size of the pool (simulated VMs)", axis="vms",
            series=("rpc/empty", "rpc/acquire", "cache/vmpool", "cache/kata-model")),
    Scaling(file="latency-by-clients", title="Calls by number of clients (simulated VMs)", axis="clients",
            series=("rpc/empty-rate:latency", "rpc/pair-rate:latency")),
    Scaling(file="handout-by-clients", title="Sustained hand-outs by number of clients (real VMs)", axis="clients",
            series=("sustained/clones:latency",)),
    Scaling(file="memory-by-vms", title="Memory by number of idle clones", axis="vms",
            series=("idle/clones:all-pss", "idle/clones:service"), label="MiB", scale=2.0**-20),
)  # fmt: skip


def draw(results: Results, directory: Path) -> str:
    """Writes every plot that has results. Returns why none were drawn; empty if they were."""
    if importlib.util.find_spec("matplotlib") is None:
        return WITHOUT
    directory.mkdir(parents=True, exist_ok=True)
    for distribution in DISTRIBUTIONS:
        found = [series for name in distribution.series if (series := results.find(name)) and any(series.rounds)]
        if found:
            _save(_draw_distribution(distribution, found), directory / distribution.file)
    for scaling in SCALINGS:
        lines = {name: points for name in scaling.series if len(points := _points(results, name, scaling.axis)) > 1}
        if lines:
            _save(_draw_scaling(scaling, lines), directory / scaling.file)
    return ""


def drawn(directory: Path) -> list[str]:
    """The existing plots, in reading order."""
    return [each.file for each in (*DISTRIBUTIONS, *SCALINGS) if (directory / f"{each.file}.svg").is_file()]


def _points(results: Results, name: str, axis: str) -> list[tuple[int, Series]]:
    case, _, part = name.partition(":")
    points = []
    for series in results.series:
        series_case, _, series_part = series.name.partition(":")
        if series_case.partition("@")[0] == case and series_part == part and axis in series.at and any(series.rounds):
            points.append((series.at[axis], series))
    return sorted(points, key=lambda point: point[0])


def _figure() -> tuple[Any, Any]:
    # Not pyplot: it would look for a display, and keeps its figures until the end.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional dependency
    from matplotlib.figure import Figure  # noqa: PLC0415 - idem

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _draw_distribution(wanted: Distribution, series: Sequence[Series]) -> Any:
    figure, axes = _figure()
    for each in series:
        assert each.unit is Unit.SECONDS, f"{each.name} is not a latency"
        values = sorted(value * 1e3 for value in pooled(each.rounds))
        shares = [(number + 1) / len(values) for number in range(len(values))]
        axes.step([values[0], *values], [0.0, *shares], where="post", label=f"{each.name} (n={len(values)})")
    axes.set(xscale="log", xlabel="ms", ylabel="share of samples", title=wanted.title)
    axes.legend(fontsize="small")
    return figure


def _draw_scaling(wanted: Scaling, lines: dict[str, list[tuple[int, Series]]]) -> Any:
    figure, axes = _figure()
    for name, points in lines.items():
        at = [number for number, _ in points]
        line = axes.plot(at, _values(points, median, wanted.scale), marker="o", label=f"{name}, median")[0]
        if wanted.axis != "vms" or wanted.label != "MiB":
            axes.plot(at, _values(points, p99, wanted.scale), marker="x", linestyle=":", color=line.get_color(),
                      label=f"{name}, p99")  # fmt: skip
    places = [number for points in lines.values() for number, _ in points]
    scale = "log" if max(places) >= 10 * min(places) else "linear"
    axes.set(xscale=scale, xlabel=wanted.axis, ylabel=wanted.label, title=wanted.title)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    return figure


def _values(points: Iterable[tuple[int, Series]], statistic: Any, scale: float) -> list[float]:
    return [statistic(pooled(series.rounds)) * scale for _, series in points]


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context  # noqa: PLC0415 - an optional dependency

    figure.savefig(path.with_suffix(".png"), dpi=120)
    # Without the date and random ids, which would change an unchanged picture's file.
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
