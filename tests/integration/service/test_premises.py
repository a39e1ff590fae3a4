"""Somebody removes a running service's files: it puts them back, and another one cannot have its VMs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.service.templates import config, is_full, output, profile_of, times_in_log
from tests.running import STOP_LIMIT_S, RunningService, ServiceHome, service_home
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import Client, ClientError, open_client

pytestmark = pytest.mark.timeout(180)


async def comes_back(service: RunningService) -> None:
    async def answers() -> bool:
        try:
            async with open_client(service.socket_path) as client:
                return bool((await client.status()).profiles)
        except ClientError:
            return False

    await until(answers)


def lock_files(service: RunningService) -> list[Path]:
    return [service.runtime / "vms.lock", service.socket_path.with_name("s.sock.lock")]


def remove_socket(service: RunningService) -> None:
    service.socket_path.unlink()


def remove_locks_and_socket(service: RunningService) -> None:
    for path in (service.socket_path, *lock_files(service)):
        path.unlink()


def remove_all(service: RunningService) -> None:
    shutil.rmtree(service.runtime)


@pytest.mark.parametrize("harm", [remove_socket, remove_locks_and_socket, remove_all])
async def test_it_is_within_reach_again(guest_image: GuestImage, harm: Callable[[RunningService], None]) -> None:
    text = '[profiles.default]\nsize = 0\naccelerator = "tcg"'
    with service_home(text, image_directory=guest_image.kernel.parent) as home:
        service = home.start()
        async with open_client(service.socket_path) as client:
            await client.status()
            harm(service)
            await comes_back(service)
            await client.status()
            assert all(path.exists() for path in lock_files(service))
        home.end(service)
        assert "the socket was removed; listening again" in home.log.read_text()


async def test_its_vms_are_handed_out_and_their_leases_go_on(kept_template: Path, guest_image: GuestImage) -> None:
    """Those that were idle when all was removed, and those that were leased."""
    with (
        place_for_template(kept_template) as place,
        service_home(config(place, size=1), image_directory=guest_image.kernel.parent) as home,
    ):
        service = home.start()
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            before = await client.acquire()
            await until(lambda: has_one_ready(client))
            vms = service.qemus().keys()
            remove_all(service)
            await comes_back(service)
            after = await client.acquire()
            assert {before.vm_id, after.vm_id} == vms
            for vm in (before, after):
                assert await client.renew(vm.lease_id, ttl_s=600) == pytest.approx(600, abs=60)
                assert await output(client, vm.lease_id, "echo there") == "there\n"
                await client.release(vm.lease_id)
        home.end(service)
        assert times_in_log(service, "leased without a record") == 2


async def has_one_ready(client: Client) -> bool:
    profile = await profile_of(client)
    return profile.ready == 1 and not profile.producing


@pytest.mark.parametrize(
    ("harm", "reasons"),
    [
        (remove_locks_and_socket, ("already running",)),
        # The first one may have put its locks back before the second one, which starts slowly on a busy host, is there.
        (remove_all, ("whose files were removed", "already running")),
    ],
)
async def test_a_second_service_does_not_have_the_vms_of_one_that_lives(
    kept_template: Path, guest_image: GuestImage, harm: Callable[[RunningService], None], reasons: tuple[str, ...]
) -> None:
    """Nor does it end them."""
    with (
        place_for_template(kept_template) as place,
        service_home(config(place, size=1), image_directory=guest_image.kernel.parent) as home,
    ):
        service = home.start()
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            before = service.qemus().keys()
            harm(service)
            assert refused(home, reasons)
            await comes_back(service)
            assert await is_full(client)
            assert service.qemus().keys() == before
        home.end(service)


def refused(home: ServiceHome, reasons: tuple[str, ...]) -> bool:
    second = home.launch()
    code, log = second.process.wait(STOP_LIMIT_S), home.log.read_text()
    return code == 2 and any(reason in log for reason in reasons)
