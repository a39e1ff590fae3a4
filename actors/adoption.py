"""Adoption: a VM that an earlier run of the service left running becomes a VM of this run."""

from __future__ import annotations

from typing import Final

import attrs
import structlog
import trio

from actors.errors import describe
from actors.producer import Adopt
from actors.record import VmRecord
from actors.turns import Turns
from vmm.contract import Survivor, Vm
from vmm.errors import QmpConnectionError, VmmError
from vmm.words.backoff import Backoff

_log = structlog.get_logger("vmpool.adoption")

ADOPT_TIMEOUT_S: Final = 10.0
"""For the QEMU of a base VM to answer, once the VM has its turn; and for its agent to answer the first request. Either
takes milliseconds; under TCG, on a host that is short of CPUs, more."""

ATTEMPT_S: Final = 30.0
"""After this long without an answer, a leased VM's agent is asked on a new connection."""

_BETWEEN_ATTEMPTS: Final = Backoff(initial_s=0.25, maximum_s=10.0, jitter=0.0)


@attrs.frozen(kw_only=True)
class Adoption:
    """A VM's record, and the way to find the VM again."""

    record: VmRecord
    adopt: Adopt


async def hold(survivor: Survivor, *, nursery: trio.Nursery) -> Vm:
    """A base VM, paused, whose QEMU has answered: its guest is not woken, and its agent is not asked.

    Raises VmmError, after ADOPT_TIMEOUT_S at the latest; the caller then ends the survivor.
    """
    with trio.move_on_after(ADOPT_TIMEOUT_S):
        return await survivor.hold(nursery=nursery)
    raise QmpConnectionError(f"QEMU did not answer within {ADOPT_TIMEOUT_S:g} s of the VM's adoption")


async def reach(survivor: Survivor, *, turns: Turns, nursery: trio.Nursery) -> Vm:
    """A leased VM, once its agent answers. Tries without a time limit: a guest may be busy while its lease lasts.

    Each attempt has its turn, under the VM's id. The caller watches the process, and cancels this call when it dies.
    """
    failures = 0
    while True:
        reason = f"the agent did not answer within {ATTEMPT_S:g} s"
        async with turns.turn(survivor.id):
            with trio.move_on_after(ATTEMPT_S):
                try:
                    return await survivor.connect(nursery=nursery)
                except VmmError as error:
                    reason = describe(error)
        failures += 1
        if failures == 1:
            _log.warning("an adopted VM does not answer; trying again", vm=survivor.id, error=reason)
        await trio.sleep(_BETWEEN_ATTEMPTS.delay(failures))
