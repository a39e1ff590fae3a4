"""`vmpool release` of several leases."""

from __future__ import annotations

from tests.unit.cli.command import vmpool
from tests.unit.rpc.served import Served


async def test_one_that_cannot_be_released_does_not_keep_the_others(served: Served) -> None:
    async with served.client() as client:
        leases = [(await client.acquire()).lease_id for _ in range(2)]
    done = await vmpool(served.path, "release", leases[0], "lease-none", "lease-nil", leases[1])
    assert (done.returncode, done.stdout) == (1, "")
    for name in ("lease-none", "lease-nil"):
        assert f"there is no lease '{name}'" in done.stderr
    assert served.coordinator.leases() == ()
