"""Properties of what stands between a client's bytes and a message."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import betterproto2
import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from pool.rpc.framing import Codec, MessageBuffer
from vmpool.wire.crossing import open_loop
from vmpool.wire.generated.vmpool import v1 as wire
from vmpool.wire.wellformed import (
    MAX_FIELDS,
    MAX_UNKNOWN_BYTES,
    MAX_UNKNOWN_FIELDS,
    Budget,
    TooManyFieldsError,
    check_wellformed,
)

REQUESTS = (wire.AcquireRequest, wire.ReleaseRequest, wire.ExecRequest, wire.ExecStart, wire.StatusRequest)


@given(
    messages=st.lists(st.binary(max_size=50), max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    padding=st.integers(0, 9),
)
def test_messages_do_not_depend_on_how_they_were_cut_and_all_is_acknowledged(
    messages: list[bytes], cuts: list[int], padding: int
) -> None:
    data = b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    acknowledged = 0

    def acknowledge(size: int) -> None:
        nonlocal acknowledged
        acknowledged += size

    async def scenario() -> list[bytes]:
        buffer = MessageBuffer(acknowledge=acknowledge, limit=50)
        for piece in pieces:
            buffer.add(piece, len(piece) + padding)
        buffer.eof()
        got = []
        while header := await buffer.read(5):
            got.append(await buffer.read(struct.unpack(">I", header[1:])[0]))
        acknowledge(buffer.unacked_size())
        return got

    async def main() -> list[bytes]:
        async with open_loop() as loop:
            return await loop.run(scenario)

    assert trio.run(main) == messages
    assert acknowledged == len(data) + padding * len(pieces)


@given(data=st.binary(max_size=40), kind=st.sampled_from(REQUESTS))
def test_bytes_become_a_message_with_fields_of_the_right_types_or_an_error(
    data: bytes, kind: type[betterproto2.Message]
) -> None:
    try:
        message = Codec().decode(data, kind)
    except GRPCError:
        return
    for name, value in vars(message).items():
        if name in ("lease_id", "profile", "idempotency_key", "working_directory"):
            assert isinstance(value, str)
        if name == "argv":
            assert all(isinstance(word, str) for word in value)
        if name in ("signal", "time_limit_ms") and value is not None:
            assert isinstance(value, int)


exec_starts = st.builds(
    wire.ExecStart,
    lease_id=st.text(max_size=9),
    argv=st.lists(st.text(max_size=9), max_size=4),
    environment=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4),
    working_directory=st.text(max_size=9),
    time_limit_ms=st.integers(0, 2**64 - 1),
)


@given(start=exec_starts)
def test_every_message_is_wellformed_and_comes_back(start: wire.ExecStart) -> None:
    data = bytes(wire.ExecRequest(start=start))
    assert Codec().decode(data, wire.ExecRequest) == wire.ExecRequest(start=start)


@given(start=exec_starts, data=st.data())
def test_no_message_that_lost_its_end_is_taken_for_a_whole_field(start: wire.ExecStart, data: st.DataObject) -> None:
    whole = bytes(wire.ExecRequest(start=start))
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ValueError, match=r"is truncated|is incomplete or too long"):
        check_wellformed(memoryview(whole[:cut]), wire.ExecRequest)


@pytest.mark.parametrize("data", [b"\x4a\x02\x01\x02", b"\x4a\x00", b"\x1a\x01\x01"], ids=["two", "none", "enum"])
def test_numbers_in_a_pack_are_not_one_number(data: bytes) -> None:
    """betterproto2 makes a list of them, whatever the field is."""
    with pytest.raises(ValueError, match=r"field (lease_ttl_ms|on_empty) is no"):
        check_wellformed(memoryview(data), wire.AcquireRequest)


WORD = b"\x12\x01x"
TOO_MANY: dict[str, tuple[type[betterproto2.Message], bytes]] = {
    "words of a command": (wire.ExecStart, WORD * (MAX_FIELDS + 1)),
    "words further down": (wire.ExecRequest, b"\x0a\xb3\xea\x01" + WORD * (MAX_FIELDS + 1)),
    "the same number again and again": (wire.AcquireRequest, b"\x20\x01" * (MAX_FIELDS + 1)),
    "variables, of which each is a message": (
        wire.AcquireRequest,
        b"\x3a\x06\x0a\x01a\x12\x01b" * (MAX_FIELDS // 3 + 1),
    ),
    "unknown fields": (wire.StatusRequest, b"\xf8\x01\x01" * (MAX_UNKNOWN_FIELDS + 1)),
    "unknown fields of parts": (wire.AcquireRequest, b"\x42\x03\xf8\x01\x01" * (MAX_UNKNOWN_FIELDS + 1)),
    "unknown bytes": (wire.StatusRequest, b"\xfa\x01\x81\x80\x10" + bytes(MAX_UNKNOWN_BYTES + 1)),
}


@pytest.mark.parametrize("what", TOO_MANY)
def test_what_would_take_long_to_read_is_refused_before_it_is_read(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """betterproto2 takes seconds for a few hundred kilobytes of them, and nothing else happens meanwhile."""
    kind, data = TOO_MANY[what]
    monkeypatch.setattr(kind, "parse", None)
    with pytest.raises(GRPCError) as refused:
        Codec().decode(data, kind)
    assert refused.value.status is Status.RESOURCE_EXHAUSTED
    assert "send less" in str(refused.value.message)


START: dict[str, Any] = {"lease_id": "lease-1", "argv": ["env"]}
NAMED: dict[str, betterproto2.Message] = {
    "start.argv": wire.ExecRequest(start=wire.ExecStart(argv=["x"] * MAX_FIELDS)),
    "start.environment": wire.ExecRequest(
        start=wire.ExecStart(**START, environment={f"A{number}": "v" for number in range(MAX_FIELDS // 3 + 1)})
    ),
    "environment": wire.AcquireRequest(environment={f"A{number}": "v" for number in range(MAX_FIELDS // 3 + 1)}),
    "files": wire.AcquireRequest(files=[wire.GuestFile(path="/x", data=b"x")] * (MAX_FIELDS // 3 + 1)),
    "field 31 of start": wire.ExecRequest.parse(b"\x0a\xbb\x17" + b"\xf8\x01\x01" * (MAX_UNKNOWN_FIELDS + 1)),
}


@pytest.mark.parametrize("field", NAMED)
def test_a_message_that_has_too_much_is_told_which_field_of_its_request_that_is(field: str) -> None:
    """A list's name is told, and not what its elements have."""
    with pytest.raises(TooManyFieldsError) as refused:
        check_wellformed(memoryview(bytes(NAMED[field])), type(NAMED[field]), budget=Budget())
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: puts ")


