"""Asyncio code in trio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
import trio_asyncio

from pool.rpc.crossing import in_asyncio


@pytest.fixture
async def loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    async with trio_asyncio.open_loop() as loop:
        yield loop


async def test_what_does_not_wait_is_done_at_once(loop: asyncio.AbstractEventLoop) -> None:
    async def double(number: int) -> int:
        return 2 * number

    with trio.testing.assert_no_checkpoints():
        assert await in_asyncio(double, 21) == 42


async def test_its_error_is_raised_at_once(loop: asyncio.AbstractEventLoop) -> None:
    async def fail() -> None:
        raise LookupError("nothing there")

    with trio.testing.assert_no_checkpoints(), pytest.raises(LookupError):
        await in_asyncio(fail)


async def test_what_waits_goes_on_in_a_task_of_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    opened = asyncio.Event()
    tasks: list[asyncio.Task[object] | None] = []

    async def wait_twice() -> str:
        await opened.wait()
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        return "done"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_asyncio.aio_as_trio(_set), opened)
        assert await in_asyncio(wait_twice) == "done"
    assert tasks != [None]


async def test_an_error_that_comes_later_is_raised(loop: asyncio.AbstractEventLoop) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("nothing there")

    with pytest.raises(LookupError):
        await in_asyncio(fail)


async def test_cancelled_while_it_waits_it_can_clean_up(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[str] = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_asyncio, wait_for_ever)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert seen == ["cancelled", "cleaned up"]


async def _set(event: asyncio.Event) -> None:
    event.set()
