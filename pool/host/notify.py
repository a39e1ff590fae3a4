"""Tells whoever started the service how it is doing, by systemd's notification protocol (sd_notify(3))."""

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
"""How often the watchdog looks whether a ping is due. The service's clock stands when the service does (decision 27),
systemd's does not: a task that sleeps until the next ping would wake up too late by each standstill.
"""


def notify(state: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends `state` ("READY=1", "STOPPING=1") to `$NOTIFY_SOCKET`; returns False where there is none.

    A name that starts with @ is in the abstract namespace. Raises OSError if the socket is there but does not take it.
    """
    name = environment.get("NOTIFY_SOCKET")
    if not name:
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)
    return True


def tell(state: str) -> None:
    """`notify`, for what is true whoever hears of it: that nobody does is logged."""
    try:
        notify(state)
    except OSError as error:
        _log.warning("whoever started us takes no notice", state=state, error=str(error))


def watchdog_interval_s(*, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often the watchdog wants to hear of us: half of its patience. None if it waits for nobody, or another.

    `$WATCHDOG_PID` names another process when we are a child of the one that is watched (sd_watchdog_enabled(3)).
    """
    patience, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not patience.isdecimal() or int(patience) == 0:
        return None
    if whose and whose != str(os.getpid() if pid is None else pid):
        return None
    return int(patience) / 1_000_000 / 2


@attrs.define(eq=False, kw_only=True)
class Watchdog:
    """Keeps systemd's watchdog quiet for as long as the service does its work, and no longer.

    `check` returns when what must not be stuck has answered. A ping from a task of its own, without asking, would tell
    no more than that the event loop turns.
    """

    interval_s: float
    check: Callable[[], Awaitable[object]]
    """Cancelled if it takes longer than `interval_s`. What it raises ends `run`."""
    send: Callable[[str], object] = notify
    read: Callable[[], float] = time.monotonic
    """Seconds on systemd's clock, by which pings are due."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Asks and pings every `interval_s`; never returns."""
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
        await trio.lowlevel.checkpoint()  # the time may be over
        while (left_s := due - self.read()) > 0:  # noqa: ASYNC110 - that clock wakes nobody
            await trio.sleep(min(left_s, LOOK_EACH_S))

    def _ping(self) -> None:
        try:
            self.send("WATCHDOG=1")
        except OSError as error:  # the next one may get through, and systemd knows what to do if none does
            _log.warning("the watchdog takes no ping", error=str(error))
