"""Detached processes belong to their lease: they go on when their client and the service are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import vmpool
from tests.integration.service.templates import config
from tests.running import service_home
from tests.templates import place_for_template
from vmm.initramfs.image import GuestImage

pytestmark = pytest.mark.timeout(300)

MANY = 100
KEPT_BYTES = 64

COUNT = 'i=0; while :; do echo "$i"; i=$((i + 1)); sleep 2; done'

CLIENT = f"""
import sys
import vmpool.sync

with vmpool.sync.connect(sys.argv[1]) as pool:
    vm = pool.acquire(name="counting", ttl=600)
    for number in range({MANY}):
        vm.start({COUNT!r}, tag=f"count-{{number}}")
    brief = vm.start({COUNT.replace("sleep 2", "sleep 0.1")!r}, tag="brief", keep_bytes={KEPT_BYTES})
    with brief.attach() as attached:
        for event in attached.events():
            if event.position > {KEPT_BYTES}:
                print("ready", flush=True)
"""
"""Attached when it is killed."""


def numbers(output: vmpool.KeptOutput) -> list[int]:
    """Those of whole lines: the first may be cut, and the last is being written."""
    lines = output.stdout.split(b"\n")[:-1]
    return [int(line) for line in (lines[1:] if output.stdout_from else lines)]


async def test_a_hundred_processes_go_on_when_client_and_service_are_killed(
    kept_template: Path, guest_image: GuestImage
) -> None:
    with (
        place_for_template(kept_template) as place,
        service_home(config(place, size=1), image_directory=guest_image.kernel.parent) as home,
    ):
        killed = home.start()
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(killed.socket_path)], stdout=subprocess.PIPE, env=os.environ
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            client.kill()
        async with vmpool.connect(killed.socket_path) as pool:
            vm = await pool.get("counting")
            before = {info.tag: info for info in await vm.processes()}
        assert len(before) == MANY + 1
        assert not any(info.exit for info in before.values()), "the end of their client is not theirs"
        killed.crash()
        home.drop_notices()

        service = home.start()
        try:
            async with vmpool.connect(service.socket_path) as pool:
                vm = await pool.get("counting")
                after = {info.tag: info for info in await vm.processes()}
                assert {tag: info.pid for tag, info in after.items()} == {tag: i.pid for tag, i in before.items()}
                assert not any(info.exit for info in after.values())
                async with trio.open_nursery() as nursery:
                    for number in range(MANY):
                        nursery.start_soon(check_whole, vm, f"count-{number}", before[f"count-{number}"].stdout_end)
                await check_brief(vm)
                await vm.release()
        finally:
            home.end(service)


async def check_whole(vm: vmpool.Vm, tag: str, seen: int) -> None:
    """It goes on, and all that it ever wrote is there."""
    process = await vm.process(tag)
    async with process.attach(seen) as attached:
        async for event in attached.events():
            assert isinstance(event, vmpool.ProcessOutput)
            if event.position + len(event.data) > process.info.stdout_end:
                break  # it was written after the service was killed
    output = await process.output()
    assert output.stdout_from == 0
    assert len(output.stdout) > seen
    assert numbers(output) == list(range(len(numbers(output))))


async def check_brief(vm: vmpool.Vm) -> None:
    """Of one of which little is kept, just that is kept."""
    process = await vm.process("brief")
    output = await process.output()
    assert 0 < process.info.stdout_end - KEPT_BYTES <= output.stdout_from
    assert 0 < len(output.stdout) <= 2 * KEPT_BYTES  # more may come while it is read
    first, *_ = found = numbers(output)
    assert found == list(range(first, first + len(found)))
