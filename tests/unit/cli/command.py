"""The command by its real entry, in a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.running import vmpool_argv

NOBODY: Final = 65534

_AS_NOBODY: Final = (
    "import os, sys\n"
    "from pool.cli import administration, status, watch\n"
    "from pool.cli.main import main\n"
    "from vmpool import connect, open_client\n"
    f"os.setuid({NOBODY})\n"  # only now: the checkout may be where this user cannot read
    "main()\n"
)


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


async def vmpool(socket_path: Path, *arguments: str, as_nobody: bool = False) -> Done:
    """Runs `vmpool ARGUMENTS` against the service on that socket."""
    argv = [sys.executable, "-c", _AS_NOBODY, *arguments] if as_nobody else vmpool_argv(*arguments)
    with trio.fail_after(60):
        done = await trio.run_process(
            argv, capture_stdout=True, capture_stderr=True, check=False, env=environment(socket_path)
        )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def environment(socket_path: Path) -> dict[str, str]:
    """As a user has it: output to files and pipes is buffered."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return ours | {"VMPOOL_SOCKET": str(socket_path)}


@contextlib.contextmanager
def narrow_pipe() -> Iterator[tuple[int, int]]:
    """Its ends, to read from and to write to; a page of what nobody has read fills it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGESIZE"))
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)
