"""A few hundred inputs, and that the checks see what they are for. `scripts/fuzz` tries as many as you like."""

from __future__ import annotations

import asyncio  # noqa: TID251 - faults are put where asyncio calls
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.health.service import Health
from grpclib.protocol import H2Protocol

from pool.core.coordinator import Coordinator
from pool.ledger.records import Lease
from pool.rpc import server
from pool.rpc.connection import GuardedProtocol
from tests.fuzz import campaign, client
from tests.fuzz.campaign import BatchError, command, narrow, run_campaign
from tests.fuzz.client import FindingError
from tests.fuzz.drawn import LEASE
from tests.fuzz.inputs import Call, Leaving, Stream, make_input
from tests.fuzz.memory import MemorySample, growth
from tests.unit.rpc.served import Served

SEED = 1


async def test_whatever_comes_the_service_is_as_if_nothing_had_been(vm_home: Path) -> None:
    report = await run_campaign(vm_home, inputs=600, seed=SEED, batch=150)
    assert report.inputs == sum(report.outcomes.values()) == 600
    served, refused = "call ended with 0", {"call ended with 3", "call ended with 5", "call ended with 12"}
    assert {served, *refused, "connection served", "connection refused", "connection left"} <= report.outcomes.keys()


def test_an_input_follows_from_its_seed_and_index() -> None:
    inputs = [make_input(SEED, index) for index in range(50)]
    assert inputs == [make_input(SEED, index) for index in range(50)]
    assert all(one != other for one, other in zip(inputs, (make_input(2, index) for index in range(50)), strict=True))
    assert {Call, Stream} == {type(one) for one in inputs}


def test_a_finding_can_be_replayed_alone(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def acquire(_self: Coordinator, *, key: str = "", **_others: Any) -> Lease:
        raise TypeError(key)

    monkeypatch.setattr(Coordinator, "acquire", acquire)

    async def no_target(_served: Served) -> str:
        return LEASE

    def waited_for(seed: int, index: int) -> Stream | Call:
        """Of what its client leaves, the service may log the error before anybody finds it in an answer."""
        given = make_input(seed, index)
        return given if isinstance(given, Call) and given.must_end else Stream(data=b"", leaving=Leaving.CLOSE)

    monkeypatch.setattr(campaign, "_target", no_target)
    monkeypatch.setattr(campaign, "make_input", waited_for)
    with pytest.raises(FindingError, match="an internal error") as found:
        trio.run(lambda: run_campaign(vm_home, inputs=3000, seed=SEED))
    elsewhere = vm_home / "again"
    elsewhere.mkdir()
    with pytest.raises(FindingError) as again:
        trio.run(lambda: run_campaign(elsewhere, inputs=1, seed=SEED, first=found.value.index))
    assert again.value.index == found.value.index
    assert command(inputs=1, seed=SEED, first=found.value.index) == f"scripts/fuzz 1 {SEED} {found.value.index}"


def an_error_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def connection_lost(self: GuardedProtocol, error: BaseException | None) -> None:
        logging.getLogger("library").error("what an operator would read")
        original(self, error)

    original = GuardedProtocol.connection_lost
    monkeypatch.setattr(GuardedProtocol, "connection_lost", connection_lost)


def a_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def connection_made(self: GuardedProtocol, transport: asyncio.BaseTransport) -> None:
        os.dup(0)
        original(self, transport)

    original = GuardedProtocol.connection_made
    monkeypatch.setattr(GuardedProtocol, "connection_made", connection_made)


def a_task_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def connection_made(self: GuardedProtocol, transport: asyncio.BaseTransport) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 5)
        original(self, transport)

    original = GuardedProtocol.connection_made
    monkeypatch.setattr(GuardedProtocol, "connection_made", connection_made)


def a_connection_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "LIMIT_S", 0.5)
    monkeypatch.setattr(GuardedProtocol, "connection_lost", H2Protocol.connection_lost)


