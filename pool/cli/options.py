"""Options and exit codes that several commands share."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Final

import click

from pool.cli.output import PREFIX, remark
from pool.cli.words import HostPath
from pool.host.paths import default_socket

EXIT_USAGE = 2
"""The configuration or the host does not allow the command; nothing was attempted."""

EXIT_OWN_FAILURE = 125
"""vmpool itself failed in `run` or `exec`, whose exit code is otherwise the guest command's. As in docker run."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as in a shell."""

EXIT_NOBODY_READS: Final = 128 + signal.SIGPIPE


def _socket_or_default(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:  # noqa: ARG001 - click's
    return default_socket() if value is None else value


def socket_option(command: Any) -> Any:
    return click.option(
        "--socket",
        "socket_path",
        type=HostPath(),
        callback=_socket_or_default,
        help="The service's socket.",
    )(command)


def failure(message: str, *, code: int) -> SystemExit:
    """Prints the message on stderr. The caller raises the returned exception to end the command."""
    remark(f"{PREFIX}{message}")
    return SystemExit(code)
