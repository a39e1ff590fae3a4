"""Files that the agent takes from the host and gives to it."""

from __future__ import annotations

import errno
import os
import stat

from . import wire
from .channel import PIECE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .channel import Channel


class Upload:
    """A file from the host: written beside its path and renamed into place, so that a partial file is never visible."""

    def __init__(self, stream: int, request: dict[str, Any], channel: Channel, on_end: Callable[[int], None]) -> None:
        """Raises OSError, or ValueError for an invalid request."""
        path, mode = request.get("path"), request.get("mode")
        if not (isinstance(path, str) and path and isinstance(mode, int)):
            raise ValueError("path must be a str and mode an int")
        self._stream = stream
        self._channel = channel
        self._on_end = on_end
        self._path = path
        self._mode = mode
        self._consumed = 0
        directory, name = os.path.split(path)
        self._temporary = os.path.join(directory, f".{name[:200]}.{stream}.vmpool")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._temporary, flags, 0o600)

    def receive(self, data: bytes) -> None:
        """Raises OSError, and then the partial file has been removed."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._consumed += len(data)
        if self._consumed >= wire.WINDOW // 4:
            self._channel.send_credit(wire.STDIN, self._stream, self._consumed)
            self._consumed = 0

    def receive_eof(self) -> None:
        os.fchmod(self._fd, self._mode)
        os.rename(self._temporary, self._path)
        self._close()
        self._channel.send_value(wire.REPLY, self._stream, {})
        self._on_end(self._stream)

    def add_credit(self, _number: int, _count: int) -> None:
        raise ValueError("put takes no credit")

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        self._close()
        try:
            os.unlink(self._temporary)
        except OSError:
            return  # Nothing more can be done; the session goes on.
        finally:
            self._on_end(self._stream)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Download:
    """A file for the host, sent as the host gives credit."""

    def __init__(self, stream: int, request: dict[str, Any], channel: Channel, on_end: Callable[[int], None]) -> None:
        """Raises OSError, or ValueError for an invalid request or a path that is not a regular file."""
        path, limit = request.get("path"), request.get("limit")
        if not (isinstance(path, str) and path and (limit is None or isinstance(limit, int))):
            raise ValueError("path must be a str and limit an int")
        self._stream = stream
        self._channel = channel
        self._on_end = on_end
        self._credit = wire.WINDOW
        self._limit = limit
        self._sent = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise ValueError(f"{path} is not a regular file")
        if limit is not None and status.st_size > limit:
            os.close(self._fd)
            raise OSError(errno.EFBIG, f"{path} has {status.st_size} bytes; the limit is {limit}")
        channel.send_value(wire.REPLY, stream, {"size": status.st_size})

    @property
    def ready(self) -> bool:
        return self._fd >= 0 and self._credit > 0

    def run(self) -> None:
        """Sends one piece. Raises OSError."""
        data = os.read(self._fd, min(PIECE_SIZE, self._credit))
        self._sent += len(data)
        if self._limit is not None and self._sent > self._limit:
            raise OSError(errno.EFBIG, f"the file has more than {self._limit} bytes")
        if data:
            self._credit -= len(data)
            self._channel.send_data(wire.STDOUT, self._stream, data)
        else:
            self._channel.send(wire.EOF + wire.STDOUT, self._stream)
            self._end()

    def receive(self, _data: bytes) -> None:
        raise ValueError("get takes no data")

    def receive_eof(self) -> None:
        raise ValueError("get takes no data")

    def add_credit(self, _number: int, count: int) -> None:
        self._credit += count

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._on_end(self._stream)
