"""How cases take turns, and what becomes of errors and leftovers."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
import pytest

from bench import leftovers
from bench.case import Bench, BenchError, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.run import Outcome, Quiet, run_experiment


@attrs.define(eq=False)
class Stage:
    """An experiment of three cases that notes what is done to it."""

    home: Path
    log: list[str] = attrs.field(factory=list)
    fails_after: int = 1000

    def experiment(self) -> Experiment:
        return Experiment(
            name="e",
            kind=Kind.MICRO,
            cases=tuple(Case(name=f"e/{name}", what=name, at={"vms": 1}) for name in "abc"),
            open=self.open,
            rounds=1,
            quick_rounds=1,
        )

    @contextlib.asynccontextmanager
    async def open(self, _bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
        self.log.append("open")
        try:
            yield {f"e/{name}": self.sampler(name) for name in "abc"}
        finally:
            self.log.append("close")

    def sampler(self, name: str) -> Sampler:
        async def sample(turn: Turn) -> None:
            self.log.append(name)
            if len(self.log) > self.fails_after:
                raise BenchError("the host is on fire")
            turn.record(float(len(self.log)))
            turn.record(1.0, part="memory", unit=Unit.BYTES)

        return sample

    async def run(self, *names: str, rounds: int = 2, warm_up: int = 0) -> Outcome:
        bench = Bench(
            home=self.home,
            checkout=self.home,
            image_directory=self.home,
            selected=frozenset(f"e/{name}" for name in names),
        )
        return await run_experiment(
            self.experiment(), bench, rounds=rounds, warm_up=warm_up, progress=Quiet(), describe=str
        )


async def test_cases_take_turns_there_and_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.run("a", "b", "c", rounds=3)
    assert stage.log == ["open", *"abc", *"cba", *"abc", "close"]


async def test_only_what_was_chosen_is_measured(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    outcome = await stage.run("b", rounds=1)
    assert stage.log == ["open", "b", "close"]
    assert [series.name for series in outcome.series] == ["e/yardstick", "e/b", "e/b:memory"]


async def test_every_sample_is_kept_in_its_round_and_with_its_unit(tmp_path: Path) -> None:
    outcome = await Stage(tmp_path).run("a", "b", rounds=2)
    found = {series.name: series for series in outcome.series}
    assert found["e/a"].rounds == [[2.0], [5.0]]
    assert found["e/b"].rounds == [[3.0], [4.0]]
    assert found["e/a:memory"].unit is Unit.BYTES
    assert found["e/a"].unit is Unit.SECONDS
    assert found["e/a"].at == {"vms": 1}
    assert len(found["e/yardstick"].rounds) == 2


async def test_warm_up_rounds_do_not_count(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    outcome = await stage.run("a", rounds=2, warm_up=2)
    assert stage.log == ["open", *"aaaa", "close"]
    assert outcome.ended.rounds == 2
    assert [each for series in outcome.series if series.name == "e/a" for each in series.rounds] == [[4.0], [5.0]]


async def test_an_error_ends_the_experiment_and_keeps_what_was_measured(tmp_path: Path) -> None:
    stage = Stage(tmp_path, fails_after=3)
    outcome = await stage.run("a", "b", rounds=3)
    assert outcome.ended.error == "the host is on fire"
    assert stage.log[-1] == "close"
    assert next(series for series in outcome.series if series.name == "e/a").rounds == [[2.0]]


async def test_what_is_left_behind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_GRACE_S", 0.01)
    stage = Stage(tmp_path)
    (tmp_path / "vm").mkdir()
    outcome = await stage.run("a")
    assert outcome.ended.leftovers == [f"file {tmp_path / 'vm'}"]
    (tmp_path / "vm").rmdir()
    assert (await stage.run("a")).ended.leftovers == []


async def test_an_open_descriptor_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_GRACE_S", 0.01)
    watch = leftovers.Watch.begin(tmp_path)
    with socket.socket() as opened:
        inode = os.fstat(opened.fileno()).st_ino
        assert await watch.end() == [f"descriptor {opened.fileno()} -> socket:[{inode}]"]
    assert await watch.end() == []
