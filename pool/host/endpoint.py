"""The service's address on the host: its private directory, its lock, its socket.

A lock file, not the socket, tells a running service from the remains of a dead one: the kernel drops the lock with
its process, while a socket file outlives the process, and a connection attempt cannot tell "dead" from "busy".
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from vmm import lock
from vmm.errors import LockHeldError
from vmm.lock import HeldLock
from vmm.places import check_can_make
from vmm.sockets import MAX_SOCKET_PATH_BYTES

BACKLOG: Final = 128


class EndpointError(Exception):
    """The socket cannot be set up; the message says why and what to do."""


class ServiceRunningError(EndpointError):
    """A live service holds the lock."""

    def __init__(self, *, lock: Path, pid: str) -> None:
        super().__init__(
            f"a vmpool service is already running (pid {pid or 'unknown'}, lock {lock}); "
            "stop it, or choose another socket with --socket"
        )
        self.lock = lock
        self.pid = pid


@attrs.frozen(eq=False, kw_only=True)
class _Listening:
    """A socket and the file it is bound to. The kernel keeps the file's inode as long as the socket is open."""

    sock: socket.socket
    path: Path
    status: os.stat_result

    def is_in_place(self) -> bool:
        """Whether the path still leads to this socket."""
        try:
            return os.path.samestat(self.path.lstat(), self.status)
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Closes the socket and removes its file, unless another socket has replaced the file."""
        with self.sock:
            if self.is_in_place():
                self.path.unlink()


@attrs.define(eq=False, kw_only=True)
class Endpoint:
    """The lock and the listening socket at the service's address."""

    path: Path
    group: int | None
    _listening: _Listening
    _lock: HeldLock
    _cleanup: contextlib.ExitStack

    @property
    def listener(self) -> socket.socket:
        """Bound and listening."""
        return self._listening.sock

    def look_after(self) -> bool:
        """Restores the directory, lock and socket if they were removed or replaced.

        Returns whether there is a new listener; the earlier one stays open. Raises ServiceRunningError if another
        service has started in between, EndpointError if they cannot be restored. Blocks for a few stat calls.
        """
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(mode=0o700, parents=True)
                _open_for(self.path.parent, group=self.group)
            hold(self._lock)
            if self._listening.is_in_place():
                return False
            _check_socket_directory(self.path.parent, group=self.group)
            self._listening = _listen(self.path, self._cleanup, group=self.group)
        except OSError as error:
            raise _not_writable(self.path, error) from error
        return True


@contextlib.contextmanager
def open_endpoint(path: Path, *, group: int | None = None) -> Iterator[Endpoint]:
    """Takes the lock and listens on `path` (mode 0600) in its directory (mode 0700, made if missing).

    With `group`, a gid, that group can connect to the socket (0660) and pass through the directory (0710).

    At the end removes the socket, the lock, and the directory if it was made here and is empty. Raises EndpointError.
    Blocks only as long as file operations do.
    """
    check_endpoint(path, group=group)
    with contextlib.ExitStack() as cleanup:
        try:
            _enter_directory(path.parent, cleanup, group=group)
            held = take_lock(lock_path(path), cleanup)
            listening = _listen(path, cleanup, group=group)
        except OSError as error:
            raise _not_writable(path, error) from error
        yield Endpoint(path=path, group=group, listening=listening, lock=held, cleanup=cleanup)


def check_endpoint(path: Path, *, group: int | None = None) -> None:
    """Raises EndpointError if a service could not listen on `path`. Ignores a running service; changes nothing."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"socket path {path} has {size} bytes, the kernel's maximum is {MAX_SOCKET_PATH_BYTES}; "
            "choose a shorter path with --socket"
        )
    try:
        if path.parent.exists():
            _check_socket_directory(path.parent, group=group)
        check_can_make(path.parent)
    except OSError as error:
        raise _not_writable(path, error) from error


def _not_writable(path: Path, error: OSError) -> EndpointError:
    return EndpointError(
        f"cannot set up {path}: {error.strerror}: {error.filename or path.parent}; "
        "choose a writable place with --socket"
    )


def lock_path(socket_path: Path) -> Path:
    """The lock file of the service that listens on `socket_path`."""
    return socket_path.with_name(f"{socket_path.name}.lock")


def _enter_directory(directory: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        _check_socket_directory(directory, group=group)
    else:
        cleanup.callback(_remove_if_empty, directory)
        _open_for(directory, group=group)


def _open_for(directory: Path, *, group: int | None) -> None:
    if group is not None:
        os.chown(directory, -1, group)
        directory.chmod(0o710)


def _check_socket_directory(directory: Path, *, group: int | None) -> None:
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise EndpointError(f"{directory} is not a directory; choose another place with --socket")
    if group is not None and status.st_uid == os.geteuid():
        _check_shared(directory, status, group=group)
    elif status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise EndpointError(
            f"{directory} is open to others (mode {stat.S_IMODE(status.st_mode):o}, uid {status.st_uid}); "
            f"the socket needs a directory of your own with mode 0700: `chmod 0700 {directory}`, or choose another "
            "with --socket"
        )


def _check_shared(directory: Path, status: os.stat_result, *, group: int) -> None:
    """An existing directory is not changed: it may contain files that are not for the group."""
    enters = status.st_mode & stat.S_IXGRP and status.st_gid == group
    if status.st_mode & 0o027 or not enters:
        raise EndpointError(
            f"{directory} has mode {stat.S_IMODE(status.st_mode):o} and gid {status.st_gid}: access.socket_group "
            f"cannot enter it, or others can; `chgrp {group} {directory} && chmod 0710 {directory}`, or set "
            f"Group={group} and RuntimeDirectoryMode=0710 in the unit if systemd makes the directory"
        )


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise


def take_lock(path: Path, cleanup: contextlib.ExitStack) -> HeldLock:
    """Holds a service's lock file until `cleanup` ends. Raises ServiceRunningError, OSError."""
    try:
        return lock.take_lock(path, cleanup)
    except LockHeldError as error:
        raise ServiceRunningError(lock=error.lock, pid=error.pid) from None


def hold(held: HeldLock) -> None:
    """Takes the lock again if its file was removed. Raises ServiceRunningError, OSError."""
    try:
        if not held.is_in_place():
            held.take_again()
    except LockHeldError as error:
        raise ServiceRunningError(lock=error.lock, pid=error.pid) from None


def _listen(path: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> _Listening:
    _refuse_another(path)
    path.unlink(missing_ok=True)
    listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    listener.bind(os.fspath(path))
    listening = _Listening(sock=listener, path=path, status=path.lstat())
    cleanup.callback(listening.remove)
    path.chmod(0o600)  # in time: no client can connect before `listen`
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)
    listener.listen(BACKLOG)
    return listening


def _refuse_another(path: Path) -> None:
    """Raises ServiceRunningError if a service listens on `path`: its lock file may have been removed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(os.fspath(path))
        except BlockingIOError:
            pass  # its queue is full
        except OSError:
            return  # no process listens, or the socket does not exist
    raise ServiceRunningError(lock=lock_path(path), pid="")
