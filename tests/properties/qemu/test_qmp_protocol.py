"""QMP framing and matching, for any conversation cut into any pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu.qmp.message import Message as ReferenceMessage

from vmm.errors import QmpConnectionError
from vmm.qemu.qmp.messages import Event, Failure, Greeting, Success, encode_command
from vmm.qemu.qmp.protocol import Phase, QmpProtocol

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
names = st.from_regex(r"[a-z][a-z-]{0,20}", fullmatch=True)
events = st.builds(
    lambda name, data, seconds: {"event": name, "data": data, "timestamp": {"seconds": seconds, "microseconds": 0}},
    names,
    st.dictionaries(st.text(), json_values, max_size=3),
    st.integers(-1, 2**40),
)
GREETING = {"QMP": {"version": {"qemu": {"major": 8, "minor": 0, "micro": 1}, "package": "v8"}, "capabilities": []}}


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """Commands, and all that QEMU says to them after its greeting, in any order."""
    commands = draw(st.lists(st.tuples(names, st.dictionaries(names, json_values, max_size=3)), max_size=6))
    replies = [
        draw(
            st.builds(lambda value, i=number: {"return": value, "id": i}, json_values)
            | st.builds(lambda desc, i=number: {"error": {"class": "GenericError", "desc": desc}, "id": i}, st.text())
        )
        for number in range(1, len(commands) + 1)
    ]
    return commands, draw(st.permutations(replies + draw(st.lists(events, max_size=4))))


def lines(documents: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\r\n" for document in documents)


@given(conversation=conversations(), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_every_message_arrives_once_and_in_order_however_the_bytes_are_cut(
    conversation: tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]], cuts: list[int]
) -> None:
    commands, said = conversation
    protocol = QmpProtocol()
    assert protocol.receive(lines([GREETING])) == [Greeting(qemu_version=(8, 0, 1), package="v8")]
    ids = [protocol.command(name, arguments)[0] for name, arguments in commands]
    assert protocol.outstanding == set(ids)
    data = lines(said)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    received = [message for start, end in itertools.pairwise(edges) for message in protocol.receive(data[start:end])]
    assert [_as_said(message) for message in received] == said
    assert protocol.outstanding == frozenset()


def _as_said(message: object) -> dict[str, Any]:
    match message:
        case Success(id=number, value=value):
            return {"return": value, "id": number}
        case Failure(id=number, error_class=kind, description=desc):
            return {"error": {"class": kind, "desc": desc}, "id": number}
        case Event(name=name, data=data, time_s=time_s):
            return {"event": name, "data": data, "timestamp": {"seconds": int(time_s), "microseconds": 0}}
    raise AssertionError(message)


@given(name=names, arguments=st.dictionaries(names, json_values, max_size=4), number=st.integers(1, 2**31))
def test_the_reference_library_reads_our_commands(name: str, arguments: dict[str, Any], number: int) -> None:
    line = encode_command(name, arguments, command_id=number)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    reference = ReferenceMessage(line)
    assert reference["execute"] == name
    assert reference["id"] == number
    assert reference.get("arguments", {}) == arguments


@given(document=st.dictionaries(names, json_values, min_size=1, max_size=4))
def test_we_read_what_the_reference_library_writes(document: dict[str, Any]) -> None:
    protocol = QmpProtocol()
    protocol.receive(lines([GREETING]))
    number, _ = protocol.command("query-status", {})
    reference = ReferenceMessage({"return": document, "id": number})
    assert protocol.receive(bytes(reference) + b"\n") == [Success(id=number, value=document)]


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_a_connection_error(garbage: bytes) -> None:
    protocol = QmpProtocol()
    try:
        protocol.receive(garbage + b"\n")
    except QmpConnectionError:
        assert protocol.phase is Phase.BROKEN
        with pytest.raises(QmpConnectionError):
            protocol.command("query-status", {})


@given(json_values)
def test_any_json_that_is_not_qmp_is_refused_with_a_connection_error(value: Any) -> None:
    with pytest.raises(QmpConnectionError):
        QmpProtocol().receive(json.dumps(value).encode() + b"\n")


@given(excess=st.integers(1, 50), piece=st.integers(1, 60))
def test_a_line_over_the_limit_breaks_the_connection_before_it_ends(excess: int, piece: int) -> None:
    protocol = QmpProtocol(max_line_bytes=100)
    data = b" " * (100 + excess)

    def receive_all() -> None:
        for start in range(0, len(data), piece):
            protocol.receive(data[start : start + piece])

    with pytest.raises(QmpConnectionError, match="over 100 bytes"):
        receive_all()


def test_a_reply_before_the_greeting_is_out_of_turn() -> None:
    with pytest.raises(QmpConnectionError, match="out of turn"):
        QmpProtocol().receive(b'{"return": {}, "id": 1}\n')


def test_a_reply_to_nothing_is_refused() -> None:
    protocol = QmpProtocol()
    protocol.receive(lines([GREETING]))
    number, _ = protocol.command("qmp_capabilities", {})
    protocol.receive(lines([{"return": {}, "id": number}]))
    with pytest.raises(QmpConnectionError, match="command 7"):
        protocol.receive(b'{"return": {}, "id": 7}\n')
    assert protocol.phase is Phase.BROKEN


def test_what_an_earlier_client_asked_is_answered_to_the_next_and_passed_over() -> None:
    """QEMU was at it when that client hung up: a service that was killed, or that gave a connection up."""
    protocol = QmpProtocol(last_id=40)
    late = [{"return": {}, "id": 2}, {"error": {"class": "GenericError", "desc": "no"}, "id": 3}]
    assert len(protocol.receive(lines([GREETING, late[0]]))) == 1
    number, _ = protocol.command("qmp_capabilities", {})
    assert protocol.receive(lines([late[1], {"return": {}, "id": number}])) == [Success(id=41, value={})]


def test_arguments_that_json_cannot_say_leave_no_command_outstanding() -> None:
    protocol = QmpProtocol()
    protocol.receive(lines([GREETING]))
    with pytest.raises(ValueError, match="JSON"):
        protocol.command("x", {"value": float("nan")})
    assert protocol.outstanding == frozenset()
