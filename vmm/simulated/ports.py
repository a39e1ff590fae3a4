"""Connections to and from a simulated guest. Implements `vmm.contract.GuestPorts`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

import trio

from vmm.errors import AgentRequestError
from vmm.simulated.machine import Machine
from vmm.simulated.network import Peer
from vmm.words.commands import WHOLE, Room
from vmm.words.ports import GuestAddress, TcpAddress

TAKE_LIMIT_S: Final = 30.0


class SimulatedPorts:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def connect(self, address: GuestAddress, *, room: Room = WHOLE) -> SimulatedConnection:  # noqa: ARG002 - what waits is bounded
        await self._machine.guest_runs()
        _check(address, request="connect")
        with _refusing("connect"):
            peer = await self._machine.network.connect(address)
        return SimulatedConnection(self._machine, peer, request="connect")

    async def listen(self, address: GuestAddress) -> SimulatedListener:
        await self._machine.guest_runs()
        with contextlib.ExitStack() as stack, _refusing("listen"):
            listening, incoming = stack.enter_context(self._machine.network.listen(address))
            return SimulatedListener(self._machine, listening, incoming, stack.pop_all())

    async def wait(self, address: GuestAddress) -> None:
        await self._machine.guest_runs()
        _check(address, request="wait_port")
        await self._machine.or_its_end(lambda: self._machine.network.wait_listening(address))


class SimulatedListener:
    """Implements `vmm.contract.PortListener`."""

    def __init__(
        self,
        machine: Machine,
        address: GuestAddress,
        incoming: trio.MemoryReceiveChannel[Peer],
        stack: contextlib.ExitStack,
    ) -> None:
        self._machine = machine
        self._address = address
        self._incoming = incoming
        self._stack = stack
        self._last = 0
        self._pending: dict[int, Peer] = {}

    @property
    def address(self) -> GuestAddress:
        return self._address

    async def accept(self) -> int:
        await self._machine.guest_runs()
        try:
            peer = await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise _gone(self._machine, request="listen", code="EBADF") from None
        self._last += 1
        number = self._last
        self._pending[number] = peer

        async def expire() -> None:
            await trio.sleep(TAKE_LIMIT_S)
            if self._pending.pop(number, None) is not None:
                peer.close()

        self._machine.start_soon(expire)
        return number

    async def take(self, connection: int, *, room: Room = WHOLE) -> SimulatedConnection:  # noqa: ARG002 - what waits is bounded
        await self._machine.guest_runs()
        peer = self._pending.pop(connection, None)
        if peer is None:
            message = f"connection {connection} was taken, or closed because nobody took it in time"
            raise AgentRequestError(request="accept", code="ENOENT", message=message)
        return SimulatedConnection(self._machine, peer, request="accept")

    async def aclose(self) -> None:
        self._stack.close()
        for peer in self._pending.values():
            peer.close()
        self._pending.clear()
        await trio.lowlevel.checkpoint()


class SimulatedConnection:
    """Implements `vmm.contract.ByteStream`."""

    def __init__(self, machine: Machine, peer: Peer, *, request: str) -> None:
        self._machine = machine
        self._peer = peer
        self._request = request
        self._input_ended = False
        self._output_ended = False
        self._closed = False

    async def receive(self) -> bytes:
        if self._closed or self._output_ended:
            await trio.lowlevel.checkpoint()
            return b""
        await self._machine.guest_runs()
        with _refusing(self._request):
            data = await self._peer.receive()
        if not data and not self._closed:
            self._machine.check_answers()
            self._output_ended = True
        return data

    async def send(self, data: bytes) -> None:
        await self._machine.guest_runs()
        if self._input_ended:
            raise trio.ClosedResourceError
        try:
            with _refusing(self._request):
                await self._peer.send(data)
        except trio.ClosedResourceError:
            self._machine.check_answers()
            raise

    async def send_eof(self) -> None:
        await self._machine.guest_runs()
        self._input_ended = True
        self._peer.send_eof()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            over = self._input_ended and self._output_ended
            self._input_ended = True
            self._peer.close(reset=not over)
        await trio.lowlevel.checkpoint()


def _check(address: GuestAddress, *, request: str) -> None:
    if isinstance(address, TcpAddress) and address.port == 0:
        message = "port: must be an int from 1 to 65535"
        raise AgentRequestError(request=request, code="BAD_REQUEST", message=message)


@contextlib.contextmanager
def _refusing(request: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = errno.errorcode[error.errno or errno.EIO]
        raise AgentRequestError(request=request, code=code, message=error.strerror or code) from error


def _gone(machine: Machine, *, request: str, code: str) -> Exception:
    machine.check_answers()
    return AgentRequestError(request=request, code=code, message="the listener is closed")
