"""`vmpool factory`: Kata's VM factory, from Kata's configuration file. Commands, texts and exit codes are Kata's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog
import trio

from actors.errors import describe
from pool.cli.options import EXIT_INTERRUPTED, failure, socket_option
from pool.cli.output import say
from pool.cli.serve import serve_until_signalled
from pool.cli.words import HostPath
from pool.host import clock
from pool.host.endpoint import EndpointError
from pool.kata.cache.client import cache_status, quit_cache
from pool.kata.cache.layer import VmCache
from pool.kata.config.settings import KataSettings, settings_from_kata
from pool.kata.errors import KataError
from pool.kata.factory.factory import open_factory
from pool.kata.factory.host import open_qemu_host
from pool.observe.logs import configure_logs
from pool.observe.tracing import TracingError, open_spans
from pool.settings.config import ConfigError
from vmm.errors import VmmError

_log = structlog.get_logger("vmpool.factory", subsystem="factory")

DEFAULT_CONFIGS: Final = (
    Path("/etc/kata-containers/configuration.toml"),
    Path("/usr/share/defaults/kata-containers/configuration.toml"),
)
"""Where Kata looks, in this order."""

_ANSWER_LIMIT_S: Final = 10.0
_END_LIMIT_S: Final = 60.0
"""For a server to quit: it ends its VMs first."""
_LOOK_EACH_S: Final = 0.05

_FAILURES: Final = (KataError, VmmError, EndpointError, TracingError, OSError)


def _config_option(command: Any) -> Any:
    return click.option(
        "--kata-config",
        "path",
        type=HostPath(dir_okay=False),
        help=f"Kata's configuration.toml; default: {' or '.join(map(str, DEFAULT_CONFIGS))}.",
    )(command)


def _load(path: Path | None) -> KataSettings:
    found = path or next((place for place in DEFAULT_CONFIGS if place.is_file()), None)
    if found is None:
        raise failure("invalid runtime config: no file found; name one with --kata-config", code=1)
    try:
        return settings_from_kata(found)
    except ConfigError as error:
        raise failure(f"invalid runtime config: {error}", code=1) from error


@click.group()
def factory() -> None:
    """Manage vm factory, as kata-runtime does."""
    configure_logs()


@factory.command()
@_config_option
@socket_option
def init(*, path: Path | None, socket_path: Path) -> None:
    """Initialize a VM factory based on Kata's configuration.

    With vm_cache_number, the VM cache server runs until SIGTERM, Ctrl-C or `vmpool factory destroy`. With
    enable_template alone, the template is made and stays after the command has ended.
    """
    kata = _load(path)
    if kata.cache is not None:
        try:
            kata.check_host()
            kata.check_clients()
        except ConfigError as error:
            raise failure(f"invalid runtime config: {error}", code=1) from error
        cache = VmCache(settings=kata.cache)
        serve = partial(serve_until_signalled, kata.settings, socket_path, cache=cache)
        _run("create vm factory failed", serve, say=kata.spell)
    elif kata.factory.template:
        _run("create vm factory failed", partial(_make_template, kata, socket_path), say=kata.spell)
        say("vm factory initialized")
    else:
        say("vm factory or VMCache is not enabled")


@factory.command()
@_config_option
@socket_option
def destroy(*, path: Path | None, socket_path: Path) -> None:
    """Destroy the VM factory: end the VM cache server, or remove the template."""
    kata = _load(path)
    if kata.cache is not None:
        _run("", partial(_end_server, kata.cache.endpoint))
    elif kata.factory.template:
        try:
            clock.run(partial(_with_template, kata, socket_path, remove=True))
        except* _FAILURES as errors:
            _log.warning("load vm factory failed", error=describe(errors))
    say("vm factory destroyed")


@factory.command()
@_config_option
@socket_option
def status(*, path: Path | None, socket_path: Path) -> None:
    """Query the status of VM factory."""
    kata = _load(path)
    if kata.cache is not None:
        try:
            server = clock.run(partial(cache_status, kata.cache.endpoint, timeout_s=_ANSWER_LIMIT_S))
        except* KataError as errors:
            say(f"failed to call gRPC Status\n: {_cause(describe(errors))}")
        else:
            say(f"VM cache server pid = {server.pid}")
            for vm in server.vms:
                say(f"VM pid = {vm.pid} Cpu = {vm.vcpus} Memory = {vm.memory_mib}MiB")
    if not kata.factory.template:
        say("vm factory not enabled")
        return
    try:
        clock.run(partial(_with_template, kata, socket_path))
    except* _FAILURES as errors:
        _log.info("no template", reason=describe(errors))
        say("vm factory is off")
    else:
        say("vm factory is on")


async def _make_template(kata: KataSettings, socket_path: Path) -> None:
    await _with_template(kata, socket_path, make=True)


async def _with_template(kata: KataSettings, socket_path: Path, *, make: bool = False, remove: bool = False) -> None:
    """Opens the factory for the template only: the VMs of a cache belong to the cache's server."""
    only_template = attrs.evolve(kata.factory, cache=0, vm_cache=False)
    runtime = socket_path.absolute().parent / "factory"  # noqa: ASYNC240 - only reads the working directory
    async with (
        open_spans(kata.settings.tracing) as spans,
        open_qemu_host(runtime) as host,
        open_factory(only_template, host=host, fetch_only=not make, generation=kata.generation, spans=spans) as opened,
    ):
        if remove:
            await opened.aclose()


async def _end_server(endpoint: Path) -> None:
    await quit_cache(endpoint, timeout_s=_ANSWER_LIMIT_S)
    with trio.move_on_after(_END_LIMIT_S) as limit:
        while endpoint.exists():  # noqa: ASYNC110, ASYNC240 - the removal of a socket file sends no event
            await trio.sleep(_LOOK_EACH_S)
    if limit.cancelled_caught:
        raise EndpointError(
            f"{endpoint} still exists {_END_LIMIT_S:g} s after its server was asked to quit; see the server's log"
        )


def _run(failed: str, function: Callable[[], Awaitable[None]], *, say: Callable[[BaseException], str] = str) -> None:
    """Runs an async function. A failure is logged as `failed`, if not empty, and ends the command with code 1."""
    try:
        clock.run(function)
    except* _FAILURES as errors:
        message, code = describe(errors, say=say), 1
    except* KeyboardInterrupt:
        message, code = "interrupted", EXIT_INTERRUPTED
    else:
        return
    if failed:
        _log.error(failed, error=message)
    raise failure(message, code=code)


def _cause(message: str) -> str:
    """Without the prefix of wrapped errors, as Kata prints a client's error."""
    return message.removeprefix("failed to call gRPC Status: ")
