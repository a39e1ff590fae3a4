"""Every field of a request is judged, and the message names it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pool.ledger.policy import OnEmpty
from pool.rpc.errors import InvalidRequestError
from pool.rpc.leases import acquire_arguments, lease_id_of
from pool.rpc.machine.commands import command_spec
from pool.rpc.machine.fields import signal_of
from tests.unit.rpc.raw import ACQUIRE, EXEC, RELEASE, STATUS, connected, framed
from tests.unit.rpc.served import Served
from vmpool.wire.generated.vmpool import v1 as wire

INVALID = "3"


def test_empty_fields_mean_the_defaults() -> None:
    arguments = acquire_arguments(wire.AcquireRequest())
    assert (arguments.profile, arguments.request.key, arguments.on_empty) == ("default", "", None)
    spec = command_spec(wire.ExecStart(argv=["true"]), field="start")
    assert (spec.working_directory, spec.time_limit_s, spec.stdin) == (None, None, None)


def test_a_command_may_be_given_256_kib() -> None:
    assert command_spec(wire.ExecStart(argv=["cat"], stdin=bytes(256 * 1024)), field="start").stdin == bytes(256 * 1024)


def test_a_command_may_have_as_much_as_linux_takes() -> None:
    word = "a" * (2**17 - 1)
    spec = command_spec(
        wire.ExecStart(argv=[word] * 8, environment={f"A{number}": word[3:] for number in range(7)}), field="start"
    )
    assert len(spec.argv) == 8


@pytest.mark.parametrize(("number", "policy"), [(0, None), (1, OnEmpty.WAIT), (2, OnEmpty.FAIL), (3, OnEmpty.BOOT)])
def test_on_empty(number: int, policy: OnEmpty | None) -> None:
    assert acquire_arguments(wire.AcquireRequest(on_empty=wire.OnEmpty(number))).on_empty is policy


def test_a_key_may_have_128_bytes() -> None:
    assert acquire_arguments(wire.AcquireRequest(idempotency_key="k" * 128)).request.key == "k" * 128


_BAD_ACQUIRES: list[tuple[wire.AcquireRequest, str]] = [
    (wire.AcquireRequest(profile="p" * 129), "profile: has 129 bytes"),
    (wire.AcquireRequest(idempotency_key="\N{SNOWMAN}" * 43), "idempotency_key: has 129 bytes"),
    (wire.AcquireRequest.parse(b"\x18\x63"), "on_empty: 99 is unknown"),
    (wire.AcquireRequest(environment={"A": "1" * 2**17}), r"environment\['A'\]: has 131074 bytes; .* use a file"),
    (
        wire.AcquireRequest(environment={f"A{number}": "1" * 100_000 for number in range(21)}),
        "environment: takes 2100263 bytes; the maximum in all is 2080768; use a file",
    ),
    (wire.AcquireRequest(files=[wire.GuestFile(path="/" + "a" * 4095)]), r"files\[0\].path: has 4096 bytes"),
]


def test_labels_may_be_32_of_63_characters_and_256_bytes() -> None:
    labels = {f"{number:02}-{'./_aZ9' * 10}": "\N{SNOWMAN}" * 85 + "x" for number in range(32)}
    assert acquire_arguments(wire.AcquireRequest(labels=labels)).request.labels == labels


_BAD_LABELS: list[tuple[dict[str, str], str]] = [
    ({f"k{number}": "" for number in range(33)}, "labels: has 33 entries; at most 32"),
    ({"": "x"}, r"labels\[''\]: is not a label key"),
    ({"a b": "x"}, r"labels\['a b'\]: is not a label key"),
    ({"k\n": "x"}, r"labels\['k\\n'\]: is not a label key"),
    ({"\N{SNOWMAN}": "x"}, "is not a label key"),
    ({"k" * 64: "x"}, "is not a label key; use 1 to 63"),
    ({"job": "\N{SNOWMAN}" * 86}, r"labels\['job'\]: has 258 bytes; at most 256"),
]


@pytest.mark.parametrize(("labels", "text"), _BAD_LABELS)
def test_a_label_that_cannot_be_is_named(labels: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        acquire_arguments(wire.AcquireRequest(labels=labels))


@pytest.mark.parametrize(("request_", "text"), _BAD_ACQUIRES)
def test_acquire_names_the_bad_field(request_: wire.AcquireRequest, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        acquire_arguments(request_)


_BAD_STARTS: list[tuple[dict[str, Any], str]] = [
    ({"argv": []}, "start.argv: is empty"),
    ({"argv": ["", "x"]}, r"start.argv\[0\]: is empty"),
    ({"argv": ["echo", "a\0b"]}, r"start.argv\[1\]: has a NUL"),
    (
        {"argv": ["echo", "a" * 2**17]},
        r"start.argv\[1\]: has 131072 bytes; the maximum for one string is 131071; use a file",
    ),
    ({"argv": ["echo", "\N{SNOWMAN}" * 50_000]}, r"start.argv\[1\]: has 150000 bytes"),
    ({"argv": ["a" * 100_000] * 21}, "start.argv: takes 2100189 bytes; the maximum in all is 2080768"),
    ({"argv": ["env"], "environment": {"A": "1" * (2**17 - 2)}}, r"start.environment\['A'\]: has 131072 bytes"),
    (
        {"argv": ["a" * 100_000] * 11, "environment": {f"A{number}": "1" * 100_000 for number in range(10)}},
        "start.argv and start.environment: takes 2100",
    ),
    ({"argv": ["pwd"], "working_directory": "/" * 4096}, "start.working_directory: has 4096 bytes"),
    ({"argv": ["env"], "environment": {"A=B": "1"}}, "start.environment: 'A=B' is not a name"),
    ({"argv": ["env"], "environment": {"": "1"}}, "start.environment: '' is not a name"),
    ({"argv": ["env"], "environment": {"A\0": "1"}}, r"start.environment: 'A.x00' is not a name"),
    ({"argv": ["env"], "environment": {"A": "1\0"}}, r"start.environment\['A'\]: has a NUL"),
    ({"argv": ["pwd"], "working_directory": "/a\0b"}, "start.working_directory: has a NUL"),
    ({"argv": ["true"], "time_limit_ms": 2**63}, "start.time_limit_ms: 9223372036854775808 is more than 30 days"),
    ({"argv": ["cat"], "stdin": bytes(256 * 1024 + 1)}, "start.stdin: has 262145 bytes; the maximum is 262144"),
]


@pytest.mark.parametrize(("fields", "text"), _BAD_STARTS)
def test_start_names_the_bad_field(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        command_spec(wire.ExecStart(lease_id="lease-1", **fields), field="start")


@pytest.mark.parametrize("number", [-1, 0, 65, 2**31 - 1])
def test_a_signal_is_1_to_64(number: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"signal: {number} is not a signal number"):
        signal_of(number)


def test_a_lease_id_is_needed() -> None:
    with pytest.raises(InvalidRequestError, match="lease_id: is empty"):
        lease_id_of("")


# -- over the wire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ACQUIRE, RELEASE, STATUS])
async def test_a_request_without_a_message(served: Served, path: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(path)
        await raw.send(call, end=True)
        assert await raw.status(call) == (INVALID, "request: is missing; send one message")


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7fshort", b"\x0b" * 9])
async def test_bytes_that_are_no_message(served: Served, body: bytes) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(ACQUIRE)
        await raw.send(call, struct.pack(">BI", 0, len(body)) + body, end=True)
        status, message = await raw.status(call)
    assert status == INVALID
    assert "are not a valid AcquireRequest" in message
    await served.until(served.lost)


_START = wire.ExecRequest(start=wire.ExecStart(argv=["sleep", "1000"]))
_START_WITH_STDIN = wire.ExecRequest(start=wire.ExecStart(argv=["sleep", "1000"], stdin=b"given"))

_BAD_EXECS: list[tuple[list[wire.ExecRequest], str]] = [
    ([], "start: must be the first message"),
    ([wire.ExecRequest(stdin=b"x")], "start: must be the first message"),
    ([wire.ExecRequest()], "kind: has nothing"),
    ([_START, _START], "start: was already sent"),
    ([_START, wire.ExecRequest()], "kind: has nothing"),
    ([_START, wire.ExecRequest(stdin=b"x", signal=9)], "kind: has stdin and signal"),
    ([_START_WITH_STDIN, wire.ExecRequest(stdin=b"x")], "stdin: was already sent in start.stdin"),
    ([_START, wire.ExecRequest(signal=0)], "signal: 0 is not a signal number"),
    ([_START, wire.ExecRequest(signal=65)], "signal: 65 is not a signal number"),
    (
        [_START, wire.ExecRequest(close_stdin=wire.CloseStdin()), wire.ExecRequest(stdin=b"x")],
        "stdin: came after close_stdin",
    ),
    ([wire.ExecRequest(start=wire.ExecStart(lease_id="", argv=["true"]))], "start.lease_id: is empty"),
    ([wire.ExecRequest(start=wire.ExecStart(argv=["no-such-program"]))], "start.argv[0]: cannot be used"),
]


@pytest.mark.parametrize(("requests", "text"), _BAD_EXECS)
async def test_exec_names_what_is_wrong_and_kills_the_command(
    served: Served, requests: list[wire.ExecRequest], text: str
) -> None:
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        call = await raw.start(EXEC)
        for request in requests:
            if request.start is not None and "lease_id" not in text:
                request.start.lease_id = vm.lease_id
            await raw.send(call, framed(request))
        await raw.send(call, end=not requests)
        status, message = await raw.status(call)
    assert (status, message[: len(text)]) == (INVALID, text)
