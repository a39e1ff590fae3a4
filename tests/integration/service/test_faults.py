"""SIGKILL at any moment costs one VM; SIGTERM ends everything in good order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
import trio

from tests.running import RunningService, running_service, vmpool_argv
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import CallError, Client, OnEmpty, Output, open_client

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fresh(guest_image: GuestImage) -> Iterator[RunningService]:
    """A service that the test may stop, and that boots its VMs."""
    config = '[profiles.default]\nsize = 1\naccelerator = "tcg"\nbackoff_initial_s = 0.1'
    with running_service(config, image_directory=guest_image.kernel.parent) as service:
        yield service


async def is_full(client: Client) -> bool:
    (profile,) = (await client.status()).profiles
    return profile.ready == profile.size and not profile.producing and not profile.stopping


async def test_an_idle_vm_that_is_killed_is_replaced(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        await until(lambda: is_full(client))
        before = service.qemus()
        victim = next(iter(before))
        before[victim].kill()

        async def lost() -> bool:
            (profile,) = (await client.status()).profiles
            return profile.counters.lost_idle == 1

        await until(lost)
        await until(lambda: is_full(client))
        after = service.qemus()
        assert victim not in after
        assert set(before) - {victim} < set(after), "the others live on"


async def test_a_leased_vm_that_is_killed_ends_its_lease_with_the_reason(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        vm = await client.acquire()
        async with client.exec(vm.lease_id, ["sh", "-c", "echo running; sleep 1000"]) as command:
            events = command.events()
            assert isinstance(await anext(events), Output)
            os.kill(vm.pid, signal.SIGKILL)
            with pytest.raises(CallError, match="killed by signal 9") as ended:
                async for _ in events:
                    pass
        assert ended.value.status == "ABORTED"

        with pytest.raises(CallError, match=r"already ended \(vm_lost: .*killed by signal 9") as refused:
            await client.release(vm.lease_id)
        assert refused.value.status == "FAILED_PRECONDITION"


async def test_a_vm_that_is_killed_while_it_boots_is_booted_again(fresh: RunningService) -> None:
    async with open_client(fresh.socket_path) as client:
        await until(lambda: is_full(client))
        before = set(fresh.qemus())
        vm = await client.acquire()
        booting: dict[str, object] = {}

        async def boots() -> bool:
            booting.update({name: p for name, p in fresh.qemus().items() if name not in before})
            return bool(booting)

        await until(boots)
        name = next(iter(booting))
        fresh.qemus()[name].kill()

        async def failed() -> bool:
            (profile,) = (await client.status()).profiles
            return profile.counters.production_failures == 1 and "killed by signal 9" in profile.last_error

        await until(failed)
        await until(lambda: is_full(client))
        await client.release(vm.lease_id)
        await until(lambda: is_full(client))


async def test_the_directory_of_vms_may_be_removed(fresh: RunningService) -> None:
    """The VMs whose records were in it are handed out without, and those that come after them with one again."""
    async with open_client(fresh.socket_path) as client:
        await until(lambda: is_full(client))
        before = set(fresh.qemus())
        shutil.rmtree(fresh.runtime / "vms")
        for recorded in (False, True):
            async with (
                client.lease(on_empty=OnEmpty.WAIT) as vm,
                client.exec(vm.lease_id, ["echo", "hello"]) as command,
            ):
                assert (await command.collect()).stdout == b"hello\n"
                assert (vm.vm_id in before) is not recorded
                assert (fresh.runtime / "vms" / vm.vm_id / "vm.json").exists() is recorded
            await until(lambda: is_full(client))


async def test_a_client_killed_at_any_point_of_acquire_leaks_nothing(service: RunningService) -> None:
    """Killed a little later each time, from before it connects until after it printed its lease."""
    async with open_client(service.socket_path) as client:
        for steps in range(6):
            await until(lambda: is_full(client))
            process = subprocess.Popen(
                vmpool_argv("run", "--on-empty", "boot", "--", "sleep", "1000"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path)},
            )
            reached = 0

            async def moved_on(limit: int = steps) -> bool:
                """The client has come some way: each answer of the service is one step."""
                nonlocal reached
                (profile,) = (await client.status()).profiles
                reached += 1 if profile.handing_out or profile.leased else 0
                return reached >= limit

            await until(moved_on)
            process.kill()
            process.wait()

            async def nothing_leased() -> bool:
                (profile,) = (await client.status()).profiles
                return not (profile.leased or profile.handing_out or profile.waiting)

            await until(nothing_leased)


async def test_sigterm_gives_everybody_a_status_and_leaves_nothing(fresh: RunningService) -> None:
    """A running command and a waiting Acquire, both there when the signal comes."""
    ends: dict[str, str] = {}

    async with open_client(fresh.socket_path) as client, trio.open_nursery() as nursery:
        vm = await client.acquire()
        running = trio.Event()

        async def run() -> None:
            with pytest.raises(CallError) as ended:
                async with client.exec(vm.lease_id, ["sh", "-c", "echo; sleep 1000"]) as command:
                    async for _ in command.events():
                        running.set()
            ends["exec"] = ended.value.status

        async def wait() -> None:
            # The pool makes one VM after the other: take each as it comes, until the service ends.
            with pytest.raises(CallError) as ended:
                while True:
                    await client.acquire(on_empty=OnEmpty.WAIT)
            ends["acquire"] = ended.value.status

        nursery.start_soon(run)
        await running.wait()
        nursery.start_soon(wait)

        async def waiting() -> bool:
            (profile,) = (await client.status()).profiles
            return profile.waiting == 1

        await until(waiting)
        assert await trio.to_thread.run_sync(fresh.stop) == 0

    assert ends == {"exec": "UNAVAILABLE", "acquire": "UNAVAILABLE"}


async def test_nothing_ready_and_not_to_wait(fresh: RunningService) -> None:
    async with open_client(fresh.socket_path) as client:
        with pytest.raises(CallError, match="no VM is ready") as refused:
            await client.acquire(on_empty=OnEmpty.FAIL)
        assert refused.value.status == "RESOURCE_EXHAUSTED"
