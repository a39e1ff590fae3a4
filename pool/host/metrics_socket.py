"""The socket that metrics are scraped from: a Unix socket, or a loopback port."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from pool.host.endpoint import EndpointError

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


@contextlib.contextmanager
def open_metrics_socket(place: Place, *, group: int | None = None) -> Iterator[socket.socket]:
    """Listens there until the end of the block. A Unix socket is for the service's user, and for `group` if given.

    Its directory must exist. One that nobody listens on any more is replaced. Raises EndpointError.
    """
    family = socket.AF_UNIX if isinstance(place, Path) else place.family
    with contextlib.ExitStack() as cleanup:
        try:
            listener = cleanup.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            if isinstance(place, Path):
                _bind(listener, place, cleanup, group=group)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((str(place.address), place.port))
            listener.listen(BACKLOG)
        except OSError as error:
            message = f"metrics.listen: cannot listen on {place}: {error.strerror}; choose another place"
            raise EndpointError(message) from error
        yield listener


def _bind(listener: socket.socket, path: Path, cleanup: contextlib.ExitStack, *, group: int | None) -> None:
    if path.is_socket() and not _somebody_listens(path):
        path.unlink()
    listener.bind(os.fspath(path))
    cleanup.callback(path.unlink, missing_ok=True)
    path.chmod(0o600)  # nobody can connect yet: it does not listen
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # too many callers, or not ours to connect to
    return True
