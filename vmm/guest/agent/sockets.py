"""Sockets in the guest: addresses from requests, attempts to connect, and connections that the host carries on."""

from __future__ import annotations

# The C module behind `socket`; that would import `enum` and `selectors`.
import _socket
import errno
import os
import struct

from . import wire
from .channel import PIECE_SIZE
from .commands import window_of
from .loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop, Timer
    from .service import Service

    Place = tuple[str, int] | bytes
    """As `connect` and `bind` take it."""

STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC

_RETRY_NS = 20_000_000
"""A Unix socket whose backlog is full refuses at once, and does not say when to try again."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def place_of(request: dict[str, Any], *, least_port: int = 1) -> tuple[int, Place]:
    """Address family and address. Raises ValueError."""
    path, host, port = request.get("path"), request.get("host"), request.get("port")
    if path is not None:
        if not (isinstance(path, bytes) and path.startswith(b"/") and len(path) <= 107 and b"\0" not in path):
            raise ValueError("path: must be absolute, of at most 107 bytes, and without NUL")
        return _socket.AF_UNIX, path
    if not (isinstance(port, int) and least_port <= port <= 65535):
        raise ValueError(f"port: must be an int from {least_port} to 65535")
    if not isinstance(host, str):
        raise ValueError("host: must be a str")  # noqa: TRY004  (callers expect one kind of error)
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    try:
        # A name would be looked up, for which all other work would wait.
        _socket.inet_pton(family, host)
    except (OSError, ValueError):
        raise ValueError(f"host: {host} is not an IPv4 or IPv6 address") from None
    return family, (host, port)


def described(code: int, place: Place) -> OSError:
    where = os.fsdecode(place) if isinstance(place, bytes) else f"{place[0]} port {place[1]}"
    return OSError(code, f"{where}: {os.strerror(code)}")


class Attempt:
    """One attempt to connect. Its outcome, a connected socket or the error, comes in a later turn of the loop."""

    def __init__(
        self, loop: Loop, family: int, place: Place, on_end: Callable[[_socket.socket | None, int], None]
    ) -> None:
        """`on_end` gets the socket, which it then owns, or None and the errno. Raises OSError."""
        self._loop = loop
        self._place = place
        self._on_end = on_end
        self._timer: Timer | None = None
        self._socket: _socket.socket | None = _socket.socket(family, STREAM)
        self._begin()

    def _begin(self) -> None:
        assert self._socket is not None
        code = self._socket.connect_ex(self._place)
        if code == errno.EINPROGRESS:
            self._loop.watch(self._socket.fileno(), WRITE, self._on_writable)
        elif code == errno.EAGAIN:
            self._timer = self._loop.call_later(_RETRY_NS, self._begin)
        else:
            self._timer = self._loop.call_later(0, lambda: self._end(code))

    def _on_writable(self, _events: int) -> None:
        assert self._socket is not None
        self._loop.unwatch(self._socket.fileno())
        self._end(self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR))

    def _end(self, code: int) -> None:
        peer, self._socket = self._socket, None
        assert peer is not None
        code = code or _defect(peer)
        if code:
            peer.close()
            self._on_end(None, code)
        else:
            self._on_end(peer, 0)

    def cancel(self) -> None:
        """Idempotent; does nothing after the end."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _defect(peer: _socket.socket) -> int:
    """Not 0 if this is no connection to somebody else, though the kernel connected it.

    To connect to a port of one's own that nobody listens on may succeed: if the kernel chooses that same port for this
    end, the socket is connected to itself.
    """
    try:
        own, other = peer.getsockname(), peer.getpeername()
    except OSError as error:
        return error.errno or errno.EIO
    return errno.ECONNREFUSED if own == other and not isinstance(own, (str, bytes)) else 0


