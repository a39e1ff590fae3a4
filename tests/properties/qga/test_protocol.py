"""qemu-ga's protocol, whatever the pieces it comes in."""

from __future__ import annotations

import errno
import itertools
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.guest.qga.protocol import (
    MAX_PIECES,
    Decoder,
    Delimiter,
    Garbage,
    Message,
    Overlong,
    Reply,
    encode,
    encode_sync,
    errno_of,
)

MAX_LINE = 100

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
lines = st.one_of(
    st.builds(lambda value, number: json.dumps({"return": value, "id": number}).encode(), values, st.integers()),
    st.builds(lambda text: json.dumps({"error": {"class": "X", "desc": text}}).encode(), st.text()),
    st.binary(max_size=2 * MAX_LINE).map(lambda data: data.replace(b"\n", b"").replace(b"\xff", b"")),
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\xff", b"\n\xff"]))).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def decode(*pieces: bytes) -> list[Message]:
    decoder = Decoder(max_line=MAX_LINE)
    return [message for piece in pieces for message in decoder.feed(piece)]


@given(stream=streams, cuts=st.lists(st.integers(0, 2000)))
def test_pieces_make_no_difference(stream: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert decode(*(stream[start:end] for start, end in itertools.pairwise(at))) == decode(stream)


@given(before=st.binary(max_size=3 * MAX_LINE), value=st.integers(0, 2**31))
def test_what_follows_a_delimiter_is_read_whatever_came_before(before: bytes, value: int) -> None:
    messages = decode(before, b"\xff", json.dumps({"return": value, "id": 5}).encode() + b"\n")
    assert messages[-2:] == [Delimiter(), Reply(id=5, value=value)]


@given(line=st.binary(max_size=3 * MAX_LINE).filter(lambda data: not {10, 255} & set(data) and data.strip()))
def test_a_line_is_an_answer_or_garbage_or_too_long(line: bytes) -> None:
    [message] = decode(line + b"\n")
    assert isinstance(message, Overlong) == (len(line) > MAX_LINE)
    assert isinstance(message, Overlong | Garbage | Reply)


@given(name=st.text(), value=values, number=st.integers(0, 2**31))
def test_a_request_is_one_line_that_no_delimiter_is_in(name: str, value: object, number: int) -> None:
    line = encode(name, {"value": value}, request_id=number)
    assert line.count(b"\n") == 1
    assert b"\xff" not in line
    assert json.loads(line) == {"execute": name, "arguments": {"value": value}, "id": number}
    sync = encode_sync(number, request_id=1)
    assert (sync[:1], json.loads(sync[1:])["arguments"]) == (b"\xff", {"id": number})


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOSPC])
def test_an_errno_is_known_by_its_words(number: int) -> None:
    assert errno_of(f"failed to open file '/x' (mode: 'r'): {os.strerror(number)}") == errno.errorcode[number]
    assert errno_of("something else went wrong") is None


def test_an_answer_of_more_pieces_than_any_has_is_not_read() -> None:
    """The host would be at it for a second, again and again: eight MiB have room for millions."""
    pieces = b",".join([b"[]"] * MAX_PIECES)
    assert [type(message) for message in Decoder().feed(b'{"return": [' + pieces + b"]}\n")] == [Garbage]
    output = Decoder().feed(b'{"return": {"out-data": "' + b"QUJD" * MAX_PIECES + b'"}}\n')
    assert [type(message) for message in output] == [Reply]
