"""The agent's event loop: descriptors, timers and children on one epoll, in one thread."""

from __future__ import annotations

# The C module behind `signal`; `signal` itself would import `enum` and many other modules.
import _signal  # type: ignore[import-not-found]
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET


class Timer:
    """A callback that is due at a time of CLOCK_MONOTONIC, unless cancelled."""

    __slots__ = ("callback", "cancelled", "due_ns")

    def __init__(self, due_ns: int, callback: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


_SOURCES_PER_TURN = 8
"""Of many that are ready the others are next, as epoll has it. Each gives up to 32 KiB a turn: with more of them, what
is read before anybody looks whether the channel is congested would delay an answer by megabytes."""


class Loop:
    """Descriptors that produce output are on a second epoll, so that all of them are paused and resumed at once.

    A descriptor may be on both: a socket is a source, and waited for when it does not take more.
    """

    def __init__(self) -> None:
        self._main = select.epoll()
        self._sources = select.epoll()
        self._sources_paused = False
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._source_callbacks: dict[int, Callable[[int], None]] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._main.register(self._sources.fileno(), READ)
        self._watch_children()

    def _watch_children(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)
        self.watch(wake_read, READ, lambda _events: self._reap(wake_read))

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._callbacks[fd] = callback
        self._main.register(fd, events)

    def rewatch(self, fd: int, events: int) -> None:
        """Changes the watched events. A condition that already holds is reported again, even edge-triggered."""
        self._main.modify(fd, events)

    def watching(self, fd: int) -> bool:
        return fd in self._callbacks

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._main.unregister(fd)

    def watch_always(self, fd: int, callback: Callable[[int], None]) -> None:
        """Reports readability, even while sources are paused. Idempotent. Ended by `unwatch`."""
        if fd not in self._callbacks:
            self.watch(fd, READ, callback)

    def watch_source(self, fd: int, callback: Callable[[int], None]) -> None:
        """Reports readability while sources are not paused. Idempotent."""
        if fd not in self._source_callbacks:
            self._source_callbacks[fd] = callback
            self._sources.register(fd, READ)

    def unwatch_source(self, fd: int) -> None:
        if self._source_callbacks.pop(fd, None) is not None:
            self._sources.unregister(fd)

    def pause_sources(self, *, paused: bool) -> None:
        if paused != self._sources_paused:
            self._sources_paused = paused
            if paused:
                self._main.unregister(self._sources.fileno())
            else:
                self._main.register(self._sources.fileno(), READ)

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic_ns() + delay_ns, callback)
        self._timers.append(timer)
        return timer

    def watch_child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Calls back in a later turn of the loop, with the exit code or the negated signal."""
        self._children[pid] = callback

    def unwatch_child(self, pid: int) -> None:
        """The child is still reaped."""
        self._children.pop(pid, None)

    def run_once(self, *, wait: bool) -> None:
        """One turn: due timers, ready descriptors and some of the ready sources get their callbacks once each. `wait`:
        until there is at least one.
        """
        for fd, events in self._main.poll(self._timeout() if wait else 0):
            if fd == self._sources.fileno():
                for source, source_events in self._sources.poll(0, _SOURCES_PER_TURN):
                    _dispatch(self._source_callbacks, source, source_events)
            else:
                _dispatch(self._callbacks, fd, events)
        if self._timers:
            self._run_timers()

    def _timeout(self) -> float | None:
        pending = [timer.due_ns for timer in self._timers if not timer.cancelled]
        if not pending:
            return None
        # One millisecond more, because epoll may round down; at most an hour, because epoll takes at most 24 days.
        return min(max(0, min(pending) - time.monotonic_ns() + 1_000_000) / 1e9, 3600)

    def _run_timers(self) -> None:
        now = time.monotonic_ns()
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        for timer in [timer for timer in self._timers if timer.due_ns <= now]:
            self._timers.remove(timer)
            if not timer.cancelled:
                timer.callback()

    def _reap(self, wake_fd: int) -> None:
        os.read(wake_fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # As PID 1 the agent also reaps orphans that it did not start.
            callback = self._children.pop(pid, None)
            if callback is not None:
                callback(os.waitstatus_to_exitcode(status))


def _dispatch(callbacks: dict[int, Callable[[int], None]], fd: int, events: int) -> None:
    # An earlier callback of the same turn may have closed the descriptor.
    callback = callbacks.get(fd)
    if callback is not None:
        callback(events)
