"""A command's connection to the service, with failures as exit codes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from actors.errors import describe
from pool.cli.options import EXIT_INTERRUPTED, EXIT_NOBODY_READS, failure
from pool.cli.output import OutputError, StderrHandler
from pool.cli.signals import SignalledError, Signals
from pool.cli.streams import NobodyReadsError
from vmpool import ClientError

if TYPE_CHECKING:
    from vmpool import Client, Pool
    from vmpool.client.from_trio import Opening

T = TypeVar("T")
C = TypeVar("C")


def call(
    socket_path: Path,
    do: Callable[[Pool], Awaitable[T]],
    *,
    failure_code: int = 1,
    signals: Signals | None = None,
    own_service: bool = False,
) -> T:
    """Runs `do` with a connected pool; with `own_service`, that of a service which is started for it, and ends with it.

    A ClientError ends the command with its message and `failure_code`.
    """

    def opening() -> Opening[Pool]:
        from vmpool import connect, standalone  # noqa: PLC0415 - see below

        return standalone() if own_service else connect(socket_path)

    return _run(opening, do, failure_code, signals or Signals())


def ask_service(socket_path: Path, do: Callable[[Client], Awaitable[T]]) -> T:
    """As `call`, for what concerns the service and no VM: a client is imported faster than a pool."""

    def opening() -> Opening[Client]:
        # Imported here: it is most of a command's start, and not needed to complete a line, or for --help.
        from vmpool import open_client  # noqa: PLC0415

        return open_client(socket_path)

    return _run(opening, do, 1, Signals())


def _run(opening: Callable[[], Opening[C]], do: Callable[[C], Awaitable[T]], failure_code: int, heeding: Signals) -> T:
    async def connected() -> T:
        with heeding.heeded():
            async with opening() as connection:
                result = await do(connection)
        return result

    logging.basicConfig(handlers=[StderrHandler()], format="%(message)s")
    try:
        return trio.run(connected)
    except* (ClientError, OutputError) as errors:
        message, code = describe(errors), failure_code
    except* SignalledError as errors:
        message, code = describe(errors), heeding.exit_code
    except* NobodyReadsError:
        message, code = "", EXIT_NOBODY_READS
    except* KeyboardInterrupt:
        message, code = "interrupted", EXIT_INTERRUPTED
    raise failure(message, code=code) if message else SystemExit(code)
