"""The watch over a leased VM: whether its guest answers, and whether QEMU does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from actors.turns import Turns
from vmm.contract import Vm
from vmm.errors import AgentError, QmpError, VmSilentError

ANSWER_LIMIT_S: Final = 10.0
"""For one answer. A guest that computes on all its CPUs gives it in milliseconds; under TCG, on a busy host, it may be
seconds."""

TOLD_AFTER: Final = 3
"""Checks in a row that a guest does not answer until that is told, and that QEMU does not answer either."""


@attrs.frozen(kw_only=True)
class Vigil:
    """How often it is asked, and for how long neither may answer.

    What counts is checks, not time: while the service itself stood still nobody was asked.
    """

    interval_s: float = 60.0
    """Between two checks. Infinity: there are none."""
    silence_limit_s: float = 300.0
    """Infinity: a VM that does not answer is only told of."""
    answer_limit_s: float = ANSWER_LIMIT_S

    @property
    def checks(self) -> float:
        """How many that neither answered make the limit."""
        return max(TOLD_AFTER, math.ceil(self.silence_limit_s / self.interval_s)) if self._ends else math.inf

    @property
    def _ends(self) -> bool:
        return math.isfinite(self.interval_s) and math.isfinite(self.silence_limit_s)

    async def keep(self, vm: Vm, *, turns: Turns, tell: Callable[[str], None]) -> None:
        """Goes on until cancelled. Each check takes its turn; `tell` hears what is to be known of a guest that is
        silent, and the empty string once it answers again.

        A guest that is busy, has stopped, or was stopped, is its lease's owner's affair. Raises VmSilentError when
        nothing can be expected of the VM any more: QEMU itself does not answer either, and has not for the limit.
        """
        guest_missed = both_missed = 0
        while True:
            await trio.sleep(self.interval_s)
            async with turns.turn(vm.id):
                answers = await self._guest_answers(vm)
                state = "" if answers else await self._state(vm)
            if answers:
                if guest_missed >= TOLD_AFTER:
                    tell("")
                guest_missed = both_missed = 0
                continue
            guest_missed += 1
            both_missed = 0 if state else both_missed + 1
            if both_missed >= self.checks:
                raise VmSilentError(vm_id=vm.id, checks=both_missed, interval_s=self.interval_s)
            if TOLD_AFTER in (guest_missed, both_missed):  # QEMU may fall silent long after its guest
                says = f"QEMU says that it is {state}" if state else "QEMU does not answer either"
                tell(f"its guest has not answered {guest_missed} checks in a row; {says}")

    async def _guest_answers(self, vm: Vm) -> bool:
        with trio.move_on_after(self.answer_limit_s):
            try:
                await vm.agent.ping()
            except AgentError:
                return False  # as good as silent: what it is told as does not depend on it
            return True
        return False

    async def _state(self, vm: Vm) -> str:
        """Empty if QEMU does not say."""
        with trio.move_on_after(self.answer_limit_s):
            try:
                return await vm.run_state()
            except QmpError:
                return ""
        return ""
