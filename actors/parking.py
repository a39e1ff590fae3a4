"""The last steps of every production: rehearse the hand-out, pause, within a time limit that leaves evidence."""

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
"""For a paused VM to run, answer and be paused again. It takes milliseconds; whoever is handed it meanwhile waits."""


async def check(vm: Vm, *, limit_s: float = CHECK_TIMEOUT_S) -> None:
    """Asks a paused VM's agent whether it is there, and pauses it again. Raises VmmError if it is not.

    Without an agent it is QEMU that is asked: whether the guest can run, and does.
    """
    try:
        with trio.fail_after(limit_s):
            await vm.resume()
            await vm.agent.ping()
            await vm.pause()
    except trio.TooSlowError as error:
        raise AgentUnreachableError(f"its agent did not answer a check within {limit_s:g} s") from error


async def park(bring_up: Callable[[], Awaitable[Vm]], *, timeout_s: float) -> Vm:
    """A VM that `bring_up` returned running, now paused and ready to be handed out.

    Raises what `bring_up` and the VM raise, and BootError after `timeout_s`, with whatever evidence was noted on the
    cancellation. On error and on cancellation the VM is stopped.
    """
    vm: Vm | None = None
    notes = ""
    try:
        with trio.fail_after(timeout_s):
            try:
                vm = await bring_up()
                await vm.agent.prepare(FRESH.preparation(vm_id=vm.id, vm_uuid=vm.uuid))  # each part of it is done again
                await vm.pause()
            except BaseException as error:
                # A cancel scope swallows Cancelled, and with it the console tail that was noted on it.
                notes = evidence(error)
                raise
    except BaseException as error:
        if vm is not None:
            await vm.stop()
        if not isinstance(error, trio.TooSlowError):
            raise
        # The guest is what takes the time: QEMU itself answers, or is dead, within a fraction of a second.
        timeout = BootError(stage=BootStage.GUEST, reason=f"not ready within {timeout_s:g} s")
        if notes:
            timeout.add_note(notes)
        raise timeout from error
    return vm
