"""The watch over a leased VM: whether its guest answers, whether QEMU does, and what time it is in the guest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from actors.clock import GuestClockWatch, HostClock
from actors.turns import Turns
from vmm.contract import Vm
from vmm.errors import QmpError, VmSilentError

ANSWER_LIMIT_S: Final = 10.0
"""For one answer. A guest that computes on all its CPUs answers in milliseconds; under TCG, on a busy host, it may take
seconds."""

TOLD_AFTER: Final = 3
"""Unanswered checks in a row until the silence is reported, of the guest and again of QEMU."""


@attrs.frozen(kw_only=True)
class Vigil:
    """How often the VM is checked, and for how long neither guest nor QEMU may answer.

    The limit counts checks, not time: a service that stood still did not ask.
    """

    interval_s: float = 60.0
    """Between two checks. Infinity: no checks but of the clock, when the host's has jumped."""
    silence_limit_s: float = 300.0
    """Infinity: a VM that does not answer is only reported."""
    answer_limit_s: float = ANSWER_LIMIT_S

    @property
    def checks(self) -> float:
        """How many checks that neither answered make the limit."""
        return max(TOLD_AFTER, math.ceil(self.silence_limit_s / self.interval_s)) if self._ends else math.inf

    @property
    def _ends(self) -> bool:
        return math.isfinite(self.interval_s) and math.isfinite(self.silence_limit_s)

    async def keep(self, vm: Vm, *, turns: Turns, host_clock: HostClock, tell: Callable[[str], None]) -> None:
        """Goes on until cancelled. Each check takes its turn; `tell` gets a description of a silent guest, and the
        empty string once it answers again. The clock of a guest that answers is set if it is off.

        A guest that is busy, has stopped, or was stopped, is for its lease's owner to deal with. Raises VmSilentError
        when QEMU has not answered for the limit either.
        """
        guest = GuestClockWatch(vm=vm, host=host_clock, answer_limit_s=self.answer_limit_s)
        guest_missed = both_missed = 0
        while True:
            await self._wait(guest, turns)
            async with turns.turn(vm.id):
                answers = await guest.ask()
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
                says = f"QEMU reports {state}" if state else "QEMU does not answer either"
                tell(f"its guest has not answered {guest_missed} checks in a row; {says}")

    async def _wait(self, guest: GuestClockWatch, turns: Turns) -> None:
        """Until the next check is due. When the host's clock jumps meanwhile, the guest is asked for its own at once;
        whether it answers that does not count, since jumps may follow each other quickly.
        """
        with trio.move_on_after(self.interval_s):
            while True:
                await guest.wait_jump()
                async with turns.turn(guest.vm.id):
                    await guest.ask()

    async def _state(self, vm: Vm) -> str:
        """Empty if QEMU does not answer."""
        with trio.move_on_after(self.answer_limit_s):
            try:
                return await vm.run_state()
            except QmpError:
                return ""
        return ""
