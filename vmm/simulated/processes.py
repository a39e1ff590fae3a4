"""Processes of a simulated guest that outlive their caller. Implements `vmm.contract.GuestProcesses`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import trio
from trio_util import AsyncValue, wait_any

from vmm.errors import AgentRequestError
from vmm.guest.agent.kept import Kept
from vmm.simulated.machine import Machine
from vmm.simulated.running import Running
from vmm.words.commands import WHOLE, CommandExit, CommandSpec, OutputStream, Room, TerminalSize
from vmm.words.guest_processes import (
    KEPT_BYTES,
    MAX_ENDED,
    Positions,
    ProcessInfo,
    ProcessOutput,
    ProcessRef,
)


class Detached:
    """One process. It never waits for a reader."""

    def __init__(self, machine: Machine, spec: CommandSpec, *, tag: str, keep: int) -> None:
        self.tag = tag
        self.kept = {stream: Kept(keep, _ignore) for stream in OutputStream}
        self.changes: AsyncValue[int] = AsyncValue(0)
        """Goes up with all that a follower may be told."""
        self.running = Running(machine, spec, request="start", write=self._write)

    async def run(self) -> None:
        try:
            await self.running.run()
        finally:
            self.changes.value += 1

    @property
    def info(self) -> ProcessInfo:
        out, err = self.kept[OutputStream.STDOUT], self.kept[OutputStream.STDERR]
        return _info(
            self.running,
            tag=self.tag,
            stdout_end=out.end,
            stdout_kept_from=out.start,
            stderr_end=err.end,
            stderr_kept_from=err.start,
        )

    async def _write(self, stream: OutputStream, data: bytes) -> None:
        self.kept[stream].append(data)
        self.changes.value += 1


class SimulatedFollower:
    """Implements `vmm.contract.AttachedProcess`."""

    def __init__(self, machine: Machine, detached: Detached, positions: Positions | None, room: Room) -> None:
        self._machine = machine
        self._detached = detached
        self._window = room.window
        self.info = info = detached.info
        ends = Positions(stdout=info.stdout_end, stderr=info.stderr_end)
        wanted = positions or ends
        self._positions = {
            OutputStream.STDOUT: min(wanted.stdout, ends.stdout),
            OutputStream.STDERR: min(wanted.stderr, ends.stderr),
        }
        self._told_exit = False
        self._closed = trio.Event()

    async def send_stdin(self, data: bytes) -> None:
        await self._detached.running.send_stdin(data)

    async def close_stdin(self) -> None:
        await self._detached.running.close_stdin()

    async def send_signal(self, number: int) -> None:
        await self._detached.running.send_signal(number)

    async def resize(self, size: TerminalSize) -> None:
        await self._detached.running.resize(size)

    def events(self) -> AsyncIterator[ProcessOutput | CommandExit]:
        return self

    def __aiter__(self) -> SimulatedFollower:
        return self

    async def __anext__(self) -> ProcessOutput | CommandExit:
        while not self._closed.is_set():
            await self._machine.guest_runs()
            seen = self._detached.changes.value
            if (output := self._next_output()) is not None:
                return output
            if self._detached.running.exit is not None:
                if self._told_exit:
                    break
                self._told_exit = True
                return self._detached.running.exit
            changed = partial(self._detached.changes.wait_value, lambda now, seen=seen: now != seen)
            await self._machine.or_its_end(partial(wait_any, changed, self._closed.wait))
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()

    def _next_output(self) -> ProcessOutput | None:
        for stream, kept in self._detached.kept.items():
            position = max(self._positions[stream], kept.start)
            if data := kept.read(position, self._window):
                self._positions[stream] = position + len(data)
                return ProcessOutput(stream=stream, position=position, data=data)
        return None


class SimulatedProcesses:
    """See the contract. The processes are the machine's: the next service finds them there."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._detached: dict[int, Detached] = machine.detached

    async def start(self, spec: CommandSpec, *, tag: str = "", keep: int = KEPT_BYTES) -> ProcessInfo:
        await self._machine.guest_runs()
        if tag and any(other.tag == tag and other.running.exit is None for other in self._detached.values()):
            raise _refusal("start", "EEXIST", f"a running process has the tag {tag!r}", part="tag")
        detached = Detached(self._machine, spec, tag=tag, keep=keep)
        self._detached[detached.running.number] = detached
        ended = [number for number, other in self._detached.items() if other.running.exit is not None]
        for number in ended[:-MAX_ENDED]:
            del self._detached[number]
        self._machine.start_lasting(detached.run)
        return detached.info

    async def list(self) -> tuple[ProcessInfo, ...]:
        await self._machine.guest_runs()
        commands = [_info(running, attached=True) for running in self._machine.commands.values()]
        detached = [detached.info for detached in self._detached.values()]
        return tuple(sorted(commands + detached, key=lambda info: info.process_id))

    async def attach(
        self, process: ProcessRef, *, positions: Positions | None = None, room: Room = WHOLE
    ) -> SimulatedFollower:
        await self._machine.guest_runs()
        return SimulatedFollower(self._machine, self._find(process, "attach"), positions, room)

    async def wait(self, process: ProcessRef) -> CommandExit:
        follower = await self.attach(process)
        async for event in follower.events():
            if isinstance(event, CommandExit):
                return event
        raise AssertionError("the exit is the last event")

    async def send_input(self, process: ProcessRef, data: bytes, *, close: bool = False) -> None:
        await self._machine.guest_runs()
        running = self._find_running(process, "input")
        if running.stdin_closed or (data and not await running.send_stdin(data)):
            raise _refusal("input", "EPIPE", "the process's stdin is closed")
        if close:
            await running.close_stdin()

    async def send_signal(self, process: ProcessRef, number: int, *, everything: bool = False) -> None:  # noqa: ARG002 - simulated programs start nothing
        await self._machine.guest_runs()
        await self._find_running(process, "signal").send_signal(number)

    async def resize(self, process: ProcessRef, size: TerminalSize) -> None:
        await self._machine.guest_runs()
        await self._find_running(process, "resize").resize(size)

    async def forget(self, process: ProcessRef) -> None:
        await self._machine.guest_runs()
        detached = self._find(process, "forget")
        if detached.running.exit is None:
            raise _refusal("forget", "EBUSY", f"process {detached.running.number} still runs; end it first")
        del self._detached[detached.running.number]

    def _find(self, process: ProcessRef, request: str) -> Detached:
        tagged = [other for other in self._detached.values() if process.tag and other.tag == process.tag]
        found = next((other for other in tagged if other.running.exit is None), tagged[-1] if tagged else None)
        if process.process_id:
            found = self._detached.get(process.process_id)
        if found is None:
            raise _refusal(request, "ESRCH", f"there is no process {process.process_id or repr(process.tag)}")
        return found

    def _find_running(self, process: ProcessRef, request: str) -> Running:
        running = self._machine.commands.get(process.process_id)
        if running is None or request == "input":
            running = self._find(process, request).running
        if running.exit is not None:
            raise _refusal(request, "ESRCH", f"process {running.number} has ended")
        return running


def _info(
    running: Running,
    *,
    tag: str = "",
    attached: bool = False,
    stdout_end: int = 0,
    stdout_kept_from: int = 0,
    stderr_end: int = 0,
    stderr_kept_from: int = 0,
) -> ProcessInfo:
    return ProcessInfo(
        process_id=running.number,
        pid=running.pid,
        tag=tag,
        argv=tuple(running.spec.argv),
        working_directory=running.spec.working_directory or "/",
        user=running.user,
        terminal=running.spec.terminal is not None,
        attached=attached,
        started_ns=running.started_ns,
        exit=running.exit,
        stdout_end=stdout_end,
        stdout_kept_from=stdout_kept_from,
        stderr_end=stderr_end,
        stderr_kept_from=stderr_kept_from,
    )


def _refusal(request: str, code: str, message: str, *, part: str = "") -> AgentRequestError:
    return AgentRequestError(request=request, code=code, message=message, part=part)


def _ignore(_change: int) -> None:
    pass
