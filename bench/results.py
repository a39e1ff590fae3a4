"""A run's results, and their file: every sample, and its origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs

from bench.case import Unit

FORMAT: Final = "vmpool-bench"
VERSION: Final = 1
"""Raised when a reader of the old format would misread the new one."""

YARDSTICK: Final = "yardstick"
"""The series of every experiment that shows how fast the host was meanwhile."""


class ResultsError(Exception):
    """A file does not hold readable results."""


@attrs.frozen(kw_only=True)
class Series:
    """The samples of a case, or of a part of one."""

    name: str
    """`case`, or `case:part`."""
    experiment: str
    what: str
    unit: Unit
    at: dict[str, int]
    rounds: list[list[float]]
    """In the order of measurement. The same round of two series of an experiment was at the same time."""


@attrs.frozen(kw_only=True)
class Skipped:
    case: str
    reason: str


@attrs.frozen(kw_only=True)
class Ended:
    """How an experiment went."""

    experiment: str
    rounds: int
    seconds: float
    error: str = ""
    """The error that ended it early; its samples until then count."""
    leftovers: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class Host:
    cpu: str
    cores: int
    memory_mib: int
    kernel: str
    python: str
    qemu: str
    accelerator: str
    load: float
    """Mean over the minute before the run: the host's other load."""


@attrs.frozen(kw_only=True)
class Results:
    revision: str
    """Git's revision, with `-dirty` if the checkout has changes."""
    began_at: str
    """ISO 8601, UTC."""
    quick: bool
    host: Host
    ended: list[Ended] = attrs.field(factory=list)
    skipped: list[Skipped] = attrs.field(factory=list)
    series: list[Series] = attrs.field(factory=list)

    def find(self, name: str) -> Series | None:
        return next((series for series in self.series if series.name == name), None)

    def leftovers(self) -> list[str]:
        return [f"{ended.experiment}: {what}" for ended in self.ended for what in ended.leftovers]

    def errors(self) -> list[str]:
        return [f"{ended.experiment}: {ended.error}" for ended in self.ended if ended.error]


def write(results: Results, path: Path) -> None:
    """Replaces the file atomically. Raises OSError."""
    table = {"format": FORMAT, "version": VERSION, **_converter.unstructure(results)}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def read(path: Path) -> Results:
    """Raises ResultsError, which names the file."""
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise ResultsError(f"{path} does not hold results of the benchmarks")
    if (version := table.pop("version", None)) != VERSION:
        raise ResultsError(f"{path} has format version {version}, not {VERSION}; measure that revision again")
    try:
        return _converter.structure(table, Results)
    except cattrs.BaseValidationError as error:
        faults = "; ".join(cattrs.transform_error(error)[:3])
        raise ResultsError(f"{path} is damaged: {faults}") from error


_converter: Final = cattrs.Converter(forbid_extra_keys=True)
