"""Hand-outs as trace spans."""

from __future__ import annotations

from pathlib import Path

from tests.spans import kept_spans
from tests.unit.rpc.raw import ACQUIRE, connected, framed
from tests.unit.rpc.served import serving
from vmpool.wire.generated.vmpool import v1 as wire

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_a_hand_out_is_told_with_its_stages_once_per_call(vm_home: Path) -> None:
    with kept_spans() as (spans, exporter):
        async with serving(vm_home, spans=spans) as served, served.client() as client:
            vm = await client.acquire(idempotency_key="mine")
            told = exporter.get_finished_spans()
            exporter.clear()
            await client.acquire(idempotency_key="mine")
            again = exporter.get_finished_spans()
            async with client.lease():
                held = exporter.get_finished_spans()[len(again) :]
    *stages, whole = told
    assert whole.name == "Acquire"
    assert whole.attributes is not None
    assert whole.attributes.items() >= {"source": "vmpool", "subsystem": "pool", "vm": vm.vm_id}.items()
    assert {"resume", "prepare"} <= {stage.name for stage in stages} <= {"queue", "grow", "resume", "prepare"}
    for stage in stages:
        assert stage.parent == whole.context
        assert whole.start_time is not None
        assert stage.start_time is not None
        assert stage.end_time is not None
        assert whole.end_time is not None
        assert whole.start_time <= stage.start_time <= stage.end_time <= whole.end_time
    assert [span.name for span in again] == ["Acquire"], "it waited for nothing"
    assert held[-1].name == "Hold"


async def test_a_callers_trace_goes_on(vm_home: Path) -> None:
    with kept_spans() as (spans, exporter):
        async with serving(vm_home, spans=spans) as served, connected(served.path) as raw:
            call = await raw.start(ACQUIRE, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
            await raw.send(call, framed(wire.AcquireRequest()))
            assert await raw.status(call) == ("0", "")
        whole = exporter.get_finished_spans()[-1]
    assert f"{whole.context.trace_id:032x}" == TRACE
