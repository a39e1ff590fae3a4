"""A run: chooses the cases, runs them, shows, saves and compares the results."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import structlog
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from actors.errors import describe
from bench import plots, table
from bench.case import Bench, BenchError, Experiment, Kind
from bench.compare import compare
from bench.experiments import ALL
from bench.host import describe_host, revision
from bench.results import Results, ResultsError, Skipped, read, write
from bench.run import run_experiment
from pool.core.machines import MachineResolver
from pool.host.paths import cache_directory, default_image_directory, file_system_of
from pool.settings.config import ProfileSettings
from vmm.errors import VmmError
from vmm.qemu.backend import QemuBackend

EXIT_FAILED = 1
"""An experiment failed, or left something behind."""

EXIT_USAGE = 2

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it


@attrs.frozen(kw_only=True)
class Options:
    checkout: Path
    output: Path
    only: tuple[str, ...] = ()
    rounds: int | None = None
    """Overrides the experiments' own number."""
    quick: bool = False
    compare_with: Path | None = None


def list_cases() -> None:
    console = Console()
    for experiment in ALL.experiments:
        console.print(f"{experiment.name} ({experiment.kind.value}, {experiment.rounds} rounds)", highlight=False)
        for case in experiment.cases:
            reason = case.missing()
            console.print(f"    {case.name:28} {case.what}", highlight=False, markup=False, soft_wrap=True)
            if reason:
                console.print(f"    {'':28} (skipped here: {reason})", highlight=False, markup=False, soft_wrap=True)


def run(options: Options) -> int:
    """Returns the exit code. Raises BenchError for options that cannot be fulfilled."""
    console = Console(width=None if Console().is_terminal else 160)
    try:
        old = None if options.compare_with is None else read(options.compare_with)
        chosen = ALL.select(options.only)
    except (ResultsError, LookupError) as error:
        raise BenchError(str(error.args[0])) from error
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    results, failure = None, ""
    try:
        results = trio.run(_run_unless_told_to_stop, options, chosen)
    except* (VmmError, BenchError) as errors:
        failure = describe(errors)
    if results is None:
        raise BenchError(failure)
    table.show(results, console)
    if reason := plots.draw(results, options.output):
        console.print(f"skipped the plots: {reason}", style="yellow", highlight=False, markup=False)
    console.print(f"\nresults in {options.output}", highlight=False, markup=False)
    if old is not None:
        table.show_changes(compare(old, results), console)
    return EXIT_FAILED if results.errors() or results.leftovers() else 0


async def _run_unless_told_to_stop(options: Options, chosen: frozenset[str]) -> Results:
    """SIGTERM, SIGHUP and Ctrl-C end services and VMs; results written by then stay."""

    async def watch(received: AsyncIterator[int]) -> None:
        number = await anext(received)
        raise BenchError(f"ended by {signal.Signals(number).name}")

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, received)
            results = await _run(options, chosen)
            nursery.cancel_scope.cancel(reason="all is measured")
    return results


async def _run(options: Options, chosen: frozenset[str]) -> Results:
    missing = {case.name: reason for case in ALL.cases() if case.name in chosen and (reason := case.missing())}
    selected = chosen - missing.keys()
    experiments = [each for each in ALL.experiments if any(case.name in selected for case in each.cases)]
    image_directory = default_image_directory()
    with _home() as home:
        bench = Bench(
            home=home,
            checkout=options.checkout,
            image_directory=image_directory,
            selected=selected,
            quick=options.quick,
        )
        qemu, accelerator = "none started", "none"
        if any(each.kind is Kind.SYSTEM for each in experiments):
            resolver = MachineResolver(
                profile=ProfileSettings(max_vcpus=4, max_memory_mib=1024),
                image_directory=image_directory,
                trial_directory=home,
                cache_directory=cache_directory(),
                backend=QemuBackend(),
            )
            machine = await resolver.resolve()
            bench = attrs.evolve(bench, spec=machine.spec, resolver=resolver)
            qemu, accelerator = machine.reason, machine.spec.accelerator.value
        results = Results(
            revision=revision(options.checkout),
            began_at=datetime.now(UTC).isoformat(timespec="seconds"),
            quick=options.quick,
            host=describe_host(qemu=qemu, accelerator=accelerator),
            skipped=[Skipped(case=name, reason=reason) for name, reason in missing.items()],
        )
        with _Display.open() as display:
            for experiment in experiments:
                await _add(results, experiment, bench, options, display)
                options.output.mkdir(parents=True, exist_ok=True)
                write(results, options.output / "results.json")  # a run that is ended keeps its results
    return results


async def _add(results: Results, experiment: Experiment, bench: Bench, options: Options, display: _Display) -> None:
    rounds = options.rounds or (experiment.quick_rounds if options.quick else experiment.rounds)
    warm_up = 0 if rounds == 1 else experiment.warm_up
    display.begin(experiment, rounds=rounds + warm_up)
    outcome = await run_experiment(
        experiment, bench, rounds=rounds, warm_up=warm_up, progress=display, describe=describe
    )
    display.end()
    results.ended.append(outcome.ended)
    results.series.extend(outcome.series)


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """On tmpfs if there is one, as a service's runtime directory is; with a short name, for sockets."""
    parent = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() and file_system_of(_SHARED_MEMORY) == "tmpfs" else None
    home = Path(tempfile.mkdtemp(prefix="vmpool-b-", dir=parent))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@attrs.define(eq=False)
class _Display:
    """Implements `bench.run.Progress`."""

    _progress: Progress
    _task: TaskID | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[_Display]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[case]}"), console=Console(stderr=True)) as progress:
            yield cls(progress)

    def begin(self, experiment: Experiment, *, rounds: int) -> None:
        self._task = self._progress.add_task(experiment.name, total=rounds, case="")

    def turn(self, experiment: str, *, number: int, rounds: int, case: str) -> None:  # noqa: ARG002 - the protocol's
        assert self._task is not None, "begin() comes first"
        total = self._progress.tasks[self._task].total or rounds
        self._progress.update(self._task, completed=total - rounds + number, case=case)

    def end(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, completed=task.total, case="")
