"""The agent channel's bytes: what goes in comes out, in whatever pieces, and after whatever went before."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.guest.agent import values, wire
from vmm.words import commands

MARKER = wire.MARKER

# Payloads that come close to containing the marker are the interesting ones.
fragments = st.one_of(
    st.binary(max_size=40),
    st.just(MARKER),
    st.integers(0, len(MARKER)).map(lambda end: MARKER[:end]),
    st.integers(0, len(MARKER)).map(lambda start: MARKER[start:]),
    st.integers(0, 3).map(lambda near: bytes(wire.MAX_PAYLOAD - near)),
)
payloads = st.lists(fragments, max_size=5).map(b"".join)
kinds = st.sampled_from([wire.REQUEST, wire.REPLY, wire.ERROR, wire.CANCEL])
streams = st.integers(0, 2**32 - 1)
messages = st.lists(st.tuples(kinds, streams, payloads), max_size=5)


def encode_all(messages: list[wire.Frame]) -> bytes:
    return b"".join(wire.encode(*message) for message in messages)


def decode(data: bytes, cuts: list[int], *, max_message: int = 10_000_000) -> list[wire.Frame]:
    decoder = wire.Decoder(max_message=max_message)
    frames: list[wire.Frame] = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        frames += decoder.feed(data[start:end])
    return frames


cuts = st.lists(st.integers(0, 2**20), max_size=12)


@given(messages=messages, cuts=cuts)
def test_messages_survive_any_chunking(messages: list[wire.Frame], cuts: list[int]) -> None:
    assert decode(MARKER + encode_all(messages), cuts) == [(wire.SYNCED, 0, b""), *messages]


@given(kind=kinds, stream=streams, payload=payloads)
def test_the_marker_is_never_in_what_is_encoded(kind: int, stream: int, payload: bytes) -> None:
    assert MARKER not in wire.encode(kind, stream, payload)
    assert MARKER not in wire.encode_data(wire.STDOUT, stream, payload)
    # Nor where one message meets the next.
    assert MARKER not in wire.encode(kind, stream, payload) + wire.encode(kind, stream, payload)


@given(stream=streams, payload=payloads, cuts=cuts)
def test_data_arrives_whole_in_frames_of_its_channel(stream: int, payload: bytes, cuts: list[int]) -> None:
    frames = decode(MARKER + wire.encode_data(wire.STDERR, stream, payload), cuts)[1:]
    assert {frame[:2] for frame in frames} == {(wire.DATA + wire.STDERR, stream)}
    assert b"".join(payload for _, _, payload in frames) == payload


@given(before=st.lists(fragments, max_size=4).map(b"".join), messages=messages, cuts=cuts)
def test_nothing_that_went_before_disturbs_a_session(
    before: bytes, messages: list[wire.Frame], cuts: list[int]
) -> None:
    frames = decode(before + MARKER + encode_all(messages), cuts)
    last = max(index for index, frame in enumerate(frames) if frame[0] == wire.SYNCED)
    assert frames[last + 1 :] == messages


@given(first=messages, cut=st.integers(0, 2**20), second=messages, cuts=cuts)
def test_a_sender_that_dies_in_mid_frame_does_not_disturb_the_next_session(
    first: list[wire.Frame], cut: int, second: list[wire.Frame], cuts: list[int]
) -> None:
    dying = encode_all(first)
    data = MARKER + dying[: cut % (len(dying) + 1)] + MARKER + encode_all(second)
    frames = decode(data, cuts)
    last = max(index for index, frame in enumerate(frames) if frame[0] == wire.SYNCED)
    assert frames[last + 1 :] == second


@given(data=st.binary(max_size=300), cuts=cuts)
def test_any_bytes_decode_to_something_and_memory_stays_bounded(data: bytes, cuts: list[int]) -> None:
    for kind, _, payload in decode(MARKER + data, cuts, max_message=100):
        assert kind == wire.BROKEN or len(payload) <= 300


@given(messages=messages, cuts=cuts)
def test_what_is_missing_completes_one_frame_and_no_more(messages: list[wire.Frame], cuts: list[int]) -> None:
    decoder = wire.Decoder(max_message=10_000_000)
    decoder.feed(MARKER)
    data = encode_all(messages)
    steps, at = iter(cuts), 0
    while at < len(data):
        before, missing = decoder.frames, decoder.missing
        step = missing or 1 + next(steps, len(data)) % (len(data) - at)
        decoder.feed(data[at : at + step])
        at += step
        if missing:
            assert (decoder.frames, decoder.missing) == (before + 1, 0)
    assert decoder.missing == 0


def test_a_message_longer_than_allowed_breaks_the_session_only() -> None:
    decoder = wire.Decoder(max_message=100_000)
    frames = decoder.feed(MARKER + wire.encode(wire.REQUEST, 1, bytes(200_000)))
    assert [kind for kind, _, _ in frames] == [wire.SYNCED, wire.BROKEN]
    assert decoder.feed(MARKER + wire.encode(wire.CANCEL, 5)) == [(wire.SYNCED, 0, b""), (wire.CANCEL, 5, b"")]


def test_no_bytes_of_the_marker_repeat() -> None:
    assert len(set(MARKER)) == len(MARKER)
    assert min(MARKER) > 0x7F


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(fields=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), leaves | st.lists(leaves)))
def test_values_survive(fields: dict[str, Any]) -> None:
    assert values.unpack(values.pack(fields)) == fields


@given(name=st.binary())
def test_file_names_that_are_no_text_survive(name: bytes) -> None:
    path = name.decode("utf-8", "surrogateescape")
    assert values.unpack(values.pack(path)) == path


@given(data=st.binary(max_size=60) | st.lists(st.sampled_from([b"d", b"l", b"s", b"\2\0\0\0", b"n"])).map(b"".join))
def test_bytes_that_are_no_value_raise_value_error_only(data: bytes) -> None:
    try:
        value = values.unpack(data)
    except ValueError:
        return
    assert values.unpack(values.pack(value)) == value


@pytest.mark.parametrize("value", [2**63, "\ud800", {1: 2}, 1.5, object()])
def test_what_has_no_place_on_the_wire_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        values.pack(value)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        values.unpack(b"l\1\0\0\0" * 1000 + b"n")


def test_the_host_counts_with_the_window_of_the_wire() -> None:
    assert commands.WINDOW == wire.WINDOW
