"""Results made up for tests."""

from __future__ import annotations

from bench.case import Unit
from bench.results import Ended, Host, Results, Series, Skipped

HOST = Host(
    cpu="Abacus", cores=2, memory_mib=1024, kernel="6.1", python="3.11", qemu="QEMU 7.2", accelerator="tcg", load=0.5
)


def series(name: str, *rounds: list[float], unit: Unit = Unit.SECONDS, experiment: str = "e") -> Series:
    return Series(name=name, experiment=experiment, what="something", unit=unit, at={}, rounds=list(rounds))


def results(*found: Series) -> Results:
    return Results(
        revision="0123456789abcdef",
        began_at="2026-01-01T00:00:00+00:00",
        quick=False,
        host=HOST,
        ended=[Ended(experiment="e", rounds=3, seconds=1.5)],
        skipped=[Skipped(case="e/other", reason="it is not installed")],
        series=list(found),
    )
