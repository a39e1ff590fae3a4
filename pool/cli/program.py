"""The running `vmpool` program: its file, and how to put it on PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "vmpool"


def own_program() -> Path | None:
    """The file of the command that was called, links included, else the one beside the interpreter, else None."""
    for candidate in (Path(sys.argv[0]), Path(sys.executable).with_name(_NAME)):
        if candidate.name == _NAME and os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate.parent.resolve() / _NAME
    return None


def command_line(*arguments: str) -> list[str]:
    """Runs `vmpool ARGUMENTS` of this installation; modules in the current directory are ignored."""
    return [sys.executable, "-P", "-m", "pool.cli.main", *arguments]


def way_onto_path(program: Path, *, search_path: str, home: Path, uid: int) -> str | None:
    """A shell command that makes `vmpool` run this program; None if it does already.

    Prefers a link in a directory on PATH, if the name is free: the program's own directory contains its Python too.
    Else puts the program's directory on PATH for this shell.
    """
    found = shutil.which(_NAME, path=search_path)
    if found is not None and Path(found).samefile(program):
        return None
    links = Path("/usr/local/bin") if uid == 0 else home / ".local/bin"
    if found is None and str(links) in search_path.split(os.pathsep) and not os.path.lexists(links / _NAME):
        make = "" if links.is_dir() else f"mkdir -p {shlex.quote(str(links))} && "
        return f"{make}ln -s {shlex.quote(str(program))} {shlex.quote(str(links))}/"
    return f'export PATH={shlex.quote(str(program.parent))}:"$PATH"'
