"""Notifications to systemd, or another supervisor, by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import structlog
import trio

_log: Final = structlog.get_logger("vmpool.notify")

LOOK_EACH_S: Final = 0.25
"""How often the watchdog task checks whether a ping is due. The service's clock stands when the service does (decision
27), but systemd's does not: a task that slept until the next ping would be late by each standstill.
"""


def notify(state: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends `state` ("READY=1", "STOPPING=1") to `$NOTIFY_SOCKET`; returns False if that is not set.

    A name that starts with @ is in the abstract namespace. Raises OSError if sending fails.
    """
    name = environment.get("NOTIFY_SOCKET")
    if not name:
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)
    return True


def tell(state: str) -> None:
    """`notify`, but a failure is only logged."""
    try:
        notify(state)
    except OSError as error:
        _log.warning("notification not sent to $NOTIFY_SOCKET", state=state, error=str(error))


def watchdog_interval_s(*, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds between pings, half of `$WATCHDOG_USEC`. None if no watchdog waits for this process.

    `$WATCHDOG_PID` names another process if this one is a child of the watched process (sd_watchdog_enabled(3)).
    """
    patience, watched = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not patience.isdecimal() or int(patience) == 0:
        return None
    if watched and watched != str(os.getpid() if pid is None else pid):
        return None
    return int(patience) / 1_000_000 / 2


@attrs.define(eq=False, kw_only=True)
class Watchdog:
    """Pings systemd's watchdog as long as the service does its work, and no longer.

    `check` returns when the parts that must not be stuck have answered. Without it, a ping would only show that the
    event loop runs.
    """

    interval_s: float
    check: Callable[[], Awaitable[object]]
    """Cancelled if it takes longer than `interval_s`. An exception from it ends `run`."""
    send: Callable[[str], object] = notify
    read: Callable[[], float] = time.monotonic
    """Seconds on systemd's clock, by which pings are due."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Checks and pings every `interval_s`; never returns."""
        task_status.started()
        due = self.read()
        while True:
            answered = False
            with trio.move_on_after(self.interval_s):
                await self.check()
                answered = True
            if answered:
                self._ping()
            else:
                _log.error("no answer within the watchdog's interval; no ping is sent", interval_s=self.interval_s)
            due = max(due + self.interval_s, self.read())
            await self._wait_until(due)

    async def _wait_until(self, due: float) -> None:
        await trio.lowlevel.checkpoint()  # the loop below may not sleep
        while (left_s := due - self.read()) > 0:  # noqa: ASYNC110 - no event on that clock
            await trio.sleep(min(left_s, LOOK_EACH_S))

    def _ping(self) -> None:
        try:
            self.send("WATCHDOG=1")
        except OSError as error:  # the next ping may succeed; if none does, systemd acts
            _log.warning("watchdog ping not sent", error=str(error))
