"""Options and exits that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import click

from pool.cli.output import PREFIX, say
from pool.paths import default_socket

EXIT_USAGE = 2
"""Configuration and environment: nothing was attempted."""

EXIT_OWN_FAILURE = 125
"""`run` and `exec` pass the guest command's exit code on; this one says that vmpool itself failed, as docker run's."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""


class OutputError(Exception):
    """What a command says, or wants to know, has nowhere to go or to come from."""


class _Seconds(click.FloatRange):
    """A time that ends: click takes inf and nan for numbers in a range."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no time.", param, ctx)
        return float(seconds)


SECONDS: Final = _Seconds(min=0.001, max=30 * 24 * 3600)


def _socket_or_default(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:  # noqa: ARG001 - click's
    return default_socket() if value is None else value


def socket_option(command: Any) -> Any:
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        callback=_socket_or_default,
        help="The service's socket.",
    )(command)


def failure(message: str, *, code: int) -> SystemExit:
    """Says it on stderr; raise what it returns to end the command."""
    say(f"{PREFIX}{message}", to_stderr=True)
    return SystemExit(code)
