"""Stdin of commands in guests with qemu-ga, by the command and by the SDK."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningService, running_service, vmpool_argv
from tests.templates import place_for_template
from vmm.initramfs.image import GuestImage
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmpool.client import CallError, open_client

pytestmark = pytest.mark.qemu

CONFIG = """
[profiles.default]
size = 1
max_vcpus = {spec.max_vcpus}
max_memory_mib = {spec.max_memory_mib}
accelerator = "tcg"
producer = "template"
template_directory = "{place}"
agent = "qga"
kernel = "{spec.kernel}"
initrd = "{spec.initrd}"
"""


@pytest.fixture(scope="module")
def service(guest_image: GuestImage, qga_spec: MachineSpec, qga_template: Template) -> Iterator[RunningService]:
    with (
        place_for_template(qga_template.directory) as place,
        running_service(
            CONFIG.format(spec=qga_spec, place=place), image_directory=guest_image.kernel.parent
        ) as service,
    ):
        yield service


def test_a_file_is_given_with_the_start(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    with (tmp_path / "file").open("rb") as file:
        done = subprocess.run(
            vmpool_argv("run", "--", "cat"),
            check=False,
            stdin=file,
            capture_output=True,
            env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path)},
        )
    assert (done.returncode, done.stdout) == (0, b"from a file"), done.stderr


def test_a_pipe_is_if_that_is_asked_for(service: RunningService) -> None:
    done = service.command("run", "--stdin-first", "--", "cat", stdin=b"from a pipe")
    assert (done.returncode, done.stdout) == (0, b"from a pipe"), done.stderr


async def test_the_sdk_gives_it_and_cannot_send_it_later(service: RunningService) -> None:
    async with open_client(service.socket_path) as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["cat"], stdin=b"all of it") as command:
            assert (await command.collect()).stdout == b"all of it"
        async with client.exec(vm.lease_id, ["cat"], stdin=b"") as command:
            assert (await command.collect()).stdout == b""
        async with client.exec(vm.lease_id, ["sleep", "1000"]) as command:
            await command.send_stdin(b"late")
            with pytest.raises(CallError, match="only when it starts a command; pass it then") as error:
                await command.collect()
    assert error.value.status == "FAILED_PRECONDITION"
