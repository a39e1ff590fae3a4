"""Commands that the agent runs for the host: processes that end with the stream that started them."""

from __future__ import annotations

from . import wire
from .outputs import Outputs
from .running import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .channel import Channel
    from .running import Processes

_LEAST_WINDOW = 1024


def window_of(request: dict[str, Any]) -> int:
    """Raises ValueError."""
    window = request.get("window", wire.WINDOW)
    if not (isinstance(window, int) and _LEAST_WINDOW <= window <= wire.WINDOW):
        raise ValueError(f"window: must be an int from {_LEAST_WINDOW} to {wire.WINDOW}")
    return window


class Taken:
    """Credit for the bytes of stdin that are taken, given to the host in large pieces."""

    __slots__ = ("_channel", "_least", "_owed", "_stream", "waiting")

    def __init__(self, channel: Channel, stream: int, window: int) -> None:
        self._channel = channel
        self._stream = stream
        self._least = window // 4
        self._owed = 0
        self.waiting = 0
        """Bytes that were received and are not taken yet."""

    def receive(self, count: int) -> None:
        """Raises ValueError if that is more than the host may send."""
        if self.waiting + count > wire.WINDOW:
            raise ValueError("stdin: more bytes than the credit allows")
        self.waiting += count

    def take(self, count: int) -> None:
        self.waiting -= count
        self._owed += count
        if self._owed >= self._least:
            self._channel.send_credit(wire.STDIN, self._stream, self._owed)
            self._owed = 0


class Command:
    """One running command; a stream of the session. Unread output keeps its process waiting."""

    def __init__(
        self,
        processes: Processes,
        stream: int,
        request: dict[str, Any],
        channel: Channel,
        on_end: Callable[[int], None],
    ) -> None:
        """Raises SpawnError or another OSError, or ValueError for an invalid request."""
        window = window_of(request)
        self._channel = channel
        self._on_end = on_end
        self._stream = stream
        self._process = process = Process(processes, request, attached=True, on_exit=self._on_exit)
        self._taken = Taken(channel, stream, window)
        self._take = self._taken.take
        self._outputs = Outputs(processes.loop, process.spawned, window, on_data=self._on_data, on_over=self._on_over)
        reply = {"pid": process.pid, "window": window, "process_id": process.number}
        channel.send_value(wire.REPLY, stream, reply)

    def receive(self, data: bytes) -> None:
        """Bytes for stdin."""
        self._taken.receive(len(data))
        self._process.stdin.send(data, self._take)

    def receive_eof(self) -> None:
        self._process.stdin.end()

    def add_credit(self, number: int, count: int) -> None:
        if number == wire.STDIN:
            raise ValueError(f"channel {number} takes no credit")
        self._outputs.add_credit(number, count)

    def signal(self, number: int) -> None:
        self._process.signal(number)

    def resize(self, size: Any) -> None:
        """See `Process.resize`."""
        self._process.resize(size)

    def cancel(self) -> None:
        """Kills the command and forgets it: nothing more is sent for this stream."""
        self._process.stdin.withdraw(self._take)
        self._process.abandon()
        self._outputs.close()
        self._on_end(self._stream)

    def _on_data(self, number: int, data: bytes) -> None:
        self._channel.send_data(number, self._stream, data)

    def _on_exit(self) -> None:
        self._outputs.process_ended()

    def _on_over(self) -> None:
        assert self._process.exit is not None
        self._channel.send_value(wire.EXITED, self._stream, self._process.exit)
        self._on_end(self._stream)
