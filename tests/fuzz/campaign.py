"""Throws inputs at a service in batches; after each, the service must be as if nothing had been."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs
import structlog
import trio

from pool.ledger import leases
from pool.ledger.records import Owner
from pool.rpc import users
from tests.fuzz.client import LIMIT_S, FindingError, send_calls, send_stream
from tests.fuzz.drawn import LEASE
from tests.fuzz.inputs import Call, Input, Stream, make_input
from tests.fuzz.memory import Growth, MemorySample, growth
from tests.unit.rpc.served import Served, serving
from vmpool.client.errors import ClientError

BATCH: Final = 500
CONNECTIONS: Final = 8
"""At a time."""
CALLS_PER_CONNECTION: Final = 25
POOL_SIZE: Final = 2
_OWNER: Final = Owner(uid=0)


class BatchError(Exception):
    """The service is not what it was before the batch."""


@attrs.frozen(kw_only=True)
class Report:
    inputs: int
    duration_s: float
    samples: tuple[MemorySample, ...]
    outcomes: Counter[str]
    """What became of the inputs: that all is well says little if nothing got through."""

    @property
    def growth(self) -> Growth | None:
        return growth(self.samples)


@attrs.frozen(kw_only=True)
class _Rest:
    """What a service at rest has."""

    descriptors: int
    tasks: int


async def run_campaign(
    directory: Path,
    *,
    inputs: int,
    seed: int,
    first: int = 0,
    batch: int = BATCH,
    progress: Callable[[MemorySample], None] = lambda _: None,
) -> Report:
    """Sends the inputs `first` to `first + inputs` of `seed` to one service. Raises FindingError or BatchError."""
    began = trio.current_time()
    samples = []
    outcomes: Counter[str] = Counter()
    with errors_told() as told, _the_finding_itself():
        async with _service(directory) as served:
            await _settle(served)
            await _batch(served, [])  # imports, caches and connections of the first time
            rest = _measure()
            for start in range(first, first + inputs, batch):
                indices = range(start, min(start + batch, first + inputs))
                outcomes += await _batch(served, [(index, make_input(seed, index)) for index in indices])
                _check(served, rest, told)
                samples.append(MemorySample.take(inputs=indices.stop - first))
                progress(samples[-1])
    if told:  # what the end of the service brought to light
        raise BatchError("; ".join(told))
    return Report(inputs=inputs, duration_s=trio.current_time() - began, samples=tuple(samples), outcomes=outcomes)


@contextlib.asynccontextmanager
async def _service(directory: Path) -> AsyncIterator[Served]:
    # It remembers leases that ended, up to a number which no run of some minutes reaches: it would look like a leak.
    # And who floods it again and again would not be let in any more.
    with mock.patch.object(leases, "REMEMBERED_LEASES", 50), mock.patch.object(users, "USER_CAPACITY", math.inf):
        async with serving(directory, size=POOL_SIZE) as served:
            yield served


async def _batch(served: Served, given: Sequence[tuple[int, Input]]) -> Counter[str]:
    """Sends everything over several connections at a time; then waits until the service is at rest, and asks it."""
    lease_id = await _target(served)
    assert len(lease_id) == len(LEASE), "the frames that it is put into have their lengths"
    streams = iter([(index, one) for index, one in given if isinstance(one, Stream)])
    calls = [(index, one) for index, one in given if isinstance(one, Call)]
    chunks = iter([calls[at : at + CALLS_PER_CONNECTION] for at in range(0, len(calls), CALLS_PER_CONNECTION)])

    outcomes: Counter[str] = Counter()

    async def work() -> None:
        for chunk in chunks:
            outcomes.update(await send_calls(served.path, chunk, lease_id=lease_id))
        for index, one in streams:
            outcomes[await send_stream(served.path, index, one)] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(work)
    try:
        async with served.client() as bystander:
            await bystander.status()
    except ClientError as error:
        raise BatchError(f"a good call is not answered: {error}") from error
    await _settle(served)
    return outcomes


async def _target(served: Served) -> str:
    """A lease for the inputs that need one."""
    deadline = trio.current_time() + LIMIT_S
    lease = await served.coordinator.acquire(profile="default", owner=_OWNER, deadline=deadline)
    return lease.lease_id


async def _settle(served: Served) -> None:
    """Waits until no call and no connection is left, gives back every lease, and waits until the pool is full."""

    def quiet() -> bool:
        statistics = served.server.statistics()
        return not (statistics.connections or statistics.calls)

    def full() -> bool:
        for lease in served.coordinator.leases():  # of an Acquire that went well
            served.coordinator.give_back(lease)
        view = served.coordinator.views()[0]
        busy = view.producing or view.stopping or view.waiting or view.handing_out or view.leased
        return view.ready == POOL_SIZE and not busy

    for what, condition in (("calls or connections are left", quiet), ("the pool is not at rest", full)):
        with trio.move_on_after(LIMIT_S) as limit:
            while not condition():
                await trio.sleep(0.002)
        if limit.cancelled_caught:
            raise BatchError(f"{what}: {served.server.statistics()}, {served.coordinator.views()[0]}")


def _measure() -> _Rest:
    gc.collect()
    return _Rest(
        descriptors=len(list(Path("/proc/self/fd").iterdir())), tasks=trio.lowlevel.current_statistics().tasks_living
    )


def _check(served: Served, rest: _Rest, told: list[str]) -> None:
    statistics = served.server.statistics()
    now = _measure()
    faults = list(told)
    if statistics.loop_errors:
        faults.append(f"{statistics.loop_errors} errors reached the event loop")
    if now != rest:
        faults.append(f"at rest there are {now}, and were {rest}")
    if served.coordinator.statistics().open_requests:
        faults.append("requests are open")
    if faults:
        raise BatchError("; ".join(faults))


@contextlib.contextmanager
def _the_finding_itself() -> Iterator[None]:
    """Takes a FindingError or BatchError out of the nurseries' groups, unless something else failed too."""
    try:
        yield
    except BaseExceptionGroup as group:
        expected, others = group.split((FindingError, BatchError))
        if expected is None or others is not None:
            raise
        leaf: BaseException = expected
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from None


@contextlib.contextmanager
def errors_told() -> Iterator[list[str]]:
    """What is logged as an error meanwhile, by the service or a library, or cannot be raised. The rest is dropped."""
    told: list[str] = []

    def note(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        told.append(f"logged: {event}")
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(f"logged: {record.name}: {self.format(record)}")  # with its traceback

    def unraisable(problem: Any) -> None:
        told.append(f"could not be raised: {problem.exc_value!r} in {problem.object!r}")

    handler = Handler(level=logging.ERROR)
    root = logging.getLogger()
    before, old_hook = structlog.get_config(), sys.unraisablehook
    structlog.configure(processors=[note], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    root.addHandler(handler)
    sys.unraisablehook = unraisable
    try:
        yield told
    finally:
        sys.unraisablehook = old_hook
        root.removeHandler(handler)
        structlog.configure(**before)


def command(*, inputs: int, seed: int, first: int) -> str:
    """Replays them."""
    return f"scripts/fuzz {inputs} {seed} {first}"


def narrow(make_directory: Callable[[], contextlib.AbstractContextManager[str]], seed: int, indices: range) -> int:
    """The first of the inputs that does harm by itself, each on a service of its own; -1 if none does."""
    for index in indices:
        with make_directory() as directory:
            try:
                trio.run(_alone, Path(directory), seed, index)
            except (FindingError, BatchError):
                return index
    return -1


async def _alone(directory: Path, seed: int, index: int) -> None:
    await run_campaign(directory, inputs=1, seed=seed, first=index)
