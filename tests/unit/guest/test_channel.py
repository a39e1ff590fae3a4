"""The agent's end of the channel: when it reads, when it writes, and when it leaves the port alone."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import pytest

from vmm.guest.agent import wire
from vmm.guest.agent.channel import Channel
from vmm.guest.agent.loop import WRITE


class Polling:
    """The loop's part in it, without its signals and children."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self.watched = 0

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._callbacks[fd] = callback
        self.watched = events
        self._epoll.register(fd, events)

    def rewatch(self, fd: int, events: int) -> None:
        self.watched = events
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def turn(self) -> bool:
        """Whether there was anything."""
        found = self._epoll.poll(0)
        for fd, events in found:
            self._callbacks[fd](events)
        return bool(found)

    def close(self) -> None:
        self._epoll.close()


@attrs.define(kw_only=True)
class Port:
    channel: Channel
    host: socket.socket
    loop: Polling
    frames: list[wire.Frame]
    hangups: list[None]

    def turn(self) -> bool:
        found = self.loop.turn()
        self.channel.run()
        return found


@pytest.fixture
def port() -> Iterator[Port]:
    host, guest = socket.socketpair()
    loop = Polling()
    frames: list[wire.Frame] = []
    hangups: list[None] = []
    channel = Channel(
        guest.detach(),
        cast("Any", loop),
        lambda kind, stream, payload: frames.append((kind, stream, payload)),
        lambda: hangups.append(None),
    )
    with host:
        yield Port(channel=channel, host=host, loop=loop, frames=frames, hangups=hangups)
    channel.close()
    loop.close()


@pytest.mark.parametrize("size", [0, 10, 4096 - 16 - 9, 4096, 60_000])
def test_what_the_host_says_is_read_whole_in_one_turn(port: Port, size: int) -> None:
    port.host.sendall(wire.MARKER + wire.encode(wire.REQUEST, 1, bytes(size)))
    assert port.turn()
    assert port.frames == [(wire.SYNCED, 0, b""), (wire.REQUEST, 1, bytes(size))]
    assert not port.channel.busy
    assert not port.turn()


def test_a_session_goes_on_from_turn_to_turn(port: Port) -> None:
    port.host.sendall(wire.MARKER + wire.encode(wire.REQUEST, 1, bytes(50)))
    port.turn()
    port.host.sendall(wire.encode(wire.REQUEST, 2) + wire.encode(wire.REQUEST, 3))
    port.turn()
    assert [stream for kind, stream, _ in port.frames if kind == wire.REQUEST] == [1, 2, 3]


def test_a_port_without_a_host_is_silent(port: Port) -> None:
    port.host.close()
    while port.turn():
        assert len(port.hangups) < 3, "it spins"
    assert port.hangups
    assert not port.channel.busy


def test_the_port_is_watched_for_room_only_while_there_is_none(port: Port) -> None:
    assert not port.loop.watched & WRITE
    port.channel.send(wire.REPLY, 1, bytes(1_000_000))
    port.turn()
    assert port.loop.watched & WRITE
    assert not port.channel.busy, "there is nothing to do but wait"
    received = 0
    while received < 1_000_000:
        received += len(port.host.recv(100_000))
        port.turn()
    assert not port.loop.watched & WRITE
