"""What a real service does by itself: it finds VMs that are dead or hang, and keeps within its limits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.service.templates import config
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import CallError, Client, OnEmpty, open_client
from vmpool.client.records import ProfileStatus

pytestmark = pytest.mark.timeout(240)

LIMITS = """
[limits]
leases_per_user = 3
memory_budget_mib = 768
"""


@pytest.fixture(scope="module")
def limited(kept_template: Path, guest_image: GuestImage) -> Iterator[RunningService]:
    with place_for_template(kept_template) as default, place_for_template(kept_template) as follows:
        profiles = (
            config(default, max_vms=2, check_interval_s=1),
            config(follows, profile="follows", size=0, on_empty="boot"),
            "adaptive = { minimum = 0, maximum = 2 }",
        )
        with running_service("\n".join((LIMITS, *profiles)), image_directory=guest_image.kernel.parent) as service:
            yield service


async def profile(client: Client, name: str = "default") -> ProfileStatus:
    return next(found for found in (await client.status()).profiles if found.name == name)


async def test_a_qemu_that_hangs_is_found_and_replaced(limited: RunningService) -> None:
    """It is stopped with SIGSTOP, so it takes no commands, no `quit` either: only SIGKILL ends it."""
    async with open_client(limited.socket_path) as client:

        async def is_full() -> bool:
            found = await profile(client)
            return (found.ready, found.producing, found.stopping) == (1, 0, 0)

        await until(is_full)
        ((name, victim),) = limited.qemus().items()
        victim.send_signal(signal.SIGSTOP)

        async def lost() -> bool:
            return (await profile(client)).counters.lost_idle >= 1

        await until(lost)
        assert "the agent did not answer a check within" in (await profile(client)).last_error
        await until(is_full)
        assert not psutil.pid_exists(victim.pid)
        assert name not in limited.qemus()


async def test_a_profile_a_user_and_the_host_have_only_so_much(limited: RunningService) -> None:
    async with open_client(limited.socket_path) as client:
        leases = [(await client.acquire(on_empty=OnEmpty.BOOT)).lease_id for _ in range(2)]
        with pytest.raises(CallError, match=r"max_vms \(2\) is reached") as refused:
            await client.acquire(timeout_s=0.5)
        assert refused.value.status == "DEADLINE_EXCEEDED"

        assert (await profile(client, "follows")).size == 0
        leases.append((await client.acquire(profile="follows", on_empty=OnEmpty.BOOT)).lease_id)
        grown = await profile(client, "follows")
        assert grown.size > 0, "somebody came"
        assert (grown.ready, grown.producing) == (0, 0), "there is no memory for it"

        with pytest.raises(CallError, match=r"already has 3 VMs, .* raise limits\.leases_per_user") as refused:
            await client.acquire(profile="follows")
        assert refused.value.status == "RESOURCE_EXHAUSTED"

        await client.release(leases.pop(0))

        async def has_grown() -> bool:
            return (await profile(client, "follows")).ready + (await profile(client)).ready >= 1

        await until(has_grown)
        assert len(limited.qemus()) <= 3, "768 MiB are three VMs"
        for lease_id in leases:
            await client.release(lease_id)
