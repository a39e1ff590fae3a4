"""The measures in Prometheus' text format. Imports prometheus-client, which takes a tenth of a second."""

from __future__ import annotations

import itertools
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pool.ledger.views import CircuitState, MemoryView, ProfileView
from pool.observe.measures import BUCKETS_S, CUSTOM, Histogram, Labels, Measures
from vmm.words.life import VmState

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

MIB: Final = 2**20


@attrs.frozen(kw_only=True)
class Moment:
    """The values besides the measures, at one moment."""

    version: str
    views: tuple[ProfileView, ...]
    waiting: int
    """Requests of all profiles, configured ones and others."""
    leases: Mapping[str, int]
    """By the profile's name."""
    memory: MemoryView
    available_mib: float | None
    """Of the host; None if it is unknown."""
    restarts: Mapping[str, int]
    """By child of a supervisor."""


@attrs.frozen
class _Only:
    """A registry of one family."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


def pieces(measures: Measures, moment: Moment) -> Iterator[bytes]:
    """The text, one family at a time, so that the caller can yield in between."""
    for family in families(measures, moment):
        yield generate_latest(_Only(family))


def families(measures: Measures, moment: Moment) -> Iterator[Metric]:
    yield from _acquisitions(measures, moment)
    yield from _productions(measures, moment)
    yield from _pools(measures, moment)
    yield from _service(measures, moment)


def _acquisitions(measures: Measures, moment: Moment) -> Iterator[Metric]:
    yield _histogram(
        "vmpool_acquire_seconds",
        "From a request for a VM to its lease; source: a VM was ready, or was waited for.",
        ("profile", "source"),
        measures.acquire_s,
    )
    yield _histogram(
        "vmpool_acquire_stage_seconds",
        "The stages of vmpool_acquire_seconds: queue, hot-adding, resume, preparation; the last two overlap.",
        ("profile", "stage"),
        measures.stage_s,
    )
    yield _counter("vmpool_acquires", "Requests for a VM, by their outcome.", ("profile", "result"), measures.acquires)
    waiting: dict[Labels, float] = {(view.name,): view.waiting for view in moment.views}
    waiting[CUSTOM,] = waiting.get((CUSTOM,), 0) + max(0, moment.waiting - sum(waiting.values()))
    yield _gauge("vmpool_waiting", "Requests that wait for a VM.", ("profile",), waiting)
    leases: Counter[Labels] = Counter({(view.name,): 0 for view in moment.views})
    for profile, count in moment.leases.items():
        leases[measures.label(profile),] += count
    yield _gauge("vmpool_leases", "Live leases.", ("profile",), leases)


def _productions(measures: Measures, moment: Moment) -> Iterator[Metric]:
    yield _histogram(
        "vmpool_production_seconds",
        "From the order to make a VM until it was ready.",
        ("profile", "producer"),
        measures.production_s,
    )
    failures: dict[Labels, float] = {(view.name,): 0 for view in moment.views} | dict(measures.production_failures)
    yield _counter("vmpool_production_failures", "VMs and shells that did not come up.", ("profile",), failures)
    circuits: dict[Labels, float] = {
        (view.name,): int(view.circuit is not CircuitState.CLOSED) for view in moment.views
    }
    yield _gauge("vmpool_circuit_open", "1 while the circuit is open or half open.", ("profile",), circuits)


def _pools(measures: Measures, moment: Moment) -> Iterator[Metric]:
    states = (state.value for state in VmState if state is not VmState.GONE)
    vms: dict[Labels, float] = {
        (view.name, state): 0 for view, state in itertools.product(moment.views, states)
    } | dict(measures.vms)
    yield _gauge("vmpool_vms", "VMs, by state.", ("profile", "state"), vms)
    sizes: dict[Labels, float] = {(view.name,): view.size for view in moment.views}
    yield _gauge("vmpool_pool_size", "The number of VMs that the pool keeps ready.", ("profile",), sizes)
    yield _counter(
        "vmpool_lost",
        "VMs that ended or failed by themselves, by their last state.",
        ("profile", "state"),
        measures.lost,
    )
    yield _counter(
        "vmpool_stopped", "VMs that were ended or detached, by reason.", ("profile", "reason"), measures.stopped
    )


def _service(measures: Measures, moment: Moment) -> Iterator[Metric]:
    memory = moment.memory
    kinds = {
        "committed": memory.committed_mib,
        "stopping": memory.stopping_mib,
        "budget": memory.budget_mib,
        "available": moment.available_mib,
    }
    yield _gauge(
        "vmpool_memory_bytes",
        "Nominal memory of all VMs (committed), of stopping VMs, and its budget; available memory of the host.",
        ("kind",),
        {(kind,): mib * MIB for kind, mib in kinds.items() if mib is not None and mib != math.inf},
    )
    yield _histogram(
        "vmpool_event_loop_lag_seconds",
        "How late the event loop ran a task that is due once a second; a standstill of the process counts.",
        (),
        {(): measures.lag_s},
    )
    restarts: dict[Labels, float] = {(child,): count for child, count in moment.restarts.items()}
    yield _counter("vmpool_restarts", "Restarts of a part of the service after it crashed.", ("child",), restarts)
    build = InfoMetricFamily("vmpool_build", "The running version.")
    build.add_metric((), {"version": moment.version, "python": platform.python_version()})
    yield build


def _gauge(name: str, what: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, what: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, what: str, labels: Labels, values: Mapping[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=labels)
    bounds = (*map(str, BUCKETS_S), "+Inf")
    for key, histogram in values.items():
        counts = itertools.accumulate(histogram.counts)
        family.add_metric(key, list(zip(bounds, counts, strict=True)), histogram.total_s)
    return family
