"""Connections of a guest: whatever the sizes and whoever ends first, what goes in comes out and nothing stays open."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

import attrs
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from tests.agents import Narrow, agent_process
from tests.examples import examples
from vmm.contract.streams import ByteStream
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient
from vmm.words.commands import WHOLE
from vmm.words.ports import TcpAddress, UnixAddress

Wait = Callable[[], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Story:
    """One connection. The numbers are of bytes."""

    outgoing: tuple[int, ...]
    """What the host sends, piece by piece."""
    incoming: tuple[int, ...]
    waits_for_the_end: str
    """Who ends its direction only when the other has: "host", "peer" or "nobody"."""
    breaks_off: bool
    """The host closes the connection when it has sent all, whatever is still to come."""
    peer_is_late: bool
    """It does nothing before the host has sent all; only if that fits into what is under way at once."""
    narrow: bool
    is_unix: bool

    @property
    def waits_for_the_host(self) -> bool:
        return (
            self.peer_is_late
            and self.waits_for_the_end != "host"
            and sum(self.outgoing) <= (Narrow.window if self.narrow else wire.WINDOW)
        )


sizes = st.lists(st.integers(0, 3000) | st.sampled_from([wire.MAX_PAYLOAD, wire.WINDOW, wire.WINDOW + 1]), max_size=4)
stories = st.builds(
    Story,
    outgoing=sizes.map(tuple),
    incoming=sizes.map(tuple),
    waits_for_the_end=st.sampled_from(["host", "peer", "nobody"]),
    breaks_off=st.booleans(),
    peer_is_late=st.booleans(),
    narrow=st.booleans(),
    is_unix=st.booleans(),
)


def pieces(story_sizes: tuple[int, ...], seed: int) -> list[bytes]:
    random = Random(seed)
    return [random.randbytes(size) for size in story_sizes]


async def host_side(
    connection: ByteStream, story: Story, data: list[bytes], received: bytearray, *, sent: trio.Event
) -> None:
    ended = trio.Event()

    async def send() -> None:
        for piece in data:
            await connection.send(piece)
        if story.breaks_off:
            await connection.aclose()
        else:
            if story.waits_for_the_end == "host":
                await ended.wait()
            await connection.send_eof()
        sent.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while piece := await connection.receive():
            received.extend(piece)
        ended.set()


async def peer_side(
    peer: trio.SocketStream,
    story: Story,
    data: list[bytes],
    received: bytearray,
    *,
    host_has_sent: Wait,
) -> None:
    ended = trio.Event()
    may_break = contextlib.suppress(trio.BrokenResourceError) if story.breaks_off else contextlib.nullcontext()

    async def send() -> None:
        with may_break:
            for piece in data:
                await peer.send_all(piece)
            if story.waits_for_the_end == "peer":
                await ended.wait()
            await peer.send_eof()

    async with trio.open_nursery() as nursery:
        if story.waits_for_the_host:
            await host_has_sent()
        nursery.start_soon(send)
        if story.waits_for_the_host:
            await host_has_sent()  # the guest has heard what the peer sent meanwhile, even if that is only its end
        with may_break:
            async for piece in peer:
                received.extend(piece)
        ended.set()


async def tell(client: AgentClient, story: Story, directory: Path) -> None:
    path = directory / str(id(story))
    sock = trio.socket.socket(trio.socket.AF_UNIX if story.is_unix else trio.socket.AF_INET)
    await sock.bind(str(path) if story.is_unix else ("127.0.0.1", 0))
    sock.listen(1)
    address = UnixAddress(path=bytes(path)) if story.is_unix else TcpAddress(port=sock.getsockname()[1])
    to_peer, to_host = pieces(story.outgoing, 1), pieces(story.incoming, 2)
    at_peer, at_host = bytearray(), bytearray()
    async with trio.SocketListener(sock) as listener, trio.open_nursery() as nursery:
        connection = await client.ports.connect(address, room=Narrow() if story.narrow else WHOLE)
        async with await listener.accept() as peer:
            sent = trio.Event()

            async def host_has_sent() -> None:
                await sent.wait()
                await client.ping()

            nursery.start_soon(partial(host_side, connection, story, to_peer, at_host, sent=sent))
            await peer_side(peer, story, to_host, at_peer, host_has_sent=host_has_sent)
    await connection.aclose()
    assert b"".join(to_peer).startswith(at_peer)
    assert b"".join(to_host).startswith(at_host)
    if not story.breaks_off:
        assert len(at_peer) == sum(story.outgoing)
        assert len(at_host) == sum(story.incoming)


@given(told=st.lists(stories, min_size=1, max_size=10))
@example(
    told=[
        Story(
            outgoing=(wire.WINDOW,),
            incoming=(),
            waits_for_the_end="nobody",
            breaks_off=False,
            peer_is_late=True,
            narrow=False,
            is_unix=True,
        )
    ]
)
@examples(20, deadline=None)
def test_what_goes_in_comes_out_and_nothing_stays_open(told: list[Story]) -> None:
    async def tell_all() -> None:
        with tempfile.TemporaryDirectory(prefix="vmpool-") as home:
            plugged = trio.Path(home, "plugged")
            await plugged.touch()
            async with agent_process(Path(plugged)) as local_agent, trio.open_nursery() as nursery:
                client = await AgentClient.connect(local_agent.stream, nursery=nursery)
                before = local_agent.descriptors()
                async with trio.open_nursery() as telling:
                    for story in told:
                        telling.start_soon(tell, client, story, Path(home))
                await client.ping()
                assert local_agent.descriptors() == before
                await client.aclose()

    trio.run(tell_all)
