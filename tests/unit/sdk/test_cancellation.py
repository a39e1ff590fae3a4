"""Cancelled wherever it waits, an act of the SDK leaves no lease, process, call or descriptor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import sniffio
import trio

import vmpool
import vmpool.aio
from tests.leaks import nothing_left
from tests.unit.sdk.beside import serving_beside
from tests.unit.sdk.fake_service import FakeService, fake_service
from vmpool.client.endings import finish

MOST_WAITS: Final = 400
"""No act waits so often."""


async def to_the_end(act: Callable[[], Any]) -> None:
    if sniffio.current_async_library() == "trio":
        with trio.CancelScope(shield=True):
            await act()
    else:
        await finish(act())


async def hold(vm: Any, pool: Any, home: Path) -> None:
    async with pool.vm():
        pass


async def run(vm: Any, pool: Any, home: Path) -> None:
    await vm.run("cat", input=[b"x" * 70_000])


async def execute(vm: Any, pool: Any, home: Path) -> None:
    async with vm.exec("cat") as process:
        await process.send_stdin(b"x")
        await process.close_stdin()
        await process.wait()


async def start(vm: Any, pool: Any, home: Path) -> None:
    process = await vm.start("sleep 1000")
    await to_the_end(process.kill)  # whoever has it can end it


async def write(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.write("/a", b"x" * 70_000)


async def upload(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.upload(home / "tree", "/t")


async def download(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.download("/there", home / "back")


async def forward(vm: Any, pool: Any, home: Path) -> None:
    async with vm.forward(1, path=home / "f.sock"):
        pass


async def reverse(vm: Any, pool: Any, home: Path) -> None:
    async with vm.reverse(0, ("127.0.0.1", 1)):
        pass


ACTS: Final = [hold, run, execute, start, write, upload, download, forward, reverse]

Act = Callable[[Any, Any, Path], Awaitable[None]]


@pytest.fixture
def service(vm_home: Path) -> Iterator[FakeService]:
    (vm_home / "tree").mkdir()
    (vm_home / "tree" / "file").write_bytes(b"x" * 70_000)
    with nothing_left(), fake_service(vm_home) as service:
        (service.root / "there").mkdir()
        (service.root / "there" / "file").write_bytes(b"x" * 70_000)
        yield service


class Counted(Awaitable[None]):
    """Awaits something, and is told each time that it waits."""

    def __init__(self, awaited: Awaitable[None], waits: Callable[[int], None]) -> None:
        self._awaited = awaited
        self._waits = waits
        self.number = 0

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._awaited.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                wanted = inner.send(value) if error is None else inner.throw(error)
            except StopIteration:
                return
            self.number += 1
            self._waits(self.number)
            value = error = None
            try:
                value = yield wanted
            except BaseException as raised:  # noqa: BLE001 - the coroutine below gets it
                error = raised


def check_left(service: FakeService, vm: Any, home: Path, act: Act) -> None:
    own = [vm.lease_id]
    service.until(lambda: service.left() == {"leases": own, "processes": [], "calls": ["Pool.hold"]})
    fresh = [path.name for path in service.root.iterdir() if "fresh" in path.name]
    assert fresh == []
    assert not (home / "f.sock").exists()


@pytest.mark.parametrize("act", ACTS)
def test_from_asyncio(service: FakeService, vm_home: Path, act: Act) -> None:
    async def main() -> None:
        async with vmpool.aio.connect(service.path) as pool, pool.vm() as vm:
            connection = pool._connection
            tasks = asyncio.all_tasks()
            for at in range(1, MOST_WAITS):
                waits = await cancelled_at(at, lambda: act(vm, pool, vm_home))
                await asyncio.to_thread(check_left, service, vm, vm_home, act)
                assert sum(connection._channels.values()) == 1  # that of the lease
                assert len(connection._tasks) == 1
                while asyncio.all_tasks() - tasks:
                    await asyncio.sleep(0)
                if waits < at:
                    return
            raise AssertionError("it waits without end")

    asyncio.run(main())


def test_an_acquisition_from_asyncio(vm_home: Path) -> None:
    """Of the service itself, which takes back a lease whose caller goes away before the reply."""

    async def acquire(pool: vmpool.aio.Pool) -> None:
        vm = await pool.acquire()
        await finish(vm.release())

    async def main(path: Path, until_lost: Callable[[], None]) -> None:
        async with vmpool.aio.connect(path) as pool:
            for at in range(1, MOST_WAITS):
                waits = await cancelled_at(at, lambda: acquire(pool))
                await asyncio.to_thread(until_lost)
                if waits < at:
                    return
            raise AssertionError("it waits without end")

    with nothing_left(), serving_beside(vm_home) as service:
        asyncio.run(main(service.path, service.until_lost))


async def cancelled_at(at: int, act: Callable[[], Awaitable[None]]) -> int:
    """Cancels an act when it waits for the nth time. Returns how often it has waited."""
    task: asyncio.Task[None] | None = None

    def cancel(number: int) -> None:
        if number == at and task is not None:
            task.cancel()

    counted = Counted(act(), cancel)

    async def play() -> None:
        await counted

    task = asyncio.create_task(play())
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return counted.number


class StepCounter(trio.abc.Instrument):
    """Cancels a scope at a step of the run, whosever it is."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self._at = at
        self._scope = scope
        self.number = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.number += 1
        if self.number == self._at:
            self._scope.cancel()


@pytest.mark.parametrize("act", ACTS)
def test_from_trio(service: FakeService, vm_home: Path, act: Act) -> None:
    async def main() -> None:
        async with vmpool.connect(service.path) as pool, pool.vm() as vm:
            connection = pool._core._connection
            for at in range(1, MOST_WAITS):
                with trio.CancelScope() as scope:
                    counter = StepCounter(at, scope)
                    trio.lowlevel.add_instrument(counter)
                    try:
                        await act(vm, pool, vm_home)
                    finally:
                        trio.lowlevel.remove_instrument(counter)
                await trio.to_thread.run_sync(check_left, service, vm, vm_home, act)
                assert sum(connection._channels.values()) == 1
                assert len(connection._tasks) == 1
                if counter.number < at:
                    return
            raise AssertionError("it waits without end")

    trio.run(main)
