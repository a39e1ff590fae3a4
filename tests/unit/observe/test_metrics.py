"""The metrics: what is counted, under which names and labels, and that their number is bounded."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from h2.settings import SettingCodes
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pool.core.coordinator import Coordinator
from pool.core.requests import RefusedError
from pool.host.clock import RunningClock
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Owner
from pool.ledger.views import CircuitState
from pool.observe import exposition
from pool.observe.measures import BUCKETS_S, LAG_INTERVAL_S, Measures
from pool.rpc.server import ServerSettings
from pool.settings.limits import EdgeLimits
from tests.prometheus import program
from tests.unit.core.test_coordinator import coordinating, until_ready
from tests.unit.rpc.raw import connected
from tests.unit.rpc.served import Served, metrics_of, serving
from tests.virtual_time import in_virtual_time
from vmm.simulated import BootFails, SimulatedHost, scripted
from vmm.words.leases import LeaseRequest
from vmm.words.processes import ExitReport
from vmpool.wire.generated.vmpool import v1 as wire

ME = Owner(uid=1000)
METRICS = "/vmpool.v1.Pool/Metrics"
DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "vmpool.json"

EXPORTED = {
    "vmpool_acquire_seconds": ("histogram", {"profile", "source"}),
    "vmpool_acquire_stage_seconds": ("histogram", {"profile", "stage"}),
    "vmpool_acquires": ("counter", {"profile", "result"}),
    "vmpool_vms": ("gauge", {"profile", "state"}),
    "vmpool_pool_size": ("gauge", {"profile"}),
    "vmpool_waiting": ("gauge", {"profile"}),
    "vmpool_production_seconds": ("histogram", {"profile", "producer"}),
    "vmpool_production_failures": ("counter", {"profile"}),
    "vmpool_circuit_open": ("gauge", {"profile"}),
    "vmpool_lost": ("counter", {"profile", "state"}),
    "vmpool_stopped": ("counter", {"profile", "reason"}),
    "vmpool_leases": ("gauge", {"profile"}),
    "vmpool_memory_bytes": ("gauge", {"kind"}),
    "vmpool_event_loop_lag_seconds": ("histogram", set()),
    "vmpool_restarts": ("counter", {"child"}),
    "vmpool_build_info": ("gauge", {"version", "python"}),
}
"""Every metric with its type and labels, as Prometheus' own parser calls them: counters have no _total."""


def read(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def scraped(coordinator: Coordinator) -> dict[str, Metric]:
    return read((await metrics_of(coordinator).text()).decode())


def values(families: dict[str, Metric], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Of the samples of that name, by these labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name
    }


async def a_life(coordinator: Coordinator, host: SimulatedHost) -> None:
    """Something of everything."""
    await until_ready(coordinator, 2)
    lease = await coordinator.acquire(profile="default", owner=ME, request=LeaseRequest(key="k"))
    await trio.sleep(1.0)
    await coordinator.acquire(profile="default", owner=ME, request=LeaseRequest(key="k"))
    lost = await coordinator.acquire(profile="default", owner=ME)
    host.machine(lost.vm_id).exit(ExitReport(signal=9))
    await coordinator.release(lease.lease_id, owner=ME)
    with pytest.raises(RefusedError):
        await coordinator.acquire(profile="default", owner=ME, on_empty=OnEmpty.FAIL)
    with pytest.raises(RefusedError):
        await coordinator.acquire(profile="nobody's", owner=ME)
    with trio.move_on_after(0.01):
        await coordinator.acquire(profile="default", owner=ME)
    await until_ready(coordinator, 2)


# -- names, types, labels --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_names_types_and_labels_are_these() -> None:
    host = SimulatedHost(boot_s=2.0)
    async with coordinating(host) as coordinator:
        await a_life(coordinator, host)
        found = await scraped(coordinator)
    named = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in found.items()
    }
    assert named == EXPORTED