def test_a_field_of_the_wrong_type_is_named_with_where_it_is() -> None:
    with pytest.raises(ValueError, match=r"field start\.argv is not a string"):
        check_wellformed(memoryview(b"\x0a\x02\x10\x01"), wire.ExecRequest)
    with pytest.raises(ValueError, match=r"field environment\.key is not a string"):
        check_wellformed(memoryview(b"\x3a\x02\x08\x01"), wire.AcquireRequest)


def test_as_many_as_may_be_are_taken() -> None:
    start = wire.ExecStart(argv=["x"] * MAX_FIELDS)
    assert Codec().decode(bytes(start), wire.ExecStart) == start
    assert Codec().decode(b"\xf8\x01\x01" * MAX_UNKNOWN_FIELDS, wire.StatusRequest) is not None


@given(count=st.integers(0, 12), fields=st.integers(0, 12))
def test_the_budget_is_of_all_fields_wherever_they_are(count: int, fields: int) -> None:
    request = wire.AcquireRequest(files=[wire.GuestFile(path="/x", data=b"y") for _ in range(count)])
    data = memoryview(bytes(request))
    if 3 * count <= fields:
        check_wellformed(data, wire.AcquireRequest, budget=Budget(fields=fields))
    else:
        with pytest.raises(TooManyFieldsError):
            check_wellformed(data, wire.AcquireRequest, budget=Budget(fields=fields))
