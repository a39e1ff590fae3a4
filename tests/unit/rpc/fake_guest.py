"""What a guest does for Processes, Files and Ports, in the hands of a test, which says what is answered."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Generic, TypeVar

import attrs
import trio

from pool.ledger.records import Owner
from tests.unit.rpc.served import Served
from vmm.errors import AgentRequestError
from vmm.simulated import SimulatedVm
from vmm.words.commands import CommandExit, TerminalSize
from vmm.words.files import FileInfo, FileKind
from vmm.words.guest_processes import ProcessInfo, ProcessOutput
from vmm.words.ports import GuestAddress
from vmm.words.usage import Usage

T = TypeVar("T")

FILE = FileInfo(
    path=b"/app/\xff",
    kind=FileKind.REGULAR,
    size=5,
    mode=0o4755,
    uid=1000,
    gid=1001,
    user="user",
    group="",
    modified_ns=-1,
    links=2,
    inode=2**63,
)
PROCESS = ProcessInfo(
    process_id=7,
    pid=300,
    tag="job",
    argv=("sleep", "9"),
    working_directory="/root",
    user="user",
    terminal=True,
    started_ns=10**18,
    stdout_end=2**40,
    stdout_kept_from=2**40 - 5,
)


def refusal(code: str, *, part: str = "", message: str = "no") -> AgentRequestError:
    return AgentRequestError(request="it", code=code, message=message, part=part)


class Source(Generic[T]):
    """Gives what it has, one after the other, and then raises, ends, or waits for ever."""

    def __init__(
        self, given: Iterable[T], end: T, *, error: Exception | None = None, stays: bool = False, info: Any = None
    ) -> None:
        self.given = deque(given)
        self.end = end
        self.error = error
        self.stays = stays
        self.info = info
        self.taken = 0
        self.closed = False

    async def receive(self) -> T:
        await trio.lowlevel.checkpoint()
        if self.given:
            self.taken += 1
            return self.given.popleft()
        if self.error is not None:
            raise self.error
        if self.stays:
            await trio.sleep_forever()
        return self.end

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Sink:
    """Takes what is sent, as long as there is room."""

    result: Any = None
    room: float = math.inf
    error: Exception | None = None
    received: bytearray = attrs.field(factory=bytearray)
    finished: bool = False
    closed: bool = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.received += data
        if len(self.received) >= self.room:
            await trio.sleep_forever()

    async def finish(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.finished = True
        return self.result

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Connection(Sink):
    """Echoes, until its input ends."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    _send: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](math.inf)

    async def send(self, data: bytes) -> None:
        await super().send(data)
        self._send.send_nowait(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.ended.set()
        self._send.close()

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return b""


@attrs.define(eq=False)
class Listener:
    address: GuestAddress
    connections: dict[int, Connection] = attrs.field(factory=dict)
    closed: bool = False
    _send: trio.MemorySendChannel[int] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[int](math.inf)

    def connect(self, number: int) -> Connection:
        self.connections[number] = connection = Connection()
        self._send.send_nowait(number)
        return connection

    async def accept(self) -> int:
        return await self._receive.receive()

    async def take(self, connection: int, **_: Any) -> Connection:
        await trio.lowlevel.checkpoint()
        if connection not in self.connections:
            raise refusal("ENOENT")
        return self.connections.pop(connection)

    async def aclose(self) -> None:
        self.closed = True
        self.connections.clear()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Attached:
    """Notes what is sent to it."""

    info: ProcessInfo
    given: Iterable[ProcessOutput | CommandExit]
    stays: bool = False
    noted: list[Any] = attrs.field(factory=list)
    closed: bool = False

    async def events(self) -> AsyncIterator[ProcessOutput | CommandExit]:
        for event in self.given:
            yield event
        if self.stays:
            await trio.sleep_forever()

    async def send_stdin(self, data: bytes) -> None:
        self.noted.append(data)

    async def close_stdin(self) -> None:
        self.noted.append("closed")

    async def send_signal(self, number: int) -> None:
        self.noted.append(number)

    async def resize(self, size: TerminalSize) -> None:
        self.noted.append(size)

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Answering:
    """Stands for GuestProcesses, GuestFiles or GuestPorts: each method notes its arguments, and gives, or raises, what
    `answers` has for it.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.refuses: list[tuple[str, object, Exception]] = []
        """Methods, their first arguments, and the errors that these raise."""
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        async def answer(*arguments: Any, room: Any = None, **named: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.asked.append((name, arguments, named))
            for method, argument, error in self.refuses:
                if method == name and arguments[:1] == (argument,):
                    raise error
            given = self.answers[name]
            if isinstance(given, Exception):
                raise given
            return await trio.sleep_forever() if given is ... else given

        return answer


USAGE = Usage(
    cpus_online=2,
    cpu_busy_ms=1000,
    cpu_idle_ms=3000,
    memory_total_bytes=2**28,
    memory_available_bytes=2**27,
    processes=9,
    load_1m=0.5,
    disk_total_bytes=2**30,
    disk_available_bytes=2**29,
    uptime_ms=4000,
    wall_clock_ns=10**18,
)


async def lease_with(served: Served, **parts: Any) -> str:
    """A new lease; `parts` as of `replace_in_guest`."""
    async with served.client() as client:
        lease_id = (await client.acquire()).lease_id
    replace_in_guest(served, lease_id, **parts)
    return lease_id


def replace_in_guest(served: Served, lease_id: str, **parts: Any) -> None:
    """Puts what the test has made in the place of parts of the agent: processes, files, ports, usage."""
    vm = served.coordinator.vm_of(lease_id, owner=Owner(uid=0))
    assert isinstance(vm, SimulatedVm)
    for name, part in parts.items():
        setattr(vm.agent, name, part)
