"""Cancelled at any step, an act of the SDK leaves no lease, process, call, listener or part of a file, and gives its
room back: with the service's answer under way, and with the service having done its part while the answer is unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import sniffio
import trio

import vmpool
import vmpool.aio
import vmpool.sync
from tests.leaks import nothing_left
from tests.unit.sdk.beside import Held, ServedBeside, serving_beside
from vmpool.client.connection import Connection
from vmpool.client.endings import finish

MOST_STEPS: Final = 1000
"""No act takes so many."""

PORT: Final = 7000
DATA: Final = b"x" * 70_000

Act = Callable[[Any, Any, Path], Awaitable[None]]


async def to_the_end(act: Callable[[], Any]) -> None:
    if sniffio.current_async_library() == "trio":
        with trio.CancelScope(shield=True):
            await act()
    else:
        await finish(act())


async def hold(vm: Any, pool: Any, home: Path) -> None:
    async with pool.vm():
        pass


async def acquire(vm: Any, pool: Any, home: Path) -> None:
    fresh = await pool.acquire()
    await to_the_end(fresh.release)  # whoever has it can end it


async def run(vm: Any, pool: Any, home: Path) -> None:
    await vm.run("cat", input=[DATA])


async def execute(vm: Any, pool: Any, home: Path) -> None:
    async with vm.exec("cat") as process:
        await process.send_stdin(b"x")
        await process.close_stdin()
        await process.wait()


async def start(vm: Any, pool: Any, home: Path) -> None:
    process = await vm.start("sleep 1000")
    await to_the_end(process.kill)  # whoever has it can end it


async def attach(vm: Any, pool: Any, home: Path) -> None:
    process = await vm.process("server")
    async with process.attach() as attachment:
        await attachment.send_signal(28)


async def write(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.write("/a", DATA)


async def upload(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.upload(home / "tree", "/t")


async def upload_file(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.upload(home / "tree" / "file", "/a")


async def download(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.download("/there", home / "back")


async def download_file(vm: Any, pool: Any, home: Path) -> None:
    await vm.files.download("/there/file", home / "one")


async def watch(vm: Any, pool: Any, home: Path) -> None:
    async with vm.files.watch("/there"):
        pass


async def forward(vm: Any, pool: Any, home: Path) -> None:
    async with vm.forward(PORT, path=home / "f.sock") as forward:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(forward.address)
            client.sendall(b"x")
            await vm.wait_port(PORT)


async def reverse(vm: Any, pool: Any, home: Path) -> None:
    async with vm.reverse(0, home / "nobody.sock") as guest:
        await vm.run(["nc", "127.0.0.1", str(guest.port)], input="x")


ACTS: Final[list[Act]] = [
    *(hold, acquire, run, execute, start, attach, write, upload, upload_file, download, download_file, watch),
    *(forward, reverse),
]


@pytest.fixture
def service(vm_home: Path) -> Iterator[ServedBeside]:
    (vm_home / "tree").mkdir()
    (vm_home / "tree" / "file").write_bytes(DATA)
    with nothing_left(), serving_beside(vm_home) as service:
        yield service
        service.until_held(Held())


def prepared(service: ServedBeside) -> str:
    """The id of a lease with a server and a file."""
    with vmpool.sync.connect(service.path) as pool:
        vm = pool.acquire()
        vm.start(f"nc -ll -p {PORT} -e cat", tag="server")
        vm.wait_port(PORT)
        vm.files.write("/there/file", DATA)
        return vm.lease_id


def check_left(service: ServedBeside, before: Held, home: Path) -> None:
    service.until_held(before)
    assert not (home / "f.sock").exists()
    assert {path.name for path in home.iterdir()} <= {"tree", "back", "one", "vms", "pool.sock"}
    for path in (home / "one", home / "back" / "file"):
        if path.is_file():
            assert path.name == "file" or path.read_bytes() == DATA
            path.unlink()
    written = service.ask(lambda served: served.machine(before.leases[0]).files.contents().get("/a", DATA))
    assert written == DATA


def check_connection(connection: Connection) -> None:
    assert sum(connection._channels.values()) == 0
    assert connection._tasks == set()


class RoundCounter(selectors.DefaultSelector):
    """Tells of each round of an asyncio loop; the answer is whether that has made something ready."""

    on_round: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self.on_round is not None and self.on_round():
            timeout = 0
        return super().select(timeout)


async def cancelled_in_round(at: int, act: Callable[[], Any], rounds: RoundCounter, prepare: Callable[[], None]) -> int:
    """Cancels an act in the nth round of its loop. Returns how many it has taken."""
    number = 0
    task: asyncio.Task[None] = asyncio.create_task(act())

    def count() -> bool:
        nonlocal number
        number += 1
        if number != at:
            return False
        prepare()
        return task.cancel()

    rounds.on_round = count
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        rounds.on_round = None
    return number


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "answered"])
@pytest.mark.parametrize("act", ACTS)
def test_from_asyncio(service: ServedBeside, vm_home: Path, act: Act, settled: bool) -> None:
    rounds = RoundCounter()

    async def main(lease_id: str) -> None:
        before = service.held()
        async with vmpool.aio.connect(service.path) as pool:
            vm = await pool.get(lease_id)
            tasks = asyncio.all_tasks()
            for at in range(1, MOST_STEPS):
                taken = await cancelled_in_round(
                    at, lambda: act(vm, pool, vm_home), rounds, service.settle if settled else lambda: None
                )
                while asyncio.all_tasks() - tasks:
                    await asyncio.sleep(0)
                await asyncio.to_thread(check_left, service, before, vm_home)
                check_connection(pool._connection)
                if taken < at:
                    break
            else:
                raise AssertionError("it goes on without end")
            await vm.release()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(rounds)) as runner:
        runner.run(main(prepared(service)))


class StepCounter(trio.abc.Instrument):
    """Cancels a scope at a step of the run, whosever it is."""

    def __init__(self, at: int, scope: trio.CancelScope, prepare: Callable[[], None]) -> None:
        self._at = at
        self._scope = scope
        self._prepare = prepare
        self.number = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.number += 1
        if self.number == self._at:
            self._prepare()
            self._scope.cancel()


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "answered"])
@pytest.mark.parametrize("act", ACTS)
def test_from_trio(service: ServedBeside, vm_home: Path, act: Act, settled: bool) -> None:
    async def main(lease_id: str) -> None:
        before = service.held()
        async with vmpool.connect(service.path) as pool:
            vm = await pool.get(lease_id)
            for at in range(1, MOST_STEPS):
                with trio.CancelScope() as scope:
                    counter = StepCounter(at, scope, service.settle if settled else lambda: None)
                    trio.lowlevel.add_instrument(counter)
                    try:
                        await act(vm, pool, vm_home)
                    finally:
                        trio.lowlevel.remove_instrument(counter)
                await trio.to_thread.run_sync(check_left, service, before, vm_home)
                check_connection(pool._core._connection)
                if counter.number < at:
                    break
            else:
                raise AssertionError("it goes on without end")
            await vm.release()

    trio.run(main, prepared(service))
