"""The last steps of every production: a rehearsal of the hand-out and the pause, within a time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from actors.errors import evidence
from vmm.contract import Vm
from vmm.errors import AgentUnreachableError, BootError
from vmm.fresh import FRESH
from vmm.words.processes import BootStage

CHECK_TIMEOUT_S: Final = 2.0
"""For a paused VM to run, answer and be paused again. It takes milliseconds, for which a hand-out of the VM waits."""


async def check(vm: Vm, *, limit_s: float = CHECK_TIMEOUT_S) -> None:
    """Resumes a paused VM, pings its agent, and pauses the VM again. Raises VmmError if the agent does not answer.

    Without an agent, QEMU is asked whether the guest runs.
    """
    try:
        with trio.fail_after(limit_s):
            await vm.resume()
            await vm.agent.ping()
            await vm.pause()
    except trio.TooSlowError as error:
        raise AgentUnreachableError(f"the agent did not answer a check within {limit_s:g} s") from error


async def park(bring_up: Callable[[], Awaitable[Vm]], *, timeout_s: float) -> Vm:
    """The running VM that `bring_up` returned, now paused and ready to be handed out.

    Raises the errors of `bring_up` and the VM, and BootError after `timeout_s`, with the evidence that was noted on
    the cancellation. On error and on cancellation the VM is stopped.
    """
    vm: Vm | None = None
    notes = ""
    try:
        with trio.fail_after(timeout_s):
            try:
                vm = await bring_up()
                await vm.agent.prepare(FRESH.preparation(vm_id=vm.id, vm_uuid=vm.uuid))  # the hand-out does it again
                await vm.pause()
            except BaseException as error:
                # The cancel scope swallows Cancelled, and with it the console tail in its notes.
                notes = evidence(error)
                raise
    except BaseException as error:
        if vm is not None:
            await vm.stop()
        if not isinstance(error, trio.TooSlowError):
            raise
        # The guest, not QEMU, is slow: QEMU answers or dies within a fraction of a second.
        timeout = BootError(stage=BootStage.GUEST, reason=f"not ready within {timeout_s:g} s")
        if notes:
            timeout.add_note(notes)
        raise timeout from error
    return vm
