"""A command in a simulated guest. Implements `vmm.contract.Command`."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import attrs
import trio

from vmm.errors import AgentRequestError
from vmm.simulated.machine import Machine
from vmm.simulated.programs import GuestProcess, Program
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, TerminalSize

_HARMLESS_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})


class SimulatedCommand:
    """One running program. Its output waits for the reader, one write at a time, up to a window."""

    def __init__(self, machine: Machine, program: Program, spec: CommandSpec) -> None:
        self._machine = machine
        self._program = program
        self._time_limit_s = spec.time_limit_s
        self._window = spec.room.window
        self._stdin, guest_stdin = trio.open_memory_channel[bytes](1)
        self._guest_stdin = guest_stdin
        self._guest_output, self._output = trio.open_memory_channel[Output](0)
        self._process = GuestProcess(
            attrs.evolve(spec, environment=machine.environment | dict(spec.environment)),
            files=machine.visible_files,
            network=machine.network,
            stdin=guest_stdin,
            write=self._write,
        )
        if spec.stdin is not None:
            self._stdin.send_nowait(spec.stdin)
            self._stdin.close()
        self._life = trio.CancelScope()
        self._killed_by: int | None = None
        self._exit: CommandExit | None = None
        self._told_exit = False

    @property
    def process_id(self) -> int:
        return 0

    @property
    def pid(self) -> int:
        return 0

    async def resize(self, size: TerminalSize) -> None:
        raise AgentRequestError(request="resize", code="UNSUPPORTED", message=f"no terminal can be made {size}")

    async def run(self) -> None:
        """The program's life; the machine runs this in the background."""
        with self._guest_stdin, self._guest_output, self._life:
            with trio.CancelScope() as limit:
                if self._time_limit_s is not None:
                    limit.deadline = trio.current_time() + self._time_limit_s
                self._exit = CommandExit(status=await self._program(self._process))
            if limit.cancelled_caught:
                await self._machine.guest_runs()
                self._exit = CommandExit(signal=signal.SIGKILL, timed_out=True)
        if self._killed_by is not None and self._exit is None:
            self._exit = CommandExit(signal=self._killed_by)

    async def send_stdin(self, data: bytes) -> None:
        """See the contract. Raises AgentUnreachableError if the VM is dead."""
        await self._machine.guest_runs()
        try:
            await self._stdin.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the program has ended or its stdin is closed: the data has no reader

    async def close_stdin(self) -> None:
        await self._machine.guest_runs()
        self._stdin.close()

    async def send_signal(self, number: int) -> None:
        await self._machine.guest_runs()
        if number not in _HARMLESS_SIGNALS:
            self._kill(number)

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """See the contract. Raises AgentUnreachableError if the VM dies before the command."""
        return self

    def __aiter__(self) -> SimulatedCommand:
        return self

    async def __anext__(self) -> Output | CommandExit:
        try:
            return await self._output.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass
        if self._told_exit:
            raise StopAsyncIteration
        if self._exit is None:
            raise self._machine.unreachable()
        self._told_exit = True
        return self._exit

    async def aclose(self) -> None:
        self._kill(signal.SIGKILL)
        self._stdin.close()
        self._output.close()
        await trio.lowlevel.checkpoint()

    def _kill(self, number: int) -> None:
        if self._exit is None and self._killed_by is None:
            self._killed_by = number
            self._life.cancel(reason=f"the simulated command got signal {number}")

    async def _write(self, stream: OutputStream, data: bytes) -> None:
        await self._machine.guest_runs()
        for start in range(0, len(data), self._window):
            await self._guest_output.send(Output(stream=stream, data=data[start : start + self._window]))
