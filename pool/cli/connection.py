"""One call to the service, with its failures as exit codes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from actors.errors import describe
from pool.cli.options import EXIT_INTERRUPTED, OutputError, failure
from pool.cli.output import StderrHandler
from pool.client import Client, ClientError, open_client

T = TypeVar("T")


def call(socket_path: Path, do: Callable[[Client], Awaitable[T]], *, failure_code: int = 1) -> T:
    """Runs `do` with a connected client. A client's error ends the command with its message and `failure_code`."""

    async def session() -> T:
        async with open_client(socket_path) as client:
            return await do(client)

    logging.basicConfig(handlers=[StderrHandler()], format="%(message)s")
    try:
        return trio.run(session)
    except* (ClientError, OutputError) as errors:
        message, code = describe(errors), failure_code
    except* KeyboardInterrupt:
        message, code = "interrupted", EXIT_INTERRUPTED
    raise failure(message, code=code)
