"""Frames, cut out of what arrives."""

from __future__ import annotations

import itertools
import struct

import pytest
from h2.exceptions import DenialOfServiceError, FrameTooLargeError, ProtocolError
from hypothesis import given
from hypothesis import strategies as st

from pool.rpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    HEADERS_WEIGHT,
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    PADDED,
    PING,
    PREFACE,
    FrameCutter,
    FrameHead,
)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def begun() -> FrameCutter:
    cutter = FrameCutter()
    cutter.add(PREFACE)
    assert cutter.take(most=1) == (PREFACE, [])
    return cutter


@given(
    payloads=st.lists(st.binary(max_size=40), max_size=20),
    cuts=st.lists(st.integers(0, 1000), max_size=20),
    weight=st.integers(1, 5),
)
def test_all_is_taken_once_in_whole_frames_however_it_arrives(
    payloads: list[bytes], cuts: list[int], weight: int
) -> None:
    sent = PREFACE + b"".join(frame(0x77, payload, stream=1) for payload in payloads)
    cutter, taken, sizes = FrameCutter(), b"", []
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    for start, end in itertools.pairwise(edges):
        cutter.add(sent[start:end])
        while True:
            data, heads = cutter.take(most=weight)
            assert len(heads) <= weight
            taken += data
            sizes += [head.size for head in heads]
            if not cutter.has_frame():
                break
    assert taken == sent
    assert sizes == [len(payload) for payload in payloads]


def test_no_more_is_taken_at_once_than_makes_so_much_work() -> None:
    cutter = begun()
    cutter.add((frame(HEADERS, flags=END_HEADERS, stream=1) + frame(PING, bytes(8))) * 10)
    _, heads = cutter.take(most=HEADERS_WEIGHT + 2)
    assert [head.kind for head in heads] == [HEADERS, PING, HEADERS]
    assert cutter.has_frame()


def test_padding_does_not_count() -> None:
    cutter = begun()
    cutter.add(frame(DATA, bytes([5]) + b"abc" + bytes(5), flags=PADDED, stream=3))
    assert cutter.take(most=1)[1] == [FrameHead(DATA, PADDED, 3, 3)]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"PRI * HTTP/2.1", b"\xa5"])
def test_what_is_no_http_2_is_found_out_at_once(data: bytes) -> None:
    cutter = FrameCutter()
    cutter.add(data)
    with pytest.raises(ProtocolError):
        cutter.take(most=1)


def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    cutter = begun()
    cutter.add(frame(DATA, bytes(MAX_PAYLOAD_BYTES + 1))[:9])
    assert cutter.has_frame()
    with pytest.raises(FrameTooLargeError):
        cutter.take(most=1)


def test_headers_in_pieces_are_refused_when_they_are_too_large_together() -> None:
    cutter = begun()
    cutter.add(frame(HEADERS, bytes(100), stream=1))
    cutter.add(frame(CONTINUATION, bytes(MAX_HEADER_BYTES - 100), stream=1))
    cutter.take(most=100)
    cutter.add(frame(CONTINUATION, bytes(1), stream=1))
    with pytest.raises(DenialOfServiceError):
        cutter.take(most=100)


def test_headers_that_were_complete_do_not_count_for_the_next() -> None:
    cutter = begun()
    for stream in range(1, 99, 2):
        cutter.add(frame(HEADERS, bytes(1000), flags=END_HEADERS, stream=stream))
    assert len(cutter.take(most=10_000)[1]) == 49
