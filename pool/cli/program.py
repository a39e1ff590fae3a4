"""The `vmpool` that runs, as a file: where it is, and how it comes onto PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "vmpool"


def own_program() -> Path | None:
    """The command that was called, be it a link, or the one beside our interpreter; None if there is neither."""
    for candidate in (Path(sys.argv[0]), Path(sys.executable).with_name(_NAME)):
        if candidate.name == _NAME and os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate.parent.resolve() / _NAME
    return None


def command_line(*arguments: str) -> list[str]:
    """Runs `vmpool ARGUMENTS` of this installation, whatever modules are in the current directory."""
    return [sys.executable, "-P", "-m", "pool.cli.main", *arguments]


def way_onto_path(program: Path, *, search_path: str, home: Path, uid: int) -> str | None:
    """A line for the shell that makes `vmpool` mean this program; None if it does so already.

    A link, where there is a directory for that and the name is free: the directory of the program itself has its
    Python, too. Else that directory, for this shell.
    """
    found = shutil.which(_NAME, path=search_path)
    if found is not None and Path(found).samefile(program):
        return None
    links = Path("/usr/local/bin") if uid == 0 else home / ".local/bin"
    if found is None and str(links) in search_path.split(os.pathsep) and not os.path.lexists(links / _NAME):
        make = "" if links.is_dir() else f"mkdir -p {shlex.quote(str(links))} && "
        return f"{make}ln -s {shlex.quote(str(program))} {shlex.quote(str(links))}/"
    return f'export PATH={shlex.quote(str(program.parent))}:"$PATH"'
