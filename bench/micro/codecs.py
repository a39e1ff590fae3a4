"""The two codecs on the way of a hand-out: the guest agent's frames and QEMU's QMP."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from vmm.guest.agent import values, wire
from vmm.qemu.qmp.messages import Greeting
from vmm.qemu.qmp.protocol import QmpProtocol
from vmm.words.preparation import RESEED_BYTES

_TIMES: Final = 200
_BULK: Final = os.urandom(wire.MAX_PAYLOAD)

CASES: Final = (
    Case(name="codec/agent-exchange", what="encode the request of a hand-out, decode its answer"),
    Case(name="codec/agent-bulk", what="encode and decode 64 KiB of a command's output"),
    Case(name="codec/qmp-exchange", what="encode `cont`, decode its reply and an event"),
    Case(name="codec/json-exchange", what="the same three lines of QMP through the json module alone"),
)

_REQUEST: Final = {
    "op": "prepare",
    "entropy": os.urandom(RESEED_BYTES),
    "wall_clock_ns": time.time_ns(),
    "hostname": "vm-0123456789ab",
    "machine_id": "0" * 32,
}
_ANSWER: Final = {
    "reseeded": True,
    "wall_clock_ns": time.time_ns(),
    "hostname": "vm-0123456789ab",
    "cpus_online": 1,
    "memory_mib": 220,
    "machine_id": "0" * 32,
}
_COMMAND: Final = {"execute": "cont", "id": 1}
_EVENT: Final = {"timestamp": {"seconds": 1700000000, "microseconds": 1}, "event": "RESUME"}
_GREETING: Final = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}, "capabilities": ["oob"]}
}


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\r\n"


def _agent() -> Callable[[], None]:
    decoder = wire.Decoder(max_message=256 * 1024)
    decoder.feed(wire.MARKER)
    answer = wire.encode(wire.REPLY, 1, values.pack(_ANSWER))

    def exchange() -> None:
        wire.encode(wire.REQUEST, 1, values.pack(_REQUEST))
        ((_, _, payload),) = decoder.feed(answer)
        values.unpack(payload)

    return exchange


def _bulk() -> Callable[[], None]:
    decoder = wire.Decoder(max_message=256 * 1024)
    decoder.feed(wire.MARKER)

    def exchange() -> None:
        decoder.feed(wire.encode_data(wire.STDOUT, 1, _BULK))

    return exchange


def _qmp() -> Callable[[], None]:
    protocol = QmpProtocol()
    (greeting,) = protocol.receive(_line(_GREETING))
    assert isinstance(greeting, Greeting)
    event = _line(_EVENT)

    def exchange() -> None:
        number, _ = protocol.command("cont", {})
        protocol.receive(_line({"return": {}, "id": number}) + event)

    return exchange


def _json() -> Callable[[], None]:
    event = _line(_EVENT)

    def exchange() -> None:
        _line(_COMMAND)
        for line in (_line({"return": {}, "id": 1}), event):
            json.loads(line)

    return exchange


@contextlib.asynccontextmanager
async def _open(_bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async def repeat(turn: Turn, *, exchange: Callable[[], None]) -> None:
        for _ in range(_TIMES):
            began = time.perf_counter()
            exchange()
            turn.record(time.perf_counter() - began)

    made = (_agent(), _bulk(), _qmp(), _json())
    yield {case.name: partial(repeat, exchange=exchange) for case, exchange in zip(CASES, made, strict=True)}


EXPERIMENT: Final = Experiment(name="codec", kind=Kind.MICRO, cases=CASES, open=_open, rounds=40, quick_rounds=8)
