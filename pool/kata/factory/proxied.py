"""kata-proxy, a process that runtime 1.x has between client and agent: whoever takes a VM with one ends both.

Kata's server starts it, and forgets it with the VM. Pid and place come with the VM; neither is believed: the process is
signalled if its command line says that it is this VM's proxy, the directory removed if it bears the VM's name and has
nothing but the proxy's socket in it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from pool.kata.cache.wire import CachedVm
from vmm.contract import Agent, Vm
from vmm.errors import QmpError, StopError
from vmm.qemu.process import QemuProcess, command_line_of, start_time_of
from vmm.words.preparation import Growth
from vmm.words.processes import ExitReport, ProcessIdentity

_log = structlog.get_logger("vmpool.factory", subsystem="factory")

TERM_LIMIT_S = 3.0
"""From SIGTERM, which ends a proxy that works, to SIGKILL."""

_SOCKET: Final = "proxy.sock"
_MAX_PID: Final = 2**31 - 1
_NOWHERE: Final = Path("/dev/null")
"""Its log is its server's."""


@attrs.frozen(kw_only=True)
class KataProxy:
    vm_id: str
    pid: int
    socket: Path

    @classmethod
    def of(cls, cached: CachedVm) -> KataProxy | None:
        """None if the server named none: then the address is the agent's own."""
        scheme, _, path = cached.agent_url.partition("://")
        socket = Path(path)
        if scheme != "unix" or not socket.is_absolute() or socket.name != _SOCKET or cached.proxy_pid <= 0:
            return None
        return cls(vm_id=cached.id, pid=cached.proxy_pid, socket=socket)

    async def end(self) -> None:
        """SIGTERM, SIGKILL if need be, then removes its socket and directory. Shielded; what fails is logged."""
        with trio.CancelScope(shield=True):
            try:
                await self._end_process()
                await trio.to_thread.run_sync(self._remove_files)
            except (OSError, StopError) as error:
                _log.warning("kata-proxy is left behind", vm=self.vm_id, pid=self.pid, reason=str(error))

    async def _end_process(self) -> None:
        process = self._find()
        if process is None:
            return
        try:
            process.send_signal(signal.SIGTERM)
        except BaseException:
            process.close()
            raise
        with trio.move_on_after(TERM_LIMIT_S):
            await process.wait_exited()
        if process.exit_report is None:
            try:
                await process.kill()
            finally:
                process.close()

    def _find(self) -> QemuProcess | None:
        """None if the pid is not this VM's proxy's any more. Raises OSError."""
        started = start_time_of(self.pid) if self.pid <= _MAX_PID else None
        if started is None:
            return None
        try:
            process = QemuProcess.adopt(ProcessIdentity(pid=self.pid, start_time=started), log=_NOWHERE)
        except ProcessLookupError:
            return None
        if ("-sandbox", self.vm_id) in itertools.pairwise(command_line_of(self.pid)):
            return process
        process.close()
        return None

    def _remove_files(self) -> None:
        directory = self.socket.parent
        if directory.name != self.vm_id:
            return
        if self.socket.is_socket():
            self.socket.unlink()
        with contextlib.suppress(OSError):  # it has something else in it, or was removed
            directory.rmdir()


class ProxiedVm:
    """A VM with a proxy, which ends with it. Fulfils `vmm.contract.Vm`."""

    def __init__(self, vm: Vm, proxy: KataProxy) -> None:
        self._vm = vm
        self._proxy = proxy

    @property
    def id(self) -> str:
        return self._vm.id

    @property
    def uuid(self) -> str:
        return self._vm.uuid

    @property
    def pid(self) -> int:
        return self._vm.pid

    @property
    def identity(self) -> ProcessIdentity:
        return self._vm.identity

    @property
    def agent(self) -> Agent:
        return self._vm.agent

    @property
    def is_clone(self) -> bool:
        return self._vm.is_clone

    async def pause(self) -> None:
        await self._vm.pause()

    async def resume(self) -> None:
        await self._vm.resume()

    async def run_state(self) -> str:
        return await self._vm.run_state()

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        return await self._vm.grow(vcpus=vcpus, memory_mib=memory_mib)

    async def wait_exited(self) -> ExitReport:
        return await self._vm.wait_exited()

    async def wait_broken(self) -> QmpError:
        return await self._vm.wait_broken()

    async def stop(self) -> ExitReport:
        """As the VM's. Of its proxy nothing is left either, or it is logged."""
        report = await self._vm.stop()
        await self._proxy.end()
        return report

    async def disconnect(self) -> None:
        await self._vm.disconnect()

    async def detach(self) -> None:
        """As the VM's: its proxy goes on, too."""
        await self._vm.detach()
