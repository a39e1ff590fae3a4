"""Taking over a VM that another service made and gave away: a paused QEMU without connections."""

from __future__ import annotations

import itertools
from pathlib import Path

import trio

from vmm.errors import AttachError
from vmm.qemu.agents import late_agent
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.directory import VmDirectory
from vmm.qemu.instance import Instance
from vmm.qemu.process import QemuProcess, command_line_of, start_time_of
from vmm.qemu.vm import QemuVm
from vmm.words.processes import ProcessIdentity


async def attach(*, vm_id: str, directory: Path, uuid: str, nursery: trio.Nursery) -> QemuVm:
    """Takes over a QEMU with its directory, which is named after the VM's id, has its QMP socket, and goes with it.

    Its agent is the one that its command line names, if vmpool started it; otherwise it has no agent. The connections'
    background tasks live in `nursery`. Raises AttachError if no such QEMU exists: nothing is changed then. On other
    errors, QmpError, and under cancellation, the VM is ended.

    Waits while QEMU serves another QMP client; the caller sets the time limit.
    """
    home = VmDirectory(directory)
    if directory.name != vm_id or not directory.is_absolute():
        raise AttachError(vm_id=vm_id, reason=f"{directory} is not an absolute path that ends in the VM's id")
    with trio.CancelScope(shield=True):  # a VM left behind would have no owner
        process = await trio.to_thread.run_sync(_find_process, vm_id, uuid, home)
    try:
        group, argv = VmGroup.recorded_in(home.cgroups), command_line_of(process.pid)
    except OSError as error:
        process.close()
        raise AttachError(vm_id=vm_id, reason=f"its files cannot be read: {error}") from error
    instance = Instance(vm_id=vm_id, directory=home, process=process, group=group, argv=argv)
    try:
        await instance.connect_qmp(nursery=nursery)
        said = (await instance.execute("query-uuid"))["UUID"]
    except BaseException:
        await instance.kill()
        raise
    if said != uuid:
        await instance.detach()
        raise AttachError(vm_id=vm_id, reason=f"the QEMU at {home.qmp_socket} is {said}, not {uuid}")

    return QemuVm(instance, late_agent(instance, nursery=nursery), uuid=uuid)


def _find_process(vm_id: str, uuid: str, home: VmDirectory) -> QemuProcess:
    """By its command line. The credentials of its socket are those of the service that QEMU inherited it from."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _has_uuid(command_line_of(int(entry.name)), uuid)
    ]
    if len(found) != 1:
        raise AttachError(vm_id=vm_id, reason=f"{len(found) or 'no'} processes have -uuid {uuid or '(none)'}")
    started = start_time_of(found[0])
    if started is None:
        raise AttachError(vm_id=vm_id, reason="it has just ended")
    try:
        return QemuProcess.adopt(ProcessIdentity(pid=found[0], start_time=started), log=home.qemu_log)
    except OSError as error:
        raise AttachError(vm_id=vm_id, reason=f"it has just ended: {error}") from error


def _has_uuid(argv: list[str], uuid: str) -> bool:
    return bool(uuid) and any(pair == ("-uuid", uuid) for pair in itertools.pairwise(argv))
