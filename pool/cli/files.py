"""`vmpool ls`."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from pool.cli.connection import call
from pool.cli.names import GUEST_PATH, GUEST_PLACE
from pool.cli.options import socket_option
from pool.cli.output import aligned, say
from pool.cli.places import GuestPlace, HostPlace, PlaceError, StandardStream, absolute, parse_place
from pool.cli.words import TEXT
from vmpool import FileInfo, FileKind, GuestFileNotFoundError

if TYPE_CHECKING:
    from vmpool import Pool

EVERYTHING: Final = 2**31 - 1
"""Depth of a whole tree."""

_KINDS: Final = {
    FileKind.REGULAR: stat.S_IFREG,
    FileKind.DIRECTORY: stat.S_IFDIR,
    FileKind.SYMLINK: stat.S_IFLNK,
    FileKind.FIFO: stat.S_IFIFO,
    FileKind.SOCKET: stat.S_IFSOCK,
    FileKind.CHARACTER_DEVICE: stat.S_IFCHR,
    FileKind.BLOCK_DEVICE: stat.S_IFBLK,
}


@click.command()
@click.argument("place", type=GUEST_PLACE, metavar="LEASE[:PATH]")
@click.argument("path", type=GUEST_PATH, required=False)
@click.option("--long", "-l", "as_table", is_flag=True, help="Mode, links, owner, size and time as well.")
@click.option("--all", "-a", "hidden_too", is_flag=True, help="Also names that begin with a dot.")
@click.option("--recursive", "-R", is_flag=True, help="Also what is in directories, to any depth.")
@click.option("--depth", type=click.IntRange(min=1, max=EVERYTHING), help="Also what is in directories, to this depth.")
@click.option("--user", "-u", type=TEXT, help="User in the guest with whose rights files are reached; default: root.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@socket_option
def ls(
    *,
    place: str,
    path: str | None,
    as_table: bool,
    hidden_too: bool,
    recursive: bool,
    depth: int | None,
    user: str | None,
    as_json: bool,
    socket_path: Path,
) -> None:
    """List files of a leased VM: what is in a directory, by default /, or a file itself."""
    where = _where(place, path)
    levels = depth or (EVERYTHING if recursive else 1)

    async def ask(pool: Pool) -> tuple[FileInfo, list[FileInfo]]:
        files = (await pool.get(where.lease)).files
        itself = await files.stat(where.path, follow=False, user=user or "")
        if itself.kind is FileKind.SYMLINK:
            with contextlib.suppress(GuestFileNotFoundError):
                behind = await files.stat(where.path, user=user or "")
                itself = behind if behind.is_directory else itself
        if not itself.is_directory:
            return itself, [itself]
        return itself, await files.list(where.path, depth=levels, user=user or "")

    itself, found = call(socket_path, ask)
    base = itself.path if itself.is_directory else os.path.dirname(itself.path)  # noqa: PTH120 - text of a guest
    named = {_relative(file.path, base): file for file in found}
    if itself.is_directory and not (hidden_too or as_json):
        named = {name: file for name, file in named.items() if not _hidden(name)}
    files = sorted(named.items())
    if as_json:
        say(json_module.dumps([attrs.asdict(file) | {"kind": file.kind.value} for _, file in files], indent=2))
    elif as_table:
        say("\n".join(_table(files)))
    else:
        for name, _ in files:
            say(name)


def _where(place: str, path: str | None) -> GuestPlace:
    try:
        match parse_place(place):
            case GuestPlace() as where:
                if path is not None:
                    raise click.UsageError("Name the path once.")
                return where
            case HostPlace(path=lease):
                return GuestPlace(lease, absolute(path or "/", lease=lease))
            case StandardStream():
                raise click.UsageError("Name a lease; `vmpool leases` lists them.")
    except PlaceError as error:
        raise click.UsageError(f"{error}.") from error


def _relative(path: str, base: str) -> str:
    return path.removeprefix(base.rstrip("/") + "/")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _table(files: Iterable[tuple[str, FileInfo]]) -> list[str]:
    rows = [
        (
            stat.filemode(_KINDS[file.kind] | file.mode),
            str(file.links),
            file.user or str(file.uid),
            file.group or str(file.gid),
            str(file.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(file.modified_ns / 1e9)),
            f"{name} -> {file.target}" if file.target else name,
        )
        for name, file in files
    ]
    return aligned(rows) if rows else []
