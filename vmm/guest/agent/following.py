"""Streams of a session that concern a process which does not end with them."""

from __future__ import annotations

import errno

from . import values, wire
from .commands import Taken, window_of
from .processes import find_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service import Service

_PIECE = 32 * 1024 - wire.HEADER.size

_OUTPUTS = (wire.STDOUT, wire.STDERR)


class Follower:
    """Sends a process's output from a position on, as the host gives credit, and finally its exit. What is not kept any
    more is skipped, and told.
    """

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        """Raises OSError, or ValueError for an invalid request."""
        window = window_of(request)
        self._service = service
        self._stream = stream
        self._detached = detached = find_detached(service, request)
        self._credit = dict.fromkeys(_OUTPUTS, window)
        self._positions = {
            wire.STDOUT: _position(request, "stdout", detached.kept[wire.STDOUT].end),
            wire.STDERR: _position(request, "stderr", detached.kept[wire.STDERR].end),
        }
        self._silent = request.get("output") is False
        self._taken = Taken(service.channel, stream, window)
        self._take = self._taken.take
        # The positions follow from the request and the ends in this.
        service.channel.send_value(wire.REPLY, stream, {"window": window, "process": detached.info()})

    @property
    def ready(self) -> bool:
        """There is something that may be sent now."""
        return self._next() is not None or self._is_over()

    def run(self) -> None:
        """Sends one piece, or the exit."""
        number = self._next()
        if number is None:
            if self._is_over():
                assert self._detached.process.exit is not None
                self._service.channel.send_value(wire.EXITED, self._stream, self._detached.process.exit)
                self.cancel()
            return
        kept, position = self._detached.kept[number], self._positions[number]
        if position < kept.start:
            skipped = wire.LONG_COUNT.pack(kept.start - position)
            self._service.channel.send(wire.SKIPPED + number, self._stream, skipped)
            self._credit[number] -= wire.GAP_COST
            self._positions[number] = position = kept.start
        data = kept.read(position, min(_PIECE, self._credit[number]))
        if data:
            self._positions[number] += len(data)
            self._credit[number] -= len(data)
            self._service.channel.send_data(number, self._stream, data)

    def receive(self, data: bytes) -> None:
        """Bytes for stdin."""
        self._taken.receive(len(data))
        self._detached.process.stdin.send(data, self._take)

    def receive_eof(self) -> None:
        self._detached.process.stdin.end()

    def add_credit(self, number: int, count: int) -> None:
        if number == wire.STDIN:
            raise ValueError(f"channel {number} takes no credit")
        self._credit[number] += count

    def signal(self, number: int) -> None:
        self._detached.process.signal(number)

    def resize(self, size: Any) -> None:
        """Does nothing without a terminal, or after the end."""
        self._detached.process.resize(size)

    def cancel(self) -> None:
        """Leaves the process alone."""
        self._detached.process.stdin.withdraw(self._take)
        self._service.forget(self._stream)

    def _next(self) -> int | None:
        """The stream of which something is to be sent: the one that is further behind."""
        if self._silent:
            return None
        behind = 0
        found = None
        for number in _OUTPUTS:
            kept, position = self._detached.kept[number], self._positions[number]
            cost = wire.GAP_COST if position < kept.start else 0
            # A gap is told with what follows it, or at the end.
            told = kept.end > kept.start or self._detached.over
            if told and kept.end - position > behind and self._credit[number] > cost:
                behind = kept.end - position
                found = number
        return found

    def _is_over(self) -> bool:
        kept = self._detached.kept
        return self._detached.over and (
            self._silent or all(self._positions[number] >= kept[number].end for number in _OUTPUTS)
        )


def _position(request: dict[str, Any], name: str, end: int) -> int:
    """Raises ValueError. A position that is not written yet is the end."""
    position = request.get(name)
    if position is None:
        return end
    if not (isinstance(position, int) and position >= 0):
        raise ValueError(f"{name}: must be an int of at least 0")
    return min(position, end)


class Input:
    """Data for a process's stdin, answered when it is all written."""

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        """Raises OSError, or ValueError for an invalid request."""
        data, self._end = request.get("data", b""), request.get("close") is True
        if not (isinstance(data, bytes) and len(data) <= wire.WINDOW):
            raise ValueError(f"data: must be at most {wire.WINDOW} bytes")
        self._service = service
        self._stream = stream
        detached = find_detached(service, request)
        if not detached.running:
            raise OSError(errno.ESRCH, f"process {detached.process.number} has ended")
        if not detached.process.stdin.open:
            raise self._closed()
        self._stdin = detached.process.stdin
        self._left = len(data)
        self._take = self._on_taken
        self.waiting = True
        """It is not answered yet."""
        if data:
            self._stdin.send(data, self._take)
        else:
            self._finish()

    def receive(self, _data: bytes) -> None:
        raise ValueError("input takes its data with the request")

    def receive_eof(self) -> None:
        raise ValueError("input takes its data with the request")

    def add_credit(self, _number: int, _count: int) -> None:
        raise ValueError("input takes no credit")

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        self.waiting = False
        self._stdin.withdraw(self._take)
        self._service.forget(self._stream)

    def _on_taken(self, count: int) -> None:
        self._left -= count
        if self._stdin.fd < 0:
            # Nobody reads it any more.
            self.waiting = False
            self._service.fail(self._stream, self._closed())
        elif self._left == 0:
            self._finish()

    def _finish(self) -> None:
        self.waiting = False
        if self._end:
            self._stdin.end()
        self._service.channel.send_value(wire.REPLY, self._stream, {})
        self._service.forget(self._stream)

    @staticmethod
    def _closed() -> OSError:
        return OSError(errno.EPIPE, "the process's stdin is closed")


class Listing:
    """Records, sent as the host gives credit."""

    def __init__(self, service: Service, stream: int, window: int, records: list[bytes]) -> None:
        self._service = service
        self._stream = stream
        self._credit = window
        self._unsent = b"".join(wire.COUNT.pack(len(record)) + record for record in records)
        self._at = 0
        service.channel.send_value(wire.REPLY, stream, {"window": window})

    @property
    def ready(self) -> bool:
        return self._credit > 0 or self._at == len(self._unsent)

    def run(self) -> None:
        """Sends one piece."""
        piece = self._unsent[self._at : self._at + min(_PIECE, self._credit)]
        if piece:
            self._at += len(piece)
            self._credit -= len(piece)
            self._service.channel.send_data(wire.STDOUT, self._stream, piece)
        if self._at == len(self._unsent):
            self._service.channel.send(wire.EOF + wire.STDOUT, self._stream)
            self._service.forget(self._stream)

    def receive(self, _data: bytes) -> None:
        raise ValueError("a list takes no data")

    def receive_eof(self) -> None:
        raise ValueError("a list takes no data")

    def add_credit(self, _number: int, count: int) -> None:
        self._credit += count

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        self._service.forget(self._stream)


# Operations: see `service`.


def attach(service: Service, stream: int, request: dict[str, Any]) -> Follower:
    return Follower(service, stream, request)


def send_input(service: Service, stream: int, request: dict[str, Any]) -> Input | None:
    job = Input(service, stream, request)
    return job if job.waiting else None


def list_all(service: Service, stream: int, request: dict[str, Any]) -> Listing:
    attached = [process.info() for process in service.processes.running.values() if process.attached]
    detached = [detached.info() for detached in service.processes.detached.values()]
    infos = sorted(attached + detached, key=lambda info: int(info["process_id"]))
    return Listing(service, stream, window_of(request), [values.pack(info) for info in infos])