@in_virtual_time
async def test_each_figure_is_what_happened() -> None:
    host = SimulatedHost(boot_s=2.0)
    async with coordinating(host) as coordinator:
        await a_life(coordinator, host)
        found = await scraped(coordinator)
    assert values(found, "vmpool_acquires_total", "profile", "result") == {
        ("default", "granted"): 2,
        ("default", "joined"): 1,
        ("default", "nothing_ready"): 1,
        ("default", "abandoned"): 1,
        ("custom", "unknown_profile"): 1,
    }
    assert values(found, "vmpool_acquire_seconds_count", "profile", "source") == {("default", "ready"): 2}
    assert values(found, "vmpool_lost_total", "state") == {("leased",): 1}
    assert values(found, "vmpool_stopped_total", "reason") == {("dead",): 1, ("released",): 1}
    assert values(found, "vmpool_production_seconds_count", "producer") == {("direct",): 4}
    assert values(found, "vmpool_production_seconds_sum", "producer")["direct",] >= 8.0
    assert values(found, "vmpool_pool_size", "profile") == {("default",): 2}
    assert values(found, "vmpool_leases", "profile") == {("default",): 0}
    vms = {state: count for (state,), count in values(found, "vmpool_vms", "state").items() if count}
    assert vms == {"ready": 2}
    assert values(found, "vmpool_restarts_total", "child") == {("rpc",): 0, ("pressure",): 2}


@in_virtual_time
async def test_a_failed_production_is_counted_and_opens_the_circuit() -> None:
    plan = scripted(dict.fromkeys(range(99), (BootFails(reason="no kernel"),)))
    async with coordinating(SimulatedHost(faults=plan), size=1) as coordinator:
        while coordinator.views()[0].circuit is not CircuitState.OPEN:
            await trio.sleep(0.1)
        found = await scraped(coordinator)
        failures = coordinator.views()[0].counters.production_failures
    assert values(found, "vmpool_production_failures_total", "profile") == {("default",): failures}
    assert values(found, "vmpool_circuit_open", "profile") == {("default",): 1}
    assert values(found, "vmpool_lost_total", "state") == {("producing",): failures}


def test_buckets_begin_at_half_a_millisecond() -> None:
    assert BUCKETS_S[0] == 0.0005
    assert list(BUCKETS_S) == sorted(BUCKETS_S)


@in_virtual_time
async def test_neither_vms_nor_leases_nor_callers_add_a_series() -> None:
    host = SimulatedHost()

    def series(families: dict[str, Metric]) -> set[tuple[str, ...]]:
        return {(s.name, *sorted(s.labels.values())) for family in families.values() for s in family.samples}

    async def round_of_all(number: int) -> None:
        lease = await coordinator.acquire(
            profile="default", owner=Owner(uid=1000 + number), request=LeaseRequest(key=f"key-{number}")
        )
        await coordinator.release(lease.lease_id, owner=lease.owner)
        with pytest.raises(RefusedError):
            await coordinator.acquire(profile=f"whatever-{number}", owner=ME)
        await until_ready(coordinator, 2)

    async with coordinating(host) as coordinator:
        await until_ready(coordinator, 2)
        await round_of_all(0)
        before = series(await scraped(coordinator))
        for number in range(1, 20):
            await round_of_all(number)
        assert series(await scraped(coordinator)) == before


@in_virtual_time
async def test_an_event_loop_that_is_in_time_does_not_lag() -> None:
    measures = Measures(profiles=[])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(measures.watch_loop, read=trio.current_time))
        await trio.sleep(LAG_INTERVAL_S * 3.5)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert sum(measures.lag_s.counts) == 3
    assert measures.lag_s.total_s == 0.0


def test_an_event_loop_that_stood_still_has_lagged_by_that() -> None:
    """The service's own clock leaves a standstill out."""
    now = 0.0
    measures = Measures(profiles=[])

    async def until_looked(times: int) -> None:
        nonlocal now
        while sum(measures.lag_s.counts) < times:
            now += 0.01
            await trio.lowlevel.checkpoint()

    async def stand_still() -> None:
        nonlocal now
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(measures.watch_loop, read=lambda: now))
            await until_looked(1)
            now += 20.0
            await until_looked(2)
            nursery.cancel_scope.cancel(reason="the test is over")

    trio.run(stand_still, clock=RunningClock(read=lambda: now))
    assert 20.0 <= measures.lag_s.total_s < 21.0


