"""Keeps long-lived actors running: restart with back-off, up to a restart intensity.

The idea is OTP's: a child that crashes is restarted, unless it crashes too often within a window; then the supervisor
gives up and its error ends the program part that it belongs to. Back-off between restarts is added because a child
that fails at once would otherwise use up its whole allowance within a millisecond.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import attrs
import structlog
import trio

from actors.errors import describe
from vmm.words.backoff import Backoff

_log = structlog.get_logger("vmpool.supervisor")


class ChildMain(Protocol):
    """The body of a child. It calls `task_status.started()` when it is ready to work."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[Any]: ...


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """More than `max_restarts` crashes within `window_s` seconds end the supervisor.

    `math.inf` never gives up. A child that ran for `window_s` without a crash starts over at the first delay; its
    start-up time does not count.
    """

    max_restarts: float = 5
    window_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    backoff: Backoff = attrs.field(factory=Backoff)


NEVER_GIVE_UP: Final = RestartPolicy(max_restarts=math.inf)


class RestartIntensityExceededError(Exception):
    """A child crashed too often; the last crash is the cause.

    Derives from Exception alone, so that no handler for a child's errors can swallow it.
    """

    def __init__(self, *, child: str, crashes: int, window_s: float) -> None:
        super().__init__(f"{child} crashed {crashes} times within {window_s:g} s; giving up")
        self.child = child
        self.crashes = crashes
        self.window_s = window_s


@attrs.frozen(kw_only=True)
class ChildStatistics:
    """`running` is false while the child is starting or waiting for its restart, and when it has ended."""

    name: str
    running: bool
    restarts: int
    last_error: str | None


@attrs.define(eq=False, kw_only=True)
class Supervised:
    """One supervised child: run it with `run()` in a nursery of the owner.

    A child that returns is not restarted. Cancelling `run` cancels the child; it then propagates as usual.
    """

    name: str
    main: ChildMain
    policy: RestartPolicy = attrs.field(factory=RestartPolicy)
    on_change: Callable[[], None] = lambda: None
    rng: random.Random = attrs.field(factory=random.Random)
    _running: bool = False
    _restarts: int = 0
    _last_error: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the child until it returns. `task_status.started()` is called when the child is first ready to work.

        Raises RestartIntensityExceededError from the last crash.
        """
        crashes: deque[float] = deque()  # within the window, for the intensity
        in_a_row = 0  # since the last quiet window, for the back-off
        announced = False
        while True:
            running_since = math.inf
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.main)
                    running_since = trio.current_time()
                    self._set_running(True)
                    if not announced:
                        announced = True
                        task_status.started()
            except Exception as crash:
                # An ExceptionGroup that also holds Cancelled is a BaseExceptionGroup and passes: we are being ended.
                now = trio.current_time()
                in_a_row = 1 if now - running_since >= self.policy.window_s else in_a_row + 1
                while crashes and now - crashes[0] > self.policy.window_s:
                    crashes.popleft()
                crashes.append(now)
                self._last_error = describe(crash)
                self._set_running(False)
                if len(crashes) > self.policy.max_restarts:
                    raise RestartIntensityExceededError(
                        child=self.name, crashes=len(crashes), window_s=self.policy.window_s
                    ) from crash
                delay_s = self.policy.backoff.delay(in_a_row, randomness=self.rng.random())
                _log.warning("child crashed", child=self.name, error=self._last_error, restart_in_s=round(delay_s, 3))
                await trio.sleep(delay_s)
                self._restarts += 1
            else:
                self._set_running(False)
                return

    def _set_running(self, running: bool) -> None:
        self._running = running
        self.on_change()

    def statistics(self) -> ChildStatistics:
        return ChildStatistics(
            name=self.name, running=self._running, restarts=self._restarts, last_error=self._last_error
        )
