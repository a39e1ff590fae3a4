"""The page of figures, made from results."""

from __future__ import annotations

from pathlib import Path

from bench import table
from bench.case import Unit
from bench.report import report
from tests.unit.bench.runs import results, series


def test_the_page_has_the_targets_the_figures_and_what_did_not_run(tmp_path: Path) -> None:
    run = results(series("handout/empty", [0.001], [0.001]), series("handout/ready", [0.002], [0.002]))
    page = report(run, plots_in=tmp_path)
    assert "| 1a | hand-out of a ready VM" in page
    assert "<= 3 | 2 times" in page
    assert "2 of 20 met." in page
    assert "| handout/ready | 2 ms |" in page
    assert "`handout/ready`: something" in page
    assert "skipped: e/other: it is not installed" in page
    assert "{" not in page


def test_the_page_shows_the_plots_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "handout.svg").touch()
    page = report(results(), plots_in=tmp_path)
    assert "![handout](performance/handout.svg)" in page
    assert "![miss]" not in page


def test_numbers_have_three_digits_and_a_unit_that_fits() -> None:
    assert table.in_words(0.00123456, Unit.SECONDS) == "1.23 ms"
    assert table.in_words(12.3e-6, Unit.SECONDS) == "12.3 us"
    assert table.in_words(0.0, Unit.SECONDS) == "0 ns"
    assert table.in_words(123456.0, Unit.PER_SECOND) == "123456 /s"
    assert table.in_words(3 * 2.0**20, Unit.BYTES) == "3 MiB"
    assert table.in_words(-5.0, Unit.BYTES) == "-5 B"