class Connection:
    """A connection of the guest; a stream of the session. It ends when both directions have, or with an error."""

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        """`open` gives it its socket. Raises ValueError."""
        self._service = service
        self._stream = stream
        self._credit = self._window = window_of(request)
        self._peer: _socket.socket | None = None
        self._attempt: Attempt | None = None
        self._unsent = bytearray()
        self._consumed = 0
        self._input_ended = False
        self._output_ended = False
        self._told_end = False
        self._broken: OSError | None = None
        """The peer takes no more, but what it has sent is still read."""

    def connect(self, family: int, place: Place) -> None:
        """Connects, and then opens it. Raises OSError."""

        def on_end(peer: _socket.socket | None, code: int) -> None:
            if peer is None:
                self._service.fail(self._stream, described(code, place))
            else:
                self.open(peer)

        self._attempt = Attempt(self._service.loop, family, place, on_end)

    def open(self, peer: _socket.socket) -> None:
        """Takes over a connected socket, and answers the request."""
        if peer.family != _socket.AF_UNIX:
            # What the host sends comes in pieces of its own; waiting for the rest of one would only delay it.
            peer.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._peer = peer
        self._service.channel.send_value(wire.REPLY, self._stream, {"window": self._window})
        self._service.loop.watch_source(peer.fileno(), self._on_readable)
        self._flush()

    # From the host

    def receive(self, data: bytes) -> None:
        if self._input_ended:
            raise ValueError("data after the end of the input")
        if len(self._unsent) + len(data) > self._window:
            raise ValueError("input: more bytes than the credit allows")
        self._unsent += data
        if self._peer is None or not self._service.loop.watching(self._peer.fileno()):
            self._flush()

    def receive_eof(self) -> None:
        self._input_ended = True
        if not self._unsent:
            self._flush()

    def add_credit(self, number: int, count: int) -> None:
        if number != wire.STDOUT:
            raise ValueError(f"channel {number} takes no credit")
        self._credit += count
        if self._peer is not None and not self._output_ended:
            self._service.loop.watch_source(self._peer.fileno(), self._on_readable)

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        """Resets the connection: its peer must not take the part that it got for the whole."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._peer is not None and self._peer.family != _socket.AF_UNIX:
            self._peer.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            self._service.loop.unwatch(peer.fileno())
            self._service.loop.unwatch_source(peer.fileno())
            peer.close()
        self._service.forget(self._stream)

    # To the peer

    def _flush(self) -> None:
        peer, loop = self._peer, self._service.loop
        if peer is None:
            return
        if self._unsent and self._broken is None:
            try:
                with memoryview(self._unsent) as view:
                    sent = peer.send(view)
                del self._unsent[:sent]
                self._consumed += sent
            except BlockingIOError:
                pass
            except OSError as error:
                self._broken = error
        if self._broken is not None:
            # The input is discarded but counted, so that the host does not wait for credit for ever.
            self._consumed += len(self._unsent)
            self._unsent.clear()
        if self._unsent:
            if not loop.watching(peer.fileno()):
                loop.watch(peer.fileno(), WRITE, lambda _events: self._flush())
        else:
            loop.unwatch(peer.fileno())
        if self._consumed >= self._window // 4 and not self._input_ended:
            self._service.channel.send_credit(wire.STDIN, self._stream, self._consumed)
            self._consumed = 0
        if self._input_ended and not self._unsent:
            self._end_input(peer)
        elif self._broken is not None:
            self._end_if_over()

    def _end_input(self, peer: _socket.socket) -> None:
        try:
            peer.shutdown(_socket.SHUT_WR)
        except OSError as error:
            # The peer has reset the connection, of which reading tells, or closed it, which is as good as the end.
            if error.errno != errno.ENOTCONN:
                self._broken = self._broken or error
        self._end_if_over()

    # From the peer

    def _on_readable(self, _events: int) -> None:
        peer = self._peer
        assert peer is not None
        try:
            data = peer.recv(min(PIECE_SIZE, self._credit))
        except BlockingIOError:
            return
        except OSError as error:
            self._service.fail(self._stream, error)
            return
        if data:
            self._credit -= len(data)
            self._service.channel.send_data(wire.STDOUT, self._stream, data)
            if self._credit == 0:
                self._service.loop.unwatch_source(peer.fileno())
        else:
            self._output_ended = True
            self._service.loop.unwatch_source(peer.fileno())
            if self._broken is None:
                self._told_end = True
                self._service.channel.send(wire.EOF + wire.STDOUT, self._stream)
            self._end_if_over()

    def _end_if_over(self) -> None:
        if not self._output_ended:
            return
        if self._broken is not None and not (self._told_end and self._input_ended):
            self._service.fail(self._stream, self._broken)
        elif self._input_ended and not self._unsent:
            # To the host a stream is over when both ends are said, so what fails afterwards is not told.
            self._close()
