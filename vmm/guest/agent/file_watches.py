"""What happens to files: inotify(7), with whole paths, moves in one piece, and directories made later."""

from __future__ import annotations

import errno
import os
import select
import struct

from . import libc
from .paths import path_of, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_DIRECTORY, _IS_DIRECTORY = 0x1000000, 0x40000000
_WANTED = 0xFCE

_EVENT = struct.Struct("iIII")

_PAIR_MS = 50
"""The second half of a move follows the first at once, if it is to a directory that is watched."""

_SIMPLE = {
    _MODIFY: "modified",
    _ATTRIB: "attributes",
    _CLOSE_WRITE: "written",
    _CREATE: "created",
    _DELETE: "removed",
}


def watch(request: dict[str, Any], host: Host) -> None:
    """Ends with ENOENT when the path itself is removed, or moved."""
    path = path_of(request)
    _Watcher(path, host, recursive=bool(request.get("recursive"))).run()


class _Watcher:
    def __init__(self, path: bytes, host: Host, *, recursive: bool) -> None:
        self._path = path
        self._host = host
        self._recursive = recursive
        self._fd = libc.inotify()
        self._paths: dict[int, bytes] = {}
        """Of each watched directory, by its watch's number."""
        self._told: dict[int, set[bytes]] = {}
        """By watch: names that were told of when the directory was found, and whose events may still come."""
        self._leaving: dict[int, tuple[bytes, bool]] = {}
        """First halves of moves, by cookie: path, and whether it is a directory."""
        self._root = libc.watch(self._fd, path, _WANTED)
        self._paths[self._root] = path
        if recursive and os.path.isdir(path):
            self._watch_tree(path, tell=False)

    def run(self) -> None:
        self._host.answer({})
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            if poll.poll(_PAIR_MS if self._leaving else None):
                self._read()
            else:
                self._lose_halves()
            self._host.flush()

    def _read(self) -> None:
        data = os.read(self._fd, 64 * 1024)
        at = 0
        while at < len(data):
            number, mask, cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size + size
            self._on_event(number, mask, cookie, data[at - size : at].rstrip(b"\0"))

    def _on_event(self, number: int, mask: int, cookie: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            self._tell("overflow", b"")
            # Directories may have been made, moved and removed unseen.
            if self._recursive:
                self._watch_tree(self._path, tell=False)
        elif mask & _IGNORED:
            self._paths.pop(number, None)
            self._told.pop(number, None)
            self._check_root(number)
        elif number == self._root and mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT):
            self._end()
        elif number in self._paths and (name or number == self._root):
            directory = self._paths[number]
            path = os.path.join(directory, name) if name else directory
            self._on_change(number, path, name, mask, cookie)

    def _on_change(self, number: int, path: bytes, name: bytes, mask: int, cookie: int) -> None:
        is_directory = bool(mask & _IS_DIRECTORY)
        told = self._told.get(number, set())
        if mask & _MOVED_FROM:
            told.discard(name)
            self._leaving[cookie] = (path, is_directory)
        elif mask & _MOVED_TO:
            self._arrive(path, cookie, is_directory=is_directory)
        elif mask & _CREATE and name in told:
            told.discard(name)
        else:
            if mask & _DELETE:
                told.discard(name)
            self._tell(next(kind for bit, kind in _SIMPLE.items() if mask & bit), path, is_directory=is_directory)
            if mask & _CREATE and is_directory and self._recursive:
                self._watch_tree(path, tell=True)
            elif mask & _ATTRIB and not name:
                self._check_root(number)

    def _arrive(self, path: bytes, cookie: int, *, is_directory: bool) -> None:
        source, _ = self._leaving.pop(cookie, (b"", False))
        if source:
            self._tell("moved", source, target=path, is_directory=is_directory)
            prefix = source + b"/"
            for number, watched in self._paths.items():
                if watched == source or watched.startswith(prefix):
                    self._paths[number] = path + watched[len(source) :]
        else:
            self._tell("created", path, is_directory=is_directory)
        if is_directory and self._recursive:
            # After a move within the tree too: directories made before it had other paths when they were to be watched.
            self._watch_tree(path, tell=True)

    def _lose_halves(self) -> None:
        """What has not arrived in anything watched is gone."""
        for path, is_directory in self._leaving.values():
            self._tell("removed", path, is_directory=is_directory)
            if is_directory:
                prefix = path + b"/"
                for number, watched in list(self._paths.items()):
                    if watched == path or watched.startswith(prefix):
                        libc.unwatch(self._fd, number)
                        self._paths.pop(number)
        self._leaving.clear()

    def _watch_tree(self, path: bytes, *, tell: bool) -> None:
        """Watches a directory and those below, as far as they are not yet. `tell`: what is in a directory that was not
        watched counts as created now.
        """
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            try:
                number = libc.watch(self._fd, directory, _WANTED | _ONLY_DIRECTORY)
                entries = list(os.scandir(directory))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # it is gone, or this user may not look into it
            tell_entries = tell and number not in self._paths
            self._paths[number] = directory
            for entry in entries:
                inner = os.path.join(directory, entry.name)
                is_directory = entry.is_dir(follow_symlinks=False)
                if tell_entries:
                    self._told.setdefault(number, set()).add(entry.name)
                    self._tell("created", inner, is_directory=is_directory)
                    if not is_directory and _has_content(entry):
                        self._tell("modified", inner)
                if is_directory:
                    waiting.append(inner)

    def _check_root(self, number: int) -> None:
        # A file that is open when it is removed is not deleted yet.
        if number == self._root and not os.path.lexists(self._path):
            self._end()

    def _end(self) -> None:
        self._lose_halves()
        self._host.flush()
        raise refuse(errno.ENOENT, self._path, "was removed, moved or replaced")

    def _tell(self, kind: str, path: bytes, *, target: bytes = b"", is_directory: bool = False) -> None:
        self._host.send_record({"kind": kind, "path": path, "target": target, "directory": is_directory})


def _has_content(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_size > 0
    except FileNotFoundError:
        return False