# -- who reads them --------------------------------------------------------------------------------------------------


@pytest.fixture
async def served(vm_home: Path) -> AsyncIterator[Served]:
    async with serving(vm_home) as service:
        await service.until(lambda: service.coordinator.views()[0].ready == 2)
        yield service


async def test_a_client_gets_them_from_a_service_that_serves_them_nowhere_else(served: Served) -> None:
    async with served.client() as client:
        await client.acquire()
        text = await client.metrics()
    assert values(read(text), "vmpool_acquires_total", "result") == {("granted",): 1}


PROMTOOL = program("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (Debian package prometheus)")
async def test_texts_that_nobody_reads_count_against_their_user(vm_home: Path) -> None:
    settings = ServerSettings(limits=EdgeLimits(request_bytes_per_user=8000))
    async with serving(vm_home, settings=settings) as served:
        assert 4000 < len(await metrics_of(served.coordinator).text()) < 8000
        async with connected(served.path) as raw:
            raw.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            calls = {await raw.request(METRICS, wire.MetricsRequest()) for _ in range(2)}
            with trio.fail_after(20):
                while not calls & raw.over:  # either may be answered first; the other one is refused
                    assert await raw.receive()
            (refused,) = calls & raw.over
            status, message = await raw.status(refused)
    assert status == "8"
    assert "limits.request_mib_per_user" in message


async def test_of_all_who_ask_one_is_written_for_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each family takes as long as a part of somebody's hand-out."""
    writing: Counter[int] = Counter()
    most = 0

    def pieces(_measures: Measures, moment: object) -> Iterable[bytes]:
        nonlocal most
        for _ in range(3):
            writing[id(moment)] = 1
            most = max(most, writing.total())
            yield b"x"
        del writing[id(moment)]

    monkeypatch.setattr(exposition, "pieces", pieces)
    async with coordinating(SimulatedHost()) as coordinator, trio.open_nursery() as nursery:
        metrics = metrics_of(coordinator)
        for _ in range(5):
            nursery.start_soon(metrics.text)
    assert most == 1


async def test_promtool_has_nothing_to_say_about_the_text(served: Served) -> None:
    async with served.client() as client:
        await client.release((await client.acquire()).lease_id)
        text = await client.metrics()
    assert PROMTOOL is not None
    argv = [PROMTOOL, "check", "metrics"]
    checked = await trio.run_process(argv, stdin=text.encode(), capture_stdout=True, capture_stderr=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def expressions(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key in ("expr", "query") and isinstance(value, str))
        for value in node.values():
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


SAMPLES = {
    name + suffix: labels | extra
    for name, (kind, labels) in EXPORTED.items()
    for suffix, extra in {
        "histogram": (("_bucket", {"le"}), ("_sum", set()), ("_count", set())),
        "counter": (("_total", set()),),
        "gauge": (("", set()),),
    }[kind]
}


def faults(expression: str) -> list[str]:
    """Names and labels that nothing is exported with."""
    found = []
    of_it: set[str] = set()
    for name, selector in re.findall(r"\b(vmpool_\w+)(?:\{([^}]*)\})?", expression):
        if name not in SAMPLES:
            found.append(name)
            continue
        of_it |= SAMPLES[name]
        found += [f"{name}: {label}" for label in re.findall(r"(\w+)\s*=", selector) if label not in SAMPLES[name]]
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        found += [f"by {label}" for label in re.split(r",\s*", group) if label not in of_it]
    return found


def test_the_dashboard_shows_what_is_exported_and_all_of_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    all_of_it = [each for each in expressions(dashboard) if "vmpool_" in each]
    assert [(each, faults(each)) for each in all_of_it if faults(each)] == []
    shown = set(re.findall(r"\bvmpool_\w+", " ".join(all_of_it)))
    missing = [name for name in EXPORTED if not any(sample.startswith(name) for sample in shown)]
    assert missing == []


@pytest.mark.parametrize(
    "expression", ["vmpool_vm", 'vmpool_vms{uid="0"}', "sum by (lease) (vmpool_vms)", "rate(vmpool_acquires[1m])"]
)
def test_an_expression_of_something_else_is_found(expression: str) -> None:
    assert faults(expression)
