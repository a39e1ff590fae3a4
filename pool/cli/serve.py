"""`vmpool serve`."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import structlog
import trio

from actors.errors import describe
from pool.assembly.service import run_service
from pool.cli.configuration import configuration_options, load_configuration
from pool.cli.options import EXIT_USAGE, failure, socket_option
from pool.host import clock
from pool.host.endpoint import EndpointError
from pool.observe.logs import configure_logs
from pool.observe.tracing import TracingError, open_spans
from pool.settings.config import ConfigError, Settings
from vmm.errors import VmmError

if TYPE_CHECKING:
    from pool.kata.cache.layer import VmCache


STDIN: Final = 0


@click.command()
@configuration_options
@socket_option
@click.option(
    "--takeover",
    is_flag=True,
    help="Replace the service that runs on this socket, and take over its VMs and leases.",
)
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    help="End, as after SIGTERM, when stdin ends: with the program that holds the other end of the pipe.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
@click.option(
    "--log-json/--log-text", "log_json", default=None, help="Log format; default: text on a terminal, else JSON."
)
def serve(
    *,
    config: Path | None,
    kata_config: Path | None,
    socket_path: Path,
    takeover: bool,
    until_stdin_closes: bool,
    verbose: bool,
    log_json: bool | None,
) -> None:
    """Keep VMs warm and hand them out. Runs until SIGTERM, SIGHUP or Ctrl-C, then ends all VMs and removes their files.

    A second signal skips the wait for running calls. Exit code 2: the configuration or this host does not allow the
    service to start.
    """
    configure_logs(json=log_json, verbose=verbose)
    say: Callable[[BaseException], str] = str
    if until_stdin_closes and not _can_be_waited_for(STDIN):
        raise click.UsageError("--until-stdin-closes: stdin must be a pipe, a socket or a terminal")
    try:
        loaded = load_configuration(config, kata_config)
        say = loaded.spell
        clock.run(
            partial(
                serve_until_signalled,
                loaded.settings,
                socket_path,
                cache=loaded.cache,
                takeover=takeover,
                until_stdin_closes=until_stdin_closes,
            )
        )
    except* (ConfigError, EndpointError, TracingError, VmmError) as errors:
        message = describe(errors, say=say)
    else:
        return
    raise failure(message, code=EXIT_USAGE)


async def serve_until_signalled(
    settings: Settings,
    socket_path: Path,
    *,
    cache: VmCache | None,
    takeover: bool = False,
    until_stdin_closes: bool = False,
) -> None:
    stop = trio.Event()
    # Outermost, or a third signal would kill the process while VMs are being ended.
    with trio.open_signal_receiver(*_signals()) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_signals, received, stop, nursery.cancel_scope)
            if until_stdin_closes:
                nursery.start_soon(_watch_stdin, stop)
            async with open_spans(settings.tracing) as spans:
                await run_service(
                    settings, socket_path=socket_path, stop=stop, takeover=takeover, cache=cache, spans=spans
                )
            nursery.cancel_scope.cancel(reason="the service has ended")


def _can_be_waited_for(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # it is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


async def _watch_stdin(stop: trio.Event) -> None:
    """What is written to it is dropped."""
    while True:
        await trio.lowlevel.wait_readable(STDIN)
        try:
            data = os.read(STDIN, 4096)
        except BlockingIOError:
            continue
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            break
    structlog.get_logger("vmpool").info("stdin has ended")
    stop.set()


def _signals() -> tuple[signal.Signals, ...]:
    """SIGHUP is among them since a closed terminal sends it, unless it is ignored, as under nohup."""
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hang_up)


async def _watch_signals(received: AsyncIterator[int], stop: trio.Event, everything: trio.CancelScope) -> None:
    log = structlog.get_logger("vmpool")
    async for number in received:
        log.info("signal received", signal=signal.Signals(number).name, again=stop.is_set())
        if stop.is_set():
            everything.cancel(reason="second signal")
        stop.set()
