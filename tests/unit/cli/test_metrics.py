"""`vmpool metrics`."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.cli.command import vmpool
from tests.unit.rpc.served import Served


async def test_it_prints_what_the_service_counts(served: Served) -> None:
    async with served.client() as client:
        await client.acquire()
    done = await vmpool(served.path, "metrics")
    assert (done.returncode, done.stderr) == (0, "")
    leases = {
        sample.labels["profile"]: sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
        if sample.name == "vmpool_leases"
    }
    assert leases == {"default": 1}
