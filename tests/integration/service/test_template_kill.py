"""SIGKILL at any step on the way to a template: the next service, or the same one, gets there all the same."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.service.templates import config, is_full, output, profile_of, times_in_log
from tests.running import RunningService, ServiceHome, running_service, service_home
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import open_client

pytestmark = pytest.mark.timeout(240)

Reached = Callable[[RunningService, Path], bool]


def template_qemus(service: RunningService) -> dict[str, psutil.Process]:
    """QEMUs whose memory is the template's: it itself with "share=on", clones without."""
    found = {}
    for vm_id, process in service.qemus().items():
        try:
            arguments = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any("mem-path=" in argument and "share=on" in argument for argument in arguments):
            found[vm_id] = process
    return found


def clones(service: RunningService, place: Path) -> bool:
    return bool(service.qemus().keys() - template_qemus(service).keys()) and (place / "manifest.json").exists()


STEPS: dict[str, Reached] = {
    "its directory is made": lambda _, place: place.exists(),
    "its VM boots": lambda service, _: bool(template_qemus(service)),
    "its state is being saved": lambda _, place: (place / "state").exists(),
    "its VM is gone and it is being hashed": (
        lambda service, place: (place / "state").exists() and not template_qemus(service)
    ),
    "it is published": lambda _, place: (place / "manifest.json").exists(),
    "the first clone is in production": clones,
}


@pytest.fixture
def place() -> Iterator[Path]:
    with place_for_template() as place:
        yield place


@pytest.fixture
def home(place: Path, guest_image: GuestImage) -> Iterator[ServiceHome]:
    with service_home(config(place, shells=1), image_directory=guest_image.kernel.parent) as home:
        yield home


@pytest.mark.parametrize("step", STEPS)
async def test_the_next_service_recovers_from_one_that_was_killed_when(
    home: ServiceHome, place: Path, step: str
) -> None:
    killed = home.start()

    async def reached() -> bool:
        return STEPS[step](killed, place)

    await until(reached)
    killed.process.kill()
    killed.process.wait()
    orphans = killed.qemus().values()

    service = home.start()
    try:
        assert not any(runs(process) for process in orphans), "ended before the service is ready"
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            async with client.lease() as vm:
                assert vm.made_by == "template"
                assert await output(client, vm.lease_id, "echo recovered") == "recovered\n"
            profile = await profile_of(client)
            assert (profile.producer.fallbacks, profile.counters.production_failures) == (0, 0)
            await until(lambda: is_full(client))
            assert len(list((service.runtime / "vms").iterdir())) == len(service.qemus())
    finally:
        home.end(service)


@pytest.mark.parametrize("fallback", [True, False], ids=["with fallback", "without"])
async def test_a_template_vm_that_is_killed_is_booted_again(
    place: Path, guest_image: GuestImage, fallback: bool
) -> None:
    settings = config(place, template_fallback=fallback)
    with running_service(settings, image_directory=guest_image.kernel.parent) as service:
        async with open_client(service.socket_path) as client:
            for kills in (1, 2):
                victims: list[psutil.Process] = []

                async def boots(found: list[psutil.Process] = victims) -> bool:
                    found[:] = template_qemus(service).values()
                    return bool(found)

                async def noticed(kills: int = kills) -> bool:
                    return times_in_log(service, "killed by signal 9") >= kills

                await until(boots)
                victims[0].send_signal(signal.SIGKILL)
                await until(noticed)

            async def built() -> bool:
                return times_in_log(service, "template built") == 1 and await is_full(client)

            await until(built)

            async def cloned() -> bool:
                """VMs that were booted meanwhile are as good, and are handed out first."""
                async with client.lease() as vm:
                    assert await output(client, vm.lease_id, "echo alive") == "alive\n"
                    return vm.made_by == "template"

            await until(cloned)
            profile = await profile_of(client)
            assert profile.producer.ready
            assert (profile.producer.fallbacks == 0) or fallback


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
