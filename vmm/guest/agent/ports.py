"""Connections to and from programs in the guest, as the host requests them."""

from __future__ import annotations

import _socket
import errno
import os

from . import values, wire
from .commands import window_of
from .sockets import STREAM, Attempt, Connection, described, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loop import Timer
    from .service import Service
    from .sockets import Place

_MAX_PENDING = 64
"""Connections of one listener that the host has not taken; more wait in the kernel."""

_TAKE_LIMIT_NS = 30_000_000_000
"""The host takes a connection within this time, or it is closed."""

_KERNEL_BACKLOG = 128

_PAUSE_NS = 100_000_000
"""After a failure to accept, of which the usual reason is that descriptors are short."""

_INTERVAL_NS = 25_000_000
"""Between two attempts to reach a server that does not listen yet."""

_NOT_YET = frozenset(
    (
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ENOENT,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
    )
)
"""What a server that starts, or its network, may still change."""


def connect(service: Service, stream: int, request: dict[str, Any]) -> Connection:
    """Raises OSError, or ValueError for an invalid request."""
    family, place = place_of(request)
    connection = Connection(service, stream, request)
    connection.connect(family, place)
    return connection


def accept(service: Service, stream: int, request: dict[str, Any]) -> Connection:
    """Takes a connection that a listener has announced. Raises OSError, or ValueError for an invalid request."""
    number = request.get("connection")
    listener = service.job(request.get("listener"))
    connection = Connection(service, stream, request)
    peer = listener.take(number) if isinstance(listener, Listener) else None
    if peer is None:
        raise OSError(errno.ENOENT, f"connection {number} was taken, or closed because nobody took it in time")
    connection.open(peer)
    return connection


def listen(service: Service, stream: int, request: dict[str, Any]) -> Listener:
    """Raises OSError, or ValueError for an invalid request."""
    family, place = place_of(request, least_port=0)
    return Listener(service, stream, family, place, window=window_of(request))


def wait_port(service: Service, stream: int, request: dict[str, Any]) -> Waiting:
    """Raises OSError, or ValueError for an invalid request."""
    return Waiting(service, stream, *place_of(request))


class _Asked:
    """What streams without input have in common."""

    def receive(self, _data: bytes) -> None:
        raise ValueError("this request takes no data")

    def receive_eof(self) -> None:
        raise ValueError("this request takes no data")

    def add_credit(self, _number: int, _count: int) -> None:
        raise ValueError("this request takes no credit")

    def signal(self, _number: int) -> None:
        pass


class Listener(_Asked):
    """A socket that listens; a stream of the session, whose records are the numbers of the connections to be taken."""

    def __init__(self, service: Service, stream: int, family: int, place: Place, *, window: int) -> None:
        """Raises OSError."""
        self._service = service
        self._stream = stream
        self._credit = window
        self._last = 0
        self._pending: dict[int, tuple[_socket.socket, Timer]] = {}
        self._pause: Timer | None = None
        self._file: tuple[bytes, os.stat_result] | None = None
        self._socket = _socket.socket(family, STREAM)
        try:
            self._bind(family, place)
            port = 0 if isinstance(place, bytes) else self._socket.getsockname()[1]
        except OSError as error:
            self._socket.close()
            raise described(error.errno or errno.EIO, place) from error
        service.channel.send_value(wire.REPLY, stream, {"window": window, "port": port})
        self._resume()

    def _bind(self, family: int, place: Place) -> None:
        if family != _socket.AF_UNIX:
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        self._socket.bind(place)
        if isinstance(place, bytes):
            self._file = place, os.lstat(place)
        self._socket.listen(_KERNEL_BACKLOG)

    def take(self, number: Any) -> _socket.socket | None:
        """A connection that was announced; None if it is gone."""
        if not isinstance(number, int) or number not in self._pending:
            return None
        peer, timer = self._pending.pop(number)
        timer.cancel()
        self._resume()
        return peer

    def add_credit(self, _number: int, count: int) -> None:
        self._credit += count
        self._resume()

    def cancel(self) -> None:
        self._service.loop.unwatch_source(self._socket.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()
        for peer, timer in self._pending.values():
            timer.cancel()
            peer.close()
        self._pending.clear()
        self._remove_file()
        self._service.forget(self._stream)

    def _remove_file(self) -> None:
        if self._file is None:
            return
        path, ours = self._file
        try:
            # Somebody may have put another one in its place.
            if os.path.samestat(os.lstat(path), ours):
                os.unlink(path)
        except OSError:
            return  # it is gone already, or cannot be removed

    def _resume(self) -> None:
        if len(self._pending) < _MAX_PENDING and self._credit >= _RECORD_SIZE:
            self._service.loop.watch_source(self._socket.fileno(), self._on_readable)

    def _on_readable(self, _events: int) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - avoids importing `socket`
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._service.loop.unwatch_source(self._socket.fileno())
            self._pause = self._service.loop.call_later(_PAUSE_NS, self._resume)
            return
        peer = _socket.socket(fileno=fd)
        peer.setblocking(False)
        self._last += 1
        number = self._last
        self._pending[number] = peer, self._service.loop.call_later(_TAKE_LIMIT_NS, lambda: self._expire(number))
        self._credit -= _RECORD_SIZE
        self._service.channel.send_data(wire.STDOUT, self._stream, _record(number))
        if len(self._pending) == _MAX_PENDING or self._credit < _RECORD_SIZE:
            self._service.loop.unwatch_source(self._socket.fileno())

    def _expire(self, number: int) -> None:
        peer = self.take(number)
        if peer is not None:
            peer.close()


def _record(number: int) -> bytes:
    packed = values.pack({"connection": number})
    return wire.COUNT.pack(len(packed)) + packed


_RECORD_SIZE = len(_record(0))


class Waiting(_Asked):
    """Waits until a server accepts a connection; a stream of the session."""

    def __init__(self, service: Service, stream: int, family: int, place: Place) -> None:
        """Raises OSError."""
        self._service = service
        self._stream = stream
        self._family = family
        self._place = place
        self._timer: Timer | None = None
        self._attempt = Attempt(service.loop, family, place, self._on_end)

    def _again(self) -> None:
        try:
            self._attempt = Attempt(self._service.loop, self._family, self._place, self._on_end)
        except OSError as error:
            self._service.fail(self._stream, error)

    def _on_end(self, peer: _socket.socket | None, code: int) -> None:
        if peer is not None:
            peer.close()
            self._service.channel.send_value(wire.REPLY, self._stream, {})
            self._service.forget(self._stream)
        elif code in _NOT_YET:
            self._timer = self._service.loop.call_later(_INTERVAL_NS, self._again)
        else:
            self._service.fail(self._stream, described(code, self._place))

    def cancel(self) -> None:
        self._attempt.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._service.forget(self._stream)
