"""A command in a simulated guest. Implements `vmm.contract.Command`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from vmm.simulated.machine import Machine
from vmm.simulated.running import Running
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, TerminalSize


class SimulatedCommand:
    """One running program. Its output waits for the reader, one write at a time, up to a window."""

    def __init__(self, machine: Machine, spec: CommandSpec) -> None:
        """Raises AgentRequestError. The machine runs `run` in the background."""
        self._machine = machine
        self._window = spec.room.window
        self._guest_output, self._output = trio.open_memory_channel[Output](0)
        self.running = Running(machine, spec, request="exec", write=self._write)
        self._told_exit = False
        machine.commands[self.running.number] = self.running

    @property
    def process_id(self) -> int:
        return self.running.number

    @property
    def pid(self) -> int:
        return self.running.pid

    async def run(self) -> None:
        """The program's life."""
        with self._guest_output:
            try:
                await self.running.run()
            finally:
                del self._machine.commands[self.running.number]

    async def send_stdin(self, data: bytes) -> None:
        """See the contract. Raises AgentUnreachableError if the VM is dead."""
        await self.running.send_stdin(data)

    async def close_stdin(self) -> None:
        await self.running.close_stdin()

    async def send_signal(self, number: int) -> None:
        await self.running.send_signal(number)

    async def resize(self, size: TerminalSize) -> None:
        await self.running.resize(size)

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
        if self.running.exit is None:
            raise self._machine.unreachable()
        self._told_exit = True
        return self.running.exit

    async def aclose(self) -> None:
        self.running.close()
        self._output.close()
        await trio.lowlevel.checkpoint()

    async def _write(self, stream: OutputStream, data: bytes) -> None:
        for start in range(0, len(data), self._window):
            await self._guest_output.send(Output(stream=stream, data=data[start : start + self._window]))
