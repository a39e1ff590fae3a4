"""asyncio as a guest of trio: an asyncio loop that trio tasks run in their own thread, for the length of a block.

grpclib is an asyncio library; the rest of vmpool uses trio. The loop is asyncio's own, with a selector that never
waits. Where the loop would wait, it is stopped, and trio waits instead: for the selector's descriptor, and until the
next timer is due. Only documented parts of asyncio are used (`run_forever`, `stop`, a selector as argument). Decision
21 has the alternatives, with figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple

import trio

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_ROUNDS: Final = 32
"""Rounds of the loop in one turn, so that a busy loop leaves time for trio's tasks."""


class GuestLoop(asyncio.SelectorEventLoop):
    """The loop, on trio's clock. `open_loop` makes and ends it."""

    def __init__(self) -> None:
        self._poller = _Poller(self)
        super().__init__(self._poller)
        self._attended = False
        """A turn is under way or about to begin, so that new work needs no wake-up of the host."""
        self._sleeper: trio.lowlevel.Task | None = None
        self._nap = trio.CancelScope()
        self._watching = trio.CancelScope(shield=True)
        self._over = trio.Event()
        self._tasks: trio.Nursery | None = None

    async def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """From trio to asyncio: runs an asyncio function as a task of the loop.

        Not a checkpoint if the function does not wait. If cancelled, it cancels the task and waits for its end; the
        task's result or exception is returned or raised here, unless the task ends as cancelled.
        """
        self._attended = True
        try:
            task = self.create_task(function(*args, **kwargs))
        finally:
            self._turn()
        if not task.done():
            await _wait(task)
        return task.result()

    async def in_trio(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """From asyncio to trio: runs a trio function as a trio task.

        If cancelled, it cancels the trio task and waits for its end. As in trio, there is no CancelledError if the task
        completes nevertheless.
        """
        assert self._tasks is not None
        outcome = _Outcome(loop=self)

        async def main() -> None:
            try:
                with outcome.scope:
                    outcome.set_result(await function(*args))
            except Exception as error:  # noqa: BLE001 - the code that awaits the outcome gets it
                outcome.set_exception(error)
            finally:
                outcome.give_up()
                self._turn()

        self._tasks.start_soon(main)
        result: T = await outcome
        return result

    def time(self) -> float:
        return trio.current_time()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        if not self._attended:
            self._wake()
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        if not self._attended:
            self._wake()
        return handle

    @trio.lowlevel.enable_ki_protection
    def _turn(self, *, poll: bool = False) -> None:
        """Runs callbacks until none is ready; with `poll`, those of ready descriptors too. Never waits."""
        self._attended = True
        try:
            self._poller.begin(poll=poll)
            self.run_forever()
        finally:
            self._attended = False
        if self._poller.unfinished:
            self._wake()
        elif self._poller.due < self._nap.deadline:
            self._nap.deadline = self._poller.due

    def _wake(self) -> None:
        """Makes the host take a turn."""
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    async def _host(self) -> None:
        """Takes a turn when a timer is due, and after trio code has scheduled a callback."""
        while not self._over.is_set():
            with trio.CancelScope(shield=True, deadline=self._poller.due) as self._nap:
                if self._poller.unfinished:
                    await trio.lowlevel.checkpoint()
                else:
                    self._sleeper = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._oversleep)
            self._turn()

    def _oversleep(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _watch(self) -> None:
        """Takes a turn when a descriptor of the loop is ready."""
        with self._watching:
            while True:
                await trio.lowlevel.wait_readable(self._poller.fileno())
                self._turn(poll=True)

    async def _keep_tasks(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Holds the nursery of `in_trio`, whose tasks are cancelled by way of the asyncio tasks that await them."""
        async with trio.open_nursery() as self._tasks:
            self._tasks.cancel_scope.shield = True
            task_status.started()
            await self._over.wait()

    async def _finish(self) -> None:
        """Cancels all tasks that still run, and waits for their end."""
        await self.run(_cancel_all_others)
        await self.run(self.shutdown_asyncgens)
        await self.run(self.shutdown_default_executor)
        self._over.set()
        self._watching.cancel(reason="the loop is over")
        self._wake()


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[GuestLoop]:
    """A loop for the length of a block. At the end, its tasks are cancelled and waited for, and it is closed.

    The loop goes on while the block is being cancelled, so that calls can be ended in good order. Does not work if trio
    itself is a guest of asyncio: a thread runs one asyncio loop at a time.
    """
    loop = GuestLoop()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop._host)  # noqa: SLF001 - one concept in two parts
            nursery.start_soon(loop._watch)  # noqa: SLF001 - idem
            with trio.CancelScope(shield=True):  # or a nursery that is already cancelled would not start it
                await nursery.start(loop._keep_tasks)  # noqa: SLF001 - idem
            try:
                yield loop
            finally:
                with trio.CancelScope(shield=True):
                    await loop._finish()  # noqa: SLF001 - idem
    finally:
        loop.close()


class _Poller(selectors.EpollSelector):
    """A selector that stops the loop instead of waiting."""

    def __init__(self, loop: GuestLoop) -> None:
        super().__init__()
        self._loop = loop
        self._poll = False
        self._rounds = 0
        self.due = math.inf
        """When the loop's next timer is due, on trio's clock, as of its last turn."""
        self.unfinished = False
        """The last turn ended with callbacks still ready."""

    def begin(self, *, poll: bool) -> None:
        self._poll = poll
        self._rounds = 0
        self.unfinished = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._rounds += 1
        ready: list[tuple[selectors.SelectorKey, int]] = []
        if self._poll:
            self._poll = False
            ready = super().select(0)
        if timeout == 0 or ready:
            if self._rounds >= MAX_ROUNDS:
                self.unfinished = True
                self._loop.stop()
        else:
            self.due = math.inf if timeout is None else self._loop.time() + timeout
            self._loop.stop()
        return ready


class _Outcome(asyncio.Future[Any]):
    """The outcome of a trio task that asyncio code awaits. Cancelling it cancels the task, whose end decides."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.scope = trio.CancelScope()

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - asyncio's signature
        if self.done():
            return False
        self.scope.cancel(reason="asyncio cancelled it")
        return True

    def give_up(self) -> None:
        """Called when the trio task has ended; without a result, it was cancelled."""
        if not self.done():
            super().cancel()


async def _wait(task: asyncio.Task[Any]) -> None:
    waiting = trio.lowlevel.current_task()
    raise_cancel: Callable[[], None] | None = None

    def wake(_task: asyncio.Task[Any]) -> None:
        trio.lowlevel.reschedule(waiting)

    def abort(raise_it: Callable[[], None]) -> trio.lowlevel.Abort:
        nonlocal raise_cancel
        raise_cancel = raise_it
        task.cancel()
        return trio.lowlevel.Abort.FAILED

    task.add_done_callback(wake)
    await trio.lowlevel.wait_task_rescheduled(abort)
    if raise_cancel is not None and task.cancelled():
        raise_cancel()


async def _cancel_all_others() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for other in others:
            other.cancel()
        await asyncio.wait(others)
