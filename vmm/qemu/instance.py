"""A QEMU process with its directory and its channels, whatever its guest does."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from vmm.devices.console import console_log, names_console
from vmm.devices.links import AgentLink, NoLink, agent_link
from vmm.errors import BootError, JailError, QmpConnectionError, VmExitedError, VmmError
from vmm.logs import LogLimiter, read_tail
from vmm.qemu.command_line import FileMemory, MemoryBacking, Start, build_argv
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.descriptors import open_boot_files, open_passed
from vmm.qemu.directory import VmDirectory
from vmm.qemu.ending import SHUTDOWN, cause
from vmm.qemu.process import QemuProcess, command_line_of
from vmm.qemu.qmp import QmpClient
from vmm.qemu.qmp.client import EventSubscription
from vmm.qemu.qmp.messages import Event
from vmm.sockets import connect
from vmm.spec import MachineSpec
from vmm.words.processes import BootStage, ExitReport, ProcessIdentity

QUIT_LIMIT_S = 3.0
"""From QMP `quit` to the end of the process; SIGKILL comes after it."""

EXIT_NOTICE_S = 1.0
"""QEMU's sockets close a moment before its process is dead."""


class Channel(Protocol):
    async def aclose(self) -> None: ...


class Instance:
    """One QEMU. Its owner must end it with `stop`, `kill` or `detach`, whatever happens."""

    def __init__(
        self,
        *,
        vm_id: str,
        directory: VmDirectory,
        process: QemuProcess,
        group: VmGroup,
        argv: Sequence[str],
        boots: tuple[Path, ...] = (),
    ) -> None:
        """`boots`: the files behind the descriptors that it boots from, if that is known, as evidence."""
        self.vm_id = vm_id
        self.directory = directory
        self.process = process
        self.group = group
        self.argv = tuple(argv)
        self._boots = boots
        self._qmp: QmpClient | None = None
        self._channels: list[Channel] = []
        self._ending = trio.Lock()

    @classmethod
    def start(
        cls,
        spec: MachineSpec,
        *,
        vm_id: str,
        directory: Path,
        memory: MemoryBacking | None = None,
        start: Start = Start.BOOT,
        confinement: Confinement = UNCONFINED,
    ) -> Instance:
        """Makes the directory, the cgroup and the listening sockets and starts QEMU; not a checkpoint.

        QEMU inherits the sockets listening: whoever connects needs no retries, and sees QEMU die at once. All that is
        in the directory, a vsock device, and what the guest boots from is passed to it open: it need not be able to
        enter any directory. Raises SpecError and MissingFileError for the directory and for vsock, BootError if the
        directory cannot be made, a file not be opened, or the program not be executed; nothing is left then.
        """
        home = VmDirectory(directory)
        try:
            home.create([name for device in spec.devices for name in device.sockets])
        except OSError as error:
            raise BootError(stage=BootStage.SPAWN, reason=f"its directory cannot be made: {error}") from error
        group = VmGroup()
        try:
            group = confinement.make_group(spec, name=home.root.name, record=home.cgroups)
            with contextlib.ExitStack() as opened:
                passed = open_passed(spec, home, confinement, opened)
                boot = open_boot_files(spec, confinement, opened) if start is Start.BOOT else None
                argv = build_argv(spec, vm_id=vm_id, passed=passed, memory=memory, boot=boot)
                file = memory if isinstance(memory, FileMemory) else None
                process = confinement.spawn(
                    argv,
                    spec=spec,
                    group=group,
                    log=home.qemu_log,
                    readable=(
                        *passed.readable,
                        *(() if boot is None else boot.descriptors),
                        *(() if file is None or file.shared else (file.fd,)),
                    ),
                    writable=(*passed.writable, *((file.fd,) if file is not None and file.shared else ())),
                    inherited=passed.inherited,
                )
        except (OSError, JailError) as error:
            group.discard()
            home.remove()
            raise BootError(stage=BootStage.SPAWN, reason=f"QEMU cannot be started: {error}") from error
        except BaseException:
            group.discard()
            home.remove()
            raise
        boots = () if boot is None else (spec.kernel, spec.initrd)
        return cls(vm_id=vm_id, directory=home, process=process, group=group, argv=argv, boots=boots)

    @classmethod
    def adopt(cls, *, vm_id: str, directory: Path, identity: ProcessIdentity) -> Instance:
        """Takes over a running QEMU that another run of the service started and detached, or lost; not a checkpoint.

        Raises VmExitedError if that process is gone or is not this VM's, OSError if its cgroup's record cannot be read;
        process and directory are left alone then.
        """
        home = VmDirectory(directory)
        try:
            process = QemuProcess.adopt(identity, log=home.qemu_log)
        except OSError as error:
            raise VmExitedError(vm_id=vm_id, reason=f"it is not running any more: {error}") from error
        try:
            argv, group = command_line_of(identity.pid), VmGroup.recorded_in(home.cgroups)
        except BaseException:
            process.close()
            raise
        if not names_console(argv, console_log(directory)):
            process.close()
            what = shlex.join(argv[:1]) or "dead"
            raise VmExitedError(vm_id=vm_id, reason=f"process {identity.pid} is not its QEMU: it is {what}")
        return cls(vm_id=vm_id, directory=home, process=process, group=group, argv=argv)

    @property
    def console_log(self) -> Path:
        """What the guest wrote to its serial console."""
        return console_log(self.directory.root)

    @property
    def agent_link(self) -> AgentLink:
        """How this QEMU's agent is reached: its own command line tells, also of one that was adopted or given.

        A command line that we did not make tells nothing, and there is nobody in such a guest whom we can ask.
        """
        if not names_console(self.argv, self.console_log):
            return NoLink()
        return agent_link(self.argv)

    async def connect_qmp(self, *, nursery: trio.Nursery) -> QmpClient:
        """Opens the one QMP connection; the instance closes it. Raises QmpConnectionError.

        From here on the console's and QEMU's logs are kept short, too.
        """
        try:
            stream = await connect(self.directory.qmp_socket)
        except OSError as error:
            raise QmpConnectionError(f"{self.directory.qmp_socket}: {error}; QEMU is dead or serves another") from error
        self._qmp = await QmpClient.connect(stream, nursery=nursery, kept=[SHUTDOWN])
        self._channels.append(self._qmp)
        limiter = LogLimiter([self.console_log, self.directory.qemu_log])
        self._channels.append(limiter)
        nursery.start_soon(limiter.run, name="log limiter")
        return self._qmp

    @property
    def qemu_version(self) -> tuple[int, int, int]:
        """What QEMU says of itself, which may have been replaced since its program was asked."""
        assert self._qmp is not None, "connect_qmp() comes first"
        return self._qmp.greeting.qemu_version

    def close_at_end(self, channel: Channel) -> None:
        """Hands a connection over to the instance, which closes it when it ends."""
        self._channels.append(channel)

    async def execute(self, command: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """`QmpClient.execute`, but VmExitedError if QEMU is gone."""
        assert self._qmp is not None, "connect_qmp() comes first"
        try:
            return await self._qmp.execute(command, fds=fds, **arguments)
        except QmpConnectionError as error:
            if report := await self.exit_soon():
                raise VmExitedError(vm_id=self.vm_id, reason=str(report)) from error
            raise

    def subscribe(self, *names: str) -> EventSubscription:
        """`QmpClient.subscribe`."""
        assert self._qmp is not None, "connect_qmp() comes first"
        return self._qmp.subscribe(*names)

    async def wait_broken(self) -> QmpConnectionError:
        """`QmpClient.wait_broken`."""
        assert self._qmp is not None, "connect_qmp() comes first"
        return await self._qmp.wait_broken()

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead: how, and as far as QEMU said so, why. Any number of tasks may wait."""
        report = await self.process.wait_exited()
        shutdown: Event | None = None
        qmp = self._qmp  # `disconnect` may come while it is waited for
        if qmp is not None:
            with trio.move_on_after(EXIT_NOTICE_S):  # what it said last lies in the socket
                await qmp.wait_ended()
            shutdown = qmp.last(SHUTDOWN)
        console = read_tail(self.console_log)
        return attrs.evolve(
            report,
            cause=cause(None if shutdown is None else shutdown.data, console=console),
            console_tail=console,
        )

    async def console(self, *, limit: int) -> str:
        """The end of what the guest wrote to its console; see `read_tail`."""
        return await trio.to_thread.run_sync(partial(read_tail, self.console_log, limit=limit))

    async def exit_soon(self) -> ExitReport | None:
        """How QEMU ended, if it has or is just about to. For use after a channel broke."""
        with trio.move_on_after(EXIT_NOTICE_S):
            return await self.wait_exited()
        return None

    async def boot_error(self, stage: BootStage, error: VmmError | OSError) -> BootError:
        """What became of the launch, with the evidence as notes."""
        report = await self.exit_soon()
        reason = str(error) if report is None else f"QEMU is gone: {report}"
        boot_error = BootError(stage=stage, reason=reason, exit_report=report)
        self.add_evidence(boot_error)
        return boot_error

    def add_evidence(self, error: BaseException) -> None:
        """Adds what a person needs to find out what happened. Reads the directory, so do it before the end."""
        error.add_note(f"QEMU's command line: {shlex.join(self.argv)}")
        if self._boots:
            error.add_note(f"it was to boot {' and '.join(map(str, self._boots))}")
        for name, path in (("QEMU's output", self.directory.qemu_log), ("guest console", self.console_log)):
            error.add_note(f"end of {name}:\n{read_tail(path) or '(empty)'}")

    async def stop(self) -> ExitReport:
        """QMP `quit`, bounded wait, SIGKILL, verify dead, close, remove cgroup and directory. Idempotent, shielded.

        Raises StopError if the process does not die; the directory stays then, and `stop` can be tried again.
        """
        with trio.CancelScope(shield=True):
            async with self._ending:
                if self.process.exit_report is None:
                    await self._quit()
                report = await self._finish()
        return report

    async def kill(self) -> ExitReport:
        """`stop` without the politeness."""
        with trio.CancelScope(shield=True):
            async with self._ending:
                report = await self._finish()
        return report

    async def detach(self) -> None:
        """Closes the channels and lets QEMU and its directory be, for a later `adopt`. Shielded."""
        with trio.CancelScope(shield=True):
            async with self._ending:
                await self._close_channels()
                self.process.close()

    async def disconnect(self) -> None:
        """Closes the channels, as if `connect_qmp` had not been called. Shielded."""
        with trio.CancelScope(shield=True):
            async with self._ending:
                await self._close_channels()
                self._qmp = None

    async def _quit(self) -> None:
        with trio.move_on_after(QUIT_LIMIT_S):
            if self._qmp is not None and await self._qmp.quit():
                await self.process.wait_exited()

    async def _finish(self) -> ExitReport:
        report = await self.process.kill()
        await self._close_channels()
        await self.group.remove()
        await trio.to_thread.run_sync(self.directory.remove)
        return report

    async def _close_channels(self) -> None:
        while self._channels:
            await self._channels.pop().aclose()
