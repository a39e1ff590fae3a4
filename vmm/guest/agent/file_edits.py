"""Requests with one answer: what a path is, and what is made, moved, copied, removed, linked or changed there."""

from __future__ import annotations

import errno
import os
import stat

from . import file_trees
from .ending import end_gently
from .file_contents import beside, owner_of
from .paths import PartError, describe_path, make_directories, path_of, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host


def stat_file(request: dict[str, Any], host: Host) -> None:
    host.answer(describe_path(path_of(request), follow=bool(request.get("follow", True))))


def edit(request: dict[str, Any], host: Host) -> None:
    """Answers with what is then at the path, or at the target of a move or copy; with nothing after a removal."""
    what = request.get("what")
    if what not in _EDITS:
        raise ValueError(f"what: {what!r} is not known")
    path = _EDITS[what](request)
    host.answer({} if path is None else describe_path(path))


def _make_directory(request: dict[str, Any]) -> bytes:
    path, mode = path_of(request), _mode_of(request)
    if request.get("parents"):
        existed = os.path.isdir(path)
        make_directories(path)
        if existed:
            return path
    else:
        os.mkdir(path, 0o755)
    if mode is not None:
        os.chmod(path, mode)
    return path


def _move(request: dict[str, Any]) -> bytes:
    path, target = path_of(request), path_of(request, "target")
    try:
        if request.get("replace", True):
            os.rename(path, target)
        else:
            _rename_to_nothing(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = beside(target)
        end_gently()
        file_trees.copy(path, temporary)
        try:
            if request.get("replace", True):
                os.rename(temporary, target)
            else:
                _rename_to_nothing(temporary, target)
        except BaseException as failure:
            file_trees.remove(temporary)
            if isinstance(failure, OSError):
                raise refuse(failure.errno or errno.EIO, target) from failure
            raise
        file_trees.remove(path)
    return target


def _rename_to_nothing(path: bytes, target: bytes) -> None:
    """Renames if there is no such target."""
    from . import libc  # noqa: PLC0415 - it takes time to load, and few moves need it

    libc.rename_to_nothing(path, target)


def _copy(request: dict[str, Any]) -> bytes:
    path, target = path_of(request), path_of(request, "target")
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        if not request.get("recursive"):
            raise refuse(errno.EISDIR, path, "Is a directory, and recursive is not set")
        if os.path.lexists(target):
            raise refuse(errno.EEXIST, target)
        if os.path.realpath(target).startswith(os.path.realpath(path).rstrip(b"/") + b"/"):
            raise refuse(errno.EINVAL, target, "is within what is to be copied")
        file_trees.copy(os.path.realpath(path), target)
        return target
    if not stat.S_ISREG(status.st_mode):
        raise refuse(errno.EINVAL, path, "not a regular file")
    if os.path.isdir(target):
        raise refuse(errno.EISDIR, target)
    if os.path.exists(target) and os.path.samefile(path, target):
        raise refuse(errno.EINVAL, target, "is the file that is to be copied")
    real = os.path.realpath(target)
    temporary = beside(real)
    end_gently()
    file_trees.copy(os.path.realpath(path), temporary)
    os.rename(temporary, real)
    return target


def _remove(request: dict[str, Any]) -> None:
    path = path_of(request)
    try:
        if request.get("recursive"):
            file_trees.remove(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        if not request.get("missing_ok"):
            raise


def _link(request: dict[str, Any]) -> bytes:
    path = path_of(request)
    if request.get("hard"):
        os.link(path_of(request, "target"), path, follow_symlinks=False)
        return path
    target = request.get("target")
    if not (isinstance(target, bytes) and target and b"\0" not in target):
        raise PartError(errno.EINVAL, "target: must not be empty, nor have a NUL", "target")
    os.symlink(target, path)
    return path


def _set_attributes(request: dict[str, Any]) -> bytes:
    path, mode, modified_ns = path_of(request), _mode_of(request), request.get("modified_ns")
    if not (modified_ns is None or isinstance(modified_ns, int)):
        raise ValueError("modified_ns: must be an int")
    uid, gid = owner_of(request)
    attributes = file_trees.Attributes(mode, uid, gid, modified_ns)
    if request.get("recursive"):
        file_trees.set_attributes_below(path, attributes)
    attributes.set(path, follow=True)
    return path


def _mode_of(request: dict[str, Any]) -> int | None:
    mode = request.get("mode")
    if not (mode is None or (isinstance(mode, int) and 0 <= mode <= 0o7777)):
        raise ValueError("mode: must be an int from 0 to 0o7777")
    return mode


_EDITS = {
    "make_directory": _make_directory,
    "move": _move,
    "copy": _copy,
    "remove": _remove,
    "link": _link,
    "set_attributes": _set_attributes,
}
