"""The agent of a simulated guest. Implements `vmm.contract.Agent`."""

from __future__ import annotations

import posixpath

import attrs
import trio

from vmm.capacity import Capacity
from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.simulated.command import SimulatedCommand
from vmm.simulated.faults import FilesFail, Moment, PrepareFails, PrepareIsSlow
from vmm.simulated.files import SimulatedFiles
from vmm.simulated.machine import MACHINE_ID, VM_UUID, Machine
from vmm.simulated.ports import SimulatedPorts
from vmm.simulated.processes import SimulatedProcesses
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestClock, GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage

GUEST_INFO = GuestInfo(agent_version=2, kernel_release="simulated")
ONLINE_LIMIT_S = 5.0
"""How long the agent waits for CPUs and memory to be plugged in."""


class SimulatedAgent:
    """Answers as the real agent: not while the machine is paused, and not after its death."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.processes = SimulatedProcesses(machine)
        self.files = SimulatedFiles(machine)
        self.ports = SimulatedPorts(machine)

    async def ping(self) -> GuestInfo:
        await self._machine.guest_runs()
        machine = self._machine
        clock = GuestClock(wall_clock_ns=machine.wall_clock_ns, moved_ns=machine.clock_moved_ns)
        return attrs.evolve(GUEST_INFO, clock=clock)

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        machine = self._machine
        await machine.guest_runs()
        for fault in machine.faults:
            match fault:
                case PrepareIsSlow(delay_s=delay_s):
                    await trio.sleep(delay_s)
                    await machine.guest_runs()
                case PrepareFails(code=code, message=message, part=part) if not part or getattr(preparation, part):
                    raise AgentRequestError(request="prepare", code=code, message=message, part=part)
        if preparation.entropy:
            machine.entropy.append(preparation.entropy)
        random = machine.random(preparation.random_bytes)
        if preparation.wall_clock_ns is not None:
            machine.set_wall_clock(preparation.wall_clock_ns)
        if preparation.hostname is not None:
            machine.hostname = preparation.hostname
        for path, text in ((MACHINE_ID, preparation.machine_id), (VM_UUID, preparation.vm_uuid)):
            if text is not None:
                machine.files[path] = f"{text}\n".encode()
        machine.environment |= preparation.environment
        await self._bring_online(vcpus=preparation.vcpus, memory_mib=preparation.memory_mib)
        machine.reach(Moment.PREPARED)
        return PreparationReport(
            reseeded=bool(preparation.entropy),
            wall_clock_ns=machine.wall_clock_ns,
            hostname=machine.hostname,
            cpus_online=machine.online.vcpus,
            memory_mib=machine.mem_total_mib,
            memory_online_mib=None if preparation.memory_mib is None else machine.online.memory_mib,
            random=random,
            machine_id=preparation.machine_id or "",
            vm_uuid=preparation.vm_uuid or "",
        )

    async def _bring_online(self, *, vcpus: int | None, memory_mib: int | None) -> None:
        machine = self._machine

        def enough(plugged: Capacity) -> bool:
            return plugged.vcpus >= (vcpus or 0) and plugged.memory_mib >= (memory_mib or 0)

        with trio.move_on_after(ONLINE_LIMIT_S) as limit:
            await machine.plugged.wait_value(enough)
        await machine.guest_runs()
        machine.bring_online(cpus=vcpus is not None, memory=memory_mib is not None)
        if limit.cancelled_caught:
            raise AgentRequestError(
                request="prepare",
                code="ETIMEDOUT",
                message=f"{machine.online.vcpus} CPUs and {machine.online.memory_mib} MiB are online",
                part="vcpus" if machine.online.vcpus < (vcpus or 0) else "memory_mib",
            )

    async def start_command(self, spec: CommandSpec) -> SimulatedCommand:
        await self._machine.guest_runs()
        command = SimulatedCommand(self._machine, spec)
        self._machine.start_soon(command.run)
        return command

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 - no test reads it
        await self._machine.guest_runs()
        for fault in self._machine.faults:
            if isinstance(fault, FilesFail):
                raise AgentRequestError(request="put", code=fault.code, message=fault.message)
        if not self._machine.files.is_directory(posixpath.dirname(path)):
            raise AgentRequestError(request="put", code="ENOENT", message=f"{path}: No such file or directory")
        self._machine.files[path] = data

    async def usage(self) -> Usage:
        await self._machine.guest_runs()
        return self._machine.usage()

    async def set_clock(self, wall_clock_ns: int) -> None:
        await self._machine.guest_runs()
        self._machine.set_wall_clock(wall_clock_ns)

    async def wait_broken(self) -> AgentProtocolError:
        return await self._machine.wait_broken()

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        await self._machine.guest_runs()
        data = self._machine.files.contents().get(path)
        if data is None:
            raise AgentRequestError(request="get", code="ENOENT", message=f"{path}: No such file or directory")
        if len(data) > limit:
            raise AgentRequestError(request="get", code="EFBIG", message=f"{path} has more than {limit} bytes")
        return data
