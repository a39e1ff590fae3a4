"""What a model is told of processes, with a service in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unit.sdk.fake_service import FakeService, fake_service
from vmpool.aio import DetachedProcess, connect
from vmpool.frameworks.mcp_server import processes
from vmpool.frameworks.mcp_server.processes import OUTPUT_BYTES
from vmpool.frameworks.mcp_server.results import ProcessOutput, Stopped

T = TypeVar("T")


@pytest.fixture
def service(vm_home: Path) -> Iterator[FakeService]:
    with fake_service(vm_home) as service:
        yield service


def with_process(service: FakeService, command: list[str], do: Callable[[DetachedProcess], Awaitable[T]]) -> T:
    async def play() -> T:
        async with connect(service.path) as pool, pool.vm() as vm:
            return await do(await vm.start(command))

    return asyncio.run(play())


def output(
    service: FakeService, command: list[str], *writes: bytes, begin: int = 0, wait_s: float = 0
) -> ProcessOutput:
    """Of a process that has written this, and more while its end is awaited."""

    async def do(process: DetachedProcess) -> ProcessOutput:
        ours = service.processes[process.process_id]
        for data in writes:
            service.in_loop(partial(ours.write, data))
        return await processes.output(process, stdout_from=begin, stderr_from=0, wait_s=wait_s)

    return with_process(service, command, do)


def test_one_that_runs_and_has_written_nothing(service: FakeService) -> None:
    found = output(service, ["server"])
    assert (found.running, found.exit_status, found.stdout, found.next_stdout) == (True, None, "", 0)


def test_one_that_runs(service: FakeService) -> None:
    found = output(service, ["server"], b"one\n", b"two\n")
    assert (found.running, found.stdout, found.next_stdout) == (True, "one\ntwo\n", 8)


def test_from_where_the_last_call_ended(service: FakeService) -> None:
    found = output(service, ["server"], b"one\n", b"two\n", begin=4)
    assert (found.stdout, found.next_stdout, found.left_out) == ("two\n", 8, 0)


@pytest.mark.parametrize("wait_s", [0, 20.0])
def test_one_that_has_ended(service: FakeService, wait_s: float) -> None:
    found = output(service, ["echo", "hello"], wait_s=wait_s)
    assert (found.running, found.exit_status, found.stdout) == (False, 0, "hello\n")


def test_one_that_does_not_end_while_it_is_awaited(service: FakeService) -> None:
    found = output(service, ["server"], b"one\n", wait_s=0.01)
    assert (found.running, found.stdout) == (True, "one\n")


def test_one_that_ends_while_it_is_awaited(service: FakeService) -> None:
    async def do(process: DetachedProcess) -> ProcessOutput:
        ours = service.processes[process.process_id]
        following = asyncio.ensure_future(processes.output(process, stdout_from=0, stderr_from=0, wait_s=20.0))
        while "Processes.attach" not in service.calls:
            await asyncio.sleep(0.001)
        service.in_loop(lambda: ours.write(b"late\n"))
        service.in_loop(lambda: ours.end(status=3))
        return await following

    found = with_process(service, ["server"], do)
    assert (found.running, found.exit_status, found.stdout) == (False, 3, "late\n")


def test_what_is_not_kept_is_counted(service: FakeService) -> None:
    async def do(process: DetachedProcess) -> ProcessOutput:
        ours = service.processes[process.process_id]
        ours.lost = 4
        service.in_loop(lambda: ours.write(b"one\ntwo\n"))
        return await processes.output(process, stdout_from=0, stderr_from=0, wait_s=0)

    found = with_process(service, ["server"], do)
    assert (found.stdout, found.left_out, found.next_stdout) == ("two\n", 4, 8)


def test_long_output_is_cut(service: FakeService) -> None:
    found = output(service, ["server"], b"x" * (OUTPUT_BYTES + 7))
    assert found.left_out == 7
    assert "[7 bytes left out]" in found.stdout
    assert found.next_stdout == OUTPUT_BYTES + 7


@pytest.mark.parametrize(
    ("command", "ended"),
    [(["server"], Stopped(exit_status=None, signal=15)), (["echo", "hello"], Stopped(exit_status=0, signal=None))],
)
def test_one_is_stopped_whether_or_not_it_still_runs(service: FakeService, command: list[str], ended: Stopped) -> None:
    assert with_process(service, command, processes.stop) == ended
