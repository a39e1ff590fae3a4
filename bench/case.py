"""What is measured: cases, and the experiments in which cases take turns."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs

from pool.core.machines import MachineResolver
from vmm.spec import MachineSpec


class Unit(enum.Enum):
    SECONDS = "s"
    PER_SECOND = "1/s"
    BYTES = "B"
    BYTES_PER_SECOND = "B/s"
    CORES = "cores"
    """CPU seconds per second."""


class Kind(enum.Enum):
    MICRO = "micro"
    """No VM."""
    SYSTEM = "system"
    """Real VMs."""


class BenchError(Exception):
    """What was to be measured did not happen."""


def _always_there() -> str:
    return ""


@attrs.frozen(kw_only=True)
class Case:
    """One thing that is measured. Its samples make one series, and one more for each part that it tells apart."""

    name: str
    what: str
    unit: Unit = Unit.SECONDS
    at: Mapping[str, int] = attrs.field(factory=dict)
    """Where on an axis it lies: number of VMs, of clients."""
    missing: Callable[[], str] = _always_there
    """Why it cannot run here; empty if it can."""


@attrs.define(eq=False)
class Turn:
    """What one case measures in one round."""

    samples: dict[str, list[float]] = attrs.field(factory=dict)
    units: dict[str, Unit] = attrs.field(factory=dict)
    """Of parts that have another unit than their case."""

    def record(self, value: float, *, part: str = "", unit: Unit | None = None) -> None:
        """A sample; in the case's unit, seconds mostly, unless it is told otherwise."""
        self.samples.setdefault(part, []).append(value)
        if unit is not None:
            self.units[part] = unit


Sampler = Callable[[Turn], Awaitable[None]]
"""Measures once, or as often as makes a turn of it, and leaves everything as it was."""


@attrs.frozen(kw_only=True)
class Bench:
    """What experiments run with."""

    home: Path
    """A directory for what an experiment needs on disk; it is to be left empty. Short, and on tmpfs if there is one."""
    checkout: Path
    image_directory: Path
    selected: frozenset[str]
    """Names of cases: set-up for others can be left out."""
    quick: bool = False
    spec: MachineSpec | None = None
    """The machine, its accelerator decided. None where no experiment with VMs was chosen."""
    resolver: MachineResolver | None = None

    def wants(self, *names: str) -> bool:
        """Whether one of the cases was chosen."""
        return any(name in self.selected for name in names)

    @property
    def machine(self) -> MachineSpec:
        assert self.spec is not None, "an experiment of kind SYSTEM has one"
        return self.spec


@attrs.frozen(kw_only=True)
class Experiment:
    """Cases that take turns: in each round each has one. What is compared belongs into one experiment."""

    name: str
    kind: Kind
    cases: tuple[Case, ...]
    open: Callable[[Bench], AbstractAsyncContextManager[Mapping[str, Sampler]]]
    """What all cases need, for as long as the block lasts; yields a sampler for each case that was chosen."""
    rounds: int
    quick_rounds: int
    warm_up: int = 1
    """Rounds before the first one that counts."""
    limit_s: float = 3600.0
    """What takes longer hangs."""
