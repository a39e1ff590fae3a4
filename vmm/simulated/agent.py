"""The agent of a simulated guest. Fulfils `vmm.contract.Agent`."""

from __future__ import annotations

from pathlib import PurePosixPath

import trio

from vmm.contract import CommandSpec, GuestInfo, Preparation, PreparationReport
from vmm.errors import AgentRequestError
from vmm.simulated.command import SimulatedCommand
from vmm.simulated.faults import Moment, PrepareFails, PrepareIsSlow
from vmm.simulated.machine import Machine
from vmm.simulated.programs import PROGRAMS

GUEST_INFO = GuestInfo(agent_version=1, kernel_release="simulated")
KERNEL_MEMORY_MIB = 32
"""What a guest's kernel keeps for itself, and MemTotal does not show."""

_DIRECTORIES = frozenset(PurePosixPath(path) for path in ("/", "/root", "/tmp", "/run", "/etc"))  # noqa: S108 - a guest's


class SimulatedAgent:
    """Answers as the real agent does: not while the machine is paused, and not after its death."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def ping(self) -> GuestInfo:
        await self._machine.guest_runs()
        return GUEST_INFO

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        machine = self._machine
        await machine.guest_runs()
        for fault in machine.faults:
            match fault:
                case PrepareIsSlow(delay_s=delay_s):
                    await trio.sleep(delay_s)
                    await machine.guest_runs()
                case PrepareFails(code=code, message=message):
                    raise AgentRequestError(request="prepare", code=code, message=message)
        if preparation.entropy:
            machine.entropy.append(preparation.entropy)
        if preparation.wall_clock_ns is not None:
            machine.set_wall_clock(preparation.wall_clock_ns)
        if preparation.hostname is not None:
            machine.hostname = preparation.hostname
        machine.reach(Moment.PREPARED)
        return PreparationReport(
            reseeded=bool(preparation.entropy),
            wall_clock_ns=machine.wall_clock_ns,
            hostname=machine.hostname,
            cpus_online=machine.spec.vcpus,
            memory_mib=machine.spec.memory_mib - KERNEL_MEMORY_MIB,
        )

    async def start_command(self, spec: CommandSpec) -> SimulatedCommand:
        await self._machine.guest_runs()
        name = PurePosixPath(spec.argv[0]).name
        if (program := PROGRAMS.get(name)) is None:
            raise AgentRequestError(
                request="start_command", code="EXEC", message=f"{spec.argv[0]}: No such file or directory"
            )
        if spec.working_directory is not None and PurePosixPath(spec.working_directory) not in _DIRECTORIES:
            raise AgentRequestError(
                request="start_command",
                code="EXEC",
                message=f"working directory {spec.working_directory}: No such file or directory",
            )
        command = SimulatedCommand(self._machine, program, spec)
        self._machine.start_soon(command.run)
        return command

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 - nobody asks for it
        await self._machine.guest_runs()
        if PurePosixPath(path).parent not in _DIRECTORIES:
            raise AgentRequestError(request="put_file", code="ENOENT", message=f"{path}: No such file or directory")
        self._machine.files[path] = data

    async def get_file(self, path: str) -> bytes:
        await self._machine.guest_runs()
        try:
            return self._machine.files[path]
        except KeyError:
            raise AgentRequestError(
                request="get_file", code="ENOENT", message=f"{path}: No such file or directory"
            ) from None
