"""`vmpool status`: a healthy pool, and what is out of the ordinary."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from pool.cli.status import render_profiles
from tests.unit.cli.command import vmpool
from tests.unit.rpc.served import Served
from vmpool.client import CircuitState, PoolCounters, ProducerKind, ProducerStatus, ProfileStatus

COUNTERS = PoolCounters(
    stopped={}, **{field.name: 0 for field in attrs.fields(PoolCounters) if field.name != "stopped"}
)
HEALTHY = ProfileStatus(
    name="default",
    size=2,
    ready=2,
    producing=0,
    handing_out=0,
    leased=0,
    stopping=0,
    waiting=0,
    shells=0,
    stale=0,
    generation="f1",
    vcpus=1,
    memory_mib=256,
    max_vcpus=1,
    max_memory_mib=256,
    max_vms=None,
    drained=False,
    producer=ProducerStatus(
        kind=ProducerKind.DIRECT, ready=True, accelerator="tcg", detail="", produced=2, failed=0, fallbacks=0
    ),
    circuit=CircuitState.CLOSED,
    held_back="",
    failures_in_a_row=0,
    retry_in_s=0.0,
    last_error="",
    last_evidence="",
    last_production_s=1.5,
    counters=COUNTERS,
)


def test_a_healthy_pool_is_a_row_of_the_table() -> None:
    head, row = render_profiles((HEALTHY,))
    assert head.split()[:4] == ["profile", "size", "ready", "producing"]
    assert row.split() == ["default", "2", "2", "0", "0", "0", "0", "0", "direct/tcg", "1.50", "s"]


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"drained": True}, "default: drained; `vmpool undrain default` ends the drain"),
        ({"max_vms": 4}, "default: at most 4 VMs"),
        ({"held_back": "memory of the host is low"}, "default: held back: memory of the host is low"),
        ({"failures_in_a_row": 2, "retry_in_s": 1.5}, "default: 2 failed productions in a row, next try in 1.5 s"),
        (
            {"failures_in_a_row": 6, "retry_in_s": 8.0, "circuit": "open"},
            "default: 6 failed productions in a row, circuit open for 8.0 s",
        ),
        (
            {"failures_in_a_row": 6, "circuit": "half_open"},
            "default: 6 failed productions in a row, circuit half open: one VM is being tried",
        ),
        (
            {"counters": attrs.evolve(COUNTERS, adopted=2, restored=1)},
            "default: idle VMs adopted: 2, leases restored: 1",
        ),
        ({"counters": attrs.evolve(COUNTERS, evicted=3)}, "default: idle VMs evicted: 3"),
    ],
)
def test_what_is_out_of_the_ordinary_is_said_below(change: dict[str, Any], remark: str) -> None:
    assert render_profiles((attrs.evolve(HEALTHY, **change),))[2:] == [remark]


async def test_json_has_everything(served: Served) -> None:
    async with served.client() as client:
        await client.drain("default")
    status = json.loads((await vmpool(served.path, "status", "--json")).stdout)
    (profile,) = status["profiles"]
    assert (profile["drained"], profile["circuit"], profile["max_vms"]) == (True, "closed", None)
    assert {"adopted", "restored", "evicted"} <= profile["counters"].keys()
    assert status["fallbacks"] == 0

    text = (await vmpool(served.path, "status")).stdout
    assert "default: drained; `vmpool undrain default` ends the drain" in text
