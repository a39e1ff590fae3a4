"""What is in a directory."""

from __future__ import annotations

import os

from .paths import describe, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host


def list_files(request: dict[str, Any], host: Host) -> None:
    """Of directories further down that this user may not read, or that go meanwhile, the content is left out."""
    path, depth = path_of(request), request.get("depth", 1)
    if not (isinstance(depth, int) and depth >= 1):
        raise ValueError("depth: must be an int of at least 1")
    entries = os.scandir(path)
    host.answer({})
    waiting = _tell(entries, path, host)
    for _ in range(depth - 1):
        deeper = []
        for directory in waiting:
            try:
                entries = os.scandir(directory)
            except (PermissionError, FileNotFoundError, NotADirectoryError):
                continue
            deeper += _tell(entries, directory, host)
        waiting = deeper
        if not waiting:
            break
    host.flush()


def _tell(entries: Any, directory: bytes, host: Host) -> list[bytes]:
    """Sends what is in one directory. Returns the directories in it."""
    found = []
    prefix = directory.rstrip(b"/") + b"/"
    with entries:
        for entry in entries:
            path = prefix + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
                target = os.readlink(path) if entry.is_symlink() else b""
            except FileNotFoundError:
                continue
            host.send_record(describe(path, status, target=target))
            if entry.is_dir(follow_symlinks=False):
                found.append(path)
    return found
