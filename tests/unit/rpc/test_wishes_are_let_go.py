"""What a caller sent along is kept until their guest has it, and not for as long as the lease lasts."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from pool.settings.config import ProfileSettings
from tests.unit.core.machines import image, make_matcher
from tests.unit.rpc.raw import ACQUIRE, connected
from tests.unit.rpc.served import serving
from vmm.words.wishes import GuestFile, Wishes
from vmpool.wire.generated.vmpool import v1 as wire

HOLD = "/vmpool.v1.Pool/Hold"

SECRET = "TOKEN_OF_THIS_TEST"


def kept() -> list[object]:
    """What of the wishes is still in memory."""
    gc.collect()
    things: list[object] = []
    for thing in gc.get_objects():
        match thing:
            case GuestFile(path="/large"):
                things.append(thing)
            case Wishes(environment=environment) if SECRET in environment:
                things.append(thing)
            case dict() if SECRET in thing:
                things.append(thing)
            case _:
                pass
    return things


@pytest.mark.parametrize("config", [None, wire.VmConfig(), wire.VmConfig(kernel_parameters="panic=1")])
@pytest.mark.parametrize(("method", "reply"), [(ACQUIRE, wire.AcquireReply), (HOLD, wire.HoldReply)])
async def test_files_and_environment_are_let_go_when_the_lease_is_granted(
    vm_home: Path,
    method: str,
    reply: type[wire.AcquireReply | wire.HoldReply],
    config: wire.VmConfig | None,
) -> None:
    settings = ProfileSettings(**image(vm_home, "pool"))
    service = serving(
        vm_home, make_matcher=lambda host: make_matcher({"default": settings}, base="default", launch=host.launch)
    )
    async with service as served, connected(served.path) as raw:
        await served.until(lambda: served.coordinator.views()[0].ready > 0)
        files = [wire.GuestFile(path="/large", data=b"x" * 2**10)]
        call = await raw.request(method, wire.AcquireRequest(files=files, environment={SECRET: "value"}, config=config))
        assert isinstance(await raw.message(call, reply), reply)
        await served.until(lambda: len(served.coordinator.leases()) == 1)
        assert kept() == []
