"""Processes in the guest that outlive the host's connection, seen from the host."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import attrs

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.agent import wire
from vmm.guest.command import spec_fields
from vmm.guest.connection import Connection
from vmm.guest.conversation import (
    MAX_NUMBER,
    Conversation,
    check_signal,
    exit_of,
    number_of,
    pid_of,
    size_fields,
)
from vmm.guest.requests import Request
from vmm.guest.streams import RemoteRecords, RemoteStream
from vmm.untrusted import is_number, said
from vmm.words.commands import WHOLE, CommandExit, CommandSpec, OutputStream, Room, TerminalSize
from vmm.words.guest_processes import (
    KEPT_BYTES,
    MAX_TAG_BYTES,
    Positions,
    ProcessInfo,
    ProcessOutput,
    ProcessRef,
)

MAX_PROCESSES: Final = 1024
"""In a list. An agent keeps 256 that run, 256 that have ended, and as many commands as it has streams."""

_MAX_ARGV: Final = 2048
"""Characters of a process's arguments; an agent cuts them."""
_MAX_PATH: Final = 4096
_MAX_USER: Final = 256

_MAX_INPUT: Final = wire.WINDOW
"""Bytes of input in one request."""


@attrs.define(eq=False)
class _Piece:
    position: int
    cost: int
    """Of the gap before it."""
    data: bytearray


class FollowedBuffer:
    """Unread output of one stream, with positions. Implements `conversation.Buffer`."""

    def __init__(self, channel: int, stream: OutputStream) -> None:
        self.channel = channel
        self.stream = stream
        self.position = 0
        """Of the next byte from the guest."""
        self.held = 0
        self.owed_credit = 0
        self._pieces: deque[_Piece] = deque()
        self._gap_cost = 0

    @property
    def readable(self) -> bool:
        return bool(self._pieces)

    def add(self, data: bytes) -> None:
        if self._gap_cost or not self._pieces:
            self._pieces.append(_Piece(self.position, self._gap_cost, bytearray()))
            self._gap_cost = 0
        self._pieces[-1].data += data
        self.held += len(data)
        self._advance(len(data))

    def skip(self, count: int) -> None:
        if self._gap_cost or count == 0:
            raise AgentProtocolError("the guest agent told a gap that is none")
        self._gap_cost = wire.GAP_COST
        self.held += self._gap_cost
        self._advance(count)

    def take(self, most: int) -> ProcessOutput:
        piece = self._pieces[0]
        data = bytes(piece.data[:most])
        output = ProcessOutput(stream=self.stream, position=piece.position, data=data)
        taken = len(data) + piece.cost
        self.held -= taken
        self.owed_credit += taken
        piece.cost = 0
        piece.position += len(data)
        del piece.data[: len(data)]
        if not piece.data:
            self._pieces.popleft()
        return output

    def clear(self) -> None:
        self._pieces.clear()
        self.held = 0

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > MAX_NUMBER:
            raise AgentProtocolError("the guest agent told of more output than any process can write")


class FollowedProcess(Conversation[ProcessOutput]):
    """Implements `vmm.contract.AttachedProcess`. The end of its stream leaves the process alone."""

    def __init__(
        self,
        connection: Connection,
        process: ProcessRef,
        *,
        positions: Positions | None = None,
        room: Room = WHOLE,
        with_output: bool = True,
    ) -> None:
        """See `Conversation`."""
        self._info: ProcessInfo | None = None
        self._wanted = positions
        self._with_output = with_output
        self._stdout = FollowedBuffer(wire.STDOUT, OutputStream.STDOUT)
        self._stderr = FollowedBuffer(wire.STDERR, OutputStream.STDERR)
        request = {"op": "attach", "window": room.window, "output": with_output, **_ref_fields(process)}
        if positions is not None:
            request |= {"stdout": positions.stdout, "stderr": positions.stderr}
        super().__init__(
            connection,
            "attach",
            request,
            [self._stdout, self._stderr] if with_output else [],
            room=room,
            stdin_window=room.window,
        )

    @property
    def info(self) -> ProcessInfo:
        assert self._info is not None, "`started` comes first"
        return self._info

    @property
    def has_terminal(self) -> bool:
        return self.info.terminal

    def events(self) -> AsyncIterator[ProcessOutput | CommandExit]:
        """See the contract. One consumer; ends after the CommandExit, or when this is closed."""
        return _Events(self)

    def _take_answer(self, fields: Mapping[str, Any]) -> None:
        info = fields.get("process")
        if not isinstance(info, dict):
            raise AgentProtocolError("the guest agent answered attach without the process")
        if fields.get("window") != self._window:
            raise AgentProtocolError("the guest agent answered attach with a window that was not requested")
        self._info = info_of(info)
        ends = Positions(stdout=self._info.stdout_end, stderr=self._info.stderr_end)
        wanted = ends if self._wanted is None else self._wanted
        self._stdout.position = min(wanted.stdout, ends.stdout)
        self._stderr.position = min(wanted.stderr, ends.stderr)


class _Events(AsyncIterator[ProcessOutput | CommandExit]):
    # Not an async generator: a caller may leave the loop early without closing it.

    def __init__(self, process: FollowedProcess) -> None:
        self._process = process

    async def __anext__(self) -> ProcessOutput | CommandExit:
        event = await self._process.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


