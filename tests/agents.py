"""What the tests of the agent share: the agent's process, and how to see a command to its end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import attrs
import trio

from vmm.contract import Command
from vmm.errors import NoRoomError
from vmm.words.commands import CommandExit, Output, OutputStream

_ROOT = Path(__file__).parents[1]


@attrs.frozen(kw_only=True)
class LocalAgent:
    """The agent's process and the host's end of its channel."""

    process: trio.Process
    stream: trio.SocketStream

    def resident_kib(self, which: str = "VmHWM") -> int:
        return resident_kib(self.process.pid, which)

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


@asynccontextmanager
async def agent_process(
    plugged: Path,
    *,
    preparation_limit_ms: int = 60_000,
    cgroups: Path | None = None,
    limits: Mapping[str, int] | None = None,
) -> AsyncIterator[LocalAgent]:
    """Runs the agent on the host: see `tests/unit/guest/agent_process.py`."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                str(_ROOT / "tests/unit/guest/agent_process.py"),
                str(theirs.fileno()),
                str(plugged),
                str(preparation_limit_ms),
                *([] if cgroups is None else [str(cgroups)]),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "AGENT_LIMITS": json.dumps(limits or {})},
        )
    ours.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    yield LocalAgent(process=process, stream=stream)
    await stream.aclose()
    with trio.fail_after(30):
        assert await process.wait() == 0, "the agent must survive everything but the end of its channel"


@attrs.define(eq=False, kw_only=True)
class Narrow:
    """Room for small windows, and so much on top. Fulfils `vmm.words.commands.Room`."""

    window: ClassVar[int] = 16 * 1024
    left: int = 0

    def take(self, size: int) -> None:
        if size > self.left:
            raise NoRoomError(f"{size} bytes more (limits.some_key)")
        self.left -= size


@attrs.frozen(kw_only=True)
class Outcome:
    """What a command did, all of it."""

    stdout: bytes
    stderr: bytes
    exit: CommandExit


def resident_kib(pid: int | str, which: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{which}:"))


async def collect(command: Command) -> Outcome:
    """Receives everything to the end, and closes the command."""
    output = {stream: bytearray() for stream in OutputStream}
    end: CommandExit | None = None
    try:
        async for event in command.events():
            assert end is None, "the exit is the last event"
            if isinstance(event, Output):
                output[event.stream] += event.data
            else:
                end = event
    finally:
        await command.aclose()
    assert end is not None
    return Outcome(stdout=bytes(output[OutputStream.STDOUT]), stderr=bytes(output[OutputStream.STDERR]), exit=end)


async def until(command: Command, wanted: Callable[[bytes], bool]) -> bytes:
    """Receives stdout until it is as wanted."""
    seen = b""
    async for event in command.events():
        assert isinstance(event, Output), f"the command ended with {event} before it said more than {seen!r}"
        seen += event.data
        if wanted(seen):
            return seen
    raise AssertionError("the command was closed")
