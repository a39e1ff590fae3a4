"""Cases to measure, and the experiments in which cases take turns."""

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
    """Without real VMs."""
    SYSTEM = "system"
    """Real VMs."""


class BenchError(Exception):
    """A measurement could not be made."""


def _always_there() -> str:
    return ""


@attrs.frozen(kw_only=True)
class Case:
    """One measurement. Its samples make one series, and another for each of its parts."""

    name: str
    what: str
    unit: Unit = Unit.SECONDS
    at: Mapping[str, int] = attrs.field(factory=dict)
    """Its place on an axis: number of VMs, of clients."""
    missing: Callable[[], str] = _always_there
    """Why it cannot run here; empty if it can."""


@attrs.define(eq=False)
class Turn:
    """The samples of one case in one round."""

    samples: dict[str, list[float]] = attrs.field(factory=dict)
    units: dict[str, Unit] = attrs.field(factory=dict)
    """The units of parts that differ from their case's."""

    def record(self, value: float, *, part: str = "", unit: Unit | None = None) -> None:
        """Adds a sample, in the case's unit unless another one is given."""
        self.samples.setdefault(part, []).append(value)
        if unit is not None:
            self.units[part] = unit


Sampler = Callable[[Turn], Awaitable[None]]
"""Measures for one turn, once or several times, and restores the previous state."""


@attrs.frozen(kw_only=True)
class Bench:
    """The environment of the experiments."""

    home: Path
    """A directory for an experiment's files, to be left empty. Its path is short, and on tmpfs if possible."""
    checkout: Path
    image_directory: Path
    selected: frozenset[str]
    """Names of cases: the set-up of others can be left out."""
    quick: bool = False
    spec: MachineSpec | None = None
    """The machine, its accelerator chosen. None if no experiment with VMs was chosen."""
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
    """Cases that take turns: in each round each has one. Cases to be compared belong into one experiment."""

    name: str
    kind: Kind
    cases: tuple[Case, ...]
    open: Callable[[Bench], AbstractAsyncContextManager[Mapping[str, Sampler]]]
    """Holds the set-up of all cases within the block; yields a sampler for each chosen case."""
    rounds: int
    quick_rounds: int
    warm_up: int = 1
    """Rounds before the first one that counts."""
    limit_s: float = 3600.0
    """An experiment that takes longer hangs."""
