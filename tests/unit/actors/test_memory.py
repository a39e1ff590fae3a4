"""Low memory: found at once, over only when it is well over, and no more is asked for than is needed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from actors.memory import HostMemory, MemoryJudge, MemoryPolicy, MemoryState
from actors.pressure import PressureWatcher
from actors.supervisor import NEVER_GIVE_UP, Supervised
from tests.virtual_time import in_virtual_time
from vmm.memory import MemoryReading, Pressure, read_memory

OK, LOW = MemoryState.OK, MemoryState.LOW
POLICY = MemoryPolicy(
    pressure=10, pressure_clear=5, available_mib=500, available_clear_mib=800, clear_s=4, interval_s=2, falling=0.85
)


def reading(pressure: float | None = 0.0, available: int | None = 9000, own: float | None = None) -> MemoryReading:
    def known(some: float | None) -> Pressure | None:
        return None if some is None else Pressure(some_avg10=some, full_avg10=0.0)

    return MemoryReading(available_mib=available, host=known(pressure), own=known(own))


READINGS: dict[str, tuple[list[MemoryReading], list[tuple[MemoryState, bool]]]] = {
    "plenty": (
        [reading(), reading(), reading()],
        [(OK, True), (OK, False), (OK, False)],
    ),
    "at the thresholds is not beyond them": (
        [reading(10.0), reading(available=500)],
        [(OK, True), (OK, False)],
    ),
    "pressure that lasts is reported each time": (
        [reading(), reading(10.1), reading(12), reading(12)],
        [(OK, True), (LOW, True), (LOW, True), (LOW, True)],
    ),
    "pressure that has ended asks for no more, while its average falls": (
        [reading(40), reading(33), reading(27), reading(22)],
        [(LOW, True), (LOW, False), (LOW, False), (LOW, False)],
    ),
    "pressure that falls slowly has not ended": (
        [reading(40), reading(38)],
        [(LOW, True), (LOW, True)],
    ),
    "too little available is reported each time, whatever the pressure does": (
        [reading(40, 499), reading(20, 499), reading(0, 499)],
        [(LOW, True), (LOW, True), (LOW, True)],
    ),
    "between the thresholds it stays as it was, and nothing is asked for": (
        [reading(7, 600), reading(11), reading(7), reading(7), reading(7)],
        [(OK, True), (LOW, True), (LOW, False), (LOW, False), (LOW, False)],
    ),
    "over when both are well clear for some time": (
        [reading(0, 400), reading(5, 800), reading(5, 800), reading(5, 800), reading(5, 800)],
        [(LOW, True), (LOW, False), (LOW, False), (OK, True), (OK, False)],
    ),
    "one alone is not enough": (
        [reading(0, 400), *[reading(0, 799)] * 4, *[reading(5.1, 900)] * 4],
        [(LOW, True), *[(LOW, False)] * 8],
    ),
    "a relapse starts the time anew": (
        [reading(0, 400), reading(), reading(), reading(6), reading(), reading(), reading()],
        [(LOW, True), (LOW, False), (LOW, False), (LOW, False), (LOW, False), (LOW, False), (OK, True)],
    ),
    "without PSI, what is available decides": (
        [reading(None), reading(None, 499), reading(None, 800), reading(None, 800), reading(None, 800)],
        [(OK, True), (LOW, True), (LOW, False), (LOW, False), (OK, True)],
    ),
    "pressure on our own control group counts": (
        [reading(0, own=30), reading(None, own=30)],
        [(LOW, True), (LOW, True)],
    ),
    "a kernel that tells nothing": (
        [reading(None, None), reading(None, None)],
        [(OK, True), (OK, False)],
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_what_is_low_and_what_is_reported(name: str) -> None:
    given, wanted = READINGS[name]
    judge = MemoryJudge(policy=POLICY)
    verdicts = [judge.judge(one, now=2.0 * number) for number, one in enumerate(given)]
    assert [(verdict.state, reported) for verdict, reported in verdicts] == wanted


NO_PSI = "this kernel has no pressure stall information (CONFIG_PSI), so only MemAvailable counts"

REASONS = [
    (reading(), "enough memory is available"),
    (reading(23.4), "tasks of this host waited for memory 23.4 % of the last 10 s, more than 10 %"),
    (reading(1, own=23.4), "tasks of this service waited for memory 23.4 % of the last 10 s, more than 10 %"),
    (reading(available=499), "499 MiB are available, less than 500 MiB"),
    (
        reading(None),
        f"enough memory is available; {NO_PSI}",
    ),
    (
        reading(None, None),
        (
            "enough memory is available; "
            "this kernel reports neither memory pressure nor MemAvailable, so memory is never considered low"
        ),
    ),
]


@pytest.mark.parametrize(("given", "reason"), REASONS)
def test_the_reason_is_a_sentence(given: MemoryReading, reason: str) -> None:
    verdict, _ = MemoryJudge(policy=POLICY).judge(given, now=0.0)
    assert verdict == HostMemory(
        state=verdict.state, available_mib=given.available_mib, some_avg10=given.some_avg10, reason=reason
    )


def test_that_psi_is_missing_is_said_once() -> None:
    judge = MemoryJudge(policy=POLICY)
    reasons = [judge.judge(reading(None, 499), now=now)[0].reason for now in (0.0, 2.0)]
    assert ["CONFIG_PSI" in reason for reason in reasons] == [True, False]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [({"pressure_clear": 11.0}, "choose a lower value"), ({"available_clear_mib": 499}, "choose a higher value")],
)
def test_a_policy_clears_below_where_it_begins(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        attrs.evolve(POLICY, **wrong)


class Readings:
    """Plays its readings one by one, the last one for ever. An exception is raised."""

    def __init__(self, *script: MemoryReading | Exception) -> None:
        self._script = list(script)

    def __call__(self) -> MemoryReading:
        one = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(one, Exception):
            raise one
        return one


async def watch(readings: Readings, *, until_s: float) -> list[tuple[float, MemoryState]]:
    """When what was reported, until then."""
    reports: list[tuple[float, MemoryState]] = []
    start = trio.current_time()
    watcher = PressureWatcher(
        policy=POLICY, read=readings, report=lambda memory: reports.append((trio.current_time() - start, memory.state))
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervised(name="pressure", main=watcher.run, policy=NEVER_GIVE_UP).run)
        assert reports, "the first verdict comes before it is ready"
        await trio.sleep(until_s)
        nursery.cancel_scope.cancel()
    return reports


@in_virtual_time
async def test_the_watcher_reports_once_an_interval_while_memory_is_low_and_once_when_it_is_not() -> None:
    readings = Readings(reading(), reading(), reading(0, 400), reading(0, 400), reading(0, 400), reading())
    assert await watch(readings, until_s=100) == [(0, OK), (4, LOW), (6, LOW), (8, LOW), (14, OK)]


@in_virtual_time
async def test_a_watcher_that_crashed_reports_anew() -> None:
    reports = await watch(Readings(reading(0, 400), RuntimeError("a bug"), reading()), until_s=100)
    assert [state for _, state in reports] == [LOW, OK]


@in_virtual_time
async def test_the_real_host() -> None:
    reports: list[HostMemory] = []
    watcher = PressureWatcher(policy=MemoryPolicy(), read=read_memory, report=reports.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        nursery.cancel_scope.cancel()
    available = reports[0].available_mib
    assert available is not None
    assert available > 0
