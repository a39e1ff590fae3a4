"""`vmpool forward` and `wait-port`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import trio

from pool.cli.connection import call
from pool.cli.names import LEASE
from pool.cli.options import socket_option
from pool.cli.output import OutputError, deliver
from pool.cli.words import SECONDS, utf8
from vmpool import ClientError

if TYPE_CHECKING:
    from vmpool import Forward, Pool, Vm

_MAX_PORT: Final = 65535
_LOOPBACK: Final = "127.0.0.1"

LOOK_EACH_S: Final = 5.0
"""How often a forward asks whether its lease has ended; connections fail at once."""


@attrs.frozen(kw_only=True)
class Route:
    """A port or path of this host, and one of a guest."""

    host: str
    local: int | str | None
    """None: a free port."""
    remote: int | str


class _GuestPort(click.ParamType[int | str]):
    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int):
            return value
        found = _port_or_path(utf8(str(value), param, ctx))
        if found is None or found == 0:
            self.fail(f"{value!r} is neither a port nor an absolute path of a Unix socket.", param, ctx)
        return found


class _Route(click.ParamType[Route]):
    name = "route"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Route:
        if isinstance(value, Route):
            return value
        route = parse_route(utf8(str(value), param, ctx))
        if route is None:
            self.fail(
                f"{value!r} is not [[HOST:]LOCAL:]REMOTE, where LOCAL and REMOTE are ports or absolute paths.",
                param,
                ctx,
            )
        return route


def parse_route(text: str) -> Route | None:
    """None if it is none. Paths have no colons here."""
    rest, _, last = text.rpartition(":")
    remote = _port_or_path(last)
    if remote is None or remote == 0:
        return None
    if not text.removesuffix(last):
        return Route(host="", local=remote if isinstance(remote, int) else None, remote=remote)
    host, _, text_of_local = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    local = _port_or_path(text_of_local) if text_of_local else 0
    if local is None or (host and isinstance(local, str)) or (":" in host and not rest.startswith("[")):
        return None
    return Route(host=host, local=local or None, remote=remote)


def _port_or_path(text: str) -> int | str | None:
    if text.startswith("/"):
        return text
    if text.isascii() and text.isdigit() and int(text) <= _MAX_PORT:
        return int(text)
    return None


@click.command()
@click.argument("lease", type=LEASE)
@click.argument("routes", nargs=-1, required=True, type=_Route(), metavar="[[HOST:]LOCAL:]REMOTE...")
@click.option("--reverse", is_flag=True, help="Listen in the guest on REMOTE, and connect to LOCAL of this host.")
@socket_option
def forward(*, lease: str, routes: tuple[Route, ...], reverse: bool, socket_path: Path) -> None:
    """Forward ports of a leased VM to this host, until Ctrl-C; the guest needs no network. Prints what listens where.

    REMOTE and LOCAL are TCP ports, or absolute paths of Unix sockets. LOCAL is the same port unless it is given; empty,
    as in :80, it is a free one. HOST is the address of this host to listen on, 127.0.0.1 unless it is given.

    \b
      vmpool forward LEASE 8080:80
      vmpool forward LEASE 0.0.0.0:8080:80 /tmp/docker.sock:/run/docker.sock
      vmpool forward LEASE --reverse 5432
    """

    async def serve(pool: Pool) -> None:
        vm = await pool.get(lease)
        async with contextlib.AsyncExitStack() as ends:
            for route in routes:
                opened = await ends.enter_async_context(_reversed(vm, route) if reverse else _forwarded(vm, route))
                await deliver(_line(route, opened, reverse=reverse))
            while True:
                await trio.sleep(LOOK_EACH_S)
                await pool.get(vm.lease_id)

    call(socket_path, serve)


@contextlib.asynccontextmanager
async def _forwarded(vm: Vm, route: Route) -> AsyncIterator[Forward]:
    try:
        opening = (
            vm.forward(route.remote, path=route.local)
            if isinstance(route.local, str)
            else vm.forward(route.remote, host=route.host or _LOOPBACK, port=route.local or 0)
        )
        async with opening as opened:
            yield opened
    except OSError as error:
        if isinstance(error, ClientError):
            raise
        raise OutputError(f"cannot listen on {_local(route)}: {error.strerror or error}") from error


def _reversed(vm: Vm, route: Route) -> AbstractAsyncContextManager[Forward]:
    if route.local is None:
        raise click.UsageError(f"With --reverse, LOCAL is what is there already: name it, as in 8080:{route.remote}.")
    to = route.local if isinstance(route.local, str) else (route.host or _LOOPBACK, route.local)
    return vm.reverse(route.remote, to)


def _local(route: Route) -> str:
    return route.local if isinstance(route.local, str) else f"{route.host or _LOOPBACK}:{route.local or 0}"


def _line(route: Route, opened: Forward, *, reverse: bool) -> str:
    """Who listens, and to where that leads."""
    if reverse:
        return f"{opened} in the guest -> {_local(route)}"
    return f"{opened} -> {route.remote} in the guest"


@click.command("wait-port")
@click.argument("lease", type=LEASE)
@click.argument("port", type=_GuestPort())
@click.option("--timeout", "timeout_s", type=SECONDS, default=30.0, show_default=True, help="Longest wait, in seconds.")
@socket_option
def wait_port(*, lease: str, port: int | str, timeout_s: float, socket_path: Path) -> None:
    """Wait until a server in a leased VM accepts connections on a TCP port, or on a Unix socket at an absolute path.

    Exit code 1: none did in time.
    """

    async def wait(pool: Pool) -> None:
        await (await pool.get(lease)).wait_port(port, timeout=timeout_s)

    call(socket_path, wait)
