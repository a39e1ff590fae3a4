"""A QEMU process with its directory and its channels, without regard to its guest."""

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
    """One QEMU. Its owner must end it with `stop`, `kill` or `detach`, also after errors."""

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
        """`boots`: the files that it boots from, if known, as evidence."""
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

        QEMU inherits the sockets listening, so that clients need no retries and see QEMU die at once. The files in the
        directory, a vsock device and the boot files are passed open, so that QEMU need not enter any directory. Raises
        SpecError and MissingFileError for the directory and for vsock, BootError if the directory cannot be made, a
        file cannot be opened, or the program cannot be executed; nothing is left then.
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
        """Adopts a running QEMU that another run of the service started and detached, or lost; not a checkpoint.

        Raises VmExitedError if the process is gone or is not this VM's, OSError if its cgroup's record cannot be read;
        process and directory are then left alone.
        """
        home = VmDirectory(directory)
        try:
            process = QemuProcess.adopt(identity, log=home.qemu_log)
        except OSError as error:
            raise VmExitedError(vm_id=vm_id, reason=f"it is no longer running: {error}") from error
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
        """The log of the guest's serial console."""
        return console_log(self.directory.root)

    @property
    def agent_link(self) -> AgentLink:
        """The link to this QEMU's agent, from its command line, so that it works for adopted VMs, too.

        A command line that vmpool did not make names no agent.
        """
        if not names_console(self.argv, self.console_log):
            return NoLink()
        return agent_link(self.argv)

    async def connect_qmp(self, *, nursery: trio.Nursery) -> QmpClient:
        """Opens the one QMP connection; the instance closes it. Raises QmpConnectionError.

        From here on the console's and QEMU's logs are limited, too.
        """
        try:
            stream = await connect(self.directory.qmp_socket)
        except OSError as error:
            raise QmpConnectionError(
                f"{self.directory.qmp_socket}: {error}; QEMU is dead, or serves another client"
            ) from error
        self._qmp = await QmpClient.connect(stream, nursery=nursery, kept=[SHUTDOWN])
        self._channels.append(self._qmp)
        limiter = LogLimiter([self.console_log, self.directory.qemu_log])
        self._channels.append(limiter)
        nursery.start_soon(limiter.run, name="log limiter")
        return self._qmp

    @property
    def qemu_version(self) -> tuple[int, int, int]:
        """The version of the running QEMU; its program may have been replaced since."""
        assert self._qmp is not None, "connect_qmp() comes first"
        return self._qmp.greeting.qemu_version

    def close_at_end(self, channel: Channel) -> None:
        """Makes the instance close a connection at its end."""
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
        """Returns once the process is dead, with QEMU's reason if it reported one. Any number of tasks may wait."""
        report = await self.process.wait_exited()
        shutdown: Event | None = None
        qmp = self._qmp  # `disconnect` may come during the wait
        if qmp is not None:
            with trio.move_on_after(EXIT_NOTICE_S):  # its last events are still in the socket
                await qmp.wait_ended()
            shutdown = qmp.last(SHUTDOWN)
        console = read_tail(self.console_log)
        return attrs.evolve(
            report,
            cause=cause(None if shutdown is None else shutdown.data, console=console),
            console_tail=console,
        )

    async def console(self, *, limit: int) -> str:
        """The end of the guest's console; see `read_tail`."""
        return await trio.to_thread.run_sync(partial(read_tail, self.console_log, limit=limit))

    async def exit_soon(self) -> ExitReport | None:
        """How QEMU ended, if it has, or ends within a moment. For use after a channel broke."""
        with trio.move_on_after(EXIT_NOTICE_S):
            return await self.wait_exited()
        return None

    async def boot_error(self, stage: BootStage, error: VmmError | OSError) -> BootError:
        """The error of a failed launch, with the evidence as notes."""
        report = await self.exit_soon()
        reason = str(error) if report is None else f"QEMU is gone: {report}"
        boot_error = BootError(stage=stage, reason=reason, exit_report=report)
        self.add_evidence(boot_error)
        return boot_error

    def add_evidence(self, error: BaseException) -> None:
        """Adds the evidence as notes. Reads the VM's directory, so call it before the end."""
        error.add_note(f"QEMU's command line: {shlex.join(self.argv)}")
        if self._boots:
            error.add_note(f"boot files: {' and '.join(map(str, self._boots))}")
        for name, path in (("QEMU's output", self.directory.qemu_log), ("guest console", self.console_log)):
            error.add_note(f"end of {name}:\n{read_tail(path) or '(empty)'}")

    async def stop(self) -> ExitReport:
        """QMP `quit`, bounded wait, SIGKILL, verify dead, close, remove cgroup and directory. Idempotent, shielded.

        Raises StopError if the process does not die; the directory then stays, and `stop` can be tried again.
        """
        with trio.CancelScope(shield=True):
            async with self._ending:
                if self.process.exit_report is None:
                    await self._quit()
                report = await self._finish()
        return report

    async def kill(self) -> ExitReport:
        """As `stop`, without `quit`."""
        with trio.CancelScope(shield=True):
            async with self._ending:
                report = await self._finish()
        return report

    async def detach(self) -> None:
        """Closes the channels and leaves QEMU and its directory for a later `adopt`. Shielded."""
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
