"""Which cases there are, and the choice among them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

from bench.case import Bench, Case, Experiment, Kind, Sampler
from bench.experiments import ALL
from bench.registry import Registry
from bench.targets import TARGETS


@contextlib.asynccontextmanager
async def _open(_bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    yield {}


def experiment(name: str, *cases: str, kind: Kind = Kind.MICRO) -> Experiment:
    return Experiment(
        name=name,
        kind=kind,
        cases=tuple(Case(name=case, what="") for case in cases),
        open=_open,
        rounds=1,
        quick_rounds=1,
    )


REGISTRY = Registry((experiment("one", "one/a", "one/b"), experiment("two", "two/a", kind=Kind.SYSTEM)))


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ((), {"one/a", "one/b", "two/a"}),
        (("one/a",), {"one/a"}),
        (("one",), {"one/a", "one/b"}),
        (("*/a",), {"one/a", "two/a"}),
        (("system",), {"two/a"}),
        (("one/b", "two"), {"one/b", "two/a"}),
    ],
)
def test_patterns_are_for_cases_experiments_and_kinds(patterns: tuple[str, ...], chosen: set[str]) -> None:
    assert REGISTRY.select(patterns) == chosen


def test_a_pattern_for_nothing_is_named() -> None:
    with pytest.raises(LookupError, match="'three'"):
        REGISTRY.select(("one", "three"))


def test_a_name_is_there_once() -> None:
    with pytest.raises(ValueError, match="one/a"):
        Registry((experiment("one", "one/a"), experiment("two", "one/a")))


def test_targets_are_about_cases_that_there_are() -> None:
    names = {case.name for case in ALL.cases()}
    for target in TARGETS:
        for figure in target.figure.figures:
            for series in (figure.over, figure.under):
                assert not series or series.partition(":")[0] in names, target.number


def test_a_target_that_is_a_ratio_is_within_one_experiment() -> None:
    homes = {case.name: experiment.name for experiment in ALL.experiments for case in experiment.cases}
    for target in TARGETS:
        for figure in target.figure.figures:
            if figure.under:
                over, under = (name.partition(":")[0] for name in (figure.over, figure.under))
                assert homes[over] == homes[under], target.number
