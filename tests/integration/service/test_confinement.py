"""A service of root's, as it is by default: its QEMUs are not root's, and a group may call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import attrs
import pytest

from tests.integration.service.templates import config as template_config
from tests.running import RunningService, ServiceHome, service_home
from tests.templates import place_for_template
from vmm.initramfs.image import GuestImage
from vmm.qemu.confinement.group import VmGroup

GID = 4242

CONFIG = f"""
[service]
qemu_user = "nobody"

[access]
groups = [{GID}]
socket_group = {GID}

[profiles.default]
size = 1
accelerator = "tcg"
"""

UNIT = Path(__file__).parents[3] / "pool" / "systemd" / "vmpool.service"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start QEMU as somebody else")

ACQUIRE = """\
import os, sys, trio
from vmpool.client import open_client
os.setgroups([int(sys.argv[2])]); os.setgid(65534); os.setuid(65534)  # now: the checkout may not be for them to read
async def main():
    async with open_client(sys.argv[1]) as client:
        vm = await client.acquire(timeout_s=60)
        await client.release(vm.lease_id)
        print("released")
trio.run(main)
"""


@pytest.fixture
def closed_image(guest_image: GuestImage, tmp_path: Path) -> Path:
    """An image as it is in a home: in a directory that only its owner may enter, one file for the owner alone."""
    place = tmp_path / "image"
    shutil.copytree(guest_image.kernel.parent, place, ignore=shutil.ignore_patterns("packages"))
    (place / guest_image.initrd.name).chmod(0o600)
    place.chmod(0o700)
    return place


@pytest.fixture
def home(closed_image: Path) -> Iterator[ServiceHome]:
    with service_home(CONFIG, image_directory=closed_image) as home:
        home.path.chmod(0o711)
        yield home


def call(service: RunningService, *, gid: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ACQUIRE, str(service.socket_path), str(gid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def groups_of(service: RunningService, vm_ids: Collection[str]) -> list[Path]:
    records = [service.runtime / "vms" / vm_id / "cgroups" for vm_id in vm_ids]
    return [directory for record in records for directory in VmGroup.recorded_in(record).directories]


def test_of_a_service_that_is_killed_the_next_one_has_cgroups_and_all(home: ServiceHome) -> None:
    first = home.start()
    assert call(first, gid=GID).stdout == "released\n"
    stranger = call(first, gid=GID + 1)
    assert "released" not in stranger.stdout
    assert "Permission denied" in stranger.stderr

    first.crash()
    survivors = first.qemus()
    assert {process.uids().real for process in survivors.values()} == {65534}
    recorded = {record.parent.name for record in (first.runtime / "vms").glob("*/vm.json")}
    ended = groups_of(first, survivors.keys() - recorded)
    kept = groups_of(first, recorded)

    second = home.start()
    try:
        log = home.log.read_text()
        assert '"event": "QEMU\'s user"' in log
        assert '"event": "cgroups of VMs"' in log
        assert survivors.keys() & second.qemus().keys() == recorded
        assert not any(directory.exists() for directory in ended)
        assert all(directory.exists() for directory in kept)
        assert call(second, gid=GID).stdout == "released\n"
        left = groups_of(second, second.qemus())
    finally:
        home.end(second)
    assert not any(directory.exists() for directory in [*left, *kept])


def with_the_units_capabilities() -> tuple[str, ...]:
    """Executes a program as the root that systemd makes: one that may not open what is another user's."""
    (allowed,) = (
        line.partition("=")[2].split()
        for line in UNIT.read_text(encoding="utf-8").splitlines()
        if line.startswith("CapabilityBoundingSet=")
    )
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in allowed)
    return ("setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs", "--")


def test_a_template_is_built_with_the_capabilities_that_the_unit_leaves(closed_image: Path) -> None:
    with place_for_template() as place:
        config = f"{CONFIG.partition('[profiles')[0]}{template_config(place, template_fallback=False)}"
        with service_home(config, image_directory=closed_image) as plain:
            plain.path.chmod(0o711)
            home = attrs.evolve(plain, prefix=with_the_units_capabilities())
            service = home.start()
            try:
                done = call(service, gid=GID)
                assert done.stdout == "released\n", f"{done.stderr}\n{home.log.read_text()}"
                assert {process.uids().real for process in service.qemus().values()} == {65534}
            finally:
                home.end(service)
        assert (place / "manifest.json").exists()
