"""`vmpool cp`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
import trio

from pool.cli.connection import call
from pool.cli.names import PLACE
from pool.cli.options import socket_option
from pool.cli.output import OutputError, write_to
from pool.cli.places import GuestPlace, HostPlace, Place, PlaceError, StandardStream, landing, parse_place
from pool.cli.stdin import stdin_pieces
from pool.cli.streams import STDERR, STDOUT
from pool.cli.words import TEXT
from vmpool import ClientError, GuestFileNotFoundError

if TYPE_CHECKING:
    from vmpool import Pool, Vm

Progress = Callable[[int], None]


@attrs.frozen(kw_only=True)
class _Copy:
    """From one place to another, of which one is in a guest."""

    source: Place
    destination: Place
    user: str
    owners: bool

    @property
    def lease(self) -> str:
        place = self.source if isinstance(self.source, GuestPlace) else self.destination
        assert isinstance(place, GuestPlace)
        return place.lease


@click.command()
@click.argument("source", type=PLACE, metavar="SRC")
@click.argument("destination", type=PLACE, metavar="DST")
@click.option("--user", "-u", type=TEXT, help="User in the guest with whose rights files are reached; default: root.")
@click.option(
    "--owners",
    "-a",
    is_flag=True,
    help="Keep owners and groups of a tree that is copied into a guest, by number; else all of it is --user's.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@socket_option
def cp(*, source: str, destination: str, user: str | None, owners: bool, quiet: bool, socket_path: Path) -> None:
    """Copy a file or a tree into a leased VM, or out of it: one of SRC and DST is LEASE:PATH.

    As with `cp -r`, it goes into DST if that is a directory or ends in a slash, and becomes DST otherwise; SRC/. is
    what is in a directory. Missing directories above it are made in the guest. Modes, times, links and holes are kept.

    `-` is stdin or stdout: of a file its content, of a directory a tar stream; stdin is a tar stream if DST ends in a
    slash. A name with a colon on this host: ./a:b.

    \b
      vmpool cp job.py LEASE:/app/
      vmpool cp LEASE:/app/out ./results
      vmpool cp LEASE:/etc - | tar -t
    """
    try:
        places = parse_place(source), parse_place(destination)
    except PlaceError as error:
        raise click.UsageError(f"{error}.") from error
    if sum(isinstance(place, GuestPlace) for place in places) != 1:
        raise click.UsageError(_not_one(*places))
    copy = _Copy(source=places[0], destination=places[1], user=user or "", owners=owners)

    async def transfer(pool: Pool) -> None:
        vm = await pool.get(copy.lease)
        try:
            await _transfer(vm, copy, shows_progress=not quiet and os.isatty(STDERR))
        except OSError as error:
            if isinstance(error, ClientError):
                raise
            raise OutputError(f"{error.filename or 'this host'}: {error.strerror or error}") from error

    call(socket_path, transfer)


def _not_one(source: Place, destination: Place) -> str:
    if isinstance(source, GuestPlace) and isinstance(destination, GuestPlace):
        if source.lease == destination.lease:
            return f"Both are in the guest: use `vmpool exec {source.lease} -- cp -r {source.path} {destination.path}`."
        return "Only one of SRC and DST may be LEASE:PATH; copy to this host first."
    return "One of SRC and DST must be LEASE:PATH, such as LEASE:/app/."


async def _transfer(vm: Vm, copy: _Copy, *, shows_progress: bool) -> None:
    match copy.source, copy.destination:
        case GuestPlace(path=path), StandardStream():
            await _to_stdout(vm, path, copy)
        case GuestPlace(path=path), HostPlace(path=host_path):
            target = landing(path, host_path, is_directory=await trio.Path(host_path).is_dir())
            with _progress(Path(target).name, None, shown=shows_progress) as progress:
                await vm.files.download(path, target, user=copy.user, progress=progress)
        case StandardStream(), GuestPlace(path=path):
            await _from_stdin(vm, path, copy)
        case HostPlace(path=host_path), GuestPlace(path=path):
            target = landing(host_path, path, is_directory=await _is_directory(vm, path, copy))
            with _progress(Path(host_path).name, await _size(host_path), shown=shows_progress) as progress:
                await vm.files.upload(host_path, target, owners=copy.owners, user=copy.user, progress=progress)


async def _to_stdout(vm: Vm, path: str, copy: _Copy) -> None:
    tree = await _is_directory(vm, path, copy)
    opening = vm.files.read_tree(path, user=copy.user) if tree else vm.files.open_read(path, user=copy.user)
    async with opening as reader:
        async for data in reader:
            await write_to(STDOUT, data)


async def _from_stdin(vm: Vm, path: str, copy: _Copy) -> None:
    if path.endswith("/"):
        await vm.files.write_tree(path.rstrip("/") or "/", stdin_pieces(), owners=copy.owners, user=copy.user)
    elif await _is_directory(vm, path, copy):
        raise OutputError(f"{path} is a directory: name a file in it, or, to extract a tar stream there, {path}/")
    else:
        await vm.files.write(path, stdin_pieces(), user=copy.user)


async def _is_directory(vm: Vm, path: str, copy: _Copy) -> bool:
    try:
        return (await vm.files.stat(path, user=copy.user)).is_directory
    except GuestFileNotFoundError:
        return False


async def _size(path: str) -> int | None:
    """None for a tree: to add it up would take as long as to copy it."""
    about = await trio.Path(path).stat()
    return about.st_size if stat.S_ISREG(about.st_mode) else None


@contextlib.contextmanager
def _progress(name: str, total: int | None, *, shown: bool) -> Iterator[Progress | None]:
    """A bar on stderr; it goes when the copy is done."""
    if not shown:
        yield None
        return
    from pool.cli.progress import progress_bar  # noqa: PLC0415 - rich, which scripts do not wait for

    with progress_bar(name, total) as progress:
        yield progress
