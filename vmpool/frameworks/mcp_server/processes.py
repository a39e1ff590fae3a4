"""Commands and processes of a VM, with as much of their output as a model can take."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Final

from vmpool.aio import DetachedProcess, Vm
from vmpool.client.errors import CallError
from vmpool.client.records import CommandExit, Output, OutputStream
from vmpool.client.records import ProcessOutput as Piece
from vmpool.frameworks.mcp_server.results import CommandResult, ProcessOutput, Stopped
from vmpool.frameworks.mcp_server.text import Clipped

OUTPUT_BYTES: Final = 32 * 1024
"""Of each of stdout and stderr that a tool returns."""

KILL_LIMIT_S: Final = 10.0
"""A process that was killed ends at once, unless its guest hangs."""

TERM_PATIENCE_S: Final = 5.0
"""Until a process that was asked to end is killed."""


async def run(
    vm: Vm,
    command: str | list[str],
    *,
    stdin: str,
    environment: Mapping[str, str],
    cwd: str | None,
    user: str,
    timeout: float,
    progress: Callable[[int], None],
) -> CommandResult:
    """Runs it to its end, and tells `progress` how many bytes it has written so far. If cancelled, it is killed."""
    kept = {stream: Clipped(OUTPUT_BYTES) for stream in OutputStream}
    written = 0

    async def take(piece: Output) -> None:
        nonlocal written
        kept[piece.stream].add(piece.data)
        written += len(piece.data)
        progress(written)

    async def feed() -> None:
        await process.send_stdin(stdin.encode())
        await process.close_stdin()

    async with vm.exec(command, environment=environment, cwd=cwd, user=user, timeout=timeout) as process:
        feeding = asyncio.ensure_future(feed())  # beside it: a command may write a lot before it reads
        try:
            ended = await process.feed(take)
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
    return CommandResult(
        exit_status=ended.status,
        signal=ended.signal,
        timed_out=ended.timed_out,
        out_of_memory=ended.out_of_memory,
        stdout=kept[OutputStream.STDOUT].text(),
        stderr=kept[OutputStream.STDERR].text(),
        left_out=sum(clipped.left_out for clipped in kept.values()),
    )


async def output(process: DetachedProcess, *, stdout_from: int, stderr_from: int, wait_s: float) -> ProcessOutput:
    """What it has written from these positions on. Unless it has ended, its end is awaited for `wait_s`."""
    kept = {stream: Clipped(OUTPUT_BYTES) for stream in OutputStream}
    reached = {OutputStream.STDOUT: stdout_from, OutputStream.STDERR: stderr_from}
    lost = 0
    ended: CommandExit | None = None
    async with process.attach((stdout_from, stderr_from)) as attachment:
        info = attachment.info
        ends = {OutputStream.STDOUT: info.stdout_end, OutputStream.STDERR: info.stderr_end}
        to_its_end = info.exit is not None or wait_s > 0
        events = attachment.events()
        patience = asyncio.timeout(wait_s if wait_s and info.exit is None else None)
        try:
            async with patience:
                while ended is None and (to_its_end or any(reached[stream] < ends[stream] for stream in OutputStream)):
                    match await anext(events):
                        case Piece() as piece:
                            kept[piece.stream].add(piece.data)
                            lost += piece.lost
                            reached[piece.stream] = piece.position + len(piece.data)
                        case CommandExit() as ended:
                            pass
        except TimeoutError:
            if not patience.expired():
                raise
    return ProcessOutput(
        running=ended is None,
        exit_status=None if ended is None else ended.status,
        signal=None if ended is None else ended.signal,
        stdout=kept[OutputStream.STDOUT].text(),
        stderr=kept[OutputStream.STDERR].text(),
        left_out=lost + sum(clipped.left_out for clipped in kept.values()),
        next_stdout=reached[OutputStream.STDOUT],
        next_stderr=reached[OutputStream.STDERR],
    )


async def stop(process: DetachedProcess) -> Stopped:
    """SIGTERM, and SIGKILL for all that it started if it does not heed that; how it ended, also if it has already."""
    try:
        await process.signal(signal.SIGTERM)
        ended = await process.wait(TERM_PATIENCE_S)
    except TimeoutError:
        await process.kill()
        ended = await process.wait(KILL_LIMIT_S)
    except CallError as error:
        if error.status != "FAILED_PRECONDITION":
            raise
        ended = await process.wait(KILL_LIMIT_S)
    return Stopped(exit_status=ended.status, signal=ended.signal)
