"""What a caller sent along is kept until his guest has it, and not for as long as his lease lasts."""

from __future__ import annotations

import gc

import pytest

from tests.unit.rpc.raw import ACQUIRE, connected
from tests.unit.rpc.served import Served
from vmm.words.wishes import GuestFile
from vmpool.wire.generated.vmpool import v1 as wire

HOLD = "/vmpool.v1.Pool/Hold"


@pytest.mark.parametrize(("method", "reply"), [(ACQUIRE, wire.AcquireReply), (HOLD, wire.HoldReply)])
async def test_files_are_let_go_when_the_lease_is_granted(
    served: Served, method: str, reply: type[wire.AcquireReply | wire.HoldReply]
) -> None:
    request = wire.AcquireRequest(files=[wire.GuestFile(path="/large", data=b"x" * 2**10)])
    async with connected(served.path) as raw:
        call = await raw.request(method, request)
        assert isinstance(await raw.message(call, reply), reply)
        await served.until(lambda: served.coordinator.views()[0].leased == 1)
        gc.collect()
        kept = [thing for thing in gc.get_objects() if isinstance(thing, GuestFile) and thing.path == "/large"]
        assert kept == []
