"""What a model is told of processes, with the service over simulated VMs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unit.sdk.beside import ServedBeside, serving_beside
from vmpool.aio import DetachedProcess, Vm, connect
from vmpool.frameworks.mcp_server import processes
from vmpool.frameworks.mcp_server.processes import OUTPUT_BYTES
from vmpool.frameworks.mcp_server.results import ProcessOutput, Stopped

T = TypeVar("T")

SERVER = ["cat"]
"""It runs until it is ended, and writes what it is told to."""


@pytest.fixture
def service(vm_home: Path) -> Iterator[ServedBeside]:
    with serving_beside(vm_home) as service:
        yield service


def with_process(
    service: ServedBeside,
    command: list[str],
    do: Callable[[DetachedProcess], Awaitable[T]],
    *,
    writes: tuple[bytes, ...] = (),
    keep_bytes: int | None = None,
) -> T:
    """With a process that has written this."""

    async def play() -> T:
        async with connect(service.path) as pool, pool.vm() as vm:
            process = await vm.start(command, keep_bytes=keep_bytes)
            for data in writes:
                await process.send_input(data)
            await _written(vm, sum(map(len, writes)))
            return await do(process)

    return asyncio.run(play())


async def _written(vm: Vm, size: int) -> None:
    while (await vm.processes())[0].stdout_end < size:
        await asyncio.sleep(0)


def output(
    service: ServedBeside,
    command: list[str],
    *writes: bytes,
    begin: int = 0,
    wait_s: float = 0,
    keep_bytes: int | None = None,
) -> ProcessOutput:
    """Of a process that has written this."""

    async def do(process: DetachedProcess) -> ProcessOutput:
        return await processes.output(process, stdout_from=begin, stderr_from=0, wait_s=wait_s)

    return with_process(service, command, do, writes=writes, keep_bytes=keep_bytes)


def test_one_that_runs_and_has_written_nothing(service: ServedBeside) -> None:
    found = output(service, SERVER)
    assert (found.running, found.exit_status, found.stdout, found.next_stdout) == (True, None, "", 0)


def test_one_that_runs(service: ServedBeside) -> None:
    found = output(service, SERVER, b"one\n", b"two\n")
    assert (found.running, found.stdout, found.next_stdout) == (True, "one\ntwo\n", 8)


def test_from_where_the_last_call_ended(service: ServedBeside) -> None:
    found = output(service, SERVER, b"one\n", b"two\n", begin=4)
    assert (found.stdout, found.next_stdout, found.left_out) == ("two\n", 8, 0)


@pytest.mark.parametrize("wait_s", [0, 20.0])
def test_one_that_has_ended(service: ServedBeside, wait_s: float) -> None:
    async def do(process: DetachedProcess) -> ProcessOutput:
        await process.wait()
        return await processes.output(process, stdout_from=0, stderr_from=0, wait_s=wait_s)

    found = with_process(service, ["echo", "hello"], do)
    assert (found.running, found.exit_status, found.stdout) == (False, 0, "hello\n")


def test_one_that_does_not_end_while_it_is_awaited(service: ServedBeside) -> None:
    found = output(service, SERVER, b"one\n", wait_s=0.01)
    assert (found.running, found.stdout) == (True, "one\n")


def test_one_that_ends_while_it_is_awaited(service: ServedBeside) -> None:
    async def do(process: DetachedProcess) -> ProcessOutput:
        following = asyncio.ensure_future(processes.output(process, stdout_from=0, stderr_from=0, wait_s=20.0))
        await process.send_input(b"late\n", close=True)
        return await following

    found = with_process(service, SERVER, do)
    assert (found.running, found.exit_status, found.stdout) == (False, 0, "late\n")


def test_what_is_not_kept_is_counted(service: ServedBeside) -> None:
    found = output(service, SERVER, b"one\ntwo\n", keep_bytes=4)
    assert (found.stdout, found.left_out, found.next_stdout) == ("two\n", 4, 8)


def test_long_output_is_cut(service: ServedBeside) -> None:
    found = output(service, SERVER, b"x" * (OUTPUT_BYTES + 7))
    assert found.left_out == 7
    assert "[7 bytes left out]" in found.stdout
    assert found.next_stdout == OUTPUT_BYTES + 7


@pytest.mark.parametrize(
    ("command", "ended"),
    [(SERVER, Stopped(exit_status=None, signal=15)), (["echo", "hello"], Stopped(exit_status=0, signal=None))],
)
def test_one_is_stopped_whether_or_not_it_still_runs(service: ServedBeside, command: list[str], ended: Stopped) -> None:
    assert with_process(service, command, processes.stop) == ended
