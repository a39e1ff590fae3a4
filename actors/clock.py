"""The clocks of leased guests: when one is set again, and what of the host puts all of them off at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from vmm.contract import Vm
from vmm.errors import AgentError, AgentRequestError
from vmm.words.preparation import GuestClock

_log: Final = structlog.get_logger("vmpool.clock")

TOLERANCE_NS: Final = 500_000_000
"""By how much a guest's clock may be off. Guests of a busy host are late by some tenths of a second now and then."""

LOOK_EACH_S: Final = 1.0


def is_off(clock: GuestClock, *, asked_ns: int, answered_ns: int) -> bool:
    """Whether a guest's clock is to be set: it is off by more than the tolerance, and nobody in the guest has moved it.

    `asked_ns` and `answered_ns` are the host's clock before the question and after the answer, between which the guest
    has read its own.
    """
    if abs(clock.moved_ns) > TOLERANCE_NS:
        return False
    first, last = sorted((asked_ns, answered_ns))
    return not first - TOLERANCE_NS <= clock.wall_clock_ns <= last + TOLERANCE_NS


@attrs.define(eq=False, kw_only=True)
class HostClock:
    """The host's clock, and how often it has jumped: because the host slept, or because somebody set it.

    While a host sleeps its wall clock goes on and its monotonic clock stands, so each jump changes the difference.
    """

    now_ns: Callable[[], int] = time.time_ns
    """Of CLOCK_REALTIME."""
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    jumps: int = attrs.field(default=0, init=False)
    _jumped: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Looks once a second. Never returns."""
        lead_ns = self._lead_ns()
        task_status.started()
        while True:
            await trio.sleep(LOOK_EACH_S)
            before_ns, lead_ns = lead_ns, self._lead_ns()
            jump_ns = lead_ns - before_ns
            if abs(jump_ns) > TOLERANCE_NS:
                _log.info("the host's clock jumped: it slept, or its clock was set", by_s=round(jump_ns / 1e9, 3))
                self.jumps += 1
                self._jumped.set()
                self._jumped = trio.Event()

    async def wait_jump(self, *, since: int) -> None:
        """Returns once there have been more `jumps` than `since`."""
        while self.jumps <= since:
            await self._jumped.wait()

    def _lead_ns(self) -> int:
        return self.now_ns() - self.monotonic_ns()


@attrs.define(eq=False, kw_only=True)
class GuestClockWatch:
    """Asks one guest for its time, and sets its clock if it is off."""

    vm: Vm
    host: HostClock
    answer_limit_s: float
    _seen: int = attrs.field(default=attrs.Factory(lambda self: self.host.jumps, takes_self=True), init=False)
    """Jumps of the host's clock before the guest was last asked."""
    _refused: bool = attrs.field(default=False, init=False)

    async def wait_jump(self) -> None:
        """Until the host's clock has jumped since the guest was last asked."""
        await self.host.wait_jump(since=self._seen)

    async def ask(self) -> bool:
        """Whether the guest answers within the limit. The clock may take as long again."""
        clock, answers = None, False
        self._seen = self.host.jumps
        asked_ns = answered_ns = self.host.now_ns()
        with trio.move_on_after(self.answer_limit_s):
            try:
                clock = (await self.vm.agent.ping()).clock
            except AgentError:
                return False  # counts as silent, whatever the error
            answered_ns, answers = self.host.now_ns(), True
        if clock is not None and is_off(clock, asked_ns=asked_ns, answered_ns=answered_ns):
            with trio.move_on_after(self.answer_limit_s):
                await self._set(off_ns=clock.wall_clock_ns - answered_ns)
        return answers

    async def _set(self, *, off_ns: int) -> None:
        off_s = round(off_ns / 1e9, 3)
        try:
            await self.vm.agent.set_clock(self.host.now_ns())
        except AgentRequestError as error:
            if not self._refused:
                _log.warning("the guest's clock is off and cannot be set", vm=self.vm.id, off_s=off_s, error=str(error))
            self._refused = True
        except AgentError:
            return  # the next check finds it silent, or it is lost already
        else:
            _log.info("the guest's clock was off and is set", vm=self.vm.id, off_s=off_s)
