"""A service of one's own, for the length of a block."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from vmpool.aio.pool import Pool
from vmpool.client.connection import Connection
from vmpool.client.endings import finish
from vmpool.client.errors import ServiceUnavailableError
from vmpool.client.opening import Opening
from vmpool.client.places import SOCKET_NAME, LocalPath

READY_LIMIT_S: Final = 60.0

END_LIMIT_S: Final = 30.0
"""For the service to end its VMs; then it is killed."""

_PACKAGES: Final = Path(__file__).parents[2]

_PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pool.cli.main import main; main()"
"""The command that was installed with this SDK, wherever PATH and the working directory lead."""


def standalone(
    *,
    size: int = 1,
    profile: Mapping[str, str | int | float | bool] | None = None,
    config: LocalPath | None = None,
    wait_s: float = READY_LIMIT_S,
) -> Opening[Pool]:
    """Starts a service of this program's own, with a pool of `size` VMs, and connects to it, for the length of a block.

    `profile` has further keys of the configuration's `[profiles.default]`: `{"memory_mib": 512}`. `config` is a
    configuration file in place of all that. The service is in a private directory and ends with the block, or with this
    program, however that ends; its VMs and files go with it.

    Returns when the service listens, which takes about a second; its first VM is ready when it has booted, and
    `Pool.vm` waits for it. Raises ServiceUnavailableError with the service's own words if it does not start within
    `wait_s` seconds: without a guest image, say, which `vmpool image build` makes.
    """
    text = Path(config).read_bytes() if config is not None else _configuration(size, profile or {}).encode()

    async def begin(ends: contextlib.AsyncExitStack) -> Pool:
        # The service makes the directory, whose name nobody can foresee, and removes it, also if we are killed.
        directory = Path(tempfile.gettempdir()) / f"vmpool-{secrets.token_hex(8)}"
        said = ends.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        process = _start(text, directory / SOCKET_NAME, said)
        ends.push_async_callback(_end, process)
        connection = Connection(socket_path=directory / SOCKET_NAME)
        ends.push_async_callback(connection.aclose)
        await _connect(connection, process, said, wait_s)
        return Pool(connection)

    return Opening(begin)


def _configuration(size: int, profile: Mapping[str, str | int | float | bool]) -> str:
    keys = {"size": size, **profile}
    return "\n".join(["[profiles.default]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""])


def _start(configuration: bytes, socket_path: Path, said: IO[bytes]) -> subprocess.Popen[bytes]:
    memory = os.memfd_create("vmpool.toml")
    try:
        os.write(memory, configuration)
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", _PROGRAM, os.fspath(_PACKAGES), "serve"),
                *("--config", f"/proc/self/fd/{memory}", "--socket", os.fspath(socket_path), "--until-stdin-closes"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(memory,),
            start_new_session=True,  # Ctrl-C is for this program, which ends the service in good order
        )
    finally:
        os.close(memory)


async def _connect(connection: Connection, process: subprocess.Popen[bytes], said: IO[bytes], wait_s: float) -> None:
    connecting = asyncio.ensure_future(connection.connect(wait_s=wait_s))
    ending = asyncio.ensure_future(asyncio.to_thread(process.wait))
    try:
        await asyncio.wait([connecting, ending], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            raise _unavailable(connection.socket_path, f"it ended with status {process.returncode}", said)
        if (error := connecting.exception()) is not None:
            raise _unavailable(connection.socket_path, f"it does not listen after {wait_s:g} s", said) from error
    finally:
        connecting.cancel()
        await finish(_wait_for(connecting))


async def _wait_for(task: asyncio.Future[None]) -> None:
    await asyncio.wait([task])


def _unavailable(socket_path: Path, what: str, said: IO[bytes]) -> ServiceUnavailableError:
    said.seek(0)
    words = said.read().decode(errors="replace").strip()[-2000:]
    return ServiceUnavailableError(
        socket_path=socket_path,
        reason=f"the service of this program did not start: {what}" + (f": {words}" if words else ""),
        remedy="`vmpool doctor` says what this host can do",
    )


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Lets the service end by itself; kills it if it takes too long."""
    assert process.stdin is not None
    process.stdin.close()
    ending = asyncio.ensure_future(asyncio.to_thread(process.wait))
    await asyncio.wait([ending], timeout=END_LIMIT_S)
    if not ending.done():
        process.kill()
    await ending
