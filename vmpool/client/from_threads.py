"""From plain threads to the SDK's asyncio code: what the generated blocking face calls.

Each connection has one thread with an asyncio loop. A call waits for its task there; what the task needs of the caller,
callbacks and the pieces of an iterable, runs in the caller's thread. A KeyboardInterrupt, or any other exception that a
signal handler raises, cancels the task and waits for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import queue
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

import attrs

from vmpool.client.chunks import Readable
from vmpool.client.errors import ClientError
from vmpool.client.exchange import Replies
from vmpool.client.opening import Opening, Resource

_log = logging.getLogger("vmpool.client")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_CLOSED: Final = "the connection is closed"
_FORKED: Final = "the connection belongs to the process that this one was forked from; connect here, too"


class ThreadConnection:
    """The thread of one connection, seen from others. Any number of threads may call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._first: Resource | None = None
        # A daemon, or a program that never closes its connection would not end: at its end, `_close` does.
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="vmpool", daemon=True)
        self._thread.start()
        self._pid = os.getpid()
        self._way_in = _WayIn(self._loop)
        self._over = weakref.finalize(self, _stop, self._way_in, self._thread, self._pid)

    def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs an asyncio function as a task of the loop, and waits for its end."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback of vmpool.sync cannot call vmpool.sync of the same connection")
        if self._forked:
            raise ClientError(_FORKED)
        if not self._over.alive:
            raise ClientError(_CLOSED)
        call = _Waiting[T](self._way_in)

        async def work() -> T:
            token = _CALLER.set(call)
            try:
                return await function(*args, **kwargs)
            finally:
                _CALLER.reset(token)

        return call.result(work)

    def open(self, opened: Opening[T], face: Callable[[T], R]) -> R:
        """Opens something, which is closed if this is interrupted."""
        try:
            return face(self.run(opened.open))
        except BaseException:
            if self._over.alive and not self._forked:
                self.run(opened.aclose)
            raise

    def close(self, resource: Resource) -> None:
        """Also ends the thread, if this was opened first. Nothing in a forked process: it is the other one's."""
        if self._forked or not self._over.alive:
            return
        try:
            self.run(resource.aclose)
        except ClientError:
            if self._over.alive:
                raise  # or else another thread has closed everything meanwhile
        finally:
            if resource is self._first:
                self._over()

    @property
    def _forked(self) -> bool:
        """Threads do not come along: nobody would answer."""
        return os.getpid() != self._pid

    def stands_on(self, resource: Resource) -> None:
        """With this resource, all ends."""
        self._first = resource

    def end(self) -> None:
        """Ends the thread with all that is open."""
        self._over()

    def iterator(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        return _Steps(self, iterator)

    def step(self, iterator: AsyncIterator[T]) -> T:
        """The next one; raises StopIteration."""

        async def step() -> tuple[T] | None:
            try:
                return (await anext(iterator),)
            except StopAsyncIteration:
                return None

        one = self.run(step)
        if one is None:
            raise StopIteration
        return one[0]

    def callback(self, function: Callable[[T], object] | None) -> Callable[[T], object] | None:
        """`function` is called in the thread that waits."""
        if function is None:
            return None

        async def call(value: T) -> None:
            await _CALLER.get().ask(lambda: function(value))

        return call

    def chunks(self, data: Any) -> Any:
        """What asyncio code iterates in place of `data`, which is iterated in the thread that waits."""
        if data is None or isinstance(data, str | bytes | bytearray | memoryview | AsyncIterable):
            return data
        pieces = _read(data) if isinstance(data, Readable) else iter(data)
        return Replies(lambda: _CALLER.get().ask(lambda: next(pieces, None)))


class BlockingResource:
    """Something that is open: until the end of its block, or until `close`, which may be called again."""

    _connection: ThreadConnection
    _core: Resource

    def close(self) -> None:
        """Closes it; goes on to the end if it is interrupted meanwhile."""
        self._connection.close(self._core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def connecting(opened: Opening[T], face: Callable[[ThreadConnection, T], R]) -> R:
    """A connection, with a thread for it, until it is closed."""
    connection = ThreadConnection()
    try:
        resource = connection.run(opened.open)
        assert isinstance(resource, Resource)
        connection.stands_on(resource)
        return face(connection, resource)
    except BaseException:
        connection.end()
        raise


class _Steps(Generic[T]):
    def __init__(self, crossing: ThreadConnection, iterator: AsyncIterator[T]) -> None:
        self._crossing = crossing
        self._iterator = iterator

    def __iter__(self) -> _Steps[T]:
        return self

    def __next__(self) -> T:
        return self._crossing.step(self._iterator)


@attrs.frozen(kw_only=True)
class _Request:
    """What a task wants its caller's thread to do."""

    function: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]


class _WayIn:
    """From other threads into a loop. What came in before it was shut is run; nothing comes in later."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.RLock()  # whoever holds it may be interrupted by a signal handler that closes
        self._is_shut = False

    def call(self, function: Callable[..., object], *args: Any) -> bool:
        """Whether the loop will call it."""
        with self._lock:
            if not self._is_shut:
                self.loop.call_soon_threadsafe(function, *args)
            return not self._is_shut

    def shut(self) -> None:
        """Stops the loop."""
        with self._lock:
            self._is_shut = True
            self.loop.call_soon_threadsafe(self.loop.stop)


class _Waiting(Generic[T]):
    """A call, between the task that makes it and the thread that waits."""

    def __init__(self, way_in: _WayIn) -> None:
        self._way_in = way_in
        self._loop = way_in.loop
        self._task: asyncio.Task[T] | None = None
        self._messages: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()

    def _begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """In the loop."""
        self._task = self._loop.create_task(work())
        self._task.add_done_callback(lambda _: self._messages.put(None))

    async def ask(self, function: Callable[[], Any]) -> Any:
        """In the task: what the caller's thread makes of it."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def done(value: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(_settle, answer, value, error)

        self._messages.put(_Request(function=function, done=done))
        return await answer

    def result(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """In the caller's thread."""
        try:
            if self._way_in.call(self._begin, work):
                self._attend()
        except BaseException:
            self._give_up()
            raise
        if self._task is None or self._task.cancelled():
            raise ClientError(_CLOSED)
        return self._task.result()

    def _attend(self) -> None:
        while (request := self._messages.get()) is not None:
            try:
                value = request.function()
            except Exception as error:  # noqa: BLE001 - the task gets it, and ends with it
                request.done(None, error)
            else:
                request.done(value, None)

    def _give_up(self) -> None:
        """Cancels the task, and waits for its end; interrupted again, it still waits."""
        if not self._way_in.call(self._cancel):  # the loop is ending, with all tasks
            self._messages.put(None)
        while True:
            try:
                while (request := self._messages.get()) is not None:
                    request.done(None, ClientError("the call was interrupted"))
                break
            except KeyboardInterrupt:
                continue
        task = self._task
        if task is not None and task.done() and not task.cancelled() and task.exception() is None:
            abandon = getattr(task.result(), "abandon", None)
            if abandon is not None:
                try:
                    _Waiting[None](self._way_in).result(abandon)
                except ClientError as error:
                    _log.warning("what an interrupted call had begun could not be undone: %s", error)

    def _cancel(self) -> None:
        if self._task is None:  # interrupted before the loop was told to begin
            self._messages.put(None)
        else:
            self._task.cancel()


_CALLER: Final[contextvars.ContextVar[_Waiting[Any]]] = contextvars.ContextVar("vmpool_caller")
"""The call that the running task belongs to; tasks that it starts belong to it, too."""


def _settle(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():  # cancelled meanwhile
        return
    if isinstance(error, StopIteration | StopAsyncIteration):  # as of a generator: it would be taken for the end of one
        wrong, error = error, RuntimeError(f"the caller's code raised {type(error).__name__}")
        error.__cause__ = wrong
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _read(file: Readable) -> Iterator[bytes]:
    while piece := file.read(64 * 1024):
        yield piece


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(_note_loop_error)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _stop(way_in: _WayIn, thread: threading.Thread, pid: int) -> None:
    if os.getpid() != pid:  # forked: the loop is the other process's
        return
    way_in.shut()
    if threading.current_thread() is not thread:  # garbage is collected in whatever thread
        thread.join()


async def _end_all() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for other in others:
            other.cancel()
        await asyncio.wait(others)


def _note_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs a warning; asyncio's own handler would log an error of the caller's program."""
    _log.warning("error in the event loop: %s", context.get("message"), exc_info=context.get("exception"))
