"""`vmpool man`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

from pool.cli.catalogue import COMMANDS
from pool.cli.manual.page import Page, find, pages
from pool.cli.manual.plain import plain
from pool.cli.manual.roff import roff
from pool.cli.options import failure
from pool.cli.words import TEXT, HostPath


@click.command()
@click.argument(
    "words", nargs=-1, type=TEXT, metavar="[COMMAND...]", shell_complete=lambda _ctx, _param, word: _fitting(word)
)
@click.option(
    "--write", "directory", type=HostPath(file_okay=False), help="Write all pages into this directory, and show none."
)
@click.pass_context
def man(ctx: click.Context, *, words: tuple[str, ...], directory: Path | None) -> None:
    """Show the manual page of vmpool, or of a command, by man(1) if it is there.

    For `man vmpool-run`, write the pages to where man looks, anew after each upgrade:

    \b
      vmpool man --write /usr/local/share/man/man1
    """
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    if directory is None:
        _show(find(group, words))
        return
    if words:
        raise click.UsageError("--write writes all pages; leave out the command.", ctx)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for page in pages(group):
            (directory / f"{page.name}.1").write_text(_roff(page), encoding="utf-8")
    except OSError as error:
        raise failure(f"cannot write {error.filename}: {error.strerror}", code=1) from error


def _fitting(word: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(word)]


def _roff(page: Page) -> str:
    return roff(page, version=version("vmpool"))


def _show(page: Page) -> None:
    """At a terminal in a pager; otherwise as text that other programs can use."""
    if not sys.stdout.isatty():
        click.echo(plain(page, width=80), nl=False)
    elif shutil.which("man"):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix=f"{page.name}-", suffix=".1") as file:
            file.write(_roff(page))
            file.flush()
            sys.exit(subprocess.run(["man", "-l", file.name], check=False).returncode)  # noqa: S607 - the user's own
    else:
        click.echo_via_pager(plain(page, width=shutil.get_terminal_size().columns))
