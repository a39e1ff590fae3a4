"""What is noticed of a VM from outside, whatever its story is waiting for: its death, and protocols that it broke."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from actors.errors import describe
from vmm.contract import Shell, Survivor, Vm
from vmm.errors import VmExitedError, VmmError

_log = structlog.get_logger("vmpool.vm")


async def wait_dead(vm: Vm | Shell | Survivor) -> VmExitedError:
    """Returns when its process has ended: how, with the end of the guest's console as a note."""
    exit_report = await vm.wait_exited()
    error = VmExitedError(vm_id=vm.id, reason=str(exit_report))
    if exit_report.console_tail:
        error.add_note(f"end of guest console:\n{exit_report.console_tail}")
    return error


def protocols(vm: Vm) -> tuple[Callable[[], Awaitable[VmmError]], ...]:
    """Each waits until the VM has broken one of its protocols: then it is lost, though it runs, because it cannot be
    asked for anything more.
    """
    return vm.agent.wait_broken, vm.wait_broken


async def clear_up_after(vm: Vm) -> None:
    """A VM that is somebody else's ends some day; then its directory goes, and its process is reaped."""
    try:
        await vm.wait_exited()
        await vm.stop()
    except Exception as error:  # noqa: BLE001 - what is left costs a directory, until the next start
        _log.warning("a VM that was given away left something", vm=vm.id, error=describe(error))
    except BaseException:
        await vm.detach()
        raise
