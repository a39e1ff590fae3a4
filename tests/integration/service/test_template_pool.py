"""A pool of clones: shells, shapes, identities, and what becomes of it when its template or its image changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.service.templates import config, is_full, output, profile_of, times_in_log
from tests.running import RunningService, running_service, service_home
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import CallError, OnEmpty, Wishes, open_client

pytestmark = pytest.mark.timeout(240)

SHAPE: dict[str, Any] = {"shells": 1, "strict_uniqueness": True}


@pytest.fixture
def place(kept_template: Path) -> Iterator[Path]:
    with place_for_template(kept_template) as place:
        yield place


@pytest.fixture(scope="module")
def service(kept_template: Path, guest_image: GuestImage) -> Iterator[RunningService]:
    with (
        place_for_template(kept_template) as place,
        running_service(config(place, size=2, **SHAPE), image_directory=guest_image.kernel.parent) as service,
    ):
        yield service


async def test_status_shows_template_shells_and_generation(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:

        async def settled() -> bool:
            return await is_full(client) and (await profile_of(client)).shells == 1

        await until(settled)
        profile = await profile_of(client)
    assert (profile.producer.kind, profile.producer.ready, profile.producer.fallbacks) == ("template", True, 0)
    assert profile.generation
    assert profile.generation[:12] in profile.producer.detail
    assert (profile.vcpus, profile.max_vcpus, profile.max_memory_mib) == (1, 4, 1024)
    status = service.command("status").stdout.decode()
    assert "template/tcg" in status
    assert "1 shells wait" in status


def test_run_computes_inside_a_clone(service: RunningService) -> None:
    done = service.command("run", "--", "python3", "-c", "print(6*7)")
    assert (done.stdout, done.stderr, done.returncode) == (b"42\n", b"", 0)


def test_run_with_more_cpus_and_memory_than_the_template_has(service: RunningService) -> None:
    script = "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo"
    done = service.command("run", "--cpus", "3", "--memory", "1024", "--", "sh", "-c", script)
    assert done.returncode == 0, done
    cpus, memory_mib = map(int, done.stdout.split())
    assert cpus == 3
    assert 900 < memory_mib <= 1024


@pytest.mark.parametrize(("option", "value", "field"), [("--cpus", "5", "vcpus"), ("--memory", "1025", "memory_mib")])
def test_over_the_maximum_is_refused_with_the_fields_name(
    service: RunningService, option: str, value: str, field: str
) -> None:
    done = service.command("run", option, value, "--", "true")
    assert done.returncode == 125
    assert done.stderr.decode().startswith(f"vmpool: {field}")


async def test_clones_are_machines_of_their_own(service: RunningService) -> None:
    script = "hostname; cat /etc/machine-id /sys/class/dmi/id/product_uuid; head -c 32 /dev/urandom | sha256sum"
    seen = []
    async with open_client(service.socket_path) as client:
        for _ in range(4):
            async with client.lease() as vm:
                assert vm.made_by == "template"
                seen.append((await output(client, vm.lease_id, script)).splitlines())
                assert seen[-1][:3] == [vm.guest.hostname, vm.guest.machine_id, vm.guest.vm_uuid]
    assert all(len(set(column)) == 4 for column in zip(*seen, strict=True))


async def test_a_miss_makes_its_vm_of_a_shell(place: Path, guest_image: GuestImage) -> None:
    settings = config(place, size=0, **SHAPE)
    with running_service(settings, image_directory=guest_image.kernel.parent) as service:
        async with open_client(service.socket_path) as client:

            async def has_shell() -> bool:
                return (await profile_of(client)).shells == 1

            await until(has_shell)
            (shell,) = service.qemus()
            async with client.lease(on_empty=OnEmpty.BOOT) as vm:
                assert (vm.vm_id, vm.made_by, vm.timings.was_ready) == (shell, "template", False)
                assert await output(client, vm.lease_id, "echo made of a shell") == "made of a shell\n"
                await until(has_shell)
            assert (await profile_of(client)).counters.misses == 1


async def test_a_template_that_is_damaged_is_made_anew_and_what_was_made_of_it_is_replaced(
    place: Path, guest_image: GuestImage
) -> None:
    """Clones have their template's memory mapped: those that were made of it are as damaged as it is."""
    settings = config(place, size=2, **SHAPE)
    with running_service(settings, image_directory=guest_image.kernel.parent) as service:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            assert times_in_log(service, "template built") == 0
            before = set(service.qemus())
            (place / "memory").chmod(0o600)  # nobody writes there by mistake
            os.truncate(place / "memory", 0)

            async def rebuilt() -> bool:
                return times_in_log(service, "template built") == 1 and await is_full(client)

            await until(rebuilt)
            assert times_in_log(service, "template is damaged") == 1
            for _ in range(3):
                async with client.lease() as vm:
                    assert vm.vm_id not in before
                    assert vm.made_by == "template"
                    assert await output(client, vm.lease_id, "head -c 1000000 /dev/zero | wc -c") == "1000000\n"
            profile = await profile_of(client)
            assert (profile.counters.hand_out_failures, profile.counters.lost_leased) == (0, 0)


async def test_a_template_is_found_again_after_a_restart(guest_image: GuestImage) -> None:
    with (
        place_for_template() as place,
        service_home(config(place), image_directory=guest_image.kernel.parent) as home,
    ):
        for found in range(2):
            service = home.start()
            try:
                async with open_client(service.socket_path) as client:
                    await until(lambda: is_full(client))
                    assert (await profile_of(client)).producer.fallbacks == 0
            finally:
                home.end(service)
            assert times_in_log(service, "template found") == found
            assert times_in_log(service, "template built") == 1
        assert (place / "manifest.json").exists(), "it outlives the service"


async def test_another_image_rolls_the_pool_over_and_never_empties_it(
    place: Path, guest_image: GuestImage, vm_home: Path
) -> None:
    kernel, initrd = vm_home / "vmlinuz", vm_home / "initrd"
    vm_home.chmod(0o711)  # noqa: ASYNC240 - it takes no time; QEMU's user opens what is in it
    shutil.copy(guest_image.kernel, kernel)
    shutil.copy(guest_image.initrd, initrd)
    settings = config(place, size=2, min_ready=1, kernel=kernel, initrd=initrd)
    with running_service(settings, image_directory=guest_image.kernel.parent) as service:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            generation = (await profile_of(client)).generation
            before = set(service.qemus())

            # An initramfs may end in zeros: other contents, the same guest.
            newer = vm_home / "initrd.new"
            newer.write_bytes(initrd.read_bytes() + bytes(512))
            newer.replace(initrd)

            async def rolled_out() -> bool:
                profile = await profile_of(client)
                assert profile.ready >= 1
                return profile.generation != generation and await is_full(client)

            await until(rolled_out)
            assert before.isdisjoint(service.qemus())
            assert (await profile_of(client)).counters.rolled == 2
            async with client.lease() as vm:
                assert (vm.timings.was_ready, vm.made_by) == (True, "template")
                assert await output(client, vm.lease_id, "echo rolled") == "rolled\n"


async def test_status_as_json_has_all_of_it(service: RunningService) -> None:
    (profile,) = json.loads(service.command("status", "--json").stdout)["profiles"]
    assert {"shells", "stale", "generation"} <= set(profile)


async def test_over_the_maximum_is_invalid_argument(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        for wishes, field in ((Wishes(vcpus=5), "vcpus"), (Wishes(memory_mib=2048), "memory_mib")):
            with pytest.raises(CallError, match=field) as refused:
                await client.acquire(wishes=wishes)
            assert refused.value.status == "INVALID_ARGUMENT"
