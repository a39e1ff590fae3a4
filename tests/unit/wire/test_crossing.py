"""asyncio as a guest of trio: calls both ways, cancellation both ways, timers, descriptors, the end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from vmpool.wire.crossing import GuestLoop, open_loop


@pytest.fixture
async def loop() -> AsyncIterator[GuestLoop]:
    async with open_loop() as loop:
        yield loop


class TestFromTrioToAsyncio:
    async def test_what_does_not_wait_is_done_at_once(self, loop: GuestLoop) -> None:
        async def double(number: int) -> int:
            return 2 * number

        with trio.testing.assert_no_checkpoints():
            assert await loop.run(double, 21) == 42

    async def test_its_error_is_raised_at_once(self, loop: GuestLoop) -> None:
        async def fail() -> None:
            raise LookupError("nothing there")

        with trio.testing.assert_no_checkpoints(), pytest.raises(LookupError):
            await loop.run(fail)

    async def test_it_is_in_a_task_of_the_loop_that_runs(self, loop: GuestLoop) -> None:
        """Since Python 3.12 asyncio insists on both, and grpclib asks for them."""

        async def look() -> None:
            assert asyncio.current_task() is not None
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            assert asyncio.current_task() is not None

        await loop.run(look)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    async def test_trio_code_ends_its_wait(self, loop: GuestLoop) -> None:
        opened = asyncio.Event()

        async def wait() -> str:
            await opened.wait()
            await asyncio.sleep(0)
            return "done"

        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def open_it() -> None:
                await wait_all_tasks_blocked()
                opened.set()

            assert await loop.run(wait) == "done"

    async def test_an_error_that_comes_later_is_raised(self, autojump_clock: MockClock, loop: GuestLoop) -> None:
        async def fail() -> None:
            await asyncio.sleep(0.001)
            raise LookupError("nothing there")

        with pytest.raises(LookupError):
            await loop.run(fail)

    async def test_cancelled_while_it_waits_it_can_clean_up(self, loop: GuestLoop) -> None:
        seen: list[str] = []

        async def wait_for_ever() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                seen.append("cleaned up")
                raise

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(loop.run, wait_for_ever)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert seen == ["cleaned up"]

    async def test_a_result_that_comes_in_spite_of_cancellation_is_returned(
        self, autojump_clock: MockClock, loop: GuestLoop
    ) -> None:
        async def insist() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "kept"
            return "never"

        with trio.move_on_after(0) as scope:
            assert await loop.run(insist) == "kept"
        assert not scope.cancelled_caught

    async def test_a_task_that_asyncio_cancelled_says_so(self, loop: GuestLoop) -> None:
        async def give_up() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await loop.run(give_up)


class TestFromAsyncioToTrio:
    async def test_a_result_and_an_error_come_back(self, loop: GuestLoop) -> None:
        async def divide(number: int) -> float:
            await trio.lowlevel.checkpoint()
            return 1 / number

        async def ask() -> float:
            with pytest.raises(ZeroDivisionError):
                await loop.in_trio(divide, 0)
            return await loop.in_trio(divide, 4)

        assert await loop.run(ask) == 0.25

    async def test_cancelled_it_is_waited_for(self, autojump_clock: MockClock, loop: GuestLoop) -> None:
        seen: list[str] = []

        async def clean_up_slowly() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                seen.append("cleaned up")

        async def ask() -> None:
            with pytest.raises(asyncio.CancelledError):
                await loop.in_trio(clean_up_slowly)
            seen.append("told")
            raise asyncio.CancelledError

        with trio.move_on_after(0.001) as scope:
            await loop.run(ask)
        assert scope.cancelled_caught
        assert seen == ["cleaned up", "told"]

    async def test_a_result_that_comes_in_spite_of_cancellation_is_returned(
        self, autojump_clock: MockClock, loop: GuestLoop
    ) -> None:
        async def insist() -> str:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.002)
            return "kept"

        async def ask() -> str:
            return await loop.in_trio(insist)

        with trio.move_on_after(0.001) as scope:
            assert await loop.run(ask) == "kept"
        assert not scope.cancelled_caught

    async def test_cancellation_from_outside_of_the_loop_does_not_reach_it(self, autojump_clock: MockClock) -> None:
        """Who waits for it decides; else its end would be an error to asyncio, which asked for none."""
        seen: list[str] = []

        async def last(event: asyncio.Event) -> None:
            await trio.sleep(0.001)
            seen.append("done")
            event.set()

        with trio.CancelScope() as scope:
            async with open_loop() as loop:
                done = asyncio.Event()
                task = loop.create_task(loop.in_trio(last, done))
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await loop.run(done.wait)
        assert seen == ["done"]
        assert task.done()


class TestTheLoop:
    async def test_its_timers_go_by_the_clock_of_trio(self, autojump_clock: MockClock, loop: GuestLoop) -> None:
        began = trio.current_time()
        await loop.run(asyncio.sleep, 3600)
        assert trio.current_time() - began == pytest.approx(3600, abs=0.01)

    async def test_a_timer_that_trio_code_sets_is_kept_though_the_loop_waits_for_a_later_one(
        self, autojump_clock: MockClock, loop: GuestLoop
    ) -> None:
        seen: list[str] = []
        loop.call_later(50, seen.append, "second")
        await trio.sleep(1)
        loop.call_later(2, seen.append, "first")
        await trio.sleep(10)
        assert seen == ["first"]
        await trio.sleep(50)
        assert seen == ["first", "second"]

    async def test_descriptors_are_watched(self, loop: GuestLoop) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def say() -> None:
                    await wait_all_tasks_blocked()
                    theirs.send(b"hello")

                assert await loop.run(loop.sock_recv, ours, 10) == b"hello"

    async def test_threads_may_call(self, loop: GuestLoop) -> None:
        called = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
        thread.start()
        await loop.run(called.wait)
        thread.join()

    async def test_a_loop_that_is_always_busy_leaves_trio_its_turn(self, loop: GuestLoop) -> None:
        rounds = 0

        def again() -> None:
            nonlocal rounds
            rounds += 1
            if not over:
                loop.call_soon(again)

        over = False
        loop.call_soon(again)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        seen = rounds
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert rounds > seen > 0
        over = True

    async def test_an_error_in_a_callback_goes_to_the_exception_handler(self, loop: GuestLoop) -> None:
        seen: list[object] = []
        loop.set_exception_handler(lambda _loop, context: seen.append(type(context["exception"])))
        loop.call_soon(divmod, 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [ZeroDivisionError]

    async def test_two_loops_of_one_thread_do_not_meet(self) -> None:
        async def running() -> asyncio.AbstractEventLoop:
            await asyncio.sleep(0)
            return asyncio.get_running_loop()

        async with open_loop() as first, open_loop() as second:
            assert await first.run(running) is first
            assert await second.run(running) is second

    async def test_at_the_end_tasks_are_cancelled_and_waited_for(self, autojump_clock: MockClock) -> None:
        seen: list[str] = []

        async def linger() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.001)
                seen.append("ended")

        async with open_loop() as loop:
            loop.create_task(linger())
            await wait_all_tasks_blocked()
        assert seen == ["ended"]
        assert loop.is_closed()

    async def test_it_goes_on_while_the_block_is_cancelled(self, autojump_clock: MockClock) -> None:
        seen: list[str] = []

        async def farewell() -> None:
            await asyncio.sleep(0.001)
            seen.append("farewell")

        with trio.move_on_after(0.001):
            async with open_loop() as loop:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await loop.run(farewell)
        assert seen == ["farewell"]

    async def test_it_opens_and_ends_where_all_is_cancelled_already(self) -> None:
        async def nothing() -> str:
            return "done"

        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_loop() as loop:
                assert await loop.run(nothing) == "done"
        assert loop.is_closed()

    async def test_an_error_of_the_block_ends_it(self) -> None:
        with pytest.RaisesGroup(LookupError):
            async with open_loop() as loop:
                raise LookupError("nothing there")
        assert loop.is_closed()
