"""A command in the guest, seen from the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from vmm.errors import AgentProtocolError, NoRoomError
from vmm.guest.agent import wire
from vmm.guest.connection import Connection
from vmm.guest.conversation import Conversation, number_of, pid_of, size_fields
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream


class _Buffer:
    """Unread output of one stream. Stored as bytes, not pieces: a guest may send single bytes."""

    def __init__(self, channel: int, stream: OutputStream) -> None:
        self.channel = channel
        self.stream = stream
        self.unread = bytearray()
        self.owed_credit = 0

    @property
    def held(self) -> int:
        return len(self.unread)

    @property
    def readable(self) -> bool:
        return bool(self.unread)

    def add(self, data: bytes) -> None:
        self.unread += data

    def skip(self, count: int) -> None:
        raise AgentProtocolError(f"the guest agent lost {count} bytes of a command's output")

    def take(self, most: int) -> Output:
        piece = bytes(self.unread[:most])
        del self.unread[: len(piece)]
        self.owed_credit += len(piece)
        return Output(stream=self.stream, data=piece)

    def clear(self) -> None:
        self.unread.clear()


class RemoteCommand(Conversation[Output]):
    """Implements `vmm.contract.Command`. The end of its stream kills the command's process group.

    An agent of an earlier version knows only one window size, and does not confirm a smaller one; then that much room
    is needed.
    """

    def __init__(self, connection: Connection, spec: CommandSpec) -> None:
        """See `Conversation`."""
        self._pid = self._process_id = 0
        self._has_terminal = spec.terminal is not None
        fields = spec_fields(spec)
        # An agent that does not know the options must refuse the command, not run it without them.
        plain = fields.keys() <= _PLAIN
        if spec.room.window != wire.WINDOW:
            fields["window"] = spec.room.window
        super().__init__(
            connection,
            "exec",
            {"op": "exec" if plain else "exec_with", **fields},
            [_Buffer(wire.STDOUT, OutputStream.STDOUT), _Buffer(wire.STDERR, OutputStream.STDERR)],
            room=spec.room,
            stdin_window=max(spec.room.window, len(spec.stdin or b"")),
        )
        if spec.stdin is not None:
            self._give_stdin(spec.stdin)

    @property
    def process_id(self) -> int:
        return self._process_id

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def has_terminal(self) -> bool:
        return self._has_terminal

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """See the contract. One consumer; ends after the CommandExit, or when the command is closed."""
        return _Events(self)

    def _take_answer(self, fields: Mapping[str, Any]) -> None:
        self._pid = pid_of(fields)
        # Agents of earlier versions do not number processes.
        self._process_id = number_of(fields) if "process_id" in fields else 0
        self._agree(fields.get("window"))

    def _agree(self, window: object) -> None:
        if self._window in (wire.WINDOW, window):
            return
        if window is not None:
            raise AgentProtocolError("the guest agent answered exec with a window that was not requested")
        streams = 1 + len(self._buffers)
        try:
            self._room.take(streams * (wire.WINDOW - self._window))
        except NoRoomError as error:
            self._end(error=error, cancel=True)
            return
        self._window = wire.WINDOW
        self._stdin_credit += wire.WINDOW - self._stdin_window
        self._stdin_window = wire.WINDOW

    def _give_stdin(self, data: bytes) -> None:
        # At most the initial window of a stream, so this never has to wait.
        self._stdin_credit -= len(data)
        for start in range(0, len(data), wire.MAX_PAYLOAD):
            self._connection.send_data(self._stream, data[start : start + wire.MAX_PAYLOAD])
        self._stdin_closed = True
        self._connection.send(wire.EOF + wire.STDIN, self._stream)


class _Events(AsyncIterator[Output | CommandExit]):
    # Not an async generator: a caller may leave the loop early without closing it.

    def __init__(self, command: RemoteCommand) -> None:
        self._command = command

    async def __anext__(self) -> Output | CommandExit:
        event = await self._command.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


_PLAIN = frozenset({"argv", "environment", "directory", "time_limit_ns"})
"""Fields that the agents of all versions know."""


def spec_fields(spec: CommandSpec) -> dict[str, Any]:
    """The fields of the request to start it; options are there only if they are used."""
    fields: dict[str, Any] = {
        "argv": list(spec.argv),
        "environment": dict(spec.environment),
        "directory": spec.working_directory,
        "time_limit_ns": None if spec.time_limit_s is None else round(spec.time_limit_s * 1e9),
    }
    if spec.user:
        fields["user"] = spec.user
    if spec.groups:
        fields["groups"] = list(spec.groups)
    if spec.limits:
        fields["limits"] = [{"name": limit.name, "soft": limit.soft, "hard": limit.hard} for limit in spec.limits]
    if spec.terminal is not None:
        fields["terminal"] = {**size_fields(spec.terminal.size), "term": spec.terminal.term}
    if spec.leave_children:
        fields["leave_children"] = True
    return fields