def an_error_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def data_received(self: GuardedProtocol, data: bytes) -> None:
        if b"Hold" in data:
            asyncio.get_running_loop().call_soon(divmod, 1, 0)
        original(self, data)

    original = GuardedProtocol.data_received
    monkeypatch.setattr(GuardedProtocol, "data_received", data_received)


def descriptors() -> set[int]:
    """Those that are open, without the one that this takes."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


FAULTS = [
    pytest.param(
        an_error_in_the_log,
        "logged: library: what an operator would read",
        marks=pytest.mark.logs_error("library: what an operator would read"),
    ),
    (a_descriptor_left, "descriptors"),
    (a_task_left, "tasks"),
    (a_connection_left, "calls or connections are left"),
    (an_error_in_the_loop, "errors reached the event loop"),
]


@pytest.mark.parametrize(("fault", "told"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_each_check_can_fail(
    vm_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    told: str,
) -> None:
    before = descriptors()
    fault(monkeypatch)
    try:
        with pytest.raises(BatchError, match=told):
            trio.run(lambda: run_campaign(vm_home, inputs=150, seed=SEED))
    finally:
        for left in descriptors() - before:
            os.close(left)


def test_an_answer_that_does_not_come_is_found(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def data_received(self: GuardedProtocol, data: bytes) -> None:
        if b"Renew" in data:
            deaf.add(self)
        if self not in deaf:
            original(self, data)

    deaf: set[GuardedProtocol] = set()
    original = GuardedProtocol.data_received
    monkeypatch.setattr(client, "LIMIT_S", 0.5)
    monkeypatch.setattr(GuardedProtocol, "data_received", data_received)
    renewal = next(index for index in range(1000) if getattr(make_input(SEED, index), "path", b"").endswith(b"/Renew"))
    with pytest.raises(FindingError, match=r"no answer within 0.5 s"):
        trio.run(lambda: run_campaign(vm_home, inputs=1, seed=SEED, first=renewal))


@pytest.mark.logs_error("grpclib.server: Application error")
def test_the_harmful_one_of_a_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HealthService", lambda checks, **_profiles: Health(checks))
    harmful = next(index for index in range(10_000) if _asks_for_health_without_a_request(make_input(SEED, index)))
    assert narrow(tempfile.TemporaryDirectory, SEED, range(harmful - 2, harmful + 3)) == harmful


def _asks_for_health_without_a_request(given: Stream | Call) -> bool:
    if not isinstance(given, Call) or not given.plain or not given.must_end:
        return False
    return given.path.endswith(b"/Check") and given.ends_stream and not given.pieces


def samples(objects: Callable[[int], float], rss_mib: Callable[[int], float] = lambda _: 50.0) -> list[MemorySample]:
    return [
        MemorySample(inputs=number * 500, objects=round(objects(number)), rss_mib=rss_mib(number))
        for number in range(1, 101)
    ]


@pytest.mark.parametrize(
    ("taken", "lasting"),
    [
        (samples(lambda _: 70_000), False),
        (samples(lambda number: 70_000 + number % 7 * 300), False),
        (samples(lambda number: 70_000 + min(number, 20) * 1000), False),
        (samples(lambda number: 70_000 + (50_000 if number in (70, 80) else 0)), False),
        (samples(lambda number: 70_000 + number * 20), True),
        (samples(lambda _: 70_000, lambda number: 50 + number * 0.2), True),
    ],
    ids=["flat", "noise", "warm-up", "a busy moment", "one object per 25 inputs", "200 KiB per 500 inputs"],
)
def test_what_counts_as_growth(taken: list[MemorySample], lasting: bool) -> None:
    grown = growth(taken)
    assert grown is not None
    assert grown.lasting is lasting, str(grown)


def test_a_short_run_says_nothing_of_memory() -> None:
    assert growth(samples(lambda number: number * 1000)[:20]) is None
