"""A guest's process connected with this one: stdin, output and signals, or the terminal as a whole."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Final, Protocol

import trio

from pool.cli.escape import Escape, EscapeReader
from pool.cli.output import PREFIX, OutputError, remark, write_to
from pool.cli.signals import Signals
from pool.cli.stdin import stdin_pieces
from pool.cli.streams import STDERR, STDOUT, NobodyReadsError
from pool.cli.terminal import RawTerminal, raw_terminal
from vmpool import CommandExit, Output, OutputStream, ProcessOutput

EXIT_LEFT: Final = 128 + signal.SIGHUP
"""Somebody left the terminal by ~., and with that ended what ran in it."""

EXIT_TIME_LIMIT: Final = 124
"""As timeout(1)."""

UNREAD_LIMIT_S: Final = 2.0
"""How long a command may run on after SIGPIPE, which it may ignore, once its output has lost its reader."""

_TARGETS: Final = {OutputStream.STDOUT: STDOUT, OutputStream.STDERR: STDERR}


class Attended(Protocol):
    """A process that somebody looks at: a command, or a view of a detached process."""

    async def send_stdin(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def send_signal(self, number: int) -> None: ...
    async def resize(self, rows: int, columns: int) -> None: ...


class AttendedCommand(Attended, Protocol):
    def events(self) -> AsyncIterator[Output | CommandExit]: ...


class AttendedProcess(Attended, Protocol):
    def events(self) -> AsyncIterator[ProcessOutput | CommandExit]: ...


async def attend(command: AttendedCommand, signals: Signals, *, streams_stdin: bool) -> CommandExit:
    """Connects a command with this process's stdin, stdout, stderr and signals until the command ends."""
    with signals.forwarded() as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forward_signals, received, command)
            if streams_stdin:
                nursery.start_soon(_pass_all_stdin, command)
            ended = await _write_output(command)
            nursery.cancel_scope.cancel(reason="the command has ended")
    return ended


async def attend_at_terminal(command: AttendedCommand | AttendedProcess, signals: Signals) -> CommandExit | None:
    """Gives a command with a terminal ours, raw, until the command ends. None: somebody left it by the escape.

    Signals that end this process end the block: here Ctrl-C is a key.
    """
    ended: CommandExit | None = None
    with raw_terminal(signals) as terminal:
        async with trio.open_nursery() as nursery:

            async def show() -> None:
                nonlocal ended
                ended = await show_output(command.events())
                nursery.cancel_scope.cancel(reason="the command has ended")

            nursery.start_soon(show)
            nursery.start_soon(terminal.follow, command.resize)
            await _pass_keys(terminal, command)
            nursery.cancel_scope.cancel(reason="somebody left")
    return ended


async def attend_detached(process: AttendedProcess, signals: Signals) -> CommandExit:
    """As `attend`, but the end of stdin is not the process's: others may have input for it."""
    with signals.forwarded() as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forward_signals, received, process)
            nursery.start_soon(_pass_stdin, process)
            ended = await show_output(process.events())
            nursery.cancel_scope.cancel(reason="the process has ended")
    return ended


async def show_output(
    events: AsyncIterator[Output | CommandExit] | AsyncIterator[ProcessOutput | CommandExit],
) -> CommandExit:
    """Writes output as it comes. Raises OutputError, NobodyReadsError."""
    async for event in events:
        match event:
            case CommandExit():
                return event
            case ProcessOutput(lost=lost) if lost:
                remark(f"{PREFIX}{lost} bytes of {event.stream.value} are not kept any more")
        await write_to(_TARGETS[event.stream], event.data)
    raise AssertionError("a command's events end with its exit")


async def _forward_signals(received: trio.MemoryReceiveChannel[int], command: Attended) -> None:
    async for number in received:
        await command.send_signal(number)


async def _pass_stdin(command: Attended) -> None:
    async for data in stdin_pieces():
        await command.send_stdin(data)


async def _pass_all_stdin(command: Attended) -> None:
    await _pass_stdin(command)
    await command.close_stdin()


async def _pass_keys(terminal: RawTerminal, command: Attended) -> None:
    """Returns when somebody leaves, or when the terminal is gone."""
    reader = EscapeReader()
    while keys := await terminal.read():
        for piece in reader.feed(keys):
            match piece:
                case Escape.LEAVE:
                    return
                case Escape.SUSPEND:
                    terminal.suspend()
                    await command.resize(*terminal.size)
                case _:
                    await command.send_stdin(piece)


async def _write_output(command: AttendedCommand) -> CommandExit:
    """Writes the output until the command ends. Raises OutputError; NobodyReadsError if output had no reader and the
    command did not fail because of that.
    """
    unread: dict[OutputStream, NobodyReadsError] = {}
    with trio.CancelScope() as patience:
        async for event in command.events():
            match event:
                case Output(stream=stream, data=data):
                    if stream in unread:
                        continue
                    try:
                        await write_to(_TARGETS[stream], data)
                    except NobodyReadsError as error:
                        unread[stream] = error
                        await command.send_signal(signal.SIGPIPE)
                        patience.deadline = min(patience.deadline, trio.current_time() + UNREAD_LIMIT_S)
                    except OutputError:
                        await command.send_signal(signal.SIGKILL)
                        raise
                case CommandExit() if event.status == 0 and unread:
                    break
                case CommandExit():
                    return event
    assert unread, "a command's events end with its exit"
    raise next(iter(unread.values()))


def exit_code(ended: CommandExit) -> int:
    """128 + n for a signal, as in a shell; 124 for the time limit, as in timeout(1). Remarks on lack of memory."""
    if ended.out_of_memory:
        remark(f"{PREFIX}the guest ran out of memory, and its kernel killed a process; ask for more with --memory")
    if ended.timed_out:
        return EXIT_TIME_LIMIT
    if ended.signal is not None:
        return 128 + ended.signal
    assert ended.status is not None
    return ended.status
