"""Trees of a simulated guest's files as tar streams."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile

from vmm.simulated.file_system import FileSystem, Node, PartError
from vmm.words.files import FileKind, TreeSummary, TreeWrite

_TYPES = {
    FileKind.REGULAR: tarfile.REGTYPE,
    FileKind.DIRECTORY: tarfile.DIRTYPE,
    FileKind.SYMLINK: tarfile.SYMTYPE,
    FileKind.FIFO: tarfile.FIFOTYPE,
}


def pack(system: FileSystem, path: bytes, *, uid: int) -> bytes:
    """Raises OSError."""
    node = system.find(path, uid=uid)
    stream = io.BytesIO()
    with _tar(stream, "w") as tar:
        if not node.is_directory:
            _pack(tar, posixpath.basename(path), node, {})
            return _finished(tar, stream)
        _pack(tar, b"./", node, {})
        names: dict[int, bytes] = {}
        for inner, child in system.walk(path, depth=2**31, uid=uid):
            if child.kind is FileKind.REGULAR:
                system.check_right(child, inner, uid, 4)
            _pack(tar, posixpath.relpath(inner, path), child, names)
        return _finished(tar, stream)


def unpack(system: FileSystem, write: TreeWrite, data: bytes, *, uid: int) -> TreeSummary:
    """Raises OSError."""
    members = size = 0
    times: list[tuple[Node, int]] = []
    try:
        with _tar(io.BytesIO(data), "r") as tar:
            for member in tar:
                _unpack(system, write, tar, member, times, uid=uid)
                members += 1
                size += member.size
    except tarfile.TarError as error:
        raise PartError(f"the tar stream: {error}", "data") from error
    # At the end, because what comes into a directory changes its time.
    for node, modified_ns in times:
        node.modified_ns = modified_ns
    return TreeSummary(members=members, size=size)


def _tar(stream: io.BytesIO, mode: str) -> tarfile.TarFile:
    return tarfile.TarFile(
        fileobj=stream,
        mode=mode,  # type: ignore[arg-type]
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    )


def _finished(tar: tarfile.TarFile, stream: io.BytesIO) -> bytes:
    tar.close()
    return stream.getvalue()


def _pack(tar: tarfile.TarFile, name: bytes, node: Node, names: dict[int, bytes]) -> None:
    member = tarfile.TarInfo(os.fsdecode(name))
    member.mode, member.uid, member.gid = stat.S_IMODE(node.mode), node.uid, node.gid
    member.pax_headers = {"mtime": f"{node.modified_ns // 10**9}.{node.modified_ns % 10**9:09d}"}
    first = names.setdefault(node.inode, name)
    if first != name:
        member.type, member.linkname = tarfile.LNKTYPE, os.fsdecode(first)
        tar.addfile(member)
        return
    member.type = _TYPES[node.kind]
    if node.kind is FileKind.SYMLINK:
        member.linkname = os.fsdecode(node.data)
    elif node.kind is FileKind.REGULAR:
        member.size = len(node.data)
    tar.addfile(member, io.BytesIO(node.data))


def _unpack(
    system: FileSystem,
    write: TreeWrite,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    times: list[tuple[Node, int]],
    *,
    uid: int,
) -> None:
    """Appends to `times` when the member is to have been modified."""
    path = _inside(system, write.path, member.name)
    if path == write.path:
        return
    system.make_directories(posixpath.dirname(path), uid=uid)
    _, _, old = system.place(path, uid=uid)
    if old is not None and not (member.isdir() and old.is_directory):
        system.take_away(path, uid=uid)
        old = None
    if member.islnk():
        node = system.find(_inside(system, write.path, member.linkname), follow=False)
        node.links += 1
        system.add(path, node, uid=uid)
        return
    if member.isdir():
        node = old or system.make_directory(path, uid=uid)
    elif member.issym():
        node = system.make_link(path, os.fsencode(member.linkname), uid=uid)
    elif member.isfifo():
        node = system.make_fifo(path, uid=uid)
    else:
        content = tar.extractfile(member)
        node = system.make_file(path, uid=uid)
        system.write(node, b"" if content is None else content.read(), path)
    node.mode = stat.S_IFMT(node.mode) | (member.mode & 0o7777)
    if write.owners and not uid:
        node.uid, node.gid = member.uid, member.gid
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    times.append((node, int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9] or "0")))


def _inside(system: FileSystem, top: bytes, name: str) -> bytes:
    """Raises OSError for a name that leaves the tree, or leads through a link."""
    steps = [step for step in os.fsencode(name).split(b"/") if step not in {b"", b"."}]
    if name.startswith("/") or b".." in steps:
        raise PartError(f"the tar stream: {name!r} is not in the directory", "data")
    path = top
    for step in steps[:-1]:
        path = posixpath.join(path, step)
        node = system.place(path)[2]
        if node is None:
            break
        if not node.is_directory:
            raise PartError(f"the tar stream: {name!r} leads through {os.fsdecode(step)!r}", "data")
    return posixpath.join(top, *steps)
