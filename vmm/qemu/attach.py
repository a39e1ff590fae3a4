"""Taking a VM that somebody else made, and gave away: a paused QEMU to which nobody is connected."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from vmm.contract import Command, CommandSpec, GuestInfo, Preparation, PreparationReport, ProcessIdentity
from vmm.errors import AttachError
from vmm.qemu.agents import ConnectedAgent, connect_agent
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.directory import VmDirectory
from vmm.qemu.instance import Instance
from vmm.qemu.process import QemuProcess, command_line_of, start_time_of
from vmm.qemu.vm import QemuVm


class LateAgent:
    """An agent that is connected to when it is first asked: that of a paused guest would not answer before.

    Fulfils `vmm.contract.Agent`.
    """

    def __init__(self, connect: Callable[[], Awaitable[ConnectedAgent]]) -> None:
        self._connect = connect
        self._connecting = trio.Lock()
        self._client: ConnectedAgent | None = None

    async def ping(self) -> GuestInfo:
        return await (await self._reach()).ping()

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        return await (await self._reach()).prepare(preparation)

    async def start_command(self, spec: CommandSpec) -> Command:
        return await (await self._reach()).start_command(spec)

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        await (await self._reach()).put_file(path, data, mode=mode)

    async def get_file(self, path: str) -> bytes:
        return await (await self._reach()).get_file(path)

    async def _reach(self) -> ConnectedAgent:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client


async def attach(*, vm_id: str, directory: Path, uuid: str, nursery: trio.Nursery) -> QemuVm:
    """Takes over a QEMU with its directory, which is named by its id, has its QMP socket, and goes with it.

    Its agent is the one that its command line names, if vmpool started it; else it has none that can be asked. The
    connections' background tasks live in `nursery`. Raises AttachError if there is no such QEMU: then nothing was
    touched. On other errors, QmpError, and when it is cancelled, the VM is ended.

    A QEMU that serves another QMP client is waited for; the caller sets the time limit.
    """
    home = VmDirectory(directory)
    if directory.name != vm_id or not directory.is_absolute():
        raise AttachError(vm_id=vm_id, reason=f"{directory} is not a directory of its own, in a place that is known")
    with trio.CancelScope(shield=True):  # or a VM that is nobody else's would be left
        process = await trio.to_thread.run_sync(_find_process, vm_id, uuid, home)
    try:
        group, argv = VmGroup.recorded_in(home.cgroups), command_line_of(process.pid)
    except OSError as error:
        process.close()
        raise AttachError(vm_id=vm_id, reason=f"what is known of it cannot be read: {error}") from error
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

    agent = LateAgent(partial(connect_agent, instance, nursery=nursery))
    return QemuVm(instance, agent, uuid=uuid)


def _find_process(vm_id: str, uuid: str, home: VmDirectory) -> QemuProcess:
    """By its command line. The credentials of its socket are those of who listened, from whom QEMU inherited it."""
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
