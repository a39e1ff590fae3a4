"""The results' file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.case import Unit
from bench.results import ResultsError, read, write
from tests.unit.bench.runs import results, series


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = results(series("a:part", [1.0, 2.5], [], [3.0], unit=Unit.BYTES_PER_SECOND))
    write(run, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == run
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"old\.json cannot be read"):
        read(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold results"),
        ('{"format": "something"}', "does not hold results"),
        ('{"format": "vmpool-bench", "version": 999}', "format version 999"),
        ('{"format": "vmpool-bench", "version": 1}', "is damaged"),
    ],
)
def test_what_is_no_results_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=complaint):
        read(path)


def test_an_unknown_key_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write(results(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "good"}))
    with pytest.raises(ResultsError, match="mood"):
        read(path)
