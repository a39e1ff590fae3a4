"""What `FileEdit` does to the files of a simulated guest."""

from __future__ import annotations

import errno
import posixpath
import stat

from vmm.simulated.file_system import FileSystem, Node, refused, uid_of
from vmm.words.files import (
    Copy,
    FileChangeKind,
    FileEdit,
    FileKind,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
)


def apply(system: FileSystem, edit: FileEdit, *, uid: int) -> bytes | None:
    """The path of what is then there. Raises OSError."""
    match edit:
        case MakeDirectory(path=path, mode=mode, parents=parents):
            if parents:
                existed = _exists(system, path)
                system.make_directories(path, uid=uid)
                node = system.find(path, uid=uid)
            else:
                existed, node = False, system.make_directory(path, uid=uid)
            if mode is not None and not existed:
                node.mode = stat.S_IFDIR | mode
            return path
        case Move(path=path, target=target, replace=replace):
            system.move(path, target, uid=uid, replace=replace)
            return target
        case Copy(path=path, target=target, recursive=recursive):
            _copy(system, path, target, uid=uid, recursive=recursive)
            return target
        case Remove(path=path, recursive=recursive, missing_ok=missing_ok):
            _remove(system, path, uid=uid, recursive=recursive, missing_ok=missing_ok)
            return None
        case Link(path=path, target=target, hard=True):
            node = system.find(target, uid=uid, follow=False)
            if node.is_directory:
                raise refused(errno.EPERM, target)
            system.add(path, node, uid=uid)
            node.links += 1
            return path
        case Link(path=path, target=target):
            system.make_link(path, target, uid=uid)
            return path
        case SetAttributes(path=path, recursive=recursive):
            nodes = [(path, system.find(path, uid=uid))]
            if recursive and nodes[0][1].is_directory:
                nodes += system.walk(path, depth=2**31, uid=uid)
            for inner, node in nodes:
                _set_attributes(system, edit, inner, node, uid=uid)
            return path


def _exists(system: FileSystem, path: bytes) -> bool:
    try:
        system.find(path)
    except FileNotFoundError:
        return False
    return True


def _copy(system: FileSystem, path: bytes, target: bytes, *, uid: int, recursive: bool) -> None:
    node = system.find(path, uid=uid)
    _, _, old = system.place(target, uid=uid)
    if node.is_directory:
        if not recursive:
            raise refused(errno.EISDIR, path)
        if old is not None:
            raise refused(errno.EEXIST, target)
        if system.resolve(target).startswith(system.resolve(path).rstrip(b"/") + b"/"):
            raise refused(errno.EINVAL, target)
    elif node.kind is not FileKind.REGULAR:
        raise refused(errno.EINVAL, path)
    real = system.resolve(target, uid=uid)
    _, _, old = system.place(real, uid=uid)
    if old is node:
        raise refused(errno.EINVAL, target)
    if old is not None:
        if old.is_directory:
            raise refused(errno.EISDIR, target)
        system.take_away(real, uid=uid, tell=False)
    copied = system.copy(node, uid=uid)
    copied.links = 1
    system.add(real, copied, uid=uid)


def _remove(system: FileSystem, path: bytes, *, uid: int, recursive: bool, missing_ok: bool) -> None:
    try:
        node = system.find(path, uid=uid, follow=False)
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    if node.is_directory and not recursive:
        raise refused(errno.EISDIR, path)
    if node.is_directory:
        for name in list(node.children):
            _remove(system, posixpath.join(path, name), uid=uid, recursive=True, missing_ok=False)
    system.take_away(path, uid=uid).links -= 1


def _set_attributes(system: FileSystem, edit: SetAttributes, path: bytes, node: Node, *, uid: int) -> None:
    if uid not in {0, node.uid}:
        raise refused(errno.EPERM, path)
    for name, field in ((edit.owner, "owner"), (edit.group, "group")):
        if name:
            number = uid_of(name, part=field)
            if uid and number != uid:
                raise refused(errno.EPERM, path)
            setattr(node, "uid" if field == "owner" else "gid", number)
    if edit.mode is not None and node.kind is not FileKind.SYMLINK:
        node.mode = stat.S_IFMT(node.mode) | edit.mode
    if edit.modified_ns is not None:
        node.modified_ns = edit.modified_ns
    system.tell(FileChangeKind.ATTRIBUTES, path, node)
