"""What is used where, when or by whom it cannot be is told, and nobody waits for an answer that cannot come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmpool
import vmpool.aio
import vmpool.sync
from tests.leaks import nothing_left
from tests.unit.sdk.beside import Held, ServedBeside, serving_beside


@pytest.fixture
def service(vm_home: Path) -> Iterator[ServedBeside]:
    with nothing_left(), serving_beside(vm_home) as service:
        yield service
        service.until_held(Held())


def in_a_fork(function: Callable[[], object]) -> str:
    """What `function` raised in a forked process, which then ends as a program does."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                function()
            except Exception as error:  # noqa: BLE001 - told
                os.write(ours, str(error).encode())
            code = 0
        os._exit(code)
    os.close(ours)
    with open(theirs) as told:  # noqa: PTH123 - a descriptor
        said = told.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return said


def test_a_forked_process_has_no_part_in_a_connection(service: ServedBeside) -> None:
    """The thread of the connection is not there: a call would wait for ever."""
    with vmpool.sync.connect(service.path) as pool, pool.vm() as vm:
        assert in_a_fork(lambda: vm.run("true")) == (
            "the connection belongs to the process that this one was forked from; connect here, too"
        )
        assert in_a_fork(vm.close) == ""
        assert in_a_fork(pool.close) == ""
        assert in_a_fork(pool._connection.end) == ""
        assert vm.run("echo still here").stdout == "still here\n"


def test_a_connection_of_another_loop(service: ServedBeside) -> None:
    """As a fixture's of a whole session, used in the loop of one test."""

    async def connect() -> vmpool.aio.Pool:
        return await vmpool.aio.connect(service.path)

    async def use(pool: vmpool.aio.Pool) -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await pool.status()
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await pool.vm()

    with asyncio.Runner() as first:
        pool = first.run(connect())
        with asyncio.Runner() as second:
            second.run(use(pool))
        first.run(pool.aclose())


def test_what_was_opened_is_not_opened_again(service: ServedBeside) -> None:
    """Two blocks would have one VM, which the first to end would take from the other."""

    async def main() -> None:
        async with vmpool.aio.connect(service.path) as pool:
            opening = pool.vm()
            async with opening as vm:
                with pytest.raises(RuntimeError, match="it was opened before"):
                    await opening
                assert (await vm.run("true")).ok

    asyncio.run(main())


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_an_end_of_iteration_in_the_callers_code_is_an_error(service: ServedBeside, error: type[Exception]) -> None:
    def fail(_: object = None) -> bytes:
        raise error

    with vmpool.sync.connect(service.path) as pool, pool.vm() as vm:
        with pytest.raises(RuntimeError, match=f"raised {error.__name__}") as caught:
            vm.run("yes", on_stdout=fail)
        assert isinstance(caught.value.__cause__, error)
        assert vm.run("echo still here").stdout == "still here\n"


def test_data_is_not_taken_for_whole_that_ended_by_a_wrong_error(service: ServedBeside) -> None:
    def data() -> Iterator[bytes]:
        yield b"half"
        raise StopAsyncIteration

    with vmpool.sync.connect(service.path) as pool, pool.vm() as vm:
        with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
            vm.files.write("/a", data())
        assert not vm.files.exists("/a")


def test_many_threads_may_close_the_same(service: ServedBeside) -> None:
    pool = vmpool.sync.connect(service.path)
    vm = pool.vm()
    errors: list[BaseException] = []

    def close(resource: Any) -> None:
        try:
            resource.close()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=close, args=(each,)) for each in [vm, pool] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("which", ["vm", "pool"])
def test_what_is_closed_ends_what_another_thread_waits_for(service: ServedBeside, which: str) -> None:
    pool = vmpool.sync.connect(service.path)
    vm = pool.vm()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            vm.run("sleep 1000")
        except vmpool.ClientError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    service.until(lambda served: served.server.statistics().calls == 2)
    {"vm": vm, "pool": pool}[which].close()
    thread.join()
    pool.close()
    assert len(errors) == 1
