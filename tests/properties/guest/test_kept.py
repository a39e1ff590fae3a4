"""What is kept of an output, and how it is followed: guest and host together, whatever the pace of either."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vmm.guest.agent import wire
from vmm.guest.agent.following import Follower
from vmm.guest.agent.kept import Kept
from vmm.guest.processes import FollowedBuffer
from vmm.words.commands import OutputStream

writes = st.lists(st.integers(0, 20_000), max_size=20)
limits = st.sampled_from([0, 1, 7, 4096, 5000, 65536])


def pattern(start: int, count: int) -> bytes:
    """Bytes that tell their positions."""
    return bytes((position * 7 + position // 256) % 256 for position in range(start, start + count))


def whole(kept: Kept) -> bytes:
    data = b""
    while kept.start + len(data) < kept.end:
        piece = kept.read(kept.start + len(data), 3000)
        assert piece
        data += piece
    return data


@given(limit=limits, writes=writes, shrinks=st.dictionaries(st.integers(0, 19), limits))
@examples(200)
def test_the_last_bytes_are_kept_in_no_more_memory_than_they_need(
    limit: int, writes: list[int], shrinks: dict[int, int]
) -> None:
    told: list[int] = []
    kept = Kept(limit, told.append)
    end = 0
    for number, count in enumerate(writes):
        kept.append(pattern(end, count))
        end += count
        if number in shrinks:
            limit = min(limit, shrinks[number])
            kept.shrink(limit)
        assert kept.end == end
        assert kept.size == sum(told) <= limit
        assert whole(kept) == pattern(kept.start, end - kept.start)
    if not shrinks:
        assert end - kept.start == min(limit, end), "all that may be kept is kept"


@attrs.define(eq=False, slots=False)
class Process:
    """As a follower sees it."""

    kept: dict[int, Kept]
    over: bool = False

    def __attrs_post_init__(self) -> None:
        self.process = self
        self.number = 1
        self.exit: dict[str, Any] = {"status": 0}
        self.stdin = self

    def info(self) -> dict[str, Any]:
        return {}

    def withdraw(self, _taken: object) -> None:
        pass


@attrs.define(eq=False, slots=False)
class Service:
    """What a follower uses of it; its channel is the host's buffer."""

    detached: dict[int, Process]
    buffer: FollowedBuffer
    exits: int = 0

    def __attrs_post_init__(self) -> None:
        self.processes = self
        self.channel = self

    def send_value(self, kind: int, _stream: int, _value: object) -> None:
        self.exits += kind == wire.EXITED

    def send(self, kind: int, _stream: int, payload: bytes) -> None:
        assert kind == wire.SKIPPED + wire.STDOUT
        self.buffer.skip(wire.LONG_COUNT.unpack(payload)[0])

    def send_data(self, channel: int, _stream: int, data: bytes) -> None:
        assert channel == wire.STDOUT
        self.buffer.add(data)

    def forget(self, _stream: int) -> None:
        pass


acts = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 9000)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("read"), st.integers(1, 5000)),
        st.tuples(st.just("shrink"), st.integers(0, 3000)),
    ),
    max_size=60,
)


@given(limit=limits, window=st.sampled_from([1024, 4096, wire.WINDOW]), start=st.integers(0, 20_000), acts=acts)
@examples(300)
def test_a_follower_gets_all_that_is_kept_in_order_and_is_told_the_rest(
    limit: int, window: int, start: int, acts: list[tuple[str, int]]
) -> None:
    kept = Kept(limit, lambda _: None)
    kept.append(pattern(0, 10_000))
    process = Process({wire.STDOUT: kept, wire.STDERR: Kept(0, lambda _: None)})
    buffer = FollowedBuffer(wire.STDOUT, OutputStream.STDOUT)
    service = Service({1: process}, buffer)
    follower = Follower(service, 1, {"process_id": 1, "window": window, "stdout": start})  # type: ignore[arg-type]
    buffer.position = position = min(start, 10_000)

    def send(most: int) -> None:
        for _ in range(most):
            if not follower.ready or service.exits:
                return
            follower.run()
            assert buffer.held + buffer.owed_credit <= window

    def read(most: int) -> None:
        nonlocal position
        if buffer.readable:
            output = buffer.take(most)
            assert output.position >= position
            assert output.data == pattern(output.position, len(output.data))
            position = output.position + len(output.data)
        if buffer.owed_credit >= window // 4:
            follower.add_credit(wire.STDOUT, buffer.owed_credit)
            buffer.owed_credit = 0

    for act, number in acts:
        if act == "write":
            kept.append(pattern(kept.end, number))
        elif act == "send":
            send(number)
        elif act == "read":
            read(number)
        else:
            kept.shrink(number)
    process.over = True
    for _ in range(10_000):
        send(5)
        read(5000)
        if service.exits and not buffer.readable:
            break
    assert service.exits == 1
    assert buffer.position == kept.end, "it was told of every byte, or of its loss"
