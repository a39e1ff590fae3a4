"""The service's place on the host: its private directory, its lock, its socket.

A lock file, not the socket, tells a running service from the remains of a dead one: the kernel drops the lock with
its process, while a socket file outlives it and a connection attempt cannot tell "dead" from "busy".
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
from vmm.places import check_can_make, exposure
from vmm.qemu.directory import MAX_SOCKET_PATH_BYTES

BACKLOG: Final = 128


class EndpointError(Exception):
    """The socket cannot be had; the message says why and what to do."""


class ServiceRunningError(EndpointError):
    """A live service holds the lock."""

    def __init__(self, *, lock: Path, pid: str) -> None:
        super().__init__(
            f"a vmpool service is already running (pid {pid or 'unknown'}, lock {lock}); "
            "stop it, or choose another socket with --socket"
        )
        self.lock = lock
        self.pid = pid


@attrs.frozen(kw_only=True)
class Endpoint:
    path: Path
    listener: socket.socket
    """Bound and listening."""


@contextlib.contextmanager
def open_endpoint(path: Path, *, group: int | None = None) -> Iterator[Endpoint]:
    """Takes the lock and listens on `path` (mode 0600) in its directory (mode 0700, made if missing).

    With `group`, a gid, both are that group's: the socket to connect to (0660), the directory to pass through (0710).

    At the end removes the socket, the lock, and the directory if it made it and nothing else is in it. Raises
    EndpointError. Blocks only as long as file operations do.
    """
    check_endpoint(path, group=group)
    with contextlib.ExitStack() as cleanup:
        try:
            _enter_directory(path.parent, cleanup, group=group)
            take_lock(lock_path(path), cleanup)
            listener = _listen(path, cleanup, group=group)
        except OSError as error:
            raise _not_writable(path, error) from error
        yield Endpoint(path=path, listener=listener)


def check_endpoint(path: Path, *, group: int | None = None) -> None:
    """Raises EndpointError for what keeps a service from listening on `path`; one that runs aside. Changes nothing."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"socket path {path} has {size} bytes, the kernel takes {MAX_SOCKET_PATH_BYTES}; "
            "choose a shorter one with --socket"
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
    """The lock of the service that listens there."""
    return socket_path.with_name(f"{socket_path.name}.lock")


def _enter_directory(directory: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        _check_socket_directory(directory, group=group)
    else:
        cleanup.callback(_remove_if_empty, directory)
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
    """A directory that was there is taken as it is: others may have put things into it that are not for the group."""
    enters = status.st_mode & stat.S_IXGRP and status.st_gid == group
    if status.st_mode & 0o027 or not enters:
        raise EndpointError(
            f"{directory} has mode {stat.S_IMODE(status.st_mode):o} and gid {status.st_gid}: socket_group cannot "
            f"pass, or others can; `chgrp {group} {directory} && chmod 0710 {directory}`, or Group={group} and "
            "RuntimeDirectoryMode=0710 in the unit if systemd makes it"
        )


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise


def take_lock(path: Path, cleanup: contextlib.ExitStack) -> None:
    """Holds the lock file of a service until `cleanup`. Raises ServiceRunningError, OSError."""
    try:
        lock.take_lock(path, cleanup)
    except LockHeldError as error:
        raise ServiceRunningError(lock=error.lock, pid=error.pid) from None


def _listen(path: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> socket.socket:
    path.unlink(missing_ok=True)  # we hold the lock, so nobody listens on it
    listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    listener.bind(os.fspath(path))
    cleanup.callback(path.unlink, missing_ok=True)
    path.chmod(0o600)  # nobody can connect yet: it does not listen
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)
    listener.listen(BACKLOG)
    return listener


@contextlib.contextmanager
def open_vms_directory(runtime: Path) -> Iterator[Path]:
    """Where each VM has its directory, `vms` in a runtime directory, and nobody else's. Removed at the end, when empty.

    Raises EndpointError, also if others could put things there: records in it are believed.
    """
    directory = vms_directory(runtime)
    check_vms_directory(runtime)
    with contextlib.ExitStack() as cleanup:
        try:
            for made in (runtime, directory):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(directory)
            # Two services may have different sockets and yet share this directory; one would end the other's VMs.
            take_lock(vms_lock_path(runtime), cleanup)
        except OSError as error:
            raise _runtime_not_writable(runtime, error) from error
        try:
            yield directory
        finally:
            with contextlib.suppress(OSError):  # something of a VM is left, and was told of
                directory.rmdir()


def vms_directory(runtime: Path) -> Path:
    return runtime / "vms"


def vms_lock_path(runtime: Path) -> Path:
    """The lock of the service whose VMs are there."""
    return runtime / "vms.lock"


def check_vms_directory(runtime: Path) -> None:
    """Raises EndpointError for what keeps a service from having its VMs there; one that runs aside. Changes nothing."""
    directory = vms_directory(runtime)
    longest = directory / "vm-000000000000" / "agent.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"runtime directory {runtime} is too long: the VMs' sockets would be over {MAX_SOCKET_PATH_BYTES} bytes; "
            "choose a shorter one with --socket or service.runtime_directory"
        )
    try:
        _check_private(directory)
        check_can_make(runtime)
    except OSError as error:
        raise _runtime_not_writable(runtime, error) from error


def _runtime_not_writable(runtime: Path, error: OSError) -> EndpointError:
    return EndpointError(
        f"runtime directory {runtime}: {error.strerror}; choose a writable one with --socket or "
        "service.runtime_directory"
    )


def _check_private(directory: Path) -> None:
    """Raises EndpointError if anybody else could have something in `directory`, or put another one in its place."""
    if exposed := exposure(directory):
        otherwise = "choose a directory of your own with --socket or service.runtime_directory"
        raise EndpointError(exposed.told(otherwise=otherwise))
