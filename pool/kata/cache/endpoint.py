"""The socket of a VMCache server, created the way Kata does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pool.host.endpoint import BACKLOG, EndpointError
from vmm.places import check_can_make
from vmm.sockets import MAX_SOCKET_PATH_BYTES


@contextlib.contextmanager
def open_cache_endpoint(path: Path) -> Iterator[socket.socket]:
    """Listens on `path` (mode 0600), in a directory that is created (mode 0755) if missing. Raises EndpointError.

    As in Kata, a running server is left alone, and so is a file at `path` that is not a socket. Unlike in Kata, the
    socket of a killed server is replaced. Closes and removes the socket at the end. Blocks only for file operations.
    """
    check_cache_endpoint(path)
    with contextlib.ExitStack() as cleanup:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            listener = _listen(path, cleanup)
        except OSError as error:
            raise _not_writable(path, error) from error
        yield listener


def check_cache_endpoint(path: Path) -> None:
    """Raises EndpointError if a server could not listen on `path`. Changes nothing."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"socket path {path} is longer than the kernel's maximum of {MAX_SOCKET_PATH_BYTES} bytes; choose a "
            "shorter vm_cache_endpoint"
        )
    try:
        check_can_make(path.parent)
        in_the_way = os.path.lexists(path) and not _is_abandoned(path)
    except OSError as error:
        raise _not_writable(path, error) from error
    if in_the_way:
        raise _in_the_way(path)


def _in_the_way(path: Path) -> EndpointError:
    """Kata's text, double spaces included."""
    return EndpointError(f"{path} already exist.  Please stop running VMCache server and remove {path}")


def _not_writable(path: Path, error: OSError) -> EndpointError:
    return EndpointError(f"cannot set up {path}: {error.strerror}; choose a writable path for vm_cache_endpoint")


def _listen(path: Path, cleanup: contextlib.ExitStack) -> socket.socket:
    listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    with _alone_in(path.parent):  # between bind and listen a living server looks like a dead one
        if _is_abandoned(path):
            path.unlink()
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _in_the_way(path) from error
            raise
        cleanup.callback(path.unlink, missing_ok=True)
        path.chmod(0o600)  # before any client can connect
        listener.listen(BACKLOG)
    return listener


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Excludes other vmpool processes that set up a socket in the directory; the block must be short."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Whether it is a socket without a listener. A busy listener does not refuse the connection."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
