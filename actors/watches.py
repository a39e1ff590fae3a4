"""Watches over a VM beside its actor's own steps: for its death, and for protocols that it breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from actors.errors import describe
from vmm.contract import Shell, Survivor, Vm
from vmm.errors import VmExitedError, VmmError

_log = structlog.get_logger("vmpool.vm")


async def wait_dead(vm: Vm | Shell | Survivor) -> VmExitedError:
    """Returns when the VM's process has ended: the error says how, with the end of the guest's console as a note."""
    exit_report = await vm.wait_exited()
    error = VmExitedError(vm_id=vm.id, reason=str(exit_report))
    if exit_report.console_tail:
        error.add_note(f"end of guest console:\n{exit_report.console_tail}")
    return error


def protocols(vm: Vm) -> tuple[Callable[[], Awaitable[VmmError]], ...]:
    """Each waits until the VM has broken one of its protocols: the VM is then lost, though it runs, because it takes no
    more requests.
    """
    return vm.agent.wait_broken, vm.wait_broken


async def clear_up_after(vm: Vm) -> None:
    """Waits for the end of a VM that was given away, removes its directory and reaps its process."""
    try:
        await vm.wait_exited()
        await vm.stop()
    except Exception as error:  # noqa: BLE001 - it leaves a directory, until the next start
        _log.warning("the directory of a VM that was given away could not be removed", vm=vm.id, error=describe(error))
    except BaseException:
        await vm.detach()
        raise
