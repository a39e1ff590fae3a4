"""kata-proxy, runtime 1.x's process between client and agent: the taker of a VM with a proxy has to end both.

Kata's server starts the proxy, and forgets it with the VM. Its pid and path come with the VM; neither is trusted: the
process is signalled only if its command line shows that it is this VM's proxy, and the directory removed only if it has
the VM's name and contains nothing but the proxy's socket.
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
"""Time between SIGTERM, which ends a working proxy, and SIGKILL."""

_SOCKET: Final = "proxy.sock"
_MAX_PID: Final = 2**31 - 1
_NOWHERE: Final = Path("/dev/null")
"""The log belongs to the proxy's server."""


@attrs.frozen(kw_only=True)
class KataProxy:
    vm_id: str
    pid: int
    socket: Path

    @classmethod
    def of(cls, cached: CachedVm) -> KataProxy | None:
        """None if the server named no proxy: then the address is the agent's own."""
        scheme, _, path = cached.agent_url.partition("://")
        socket = Path(path)
        if scheme != "unix" or not socket.is_absolute() or socket.name != _SOCKET or cached.proxy_pid <= 0:
            return None
        return cls(vm_id=cached.id, pid=cached.proxy_pid, socket=socket)

    async def end(self) -> None:
        """Sends SIGTERM, if necessary SIGKILL, then removes socket and directory. Shielded; failures are logged."""
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
        """None if the pid is no longer this VM's proxy. Raises OSError."""
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
        with contextlib.suppress(OSError):  # it contains other files, or was removed
            directory.rmdir()


class ProxiedVm:
    """A VM whose proxy ends with it. Implements `vmm.contract.Vm`."""

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

    async def console(self, *, limit: int) -> str:
        return await self._vm.console(limit=limit)

    async def wait_exited(self) -> ExitReport:
        return await self._vm.wait_exited()

    async def wait_broken(self) -> QmpError:
        return await self._vm.wait_broken()

    async def stop(self) -> ExitReport:
        """Like the VM's, and ends its proxy; a failure to do so is logged."""
        report = await self._vm.stop()
        await self._proxy.end()
        return report

    async def disconnect(self) -> None:
        await self._vm.disconnect()

    async def detach(self) -> None:
        """Like the VM's; the proxy goes on, too."""
        await self._vm.detach()
