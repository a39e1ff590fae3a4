"""Reading and writing one file."""

from __future__ import annotations

import errno
import os

from . import accounts
from .copying import carry, write_all
from .ending import end_gently
from .paths import check_regular, describe, make_parents, path_of, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host

_AT_ONCE = 1024 * 1024

_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""With O_NONBLOCK, neither a FIFO nor a file of /proc that has nothing to tell makes the worker wait."""


def read(request: dict[str, Any], host: Host) -> None:
    path, offset, length = path_of(request), request.get("offset", 0), request.get("length")
    if not (isinstance(offset, int) and (length is None or isinstance(length, int))):
        raise ValueError("offset and length must be ints")
    # Opening a device may have an effect.
    check_regular(os.stat(path), path)
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    status = os.fstat(fd)
    check_regular(status, path)
    if offset:
        os.lseek(fd, offset, os.SEEK_SET)
    host.answer(describe(path, status))
    _send(fd, host, length)


def _send(fd: int, host: Host, length: int | None) -> None:
    """Sends what comes to the end of the file, at most `length` bytes."""
    in_kernel = True
    left = length
    while left is None or left > 0:
        size = _AT_ONCE if left is None else min(_AT_ONCE, left)
        try:
            sent = carry(host.output, fd, size) if in_kernel else None
            if sent is None:
                in_kernel = False
                data = os.read(fd, min(size, 64 * 1024))
                host.send(data)
                sent = len(data)
        except BlockingIOError:
            return
        if sent == 0:
            return
        if left is not None:
            left -= sent


def write(request: dict[str, Any], host: Host) -> None:
    path, how = path_of(request), request.get("how")
    mode, offset = request.get("mode"), request.get("offset", 0)
    if not ((mode is None or isinstance(mode, int)) and isinstance(offset, int) and how in _OPEN):
        raise ValueError("mode and offset must be ints, how one of the known ones")
    uid, gid = owner_of(request)
    if request.get("parents"):
        make_parents(path)
    if how == "replace":
        _replace(path, host, mode, uid, gid)
    else:
        fd, new = _open_in_place(path, how)
        if how == "update":
            os.lseek(fd, offset, os.SEEK_SET)
        _own(fd, uid, gid)
        if mode is not None:
            os.fchmod(fd, mode)
        elif new:
            os.fchmod(fd, 0o644)
        host.answer({})
        _receive(fd, host)
        host.send_record(describe(path, os.fstat(fd)), now=True)


def owner_of(request: dict[str, Any]) -> tuple[int, int]:
    """The numbers of owner and group, -1 for unchanged. Raises UnknownAccountError."""
    owner, group = request.get("owner", ""), request.get("group", "")
    if not (isinstance(owner, str) and isinstance(group, str)):
        raise ValueError("owner and group must be strs")  # noqa: TRY004 - callers expect one kind of error
    return (
        accounts.find_user(owner, part="owner").uid if owner else -1,
        accounts.find_group(group) if group else -1,
    )


def _own(fd: int, uid: int, gid: int) -> None:
    if (uid, gid) != (-1, -1):
        os.fchown(fd, uid, gid)


_OPEN = {
    "replace": 0,
    "create": os.O_EXCL,
    "truncate": os.O_TRUNC,
    "update": 0,
    "append": os.O_APPEND,
}


def _open_in_place(path: bytes, how: str) -> tuple[int, bool]:
    """The file, and whether it is new."""
    flags = os.O_WRONLY | _FLAGS | _OPEN[how]
    try:
        fd, new = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        if how == "create":
            raise
        try:
            check_regular(os.stat(path), path)
        except FileNotFoundError:
            return os.open(path, flags | os.O_CREAT, 0o600), True  # a link to nothing yet
        fd, new = os.open(path, flags), False
    check_regular(os.fstat(fd), path)
    return fd, new


def _replace(path: bytes, host: Host, mode: int | None, uid: int, gid: int) -> None:
    old = _status_of(path)
    if old is not None:
        check_regular(old, path)
        if not os.access(path, os.W_OK):
            raise refuse(errno.EACCES, path)
    real = os.path.realpath(path)
    temporary = beside(real)
    end_gently()
    try:
        fd = _open_beside(temporary, path)
        host.answer({})
        _receive(fd, host)
        if old is not None:
            _keep_owner(fd, old)
        _own(fd, uid, gid)
        os.fchmod(fd, mode if mode is not None else 0o644 if old is None else old.st_mode & 0o7777)
        os.rename(temporary, real)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    host.send_record(describe(path, os.fstat(fd)), now=True)


def _status_of(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def beside(path: bytes) -> bytes:
    """A name for what is not whole yet, in the same directory."""
    directory, name = os.path.split(path)
    return os.path.join(directory, b".%b.%b.vmpool" % (name[:200], os.urandom(8).hex().encode()))


def _open_beside(temporary: bytes, path: bytes) -> int:
    try:
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # An error about another name would puzzle the caller.
        raise refuse(error.errno or errno.EIO, path) from error


def _keep_owner(fd: int, old: os.stat_result) -> None:
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except PermissionError:
            return  # whoever may replace a file need not be able to give it away


def _receive(fd: int, host: Host) -> None:
    """Writes all of the input."""
    splices = True
    while True:
        if splices:
            try:
                if os.splice(host.input, fd, _AT_ONCE) == 0:
                    return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                splices = False  # a file of /proc or /sys, or one that is appended to
            continue
        data = host.receive()
        if not data:
            return
        write_all(fd, data)
