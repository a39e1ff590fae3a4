"""`vmpool serve`."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog
import trio

from actors.errors import describe
from pool.cli.options import EXIT_USAGE, config_option, failure, socket_option
from pool.cli.words import HostPath
from pool.config import ConfigError, Settings, load_settings
from pool.endpoint import EndpointError
from pool.logs import configure_logs
from pool.service import run_service
from pool.tracing import TracingError, open_spans
from vmm.errors import VmmError

if TYPE_CHECKING:
    from pool.vmcache import VmCache


@click.command()
@config_option
@click.option(
    "--kata-config",
    type=HostPath(dir_okay=False),
    help='Kata\'s configuration.toml instead: [factory] and [hypervisor.qemu] make one profile, "default".',
)
@socket_option
@click.option(
    "--takeover",
    is_flag=True,
    help="Take the place of the service that runs on this socket, its VMs and leases with it.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
@click.option("--log-json/--log-text", "log_json", default=None, help="Default: text on a terminal, else JSON.")
def serve(
    *,
    config: Path | None,
    kata_config: Path | None,
    socket_path: Path,
    takeover: bool,
    verbose: bool,
    log_json: bool | None,
) -> None:
    """Keep VMs warm and hand them out; runs until SIGTERM or Ctrl-C, then ends every VM and leaves nothing.

    A second signal skips the waiting for callers. Exit code 2: the configuration or this host does not allow it.
    """
    if config is not None and kata_config is not None:
        raise click.UsageError("--config and --kata-config exclude each other; give one")
    configure_logs(json=log_json, verbose=verbose)
    try:
        settings, cache = (load_settings(config), None) if kata_config is None else _settings_from_kata(kata_config)
        trio.run(partial(serve_until_signalled, settings, socket_path, cache=cache, takeover=takeover))
    except* (ConfigError, EndpointError, TracingError, VmmError) as errors:
        message = describe(errors)
    else:
        return
    raise failure(message, code=EXIT_USAGE)


def _settings_from_kata(path: Path) -> tuple[Settings, VmCache | None]:
    # Imported here: a tenth of the time until the service is ready would go into it, for everybody.
    from pool.factory.settings import settings_from_kata  # noqa: PLC0415
    from pool.vmcache import VmCache  # noqa: PLC0415

    kata = settings_from_kata(path)
    kata.check_host()
    return kata.settings, None if kata.cache is None else VmCache(settings=kata.cache)


async def serve_until_signalled(
    settings: Settings, socket_path: Path, *, cache: VmCache | None, takeover: bool = False
) -> None:
    stop = trio.Event()
    # Outermost, or the third signal would meet its default action while VMs are being ended.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_signals, received, stop, nursery.cancel_scope)
            async with open_spans(settings.tracing) as spans:
                await run_service(
                    settings, socket_path=socket_path, stop=stop, takeover=takeover, cache=cache, spans=spans
                )
            nursery.cancel_scope.cancel(reason="the service has ended")


async def _watch_signals(received: AsyncIterator[int], stop: trio.Event, everything: trio.CancelScope) -> None:
    log = structlog.get_logger("vmpool")
    async for number in received:
        log.info("signal received", signal=signal.Signals(number).name, again=stop.is_set())
        if stop.is_set():
            everything.cancel(reason="second signal")
        stop.set()
