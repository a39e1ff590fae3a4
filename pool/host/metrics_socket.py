"""The socket that metrics are scraped from: a Unix socket, or a loopback port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from pool.host.endpoint import EndpointError
from vmm.sockets import MAX_SOCKET_PATH_BYTES

BACKLOG: Final = 16

_UNIX: Final = "unix:"


@attrs.frozen(kw_only=True)
class TcpPlace:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if self.address.version == 6 else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


Place = Path | TcpPlace


def place_of(listen: str) -> Place:
    """Raises ValueError, with what is to be done."""
    if listen.startswith(_UNIX):
        path = Path(listen.removeprefix(_UNIX))
        if not path.is_absolute() or "\0" in listen:
            raise ValueError(f"{listen!r} has no absolute path; write unix:/run/vmpool/metrics.sock")
        return path
    found = re.fullmatch(r"(?:\[([0-9a-f:]+)\]|([0-9.]+)):([0-9]{1,5})", listen)
    if found is None:
        raise ValueError(f"{listen!r} is no place to listen; write unix:/PATH, 127.0.0.1:PORT or [::1]:PORT")
    try:
        address = ipaddress.ip_address(found[1] or found[2])
    except ValueError:
        raise ValueError(f"{listen!r} has no IP address; write 127.0.0.1:PORT or [::1]:PORT") from None
    if not address.is_loopback:
        raise ValueError(f"{listen!r} is no loopback address, and anybody could read there; use 127.0.0.1 or a proxy")
    if not 1 <= int(found[3]) <= 65535:
        raise ValueError(f"{listen!r} has no port; use 1 to 65535")
    return TcpPlace(address=address, port=int(found[3]))


def check_metrics_place(place: Place, *, made: Path) -> None:
    """Raises EndpointError if no service could listen there; one that does is ignored. Changes nothing.

    `made` is a directory that is made if it is missing, before anybody listens.
    """
    with _told(place):
        if isinstance(place, Path):
            _check_path(place)
            if not (place.parent == made and not made.exists()):
                _check_directory(place.parent)
            return
        with _socket_for(place) as trial:
            try:
                trial.bind((str(place.address), place.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


@contextlib.contextmanager
def open_metrics_socket(place: Place, *, group: int | None = None) -> Iterator[socket.socket]:
    """Listens there until the end of the block. A Unix socket is for the service's user, and for `group` if given.

    Its directory must exist. One that nobody listens on any more is replaced. Raises EndpointError.
    """
    with contextlib.ExitStack() as cleanup:
        with _told(place):
            if isinstance(place, Path):
                _check_path(place)
            listener = cleanup.enter_context(_socket_for(place))
            if isinstance(place, Path):
                _bind(listener, place, cleanup, group=group)
            else:
                listener.bind((str(place.address), place.port))
            listener.listen(BACKLOG)
        yield listener


@contextlib.contextmanager
def _told(place: Place) -> Iterator[None]:
    """An OSError becomes an EndpointError."""
    try:
        yield
    except OSError as error:
        message = f"metrics.listen: cannot listen on {place}: {error.strerror}; choose another place"
        raise EndpointError(message) from error


def _socket_for(place: Place) -> socket.socket:
    if isinstance(place, Path):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def _check_path(path: Path) -> None:
    """Raises OSError. Python's own for a long path has no errno."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise _error(errno.ENAMETOOLONG)
    if os.path.lexists(path) and not path.is_socket():
        raise _error(errno.EADDRINUSE)


def _check_directory(directory: Path) -> None:
    """Raises OSError."""
    if not directory.exists():
        raise _error(errno.ENOENT)
    if not directory.is_dir():
        raise _error(errno.ENOTDIR)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _error(errno.EACCES)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _bind(listener: socket.socket, path: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> None:
    if path.is_socket() and not _somebody_listens(path):
        path.unlink()
    listener.bind(os.fspath(path))
    cleanup.callback(_remove, path, path.lstat())
    path.chmod(0o600)  # nobody can connect yet: it does not listen
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)


def _remove(path: Path, ours: os.stat_result) -> None:
    """Not another service's, which is there if somebody removed ours meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.lstat(), ours):
            path.unlink()


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # too many callers, or not ours to connect to
    return True
