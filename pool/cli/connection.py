"""A command's connection to the service, with failures as exit codes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from actors.errors import describe
from pool.cli.options import EXIT_INTERRUPTED, EXIT_NOBODY_READS, failure
from pool.cli.output import OutputError, StderrHandler
from pool.cli.signals import SignalledError, Signals
from pool.cli.streams import NobodyReadsError
from vmpool.client import Client, ClientError, open_client

T = TypeVar("T")


def call(
    socket_path: Path, do: Callable[[Client], Awaitable[T]], *, failure_code: int = 1, signals: Signals | None = None
) -> T:
    """Runs `do` with a connected client. A ClientError ends the command with its message and `failure_code`."""
    heeding = signals or Signals()

    async def session() -> T:
        with heeding.heeded():
            async with open_client(socket_path) as client:
                result = await do(client)
        return result

    logging.basicConfig(handlers=[StderrHandler()], format="%(message)s")
    try:
        return trio.run(session)
    except* (ClientError, OutputError) as errors:
        message, code = describe(errors), failure_code
    except* SignalledError as errors:
        message, code = describe(errors), heeding.exit_code
    except* NobodyReadsError:
        message, code = "", EXIT_NOBODY_READS
    except* KeyboardInterrupt:
        message, code = "interrupted", EXIT_INTERRUPTED
    raise failure(message, code=code) if message else SystemExit(code)