class RemoteProcesses:
    """Implements `vmm.contract.GuestProcesses`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self, spec: CommandSpec, *, tag: str = "", keep: int = KEPT_BYTES) -> ProcessInfo:
        """See the contract. If cancelled, the process is killed in case it was started."""
        if len(tag.encode(errors="surrogateescape")) > MAX_TAG_BYTES:
            raise AgentRequestError(
                request="start", code="BAD_REQUEST", message=f"tag has more than {MAX_TAG_BYTES} bytes", part="tag"
            )
        fields = {**spec_fields(spec), "tag": tag, "keep": keep, "stdin": spec.stdin}
        # The guest keeps the process if the host ends its side of the stream, and kills it if the stream is cancelled.
        stream = await RemoteStream.open(self._connection, "start", fields, takes_input=True, room=spec.room)
        try:
            with self._connection.judging():
                info = info_of(stream.answer)
                if info.tag != said(tag) or info.attached:
                    raise AgentProtocolError("the guest agent started another process than was asked for")
            await stream.send_eof()
        finally:
            await stream.aclose()
        return info

    async def list(self) -> tuple[ProcessInfo, ...]:
        """See the contract."""
        stream = await RemoteStream.open(self._connection, "processes", {})
        records = RemoteRecords(self._connection, stream, info_of)
        found: list[ProcessInfo] = []
        try:
            while some := await records.receive():
                with self._connection.judging():
                    _add(found, some)
        finally:
            await records.aclose()
        return tuple(found)

    async def attach(
        self, process: ProcessRef, *, positions: Positions | None = None, room: Room = WHOLE
    ) -> FollowedProcess:
        return await self._follow(FollowedProcess(self._connection, process, positions=positions, room=room))

    async def wait(self, process: ProcessRef) -> CommandExit:
        """See the contract."""
        followed = await self._follow(FollowedProcess(self._connection, process, with_output=False))
        try:
            exit_report = await followed.next_event()
        finally:
            await followed.aclose()
        assert isinstance(exit_report, CommandExit)
        return exit_report

    async def send_input(self, process: ProcessRef, data: bytes, *, close: bool = False) -> None:
        """See the contract. Pieces of 256 KiB; input of others may come between them."""
        starts = range(0, len(data), _MAX_INPUT) or range(1)
        for start in starts:
            piece = data[start : start + _MAX_INPUT]
            last = start + _MAX_INPUT >= len(data)
            await self._request("input", process, {"data": piece, "close": close and last})

    async def send_signal(self, process: ProcessRef, number: int, *, everything: bool = False) -> None:
        """See the contract. Raises ValueError if `number` is not a signal's."""
        check_signal(number)
        await self._request("signal", process, {"signal": number, "everything": everything})

    async def resize(self, process: ProcessRef, size: TerminalSize) -> None:
        await self._request("resize", process, size_fields(size))

    async def forget(self, process: ProcessRef) -> None:
        await self._request("forget", process, {})

    async def _request(self, name: str, process: ProcessRef, fields: Mapping[str, Any]) -> None:
        with Request(self._connection, name, {**_ref_fields(process), **fields}) as request:
            await request.reply()

    @staticmethod
    async def _follow(followed: FollowedProcess) -> FollowedProcess:
        try:
            await followed.started()
        except BaseException:
            await followed.aclose()
            raise
        return followed


def info_of(fields: Mapping[str, Any]) -> ProcessInfo:
    """What the guest says of a process. Raises AgentProtocolError."""
    get = fields.get
    argv, ended, tag = get("argv"), get("exit"), get("tag", "")
    started_ns = get("started_ns")
    if not (isinstance(argv, list) and all(isinstance(word, str) for word in argv) and type(started_ns) is int):
        raise AgentProtocolError("the guest agent reported a process without arguments or the time of its start")
    if not (isinstance(tag, str) and len(tag) <= MAX_TAG_BYTES) or sum(map(len, argv)) + len(argv) > _MAX_ARGV:
        raise AgentProtocolError("the guest agent reported a process with too long a tag or arguments")
    if not (ended is None or isinstance(ended, dict)):
        raise AgentProtocolError("the guest agent reported an invalid end of a process")
    info = ProcessInfo(
        process_id=number_of(fields),
        pid=pid_of(fields),
        tag=said(tag),
        argv=tuple(said(word, most=_MAX_ARGV) for word in argv),
        working_directory=said(get("directory"), most=_MAX_PATH),
        user=said(get("user"), most=_MAX_USER),
        terminal=get("terminal") is True,
        attached=get("attached") is True,
        started_ns=started_ns,
        exit=None if ended is None else exit_of(ended),
        stdout_end=_position(fields, "stdout_end"),
        stdout_kept_from=_position(fields, "stdout_kept_from"),
        stderr_end=_position(fields, "stderr_end"),
        stderr_kept_from=_position(fields, "stderr_kept_from"),
    )
    for kept_from, end in ((info.stdout_kept_from, info.stdout_end), (info.stderr_kept_from, info.stderr_end)):
        if not end - KEPT_BYTES <= kept_from <= end:
            raise AgentProtocolError("the guest agent keeps output that was never written, or too much")
    return info


def _position(fields: Mapping[str, Any], name: str) -> int:
    position = fields.get(name, 0)
    if not is_number(position, most=MAX_NUMBER):
        raise AgentProtocolError(f"the guest agent reported a process with an invalid {name}")
    return position


def _add(found: list[ProcessInfo], more: Iterable[ProcessInfo]) -> None:
    """Raises AgentProtocolError."""
    for info in more:
        if found and info.process_id <= found[-1].process_id:
            raise AgentProtocolError("the guest agent reported processes twice, or not in their order")
        if len(found) == MAX_PROCESSES:
            raise AgentProtocolError(f"the guest agent reported more than {MAX_PROCESSES} processes")
        found.append(info)


def _ref_fields(process: ProcessRef) -> dict[str, Any]:
    return {"process_id": process.process_id} if process.process_id else {"tag": process.tag}
